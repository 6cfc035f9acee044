"""Images that stay in their file: the same values as in memory, and nothing wrong is read."""

import json
import logging
import os
import threading
import weakref

import pytest
import torch
from valleys.data import on_disk
from valleys.data.augment import draw_permutation, epoch_batches
from valleys.data.cache import RESIDENT_MB, _header, load_split, read_metadata, save_split
from valleys.data.on_disk import ImagesOnDisk, note_file
from valleys.data.split import Split, channel_statistics, subset_indices
from valleys.errors import ValleysError
from valleys.landscape import computed, directions
from valleys.landscape.evaluator import evaluator_for
from valleys.landscape.lines import probe_line
from valleys.models import losses, solutions
from valleys.networks import bn_refresh
from valleys.training import sgd
from valleys.training.evaluation import evaluate

LOSS = losses.build({"name": "cross_entropy"})
AUGMENT = {"shift": 2, "flip": True, "pad_mode": "reflect"}
RECIPE = {
    "epochs": 2, "batch_size": 16, "lr": 0.05, "momentum": 0.9, "nesterov": False, "weight_decay": 5e-4,
    "loss": {"name": "cross_entropy"}, "augment": AUGMENT, "eval_every": 1,
    "swa": {"start": 1, "lr": 0.02, "every": 1, "window": None},
}  # fmt: skip


def make_split(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 4, (n,), generator=generator)
    return Split(images, labels, 4, *channel_statistics(images))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "train.safetensors"
    save_split(path, make_split(50))
    return path


@pytest.fixture
def both(path):
    """The same split in memory and in its file."""
    return load_split(path), load_split(path, resident_mb=0)


def fails(call, *words):
    with pytest.raises(ValleysError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message, message


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


def data_start(path):
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


# --- the same values ---


def test_the_limit_decides_where_images_are(path):
    size = 50 * 3 * 8 * 8 / 1e6
    assert isinstance(load_split(path, resident_mb=size).images, torch.Tensor)
    assert isinstance(load_split(path, resident_mb=size - 1e-6).images, ImagesOnDisk)
    assert isinstance(load_split(path).images, torch.Tensor)


def test_what_the_schema_gives_is_the_limit_of_a_look():
    import yaml
    from valleys.config.schema import SCHEMA_FILE

    schema = yaml.safe_load(SCHEMA_FILE.read_text())
    default = schema["properties"]["execution"]["properties"]["resident_mb"]["default"]
    assert default == RESIDENT_MB


@pytest.mark.parametrize(
    "at", [slice(None), slice(7, 30, 3), slice(45, 99), 3, -1, torch.tensor([9, 0, 9]), torch.tensor(4)]
)
def test_an_index_gives_what_it_gives_of_a_tensor(both, at):
    resident, mapped = both
    assert torch.equal(mapped.images[at], resident.images[at])
    assert mapped.images[at].shape == resident.images[at].shape
    assert torch.equal(mapped.floats(at), resident.floats(at))


def test_a_split_in_a_file_says_what_one_in_memory_says(both):
    resident, mapped = both
    assert (len(mapped), mapped.in_shape, mapped.classes) == (50, (3, 8, 8), 4)
    assert (mapped.mean, mapped.std, mapped.device) == (resident.mean, resident.std, resident.device)
    assert torch.equal(mapped.labels, resident.labels)
    assert mapped.images.numel() == resident.images.numel()
    assert mapped.to("cpu").images is mapped.images


def pairs(batches):
    return [(x.numpy().tobytes(), y.tolist()) for x, y in batches]


def test_batches_are_the_same_bytes(both):
    resident, mapped = both
    assert pairs(mapped.batches(16)) == pairs(resident.batches(16))
    for options in ({}, {"start": 2}, {"drop_last": True}):
        for spec in (None, AUGMENT):
            found = []
            for split in both:
                generator = torch.Generator().manual_seed(5)
                order = draw_permutation(split, generator)
                found.append(pairs(epoch_batches(split, order, 16, generator, spec, **options)))
                found[-1].append(generator.get_state().tolist())
            assert found[0] == found[1]


def test_a_small_subset_is_in_memory_and_a_large_one_in_the_file(path):
    resident = load_split(path)
    mapped = load_split(path, resident_mb=20 * 3 * 8 * 8 / 1e6)
    for n, kind in ((20, torch.Tensor), (21, ImagesOnDisk), (49, ImagesOnDisk), (50, ImagesOnDisk)):
        part, wanted = mapped.subset(n, seed=3), resident.subset(n, seed=3)
        assert isinstance(part.images, kind)
        assert pairs(part.batches(16)) == pairs(wanted.batches(16))
    within = mapped.subset(30).subset(25)  # of a subset
    assert pairs(within.batches(7)) == pairs(resident.subset(30).subset(25).batches(7))
    assert isinstance(within.subset(5).images, torch.Tensor)
    assert pairs(within.subset(5).batches(7)) == pairs(resident.subset(30).subset(25).subset(5).batches(7))


def test_a_subset_reads_no_other_image(path, monkeypatch):
    mapped, rows = load_split(path, resident_mb=0.005), []
    fill = ImagesOnDisk._fill
    monkeypatch.setattr(
        ImagesOnDisk, "_fill", lambda self, image, row: rows.append(row) or fill(self, image, row)
    )
    part = mapped.subset(6)
    assert rows == subset_indices(50, 6).tolist()
    list(part.batches(2))
    assert len(rows) == 6  # held now


def as_bytes(value):
    if isinstance(value, torch.Tensor):
        return value.detach().numpy().tobytes()
    if isinstance(value, dict):
        return {key: as_bytes(item) for key, item in value.items()}
    return [as_bytes(item) for item in value] if isinstance(value, list | tuple) else value


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("method", ["exact", "streaming"])
def test_training_and_probing_give_the_same_bytes(tmp_path, path, method, monkeypatch):
    from valleys.data import loaders
    from valleys.landscape import hessian

    save_split(tmp_path / "test.safetensors", make_split(23, seed=1))

    def run(name, limit):
        train, test = (
            load_split(tmp_path / f"{part}.safetensors", resident_mb=limit) for part in ("train", "test")
        )
        net = solutions.fresh({"arch": "resnet8", "norm": "batch", "width": 4}, train.in_shape, 4, seed=0)
        rows = sgd.train(net, (train, test), RECIPE, seed=0, state_dir=tmp_path / name, batch_size=13)
        bn_refresh.refresh_bn(net, train.batches(20), method)
        found = [rows, net.state_dict(), evaluate(net, train, LOSS, 17)]
        block = {"train_images": 30, "test_images": None, "bn": "refreshed"}
        spec = {"loss": {"name": "cross_entropy"}, "bn_refresh": {"method": method, "batch_size": 9}}
        evaluator = evaluator_for(net, (train, test), block, spec)
        u, _ = directions.random_direction("uniform", dict(net.named_parameters()), key="k", k=0)
        found.append(probe_line(evaluator, u, [-0.5, 0.0, 0.5]))
        found.append(computed.gradient(net, train, LOSS, 11))
        names = [name for name, _ in net.named_parameters()][-2:]
        found.append(hessian.hessian_eigenvectors(net, train.subset(20), LOSS, names, 1, 8))
        return as_bytes(found)

    assert run("a", 1e9) == run("b", 0)
    monkeypatch.setattr(loaders, "RESIDENT_BYTES", 0)  # as it is of sets too large to be kept as floats
    assert run("a", 1e9) == run("c", 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_on_a_gpu_are_those_of_a_split_in_its_memory(both):
    resident, mapped = (split.to("cuda") for split in both)
    assert mapped.device.type == "cuda"
    assert mapped.images.device.type == "cpu"
    for (x, y), (a, b) in zip(mapped.batches(16), resident.batches(16), strict=True):
        assert torch.equal(x, a)
        assert torch.equal(y, b)
    found = []
    for split in (resident, mapped):
        generator = torch.Generator().manual_seed(5)
        order = draw_permutation(split, generator)
        found.append([x.cpu() for x, _ in epoch_batches(split, order, 16, generator, AUGMENT)])
    assert all(map(torch.equal, *found))
    assert mapped.subset(10).floats(slice(None)).device.type == "cuda"


# --- reading ahead ---


def test_the_next_is_read_while_one_is_in_use():
    second, main = threading.Event(), threading.get_ident()

    def read(place):
        assert threading.get_ident() != main
        if place == 1:
            second.set()
        return 10 * place

    values = on_disk.ahead(read, range(4))
    assert next(values) == 0
    assert second.wait(10)
    assert list(values) == [10, 20, 30]
    assert list(on_disk.ahead(read, [])) == []
    assert list(on_disk.ahead(read, [7])) == [70]


def test_an_error_while_reading_ahead_comes_where_its_batch_would(both):
    def read(place):
        if place == 2:
            raise ValleysError("broken")
        return place

    values = on_disk.ahead(read, range(5))
    assert [next(values), next(values)] == [0, 1]
    with pytest.raises(ValleysError, match="broken"):
        next(values)
    before = threading.active_count()
    values = on_disk.ahead(abs, range(5))
    next(values)
    values.close()  # as when training is stopped
    assert threading.active_count() <= before


# --- nothing wrong is read ---


def age(path):
    """As a file that was written a while before it is checked."""
    os.utime(path, ns=(0, 10**18))


def test_a_file_is_checked_whole_once(path, monkeypatch, caplog):
    age(path)
    caplog.set_level(logging.INFO, logger="valleys")
    first = load_split(path, resident_mb=0)
    assert "once" in caplog.text
    with monkeypatch.context() as watched:
        watched.setattr(ImagesOnDisk, "_fill", lambda *_: pytest.fail("was checked again"))
        again = load_split(path, resident_mb=0)
    assert torch.equal(again.images[:], first.images[:])
    flip(path, data_start(path) + 8 * 50 + 17 * 192 + 5)
    words = (path, "checksum", "rerun prepare_dataset")
    fails(lambda: load_split(path, resident_mb=0), *words)
    flip(path, data_start(path) + 8 * 50 + 17 * 192 + 5)
    load_split(path, resident_mb=0)  # and it is as it was


def test_a_file_that_is_written_to_under_a_run_is_noticed(path):
    age(path)
    split = load_split(path, resident_mb=0)
    part = split.subset(49)
    flip(path, data_start(path) + 8 * 50 + 17 * 192 + 5)
    words = (path, "written to while it was being read", "rerun prepare_dataset")
    fails(lambda: split.images[3], *words)
    fails(lambda: list(split.batches(16)), *words)
    fails(lambda: part.images[torch.tensor([3, 17])], *words)


@pytest.mark.parametrize("kept", [True, False])
def test_every_flipped_bit_is_seen(path, kept):
    age(path)
    load_split(path, resident_mb=0)
    whole = path.read_bytes()
    places = [*range(0, data_start(path) + 410, 7), *range(data_start(path), len(whole), 501), len(whole) - 1]
    for at in places:
        flip(path, at)
        if not kept:
            note_file(path).unlink(missing_ok=True)
        fails(lambda: load_split(path, resident_mb=0), path, "rerun prepare_dataset")
        path.write_bytes(whole)
    load_split(path, resident_mb=0)


def test_what_is_written_just_after_a_check_is_seen(path):
    """Within the same tick of the file system's clock: all three times are the same."""
    age(path)
    load_split(path, resident_mb=0)
    age(note_file(path))
    flip(path, len(path.read_bytes()) - 1)
    age(path)
    fails(lambda: load_split(path, resident_mb=0), path, "checksum")


def test_a_damaged_note_is_made_again(path):
    age(path)
    load_split(path, resident_mb=0)
    note = note_file(path)
    whole = note.read_bytes()
    for content in (whole[:-1], b"", bytes([whole[0] ^ 1]) + whole[1:], b"\xff" + whole[1:]):
        note.write_bytes(content)
        load_split(path, resident_mb=0)
        assert note.read_bytes() == whole


def test_a_note_of_another_file_is_not_believed(path):
    age(path)
    load_split(path, resident_mb=0)
    old = note_file(path).read_bytes()
    save_split(path, make_split(50, seed=4))
    age(path)
    assert torch.equal(load_split(path, resident_mb=0).images[:], make_split(50, seed=4).images)
    assert note_file(path).read_bytes() != old


def test_a_split_keeps_to_the_file_it_was_opened_on(path):
    opened = load_split(path, resident_mb=0)
    save_split(path, make_split(50, seed=4))
    assert torch.equal(opened.images[:], make_split(50).images)


def test_where_nothing_can_be_written_the_file_is_checked_all_the_same(path, monkeypatch, caplog):
    def refuse(path, text):
        raise ValleysError(f"cannot write {path}: read-only")

    monkeypatch.setattr(on_disk.files, "write_text", refuse)
    assert torch.equal(load_split(path, resident_mb=0).images[:], make_split(50).images)
    assert "each job will check all of" in caplog.text
    assert not note_file(path).exists()
    flip(path, len(path.read_bytes()) - 1)
    fails(lambda: load_split(path, resident_mb=0), path, "checksum")


def test_without_verification_nothing_is_checked(path):
    flip(path, len(path.read_bytes()) - 1)
    split = load_split(path, verify=False, resident_mb=0)
    assert len(split.images[:]) == 50
    assert not note_file(path).exists()


def test_a_file_cut_short_or_gone_bad_while_it_is_read(path, monkeypatch):
    split = load_split(path, resident_mb=0)
    with path.open("r+b") as file:
        file.truncate(len(path.read_bytes()) - 3 * 192 + 5)
    fails(lambda: split.images[:], path, "truncated at image 47", "rerun prepare_dataset")
    fails(lambda: split.images[:3], path, "written to while it was being read")

    def broken(*arguments):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.preadv", broken)
    fails(lambda: split.images[3], path, "image 3 cannot be read (Input/output error)")


def test_short_reads_are_gone_on_with(path, monkeypatch):
    """A network disk may give less than was asked for."""
    split, read = load_split(path, resident_mb=0), os.preadv
    monkeypatch.setattr("os.preadv", lambda file, into, at: read(file, [into[0][:50]], at))
    assert torch.equal(split.images[:], make_split(50).images)


def test_the_file_is_closed_with_the_split(path):
    split = load_split(path, resident_mb=0)
    part = split.subset(49)
    gone = weakref.ref(split.images._file)
    del split
    assert len(part.images[:2]) == 2  # which a subset reads from too
    del part
    assert gone() is None


def test_a_file_larger_than_memory(tmp_path):
    """Sparse: a terabyte that takes no disk. Torch's own view of such a file is refused by the system."""
    path, shape = tmp_path / "train.safetensors", (4_000_000, 3, 300, 300)
    about = {"format": "valleys-split-1", "classes": "2", "mean": "[0, 0, 0]", "std": "[1, 1, 1]"}
    tensors = {"labels": (torch.int64, shape[:1]), "images": (torch.uint8, shape)}
    header = _header({**about, "checksum": "0" * 64}, tensors)
    try:
        with path.open("wb") as file:
            file.write(header)
            file.truncate(len(header) + shape[0] * (8 + 3 * 300 * 300))
            file.seek(-1, 2)
            file.write(b"\7")
    except OSError:
        pytest.skip("no sparse file of a terabyte on this disk")
    assert read_metadata(path)["classes"] == "2"
    split = load_split(path, verify=False, resident_mb=1000)
    assert len(split) == 4_000_000
    assert int(split.images[-1].max()) == 7
    assert split.subset(2).images.shape == (2, 3, 300, 300)


def test_labels_and_header_are_checked_as_in_memory(path):
    content = path.read_bytes()
    header = json.loads(content[8 : data_start(path)])
    for change, word in (({"classes": "2"}, "labels must lie in 0..1"), ({"std": "[0, 1, 1]"}, "above 0")):
        header["__metadata__"] |= change
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        path.write_bytes(len(text).to_bytes(8, "little") + text + content[data_start(path) :])
        fails(lambda: load_split(path, verify=False, resident_mb=0), path, word)


# --- the workflow ---

SMALL = {
    "name": "small",
    "seeds": [0, 1],
    "datasets": {"pictures": {"source": "image_folder", "train": "train", "test": "test", "size": 8}},
    "models": {"net": {"arch": "resnet8", "width": 4, "norm": "batch"}},
    "recipes": {
        "quick": {
            "epochs": 4, "batch_size": 16, "lr": 0.05, "augment": {"shift": 1, "flip": True},
            "swa": {"start": 2, "lr": 0.02}, "descent": {"epochs": 1, "lr": 0.001},
        },
    },
    "grid": [{"dataset": "pictures", "model": "net", "recipe": "quick"}],
    "bn_refresh": {"batch_size": 20},
    "probes": {
        "uniform": {"kind": "uniform", "n": 1, "points": 21, "relative": 0.2},
        "hessian": {"kind": "hessian", "n": 1, "points": 21, "relative": 0.2, "solutions": ["sgd"]}
        | {"group": "classifier", "train_images": 24, "test_images": 12},
    },
    "lines": {
        "swa-descent": {"start": "swa", "stop": "descent", "first": 0, "last": 1, "divisions": 2},
        "seeds": {"start": "sgd", "stop": "sgd", "stop_seed": "next", "first": 0, "last": 1, "divisions": 2}
        | {"path": "bezier", "epochs": 1},
    },
    "planes": {"solutions": {"through": ["sgd", "swa", "descent"], "points": 5, "train_images": 20}},
}  # fmt: skip


def pictures(folder, n):
    """A synthetic ImageFolder of three colours, in noise."""
    import numpy as np
    from PIL import Image

    chance = np.random.default_rng(n)
    for i in range(n):
        place = folder / f"colour-{i % 3}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = chance.integers(0, 200, (9 + i % 4, 12, 3), dtype=np.uint8)
        pixels[..., i % 3] += 55
        Image.fromarray(pixels).save(place / f"{i:02}.{'png' if i % 2 else 'jpg'}")


@pytest.mark.slow
@pytest.mark.long
def test_a_run_gives_the_same_bytes_wherever_the_images_are(tmp_path):
    from workflow_runs import snakemake

    made = ("training", "solutions", "curves", "directions", "interpolation", "planes")
    wanted, found = [f"results/small/tables/{name}.parquet" for name in made], {}
    for limit in (20_000, 0):
        folder = tmp_path / str(limit)
        pictures(folder / "train", 48)
        pictures(folder / "test", 24)
        config = SMALL | {"execution": {"resident_mb": limit}}
        status, text = snakemake(folder, config, *wanted, "--cores", "2", timeout=600)
        assert status == 0, text
        root = folder / "results" / "small"
        logs = "".join(path.read_text() for path in root.glob("logs/**/*.log"))
        assert ("once, until it is written to" in logs) == (limit == 0)
        assert (root / "data" / "pictures" / "train.checked").exists() == (limit == 0)
        found[limit] = {
            str(path.relative_to(root)): path.read_bytes()
            for kind in ("data", "cells", "tables")
            for path in sorted((root / kind).rglob("*"))
            if path.is_file() and path.suffix != ".checked"
        }
    assert {f"tables/{name}.parquet" for name in made} <= set(found[0])
    assert found[0].keys() == found[20_000].keys()
    assert [name for name in found[0] if found[0][name] != found[20_000][name]] == []

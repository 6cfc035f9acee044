"""Files are whole or absent, and damage to them is always noticed."""

import os
import pickle
import resource
import socket
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from valleys.errors import ValleysError
from valleys.storage import files
from valleys.storage.state import load_checkpoint, save_checkpoint
from valleys.storage.weights import checksum, load_weights, relabel, save_weights


def test_only_regular_files_are_opened(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to-pipe").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(tmp_path / "socket"))
    assert files.check_regular(tmp_path / "link") == tmp_path / "link"
    for path, words in (
        (tmp_path, "is a folder; give the path of a file"),
        (tmp_path / "pipe", "is a pipe"),
        (tmp_path / "to-pipe", "is a pipe"),
        (tmp_path / "socket", "is a socket"),
        ("/dev/zero", "is a device"),
        (tmp_path / "absent", "does not exist"),
        (tmp_path / "file" / "below", "does not exist"),
        (tmp_path / "loop", "cannot be read"),
        ("x" * 5000, "cannot be read"),
        ("a\0b", "cannot be read"),
    ):
        with pytest.raises(ValleysError, match=words):
            files.check_regular(path, "file")


def test_a_path_and_what_is_chosen_in_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    for name in ("a.pt", "b#c.pt", "d#e"):
        Path(name).touch()
    for text, path, choice in (
        ("a.pt", "a.pt", None),
        ("a.pt#ema", "a.pt", "ema"),
        ("a.pt#model#x", "a.pt", "model#x"),
        ("a.pt#", "a.pt", ""),
        ("b#c.pt", "b#c.pt", None),
        ("b#c.pt#ema", "b#c.pt", "ema"),
        ("d#e#f", "d#e", "f"),
        ("absent.pt#ema", "absent.pt", "ema"),
        ("#x", "#x", None),
        ("~/a.pt#ema", "/home/me/a.pt", "ema"),
    ):
        assert files.split_choice(text) == (Path(path), choice)


def state():
    g = torch.Generator().manual_seed(1)
    return {
        "double": torch.randn(3, 2, generator=g, dtype=torch.float64),
        "float": torch.randn(5, generator=g),
        "bfloat": torch.randn(4, generator=g).bfloat16(),
        "half": torch.randn(4, generator=g).half(),
        "long": torch.tensor([2**62 + 1, -7]),
        "byte": torch.tensor([0, 255], dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
        "scalar": torch.tensor(42),
        "empty": torch.zeros(0, 3),
        "not_finite": torch.tensor([float("nan"), float("inf"), -0.0]),
    }


def same(one, other):
    """Whether two state dicts have the same names, types, shapes and bytes."""
    return one.keys() == other.keys() and all(
        one[n].dtype == other[n].dtype and one[n].shape == other[n].shape and raw(one[n]) == raw(other[n])
        for n in one
    )


def names(folder):
    return [path.name for path in folder.iterdir()]


def raw(tensor):
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).tolist()) if tensor.numel() else b""


@contextmanager
def file_size_limit(size):
    """Let no write go past `size` bytes of a file: the nearest thing to a full disk without being root."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def flips(data, step=1):
    """Yield the data with one bit flipped, for every step-th bit."""
    for bit in range(0, 8 * len(data), step):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        yield bit, bytes(damaged)


# --- atomic writes ---


def test_atomic_replaces_the_file_and_makes_folders(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    files.write_text(path, "old")
    files.write_text(path, "new é")
    assert path.read_bytes() == "new é".encode()
    assert names(path.parent) == ["file.txt"]


@pytest.mark.parametrize("error", [RuntimeError("body"), KeyboardInterrupt(), SystemExit(3)])
def test_an_exception_leaves_the_old_file_and_no_temporary(tmp_path, error):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def interrupted():
        with files.atomic(path) as temporary:
            assert temporary.parent == tmp_path
            temporary.write_text("half")
            raise error

    with pytest.raises(type(error)):
        interrupted()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_the_file_is_invisible_until_it_is_whole(tmp_path):
    path = tmp_path / "file.txt"
    with files.atomic(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"


def test_mode_follows_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        files.write_text(tmp_path / "file.txt", "")
    finally:
        os.umask(old)
    assert (tmp_path / "file.txt").stat().st_mode & 0o777 == 0o640


def test_a_folder_that_cannot_be_made_is_one_line_that_names_the_path(tmp_path):
    (tmp_path / "taken").write_text("a regular file")
    path = tmp_path / "taken" / "deeper" / "file.txt"
    with pytest.raises(ValleysError, match="cannot write") as caught:
        files.write_text(path, "text")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_in_the_place_of_the_file_is_an_error(tmp_path):
    (tmp_path / "file.txt").mkdir()
    with pytest.raises(ValleysError, match="cannot write"):
        files.write_text(tmp_path / "file.txt", "text")
    assert names(tmp_path) == ["file.txt"]


WRITERS = {
    "text": lambda path: files.write_text(path, "x" * 100_000),
    "weights": lambda path: save_weights(path, {"w": torch.zeros(100_000)}),
    "checkpoint": lambda path: save_checkpoint(path, {"w": torch.zeros(100_000)}),
}


@pytest.mark.parametrize("what", WRITERS)
def test_a_full_disk_is_one_line_and_keeps_the_old_file(tmp_path, what):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ValleysError, match="cannot write") as caught, file_size_limit(20_000):
        WRITERS[what](path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_publish_folder_replaces_the_old_one(tmp_path):
    source, target = tmp_path / "work", tmp_path / "out" / "iterates"
    source.mkdir()
    (source / "new").write_text("new")
    target.mkdir(parents=True)
    (target / "old").write_text("old")
    files.publish_folder(source, target)
    assert names(target) == ["new"]
    assert not source.exists()


# --- names of random streams and of cached state ---


def test_stable_seed_is_pinned():
    # Every random stream hangs on these: if they change, all results change.
    assert files.stable_seed("init", 0) == 8554222456562528742  # half of 0xed6d68010a2863cc
    assert files.stable_seed() == int.from_bytes(bytes.fromhex("e3b0c44298fc1c14"), "big") >> 1
    assert 0 <= files.stable_seed("x") < 2**63


def test_stable_seed_tells_its_parts_apart():
    seeds = [files.stable_seed(*p) for p in (("a", "b"), ("ab",), ("a", "b", ""), ("b", "a"), ("a b",))]
    assert len(set(seeds)) == len(seeds)
    assert files.stable_seed("a", 1) == files.stable_seed("a", "1")


def test_fingerprint_is_pinned_and_blind_to_the_order_of_keys():
    # SHA-256 of the text {"a": 1, "b": [2.5, null]}
    assert files.fingerprint({"b": [2.5, None], "a": 1}) == "2daaea6dd63221f9"
    assert files.fingerprint({"a": 1, "b": [2.5, None]}) == "2daaea6dd63221f9"
    assert files.fingerprint({"a": 1, "b": [None, 2.5]}) != "2daaea6dd63221f9"


# --- checksum ---


def test_checksum_sees_names_types_shapes_and_values_and_nothing_else():
    base = torch.arange(6.0)
    own = checksum({"w": base})
    others = [
        {"v": base},
        {"w": base.double()},
        {"w": base.view(2, 3)},
        {"w": base.flip(0)},
        {"w": base, "v": torch.zeros(0)},
    ]
    assert len({own, *map(checksum, others)}) == 6
    image = torch.randn(2, 3, 4, 5)
    last = image.contiguous(memory_format=torch.channels_last)
    assert last.stride() != image.stride()
    assert checksum({"a": image, "b": base}) == checksum({"b": base.clone(), "a": last})
    assert checksum({"w": base.requires_grad_()}) == own


# --- weights ---


def test_weights_come_back_as_they_were(tmp_path):
    tensors = state()
    about = {"model": {"arch": "mlp", "hidden": [3]}, "epoch": 7, "text": "é\n", "none": None, "x": 0.1}
    save_weights(tmp_path / "w", tensors, about)
    loaded, metadata = load_weights(tmp_path / "w")
    assert same(loaded, tensors)
    assert metadata.pop("checksum") == checksum(tensors)
    assert metadata == about


def test_channels_last_weights_come_back_with_the_same_values(tmp_path):
    weight = torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    save_weights(tmp_path / "w", {"conv": weight, "view": torch.arange(12.0).view(3, 4).T})
    loaded, _ = load_weights(tmp_path / "w")
    torch.testing.assert_close(loaded["conv"], weight, rtol=0, atol=0)
    torch.testing.assert_close(loaded["view"], torch.arange(12.0).view(3, 4).T, rtol=0, atol=0)


def test_the_same_weights_make_the_same_file(tmp_path):
    tensors, about = state(), {f"key{i}": i for i in range(12)}
    save_weights(tmp_path / "a", tensors, about)
    for i in range(8):  # safetensors orders several metadata keys at random: one is needed
        save_weights(tmp_path / "b", dict(reversed(tensors.items())), dict(reversed(about.items())))
        assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes(), i


def test_a_foreign_safetensors_file_has_no_metadata(tmp_path):
    from safetensors.torch import save_file

    save_file({"w": torch.ones(2)}, str(tmp_path / "w"), metadata={"format": "pt"})
    loaded, metadata = load_weights(tmp_path / "w")
    assert same(loaded, {"w": torch.ones(2)})
    assert metadata == {}


def test_absent_weights_are_an_error(tmp_path):
    with pytest.raises(ValleysError, match="does not exist"):
        load_weights(tmp_path / "none")


def test_truncated_weights_are_always_an_error(tmp_path):
    path = tmp_path / "w"
    save_weights(path, {"w": torch.arange(50.0), "n": torch.tensor(1)}, {"epoch": 3})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValleysError, match="delete it and rerun") as caught:
            load_weights(path)
        assert str(path) in str(caught.value)
    path.write_bytes(whole + b"\0")
    with pytest.raises(ValleysError):
        load_weights(path)


def test_a_flipped_bit_in_weights_never_gives_other_numbers(tmp_path):
    path = tmp_path / "w"
    tensors, about = {"w": torch.arange(9.0), "n": torch.tensor(1)}, {"epoch": 3, "model": {"arch": "mlp"}}
    save_weights(path, tensors, about)
    whole = path.read_bytes()
    _, saved = load_weights(path)
    errors = silent = 0
    messages = set()
    for bit, damaged in flips(whole, step=3):
        path.write_bytes(damaged)
        try:
            loaded, metadata = load_weights(path)
        except ValleysError as error:
            errors += 1
            messages.add(str(error))
        else:
            silent += 1
            assert same(loaded, tensors), bit
            # The key that holds the metadata may be lost, which its readers notice; it is never wrong.
            assert metadata in ({}, saved), bit
    assert errors > 20 * silent
    assert not any("\n" in message for message in messages)


def test_swapped_values_do_not_pass_without_the_checksum(tmp_path):
    path = tmp_path / "w"
    save_weights(path, {"w": torch.tensor([1.0, 2.0])})
    path.write_bytes(path.read_bytes()[:-8] + torch.tensor([2.0, 1.0]).numpy().tobytes())
    with pytest.raises(ValleysError, match="does not match its checksum"):
        load_weights(path)
    assert load_weights(path, verify=False)[0]["w"].tolist() == [2.0, 1.0]


def test_relabelled_weights_are_what_save_weights_would_write(tmp_path):
    tensors = state() | {"half": torch.ones(2, dtype=torch.bfloat16), "none": torch.zeros(0)}
    save_weights(tmp_path / "a", tensors, {"model": {"arch": "é"}, "n": 1})
    relabel(tmp_path / "a", tmp_path / "b", n=2, more=[None])
    save_weights(tmp_path / "c", tensors, {"model": {"arch": "é"}, "n": 2, "more": [None]})
    assert (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()


def test_damaged_weights_are_not_relabelled(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "w"
    save_weights(path, {"w": torch.arange(9.0), "n": torch.tensor(1)}, {"epoch": 3})
    whole = path.read_bytes()
    damaged = [whole[:length] for length in range(0, len(whole), 3)] + [whole + b"\0"]
    damaged += [content for _, content in flips(whole, step=3)]
    silent, messages = 0, set()
    for content in damaged:
        path.write_bytes(content)
        try:
            relabel(path, tmp_path / "copy")
        except ValleysError as error:
            messages.add(str(error))
        else:  # spaces of the header, say: nothing that was said has changed
            silent += 1
            assert load_weights(tmp_path / "copy")[0]["w"].tolist() == list(range(9))
    assert silent * 20 < len(damaged)
    assert all(str(path) in message and "\n" not in message for message in messages)
    save_file({"w": torch.ones(2)}, str(path), metadata={"format": "pt"})
    with pytest.raises(ValleysError, match="does not match its checksum"):
        relabel(path, tmp_path / "copy")
    with pytest.raises(ValleysError, match="does not exist"):
        relabel(tmp_path / "none", tmp_path / "copy")


# --- checkpoints ---


def checkpoint():
    return {
        "model": {"w": torch.arange(6.0).view(2, 3)},
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
        "epoch": 3,
        "rows": [{"train_loss": 0.5, "test_loss": None}],
        "generator": torch.Generator().manual_seed(5).get_state(),
    }


def test_checkpoints_come_back_as_they_were(tmp_path):
    save_checkpoint(tmp_path / "state", checkpoint())
    loaded = load_checkpoint(tmp_path / "state")
    expected = checkpoint()
    assert same(loaded.pop("model"), expected.pop("model"))
    assert torch.equal(loaded.pop("generator"), expected.pop("generator"))
    buffers = [d.pop("optimizer") for d in (loaded, expected)]
    assert torch.equal(*(b["state"][0]["momentum_buffer"] for b in buffers))
    assert loaded == expected


def test_truncated_checkpoints_are_always_an_error(tmp_path):
    path = tmp_path / "state"
    save_checkpoint(path, checkpoint())
    whole = path.read_bytes()
    for length in [0, 1, 2, *range(3, len(whole), 101), len(whole) - 32, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValleysError, match="delete it to train from the start") as caught:
            load_checkpoint(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_flipped_bit_in_a_checkpoint_is_always_an_error(tmp_path):
    path = tmp_path / "state"
    save_checkpoint(path, {"w": torch.arange(20.0), "epoch": 3})
    for _, damaged in flips(path.read_bytes(), step=41):
        path.write_bytes(damaged)
        with pytest.raises(ValleysError, match="corrupt"):
            load_checkpoint(path)


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("sealed", [False, True], ids=["plain file", "with a valid seal"])
def test_a_checkpoint_runs_no_code(tmp_path, sealed):
    path, target = tmp_path / "state", tmp_path / "made"
    if sealed:
        save_checkpoint(path, {"a": Malicious(str(target))})
    else:
        torch.save({"a": Malicious(str(target))}, path)
    with pytest.raises(ValleysError, match="corrupt"):
        load_checkpoint(path)
    assert not target.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all" * 9, pickle.dumps({"a": 1})])
def test_what_is_no_checkpoint_is_an_error(tmp_path, content):
    (tmp_path / "state").write_bytes(content)
    with pytest.raises(ValleysError, match="corrupt"):
        load_checkpoint(tmp_path / "state")


def test_the_same_state_makes_the_same_checkpoint(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_checkpoint(tmp_path / name / "state", checkpoint())
    assert (tmp_path / "a" / "state").read_bytes() == (tmp_path / "b" / "state").read_bytes()


def test_publish_folder_leaves_out_what_a_kill_left_behind(tmp_path):
    source, target = tmp_path / "state" / "iterates", tmp_path / "cell" / "iterates"
    source.mkdir(parents=True)
    target.mkdir(parents=True)
    (target / "old").write_text("stale")
    (source / "epoch-00001.safetensors").write_text("whole")
    (source / ".epoch-00002.safetensors.x1y2.tmp").write_text("half")
    files.publish_folder(source, target)
    assert [p.name for p in target.iterdir()] == ["epoch-00001.safetensors"]
    assert not source.exists()


def test_a_flipped_bit_that_hides_the_metadata_is_seen_where_weights_must_be_ours(tmp_path):
    path = tmp_path / "w"
    save_weights(path, {"w": torch.arange(9.0)}, {"columns": {"sgd": [{"eigenvalue": 2.5}]}})
    path.write_bytes(path.read_bytes().replace(b'"valleys"', b'"walleys"'))
    assert load_weights(path)[1] == {}
    with pytest.raises(ValleysError, match="does not match its checksum; delete it and rerun"):
        load_weights(path, ours=True)


# --- pictures ---

SVG = '<svg xmlns="http://www.w3.org/2000/svg">\n<text>c* = 2.5 é</text>\n</svg>\n'


def test_pictures_cut_short_or_overwritten_are_refused(tmp_path):
    path = tmp_path / "a.svg"
    path.write_text(SVG, encoding="utf-8")
    assert files.read_svg(path) == SVG
    whole = path.read_bytes()
    damaged = [whole[:n] for n in range(len(whole) - 2)]
    damaged += [whole[:n] + bytes(8) + whole[n + 8 :] for n in range(len(whole) - 8)]
    damaged += [whole.replace("é".encode(), b"\xe9"), whole.replace(b"svg", b"swg"), b"\x89PNG"]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ValleysError, match="delete it and rerun") as caught:
            files.read_svg(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValleysError, match="rerun the rule that makes it"):
        files.read_svg(tmp_path / "none.svg")

"""Weights from elsewhere: read as tensors only, fitted to a model, or refused in one line."""

import argparse
import collections
import json
import os
import pathlib
import pickle
import subprocess

import numpy as np
import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn
from valleys.data.split import Split
from valleys.errors import ValleysError
from valleys.models import checkpoints, solutions, state_dicts
from valleys.networks import bn_refresh
from valleys.storage import tables
from workflow_runs import planned, snakemake

SPEC = {"arch": "mlp", "hidden": [16], "norm": "batch"}


def network(seed=0, spec=SPEC):
    model = solutions.fresh(spec, (1, 8, 8), 10, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (50, 1, 8, 8), generator=generator).to(torch.uint8)
    split = Split(images, torch.zeros(50, dtype=torch.int64), 10, (0.5,), (0.25,))
    bn_refresh.refresh_bn(model, split.batches(50))  # statistics that are not those of a fresh layer
    return model.eval()


def same(model, state):
    return all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


class Averaged(nn.Module):
    """What torch.optim.swa_utils.AveragedModel's state dict looks like."""

    def __init__(self, module):
        super().__init__()
        self.module = module
        self.register_buffer("n_averaged", torch.tensor(3))


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda model: model.state_dict(),
        lambda model: {"epoch": 3, "state_dict": model.state_dict()},
        lambda model: {"model": model.state_dict(), "optimizer": {"lr": 0.1}},
        lambda model: nn.DataParallel(model).state_dict(),
        lambda model: {"net": {f"module._orig_mod.{k}": v for k, v in model.state_dict().items()}},
        lambda model: Averaged(model).state_dict(),
    ],
)
def test_what_training_scripts_save(tmp_path, wrapped):
    model, other = network(0), network(1)
    torch.save(wrapped(model), tmp_path / "last.pt")
    checkpoints.fit(other, checkpoints.read(tmp_path / "last.pt"), "last.pt")
    assert same(other, model.state_dict())


def test_safetensors_and_other_types(tmp_path):
    model, other = network(0), network(1)
    half = {n: t.half() if t.is_floating_point() else t for n, t in model.state_dict().items()}
    half = {n: t for n, t in half.items() if not n.endswith("num_batches_tracked")}
    save_file(half, tmp_path / "w.safetensors")
    checkpoints.fit(other, checkpoints.read(tmp_path / "w.safetensors"), "w")
    assert {p.dtype for p in other.parameters()} == {torch.float32}
    for name, tensor in half.items():
        assert torch.equal(other.state_dict()[name], tensor.float() if tensor.is_floating_point() else tensor)


class Bomb:
    """Runs a command when it is unpickled without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", ["torch", "pickle"])
def test_a_pickle_that_runs_code_is_refused(tmp_path, protocol):
    mark, path = tmp_path / "mark", tmp_path / "evil.pt"
    found = {"state_dict": network().state_dict(), "extra": Bomb(mark)}
    if protocol == "torch":
        torch.save(found, path)
    else:
        path.write_bytes(pickle.dumps(found))
    with pytest.raises(ValleysError, match="convert it where you trust it"):
        checkpoints.read(path)
    assert not mark.exists()


def test_a_whole_model_is_refused_with_the_way_to_convert_it(tmp_path):
    torch.save(network(), tmp_path / "model.pt")
    with pytest.raises(ValleysError, match=r"model\.pt holds more than tensors.*state_dict\(\)"):
        checkpoints.read(tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"", "cannot be read|holds more"),
        (b"not a checkpoint at all", "cannot be read|holds more"),
        ({"epoch": 3, "lr": 0.1}, "is no state dict and has none under state_dict.* it holds 'epoch', 'lr'"),
        ([torch.zeros(3)], "it holds list"),
    ],
)
def test_files_that_are_no_checkpoint(tmp_path, content, message):
    path = tmp_path / "x.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ValleysError, match=message) as error:
        checkpoints.read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_cut_safetensors_file(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(network().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValleysError, match="no whole safetensors file"):
        checkpoints.read(path)


def test_another_architecture_is_named_by_its_first_differences():
    state = network(spec={**SPEC, "hidden": [16, 8]}).state_dict()
    with pytest.raises(
        ValleysError, match=r"mine\.pt does not fit the model: it has beside.* and 3 more and has"
    ):
        checkpoints.fit(network(), state, "mine.pt")
    state = network(spec={**SPEC, "hidden": [17]}).state_dict()
    with pytest.raises(ValleysError, match=r"has .*\(17, 64\) for \(16, 64\)"):
        checkpoints.fit(network(), state, "mine.pt")
    state = {"a": torch.zeros(1)}
    with pytest.raises(ValleysError, match=r"lacks .* and 4 more and has beside the model's a$"):
        checkpoints.fit(network(), state, "mine.pt")


# Several sets of weights in a file ------------------------------------------------------------------


def below(state, prefix):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def loaded(path, model):
    return checkpoints.load(model, state_dicts.find(path), str(path))


A, B = (network(seed).state_dict() for seed in (0, 1))
SEVERAL = {
    "the paper's code": ({"state_dict": A, "swa_state_dict": B, "optimizer": {}}, "swa_state_dict"),
    "model and ema": ({"model": A, "ema": B}, "ema"),
    "timm": ({"state_dict": below(A, "module."), "state_dict_ema": below(B, "module.")}, "state_dict_ema"),
    "nested": ({"model": {"raw": A, "ema": B}}, "model.ema"),
    "nested, by slashes": ({"model": {"raw": A, "ema": B}}, "model/ema"),
    "a GAN of twins": ({"net_g": A, "net_d": B}, "net_d"),
    "prefixes": ({"state_dict": below(A, "student.") | below(B, "teacher.")}, "teacher"),
    "key and prefix": ({"state_dict": below(A, "student.") | below(B, "teacher.")}, "state_dict:teacher."),
    "prefixes, of a wrapper": (
        {"state_dict": below(A, "module.encoder_q.") | below(B, "module.encoder_k.")},
        "encoder_k",
    ),
    "nested, the last key": ({"callbacks": {"EMA": {"ema_weights": B}}, "state_dict": A}, "ema_weights"),
    "flat, one without": (dict(A) | below(B, "ema."), "ema"),
    "a list": ({"models": [A, B]}, "models.1"),
    "gradients": ({"model": A, "grads": B}, "grads"),
    "keys with the marks of places": ({"a/b": A, "a.c": B}, "a.c"),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_of_several_sets_of_weights_one_is_chosen(tmp_path, case):
    content, choice = SEVERAL[case]
    path, model = tmp_path / "last.pt", network(2)
    torch.save(content, path)
    with pytest.raises(ValleysError, match=r"has weights of the model in 2 places: .*by its key") as e:
        loaded(path, model)
    assert same(model, network(2).state_dict())
    assert str(e.value).count("'") >= 4  # both are listed
    told = loaded(f"{path}#{choice}", model)
    assert same(model, B)
    assert told.startswith("weights under ")
    assert "left aside: " in told


def test_a_part_of_a_place_chooses_where_one_place_has_it(tmp_path):
    path, model = tmp_path / "last.pt", network(2)
    torch.save({"best": {"model": A, "ema": B}, "last": {"model": B}}, path)
    with pytest.raises(
        ValleysError, match=r"has 'model' in 2 places; choose one of best\.model, last\.model$"
    ):
        loaded(f"{path}#model", model)
    loaded(f"{path}#ema", model)
    assert same(model, B)
    torch.save({"ema": A, "model": {"ema": B}}, path)  # a whole place comes first
    loaded(f"{path}#ema", model)
    assert same(model, A)


def test_the_root_of_a_file_is_chosen_by_nothing(tmp_path):
    model = network(2)
    torch.save(dict(A) | below(B, "ema."), tmp_path / "last.pt")
    loaded(f"{tmp_path}/last.pt#", model)
    assert same(model, A)


def test_safetensors_with_several_sets(tmp_path):
    path, model = tmp_path / "all.safetensors", network(2)
    save_file(below(A, "model.") | below(B, "ema."), path)
    with pytest.raises(
        ValleysError, match=r"in 2 places: 'ema', 'model'; choose one .*all\.safetensors#model$"
    ):
        loaded(path, model)
    loaded(f"{path}#ema", model)
    assert same(model, B)
    read = checkpoints.read(f"{path}#ema")
    assert read.keys() == B.keys()
    assert torch.equal(read[NAME], B[NAME])
    with pytest.raises(ValleysError, match="it holds nothing under 'swa'; it has ema, model"):
        loaded(f"{path}#swa", model)


def test_what_is_the_same_or_does_not_fit_makes_nothing_ambiguous(tmp_path):
    path, model = tmp_path / "last.pt", network(2)
    torch.save({"state_dict": A, "swa_state_dict": {n: t.clone() for n, t in A.items()}}, path)
    assert loaded(path, model) == (
        "weights under 'state_dict', the same as under 'swa_state_dict'; left aside: 'swa_state_dict'"
    )
    torch.save({"D": nn.Linear(3, 3).state_dict(), "G": A}, path)
    assert loaded(path, model) == "weights under 'G'; left aside: 'D'"
    assert same(model, A)


def test_read_warns_of_other_sets(tmp_path, caplog):
    path = tmp_path / "last.pt"
    torch.save({"model": A, "ema": B, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}, path)
    state, model = checkpoints.read(path), network(2)
    assert f"it has ema too, which {path}#ema would read" in caplog.text
    told = checkpoints.fit(model, state, "last.pt")
    assert told.startswith("weights under 'model'; left aside: 'ema'")  # which are not called the same
    assert same(model, A)
    caplog.clear()
    torch.save({"model": A, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}, path)
    checkpoints.read(path)
    checkpoints.read(f"{path}#model")
    assert not caplog.text


def test_a_file_may_have_the_mark_in_its_name(tmp_path):
    path, model = tmp_path / "run#3.pt", network(2)
    torch.save({"a": A, "b": B}, path)
    loaded(f"{path}#b", model)
    assert same(model, B)
    torch.save(A, path)
    loaded(path, model)
    assert same(model, A)


# What may stand beside the network's tensors ----------------------------------------------------------

BESIDE = {
    "a loss in Lightning": {"state_dict": below(A, "model.") | {"criterion.weight": torch.ones(2)}},
    "a metric in Lightning": {"state_dict": below(A, "model.") | {"train_acc.correct": torch.tensor(3)}},
    "a head": {"state_dict": below(A, "backbone.") | {"head.weight": torch.ones(2, 2)}},
    "DeepSpeed": {"state_dict": below(A, "_forward_module.model.")},
    "wrappers in any order": below(A, "module._orig_mod.model."),
    "an average of DDP": {"module.n_averaged": torch.tensor(3)} | below(A, "module.module."),
    "a loss beside": dict(A) | {"criterion.weight": torch.ones(2)},
    "metrics beside": dict(A) | {"acc.tp": torch.ones(2, dtype=torch.int64), "acc.total": torch.tensor(3.0)},
    "thop": dict(A) | {"total_ops": torch.zeros(1), "features.0.total_params": torch.zeros(1)},
    "numbers and text": dict(A) | {"epoch": 3, "arch": "mlp", "best": None, "args": {"lr": 0.1}},
    "layers compiled alone": {n.replace("features.0.", "features.0._orig_mod."): t for n, t in A.items()},
    "numpy": {n: t.numpy() for n, t in A.items()},
    "numpy numbers": {"state_dict": A, "best_acc": np.float64(0.9), "losses": np.arange(3.0)},
    "arguments": {"state_dict": A, "args": argparse.Namespace(lr=0.1, out=pathlib.Path("x"))},
    "a schedule": {
        "state_dict": A,
        "s": torch.optim.lr_scheduler.StepLR(torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1), 1),
    },
    "kinds of dicts": {
        "state_dict": A,
        "log": collections.defaultdict(list, a=[1]),
        "q": collections.deque([1]),
    },
}


@pytest.mark.parametrize("case", BESIDE)
@pytest.mark.parametrize("zipped", [True, False])
def test_what_is_no_part_of_the_network_is_left_aside(tmp_path, case, zipped):
    model, path = network(1), tmp_path / "last.ckpt"
    torch.save(BESIDE[case], path, _use_new_zipfile_serialization=zipped)
    loaded(path, model)
    assert same(model, A)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"features.9.weight": torch.ones(2, 2)}, "features.9.weight"),
        ({"head.weight": torch.ones(2, 2, dtype=torch.int8)}, "head.weight"),
        ({"features.0.mask": torch.ones(16, 64, dtype=torch.bool)}, "features.0.mask"),
    ],
)
def test_a_greater_network_is_not_taken_for_ours(more, named):
    for prefix in ("", "model."):
        with pytest.raises(ValleysError, match=f"it has beside the model's {named}$"):
            checkpoints.fit(network(), below({**A, **more}, prefix), "mine.pt")


def test_a_name_of_a_tied_tensor_may_be_missing(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
            self.head.weight = self.emb.weight

    theirs, ours = Tied(), Tied()
    save_model(theirs, tmp_path / "tied.safetensors")
    loaded(tmp_path / "tied.safetensors", ours)
    assert torch.equal(ours.head.weight, theirs.emb.weight)
    checkpoints.fit(ours, {"model.emb.weight": theirs.emb.weight + 1}, "x")
    assert torch.equal(ours.head.weight, theirs.emb.weight + 1)
    both = {"emb.weight": torch.ones(5, 3), "head.weight": torch.zeros(5, 3)}
    with pytest.raises(ValleysError, match=r"different values for emb\.weight and head\.weight"):
        checkpoints.fit(ours, both, "x")
    ours.head.weight = nn.Parameter(torch.zeros(5, 3))
    with pytest.raises(ValleysError, match=r"it lacks head\.weight$"):
        checkpoints.fit(ours, {"emb.weight": torch.ones(5, 3)}, "x")


# Values --------------------------------------------------------------------------------------------

NAME = "features.0.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: (t * 100).to(torch.int8), "is int8, the model's float32"),
        (lambda t: t > 0, "is bool, the model's float32"),
        (lambda t: t.long(), "is int64, the model's float32"),
        (lambda t: t.to(torch.complex64), "is complex64, the model's float32"),
        (lambda t: t.to(torch.float8_e4m3fn), "is float8_e4m3fn, the model's float32"),
        (lambda t: t.double() * 1e300, r"values of up to .*e\+\d+ in float64, beyond the range"),
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), r"is quantised \(qint8\)"),
        (lambda t: t.to_sparse(), r"is sparse \(sparse_coo\)"),
        (lambda t: t.to("meta"), "is on the device meta, without values"),
        (lambda t: t * float("inf"), "has values that are not finite"),
    ],
)
def test_other_kinds_of_numbers_are_refused(change, message):
    model = network(1)
    with pytest.raises(ValleysError, match=f"{NAME} .*{message}|{NAME} {message}"):
        checkpoints.fit(model, {**A, NAME: change(A[NAME])}, "x")
    assert same(model, B)


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions_are_rounded(kind):
    model = network(1)
    checkpoints.fit(model, {n: t.to(kind) if t.is_floating_point() else t for n, t in A.items()}, "x")
    assert torch.equal(model.state_dict()[NAME], A[NAME].to(kind).float())


def test_counts_are_whole_numbers():
    name = "features.1.num_batches_tracked"
    model = network(1)
    checkpoints.fit(model, {**A, name: torch.tensor(7.0)}, "x")
    assert model.state_dict()[name] == 7
    with pytest.raises(
        ValleysError, match=f"{name} is float32 with values that the model's int64 cannot have"
    ):
        checkpoints.fit(model, {**A, name: torch.tensor(7.5)}, "x")


def test_values_must_be_finite():
    state = network().state_dict()
    name = next(iter(state))
    state[name][0] = float("nan")
    with pytest.raises(ValleysError, match=f"{name} has values that are not finite"):
        checkpoints.fit(network(), state, "mine.pt")


# Files --------------------------------------------------------------------------------------------


def shard(folder, save, suffix, index):
    folder.mkdir()
    names = list(A)
    files_of = {}
    for k, part in enumerate((names[:3], names[3:])):
        save({name: A[name] for name in part}, folder / f"part-{k}.{suffix}")
        files_of |= dict.fromkeys(part, f"part-{k}.{suffix}")
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": files_of}))
    return files_of


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards(tmp_path, kind):
    folder, model = tmp_path / "hub", network(1)
    index = "model.safetensors.index.json" if kind == "safetensors" else "pytorch_model.bin.index.json"
    files_of = shard(folder, save_file if kind == "safetensors" else torch.save, kind, index)
    for path in (folder, folder / index):
        model = network(1)
        loaded(path, model)
        assert same(model, A)
    for there, message in (
        ({**files_of, NAME: "../part-0.bin"}, "shard '../part-0.bin' must be the name of a file beside it"),
        ({**files_of, NAME: "/etc/passwd"}, "must be the name of a file beside it"),
        ({**files_of, NAME: "part-9.bin"}, "shard part-9.bin is not beside it; fetch all"),
        ({**files_of, "more": f"part-0.{kind}"}, "its shards lack more"),
        ({}, "is no index of shards"),
        ([], "is no index of shards"),
    ):
        (folder / index).write_text(json.dumps({"weight_map": there}))
        with pytest.raises(ValleysError, match=message):
            state_dicts.find(folder / index)


def test_folders_without_weights(tmp_path):
    with pytest.raises(ValleysError, match=r"is a folder without model\.safetensors .*give its file"):
        state_dicts.find(tmp_path)
    (tmp_path / "__0_0.distcp").touch()
    with pytest.raises(ValleysError, match="shards of FSDP or DeepSpeed: gather them"):
        state_dicts.find(tmp_path)


def whole(tmp_path):
    torch.save(A, tmp_path / "whole.pt")
    return (tmp_path / "whole.pt").read_bytes()


NOT_CHECKPOINTS = {
    "a web page": (lambda _: b"\n<!DOCTYPE html><html>404</html>", "it is a web page"),
    "an error of a bucket": (lambda _: b'<?xml version="1.0"?><Error/>', "it is a web page"),
    "Git LFS": (
        lambda _: b"version https://git-lfs.github.com/spec/v1\n",
        "pointer of Git LFS.*git lfs pull",
    ),
    "empty": (lambda _: b"", "it is empty"),
    "cut short": (lambda path: whole(path)[:-200], "zip archive cut short"),
    "cut to its head": (lambda path: whole(path)[:40], "zip archive cut short"),
    "Keras": (lambda _: b"\x89HDF\r\n\x1a\n" + bytes(99), "it is HDF5"),
    "JSON": (lambda _: b'{"error": "no"}', "it begins with"),
    "ONNX": (lambda _: b"\x08\x08\x12\x07pytorch" + bytes(99), "it begins with"),
    "gzip": (lambda _: b"\x1f\x8b" + bytes(99), "it is gzip"),
}


@pytest.mark.parametrize("case", NOT_CHECKPOINTS)
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_what_is_no_checkpoint_is_called_what_it_is(tmp_path, case, suffix):
    """And nobody is told to load it with code."""
    content, message = NOT_CHECKPOINTS[case]
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(content(tmp_path))
    with pytest.raises(ValleysError, match=message if suffix == "pt" else str(path)) as error:
        state_dicts.find(path)
    assert "weights_only" not in str(error.value)
    assert "\n" not in str(error.value)


def test_archives_of_other_kinds(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.ones(3))
    torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)).save(tmp_path / "script.pt")
    for name, message in (("x.npz", "npz file of numpy"), ("script.pt", "TorchScript, which is code")):
        with pytest.raises(ValleysError, match=message):
            state_dicts.find(tmp_path / name)


def test_the_content_tells_the_format_not_the_name(tmp_path):
    save_file(A, tmp_path / "x.pt")
    torch.save(A, tmp_path / "x.safetensors")
    for name in ("x.pt", "x.safetensors"):
        model = network(1)
        loaded(tmp_path / name, model)
        assert same(model, A)


def test_pipes_and_devices_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "x.pt")
    os.mkfifo(tmp_path / "x.safetensors")
    for path, what in (
        (tmp_path / "x.pt", "pipe"),
        (tmp_path / "x.safetensors", "pipe"),
        ("/dev/zero", "device"),
    ):
        with pytest.raises(ValleysError, match=f"{path} is a {what}"):
            state_dicts.find(path)


class Names:
    """Pickles as a call of whatever it is given."""

    def __init__(self, *what):
        self.what = what

    def __reduce__(self):
        return self.what


@pytest.mark.parametrize(
    "what", [(eval, ("1",)), (subprocess.Popen, (["true"],)), (np.load, ("x",)), (getattr, ("x", "upper"))]
)
def test_code_is_named_and_refused(tmp_path, what):
    torch.save({"state_dict": A, "x": Names(*what)}, tmp_path / "x.pt")
    name = f"{what[0].__module__}.{what[0].__name__}"
    with pytest.raises(ValleysError, match=rf"holds more than tensors \({name}\).*only if you trust where"):
        state_dicts.find(tmp_path / "x.pt")


def test_names_in_a_file_cannot_steer_the_terminal(tmp_path):
    torch.save({**A, "\x1b[31mred\x07": torch.ones(1), "a\nb\u202e": torch.ones(1)}, tmp_path / "x.pt")
    with pytest.raises(ValleysError) as error:
        loaded(tmp_path / "x.pt", network(1))
    assert r"beside the model's \x1b[31mred\x07, a\nb\u202e" in str(error.value)
    assert str(error.value).isprintable()


# In the workflow ------------------------------------------------------------------------------------

CONFIG = {
    "name": "own",
    "seeds": [0, 1],
    "datasets": {"digits": {"source": "digits", "train_size": 100, "max_test": 50}},
    "models": {"mlp": SPEC},
    "checkpoints": {
        "mine": {"solutions": {"sgd": "w/{seed}/last.pt", "swa": "w/{seed}/{model}.safetensors"}},
        "one": {"solutions": {"sgd": "w/one.pt"}, "bn": "refreshed"},
        # Names that code has for other things, and one with a dot.
        "named": {"solutions": {"last.1": "w/a.pt", "test": "w/b.pt", "append": "w/c.pt", "swa": "w/d.pt"}},
    },
    "grid": [{"dataset": "digits", "model": "mlp", "recipe": ["mine", "one", "named"]}],
    "probes": {
        "uniform": {"kind": "uniform", "n": 1, "points": 9},
        "frozen": {"kind": "uniform", "n": 1, "points": 9, "bn": "frozen"},
        "pca": {"kind": "pca", "n": 1, "points": 9},
        "to-swa": {"kind": "sgd_to_swa", "points": 9},
        "slope": {"kind": "gradient", "points": 9, "solutions": ["test"]},
        "signs": {"kind": "sign", "n": 1, "points": 9, "solutions": ["sgd", "last.1"]},
    },
    "lines": {
        "between": {"start": "sgd", "stop": "swa", "divisions": 4},
        "down": {"start": "swa", "stop": "descent"},
        "path": {"start": "sgd", "stop": "sgd", "stop_seed": "next", "path": "bezier"},
        "named": {"start": "last.1", "stop": "append", "divisions": 4, "first": 0, "last": 1},
        "across": {"start": "test", "stop": "sgd", "stop_recipe": "one", "divisions": 2},
    },
    "planes": {
        "iterates": {"pca": True},
        "three": {"through": ["test", "append", "swa"], "points": 3},
        "two": {"span": ["uniform/0", "slope/0"], "at": "test", "points": 3},
    },
    "toy_2d": {"n_draws": 5, "surface_points": 21},
    "theory": {"chains": 100, "burn_in": 10, "iterates": 10, "draws": 100, "rates": [0.1], "levels": [0.5]},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    for seed in CONFIG["seeds"]:
        (folder / f"w/{seed}").mkdir(parents=True)
        torch.save({"state_dict": network(seed).state_dict()}, folder / f"w/{seed}/last.pt")
        save_file(network(seed + 10).state_dict(), folder / f"w/{seed}/mlp.safetensors")
    torch.save(network(5).state_dict(), folder / "w/one.pt")
    for seed, name in enumerate("abcd"):
        torch.save(network(20 + seed).state_dict(), folder / f"w/{name}.pt")
    status, text = snakemake(folder, CONFIG, "--cores", "2")
    assert status == 0, text
    return folder


def test_given_weights_are_probed_and_nothing_is_trained(finished):
    found = {
        name: tables.read(finished / f"results/own/tables/{name}.parquet", name).to_pandas()
        for name in ("solutions", "directions", "interpolation", "training", "claims", "planes")
    }
    found = {
        name: table[table["recipe"] != "named"] if "recipe" in table else table
        for name, table in found.items()
    }
    about = found["solutions"].set_index(["recipe", "seed", "solution"])
    assert about["bn_policy"].to_dict() == {
        ("mine", 0, "sgd"): "stored",
        ("mine", 0, "swa"): "stored",
        ("mine", 1, "sgd"): "stored",
        ("mine", 1, "swa"): "stored",
        ("one", 0, "sgd"): "refreshed",
    }
    chosen = found["directions"].groupby(["recipe", "seed"])["probe"].unique().map(set).to_dict()
    drawn, both = {"uniform", "frozen", "signs"}, {"uniform", "frozen", "signs", "to-swa"}
    assert chosen == {("mine", 0): both, ("mine", 1): both, ("one", 0): drawn}
    assert set(found["interpolation"]["line"]) == {"between"}
    assert len(found["training"]) == len(found["planes"]) == 0
    assert not found["claims"]["claim"].str.startswith("swa_").any()  # there is no descent
    model, header = solutions.load(finished / "results/own/cells/digits/mlp/mine/seed-1/sgd.safetensors")
    assert same(model, network(1).state_dict())
    assert header["solution"] == "sgd"
    assert (finished / "results/own/report.html").exists()
    assert planned(finished, CONFIG) == {}


def test_solutions_may_have_any_name(finished):
    names = ("solutions", "asymmetry", "interpolation", "plane_points", "claims", "sensitivity", "shift")
    found = {
        name: tables.read(finished / f"results/own/tables/{name}.parquet", name).to_pandas() for name in names
    }
    here = {name: table[table["recipe"] == "named"] for name, table in found.items() if "recipe" in table}
    given = ["swa", "append", "last.1", "test"]  # the workflow's own first, then as the config file has them
    assert here["solutions"]["solution"].tolist() == given
    assert here["solutions"].set_index("solution")["distance_to_swa"].gt(0).to_dict() == {
        name: name != "swa" for name in given
    }
    model, header = solutions.load(finished / "results/own/cells/digits/mlp/named/seed-0/last.1.safetensors")
    assert same(model, network(20).state_dict())
    assert header["solution"] == "last.1"
    # Probes that list none of the names look at all of them; those that do at no other.
    looked = here["asymmetry"].groupby("probe")["solution"].unique().map(list).to_dict()
    assert looked == {"uniform": given, "frozen": given, "slope": ["test"], "signs": ["last.1"]}
    assert here["interpolation"].groupby("line")[["start", "stop"]].first().T.to_dict("list") == {
        "named": ["last.1", "append"],
        "across": ["test", "sgd"],
    }
    assert here["plane_points"].groupby("plane")["role"].unique().map(list).to_dict() == {
        "three": given,
        "two": given,
    }
    # What is claimed of SGD minima is judged of each, as of a recipe of its own.
    at = [f"named at {name}" for name in given if name != "swa"]
    scopes = set(found["claims"].loc[found["claims"]["claim"] == "directions_are_asymmetric", "scope"])
    assert scopes >= {f"digits/mlp/{name}/uniform" for name in (*at, "mine", "one")}
    assert not any(" at swa" in scope for scope in scopes)
    assert set(found["sensitivity"]["recipe"]) == {*at, "mine", "one"}
    assert "digits/mlp/named at last.1/all" in set(
        found["claims"].loc[found["claims"]["claim"] == "matching_signs_flattens", "scope"]
    )
    assert "named at append" in (finished / "results/own/report.html").read_text()


def test_another_file_at_the_path_is_imported_again(finished):
    path = finished / "w/one.pt"
    torch.save(network(6).state_dict(), path)
    rules = planned(finished, CONFIG)
    assert rules["import_solution"] == 1
    assert rules["probe"] == 3
    assert not {"train_sgd", "prepare_dataset", "average"} & set(rules)


def test_weights_of_another_model_fail_in_one_line(finished, tmp_path):
    torch.save(network(0, {**SPEC, "hidden": [17]}).state_dict(), finished / "w/wrong.pt")
    config = CONFIG | {
        "checkpoints": {"one": {"solutions": {"sgd": "w/wrong.pt"}}},
        "name": "wrong",
        "lines": {},
        "planes": {},
        "probes": {"uniform": CONFIG["probes"]["uniform"]},
    }
    config["grid"] = [{"dataset": "digits", "model": "mlp", "recipe": "one"}]
    target = "results/wrong/cells/digits/mlp/one/seed-0/sgd.safetensors"
    status, text = snakemake(finished, config, target, "--cores", "1")
    assert status != 0
    assert "checkpoint w/wrong.pt does not fit the model: it has " in text
    assert not (finished / target).exists()


PAIR = {
    **{key: CONFIG[key] for key in ("datasets", "models", "toy_2d", "theory")},
    "name": "pair",
    "seeds": [0],
    "checkpoints": {"both": {"solutions": {"a": "w/both.pt#state_dict", "b": "w/both.pt#swa_state_dict"}}},
    "grid": [{"dataset": "digits", "model": "mlp", "recipe": "both"}],
    "probes": {"uniform": CONFIG["probes"]["uniform"]},
    "lines": {"between": {"start": "a", "stop": "b", "divisions": 2}},
}
CELL = "results/pair/cells/digits/mlp/both/seed-0"


def test_a_config_chooses_one_of_several_sets(tmp_path):
    (tmp_path / "w").mkdir()
    torch.save({"state_dict": A, "swa_state_dict": B}, tmp_path / "w/both.pt")
    targets = [f"{CELL}/{name}.safetensors" for name in "ab"]
    status, text = snakemake(tmp_path, PAIR, *targets, "--cores", "1")
    assert status == 0, text
    for target, state in zip(targets, (A, B), strict=True):
        assert same(solutions.load(tmp_path / target)[0], state)
    log = (tmp_path / "results/pair/logs/digits/mlp/both/seed-0/import_solution-a.log").read_text()
    assert "of the file were read: weights under 'state_dict'; left aside: 'swa_state_dict'" in log
    assert planned(tmp_path, PAIR, *targets) == {}
    # The choice is among what a solution depends on.
    given = {"a": "w/both.pt", "b": "w/both.pt#swa_state_dict"}
    other = PAIR | {"checkpoints": {"both": {"solutions": given}}}
    assert planned(tmp_path, other, *targets)["import_solution"] == 1
    status, text = snakemake(tmp_path, other, *targets, "--cores", "1")
    assert status != 0
    assert "checkpoint w/both.pt has weights of the model in 2 places: 'state_dict', 'swa_state_dict'" in text


def test_a_line_between_equal_weights_is_refused(tmp_path):
    (tmp_path / "w").mkdir()
    torch.save({"state_dict": A, "swa_state_dict": dict(A)}, tmp_path / "w/both.pt")
    status, text = snakemake(tmp_path, PAIR, f"{CELL}/lines/between.parquet", "--cores", "1")
    assert status != 0
    assert "error in rule interpolate: a (t = 0) and b (t = 1) are the same weights" in text
    assert "Traceback" not in text
    assert not (tmp_path / CELL / "lines/between.parquet").exists()

"""Files of weights from elsewhere: formats, shards, code that is not run."""

import json
import os
import pickle
import subprocess

import numpy as np
import pytest
import torch
from checkpoint_makers import NAME, A, loaded, network, same
from safetensors.torch import save_file
from torch import nn
from valleys.errors import ValleysError
from valleys.models import checkpoints, state_dicts


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

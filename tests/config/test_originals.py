"""Files of the user's: which they are, and that a change of them is noticed."""

import json
import os

import pytest
import torch
from config_changes import BASE, experiment, given
from valleys.config import originals
from valleys.config.params import Params
from valleys.errors import ValleysError
from valleys.storage.weights import save_weights


def test_source_files_are_those_that_exist(tmp_path):
    for name in ("b.parquet", "a.parquet", "test.parquet"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.parquet").mkdir()
    spec = {
        "source": "parquet",
        "train": [f"{tmp_path}/[abf]*.parquet", f"{tmp_path}/none"],
        "test": f"{tmp_path}/test.parquet",
    }
    found = experiment(("datasets.own", spec), ("datasets.digits", BASE["datasets"]["digits"]))
    assert originals.source_files(found, "own") == [f"{tmp_path}/{n}.parquet" for n in ("a", "b", "test")]
    assert originals.source_files(found, "digits") == []


def test_a_choice_in_a_file_is_no_part_of_its_path():
    found = given(["mine", "other"], ("checkpoints.theirs.solutions.mine", "run-{seed}.pt#model.ema{seed}"))
    cell = found.cells[0]
    assert originals.checkpoint(found, cell, "mine") == "run-0.pt"
    assert originals.choice(found, cell, "mine") == {"choice": "#model.ema0"}
    assert originals.checkpoint(found, cell, "other") == "other-0.pt"
    assert originals.choice(found, cell, "other") == {}  # as before there was a choice
    assert originals.shards(found, cell, "mine") == []


def test_shards_are_found_and_checked(tmp_path):
    (tmp_path / "a.bin").touch()
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text('{"weight_map": {"x": "a.bin", "y": "a.bin"}}')
    found = given(["mine"], ("checkpoints.theirs.solutions.mine", str(tmp_path)))
    assert originals.checkpoint(found, found.cells[0], "mine") == str(index)
    assert originals.shards(found, found.cells[0], "mine") == [str(tmp_path / "a.bin")]
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(ValleysError, match=r"solutions\.mine: checkpoint .*pipe\.pt is a pipe"):
        given(["mine"], ("checkpoints.theirs.solutions.mine", str(tmp_path / "pipe.pt")))
    index.write_text('{"weight_map": {"x": "../a.bin"}}')
    with pytest.raises(ValleysError, match=r"config: checkpoints\.theirs\.solutions\.mine: .*shard '\.\./"):
        given(["mine"], ("checkpoints.theirs.solutions.mine", str(tmp_path)))


def with_files(source, **paths):
    more = {"size": 8} if source == "image_folder" else {}
    return experiment(("datasets.own", {"source": source, **paths, **more}))


def test_a_path_in_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a.npz", "b.npz", "w.pt"):
        (tmp_path / name).write_bytes(b"")
    found = with_files("numpy", train="~/a.npz", test="~/b.npz")
    assert originals.source_files(found, "own") == [f"{tmp_path}/a.npz", f"{tmp_path}/b.npz"]
    assert (
        Params(found).prepare_dataset("own")["source"]["train"] == "~/a.npz"
    )  # as it was in results there are
    weights = given(["mine"], ("checkpoints.theirs.solutions.mine", "~/w.pt"))
    assert originals.checkpoint(weights, weights.cells[0], "mine") == f"{tmp_path}/w.pt"
    odd = with_files("numpy", train="~nobody-of-that-name/a.npz", test="./~/b.npz")
    assert originals.source_files(odd, "own") == []


def test_a_path_with_the_characters_of_a_pattern_is_itself(tmp_path):
    folder = tmp_path / "set [1] *?"
    folder.mkdir()
    for name in ("a.npz", "b.npz"):
        (folder / name).write_bytes(b"")
    found = with_files("numpy", train=f"{folder}/a.npz", test=f"{folder}/b.npz")
    assert originals.source_files(found, "own") == [f"{folder}/a.npz", f"{folder}/b.npz"]


def test_a_pattern_reaches_into_folders_as_the_reader_does(tmp_path):
    (tmp_path / "x" / "y").mkdir(parents=True)
    for name in ("a.parquet", "x/b.parquet", "x/y/c.parquet"):
        (tmp_path / name).write_bytes(b"")
    found = with_files("parquet", train=f"{tmp_path}/**/*.parquet", test=f"{tmp_path}/a.parquet")
    assert len(originals.source_files(found, "own")) == 4


def test_a_changed_image_of_a_folder_is_noticed(tmp_path):
    (tmp_path / "away").mkdir()
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(3):
                (tmp_path / part / name / f"{i}.png").write_bytes(b"image")

    def params():
        return Params(
            with_files("image_folder", train=f"{tmp_path}/train", test=f"{tmp_path}/test")
        ).prepare_dataset("own")

    first, cat = params(), tmp_path / "train" / "cat"
    assert len(first["originals"]) == 2
    assert params() == first
    (cat / ".DS_Store").write_bytes(b"x")
    (cat / "notes.txt").write_bytes(b"x")
    assert params() == first  # what is no image of it
    seen = [first]
    for change in (
        lambda: (cat / "3.png").write_bytes(b"image"),  # added
        lambda: (cat / "3.png").rename(cat / "4.png"),
        lambda: (cat / "4.png").rename(cat / "5.PNG"),
        lambda: (cat / "5.PNG").unlink(),  # back to the first
        lambda: (cat / "0.png").write_bytes(b"another"),
        lambda: os.utime(cat / "1.png", ns=(1, 1)),  # replaced by one of that size, with its time kept
        lambda: (tmp_path / "train" / "emu").mkdir(),
        lambda: (tmp_path / "train" / "ant").symlink_to(tmp_path / "away"),
        lambda: (tmp_path / "away" / "0.jpeg").write_bytes(b"image"),  # behind a link
    ):
        change()
        seen.append(params())
    back = 4
    assert seen[back] == first
    assert len({json.dumps(one) for one in seen}) == len(seen) - 1
    (tmp_path / "away" / "loop").symlink_to(tmp_path / "train")  # ends
    assert params() != seen[-1]


def replace_by_older(path):
    """Put another file in its place, as `mv` does one that was made long before."""
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(1, path.stat().st_mtime_ns - 10**15))


def test_an_original_that_an_older_file_replaces_is_noticed(tmp_path):
    for name in ("a.npz", "b.npz"):
        (tmp_path / name).write_bytes(name.encode())

    def params():
        found = with_files("numpy", train=f"{tmp_path}/a.npz", test=f"{tmp_path}/b.npz")
        return Params(found).prepare_dataset("own")

    first = params()
    assert params() == first
    replace_by_older(tmp_path / "b.npz")
    second = params()
    assert second != first
    (tmp_path / "a.npz").rename(tmp_path / "c.npz")
    (tmp_path / "a.npz").symlink_to("c.npz")
    assert params() == second
    (tmp_path / "a.npz").unlink()
    (tmp_path / "a.npz").symlink_to("b.npz")
    assert params() != second


def test_weights_that_an_older_file_replaces_are_noticed_and_read_ones_may_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = given(["mine"])
    cell = found.cells[0]
    weights = tmp_path / originals.checkpoint(found, cell, "mine")
    assert originals.digest(found, cell, "mine") == {}
    weights.write_bytes(b"weights")
    first = originals.digest(found, cell, "mine")
    replace_by_older(weights)
    second = originals.digest(found, cell, "mine")
    assert len({json.dumps(first), json.dumps(second), "{}"}) == 3
    made = f"{found.root}/cells/{cell.path}/mine.safetensors"
    save_weights(made, {"w": torch.zeros(2)}, second)
    weights.unlink()
    assert originals.digest(found, cell, "mine") == second


def test_each_shard_of_weights_counts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "w.safetensors.index.json").write_text(json.dumps(index))
    for name in ("one", "two"):
        (tmp_path / f"{name}.safetensors").write_bytes(name.encode())
    found = given(["mine"], ("checkpoints.theirs.solutions.mine", "w.safetensors.index.json"))
    before = originals.digest(found, found.cells[0], "mine")
    replace_by_older(tmp_path / "two.safetensors")
    assert originals.digest(found, found.cells[0], "mine") != before


def test_a_folder_that_a_callable_reads_counts_whole(tmp_path, monkeypatch):
    (tmp_path / "given_data.py").write_text("def read(): ...\n")
    (tmp_path / "raw").mkdir()
    monkeypatch.chdir(tmp_path)
    spec = ("datasets.own", {"source": "callable", "factory": "given_data:read", "files": ["raw"]})
    before = Params(experiment(spec)).prepare_dataset("own")
    (tmp_path / "raw" / "any.bin").write_bytes(b"1")
    assert Params(experiment(spec)).prepare_dataset("own") != before
    assert "originals" not in Params(experiment()).prepare_dataset("digits")

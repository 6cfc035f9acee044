"""Whether originals are there, by their names; torchvision's own lists say which."""

from pathlib import Path

import pytest
from valleys.data.options import DATASET_OPTIONS, validate_dataset
from valleys.data.presence import IN_ROOT, absent, lacking

FETCH = "make data CONFIG=c.yaml"


def told(spec, **more):
    return absent("mine", validate_dataset("mine", spec), FETCH, **more)


def fill(root, source):
    for name in IN_ROOT[source]:
        path = Path(root) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_the_names_are_those_that_torchvision_looks_for():
    from valleys.torchvision_compat import import_torchvision

    datasets = import_torchvision("datasets")
    assert set(IN_ROOT) == {name for name, source in DATASET_OPTIONS.items() if source.upstream}
    for name in ("cifar10", "cifar100", "stl10"):
        kind = getattr(datasets, DATASET_OPTIONS[name].upstream)
        listed = {f"{kind.base_folder}/{row[0]}" for row in (*kind.train_list, *kind.test_list)}
        listed |= {f"{kind.base_folder}/{kind.meta['filename']}"} if hasattr(kind, "meta") else set()
        assert set(IN_ROOT[name]) == listed, name
    assert set(IN_ROOT["svhn"]) == {datasets.SVHN.split_list[part][1] for part in ("train", "test")}
    raw = {Path(url).stem for url, _ in datasets.FashionMNIST.resources}
    assert set(IN_ROOT["fashion_mnist"]) == {f"FashionMNIST/raw/{name}" for name in raw}


@pytest.mark.parametrize("source", IN_ROOT)
def test_a_torchvision_set_is_told_by_its_root_and_the_first_file_that_is_absent(tmp_path, source):
    spec = {"source": source, "root": str(tmp_path)}
    (line,) = told(spec)
    first = IN_ROOT[source][0]
    assert line.startswith(f"config: datasets.mine.root: {tmp_path}: there is no {first}; {FETCH} fetches it")
    assert told({**spec, "download": True}) == []  # the job fetches it
    fill(tmp_path, source)
    assert told(spec) == []
    last = IN_ROOT[source][-1]
    (tmp_path / last).unlink()
    assert lacking(validate_dataset("mine", spec)) == [last]
    assert last in told(spec)[0]


def test_where_a_relative_path_is_seen_from_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (line,) = told({"source": "svhn", "root": "data"})
    assert f"root: data: there is no train_32x32.mat (seen from {tmp_path}); " in line


@pytest.mark.parametrize(
    ("spec", "keys"),
    [
        (
            {"source": "parquet", "train": ["a-*.parquet", "b.parquet"], "test": "c.parquet"},
            ["train", "test"],
        ),
        ({"source": "image_folder", "train": "a", "test": "b", "size": 8}, ["train", "test"]),
        ({"source": "numpy", "train": "a.npz", "test": "b.npz"}, ["train", "test"]),
        (
            {"source": "table", "task": "regression", "train": "a.csv", "labels": "y", "train_size": 5},
            ["train"],
        ),
    ],
)
def test_files_are_told_by_their_key_and_path(tmp_path, monkeypatch, spec, keys):
    monkeypatch.chdir(tmp_path)
    paths = [
        (key, path) for key in keys for path in ([spec[key]] if isinstance(spec[key], str) else spec[key])
    ]
    lines = told(spec)
    assert len(lines) == len(paths)
    for line, (key, path) in zip(lines, paths, strict=True):
        assert line.startswith(f"config: datasets.mine.{key}: {path}: there is no such file or folder (seen")
        assert "; it must be a " in line
        assert "\n" not in line
    assert told(spec, is_made=lambda path: True) == []
    for _, path in paths:
        Path(path.replace("*", "0")).touch()
    assert told(spec) == []


def test_what_packages_bring_and_what_a_callable_reads_is_not_looked_for():
    assert told({"source": "digits"}) == told({"source": "mnist5k"}) == []
    assert told({"source": "callable", "factory": "mine_of_presence:load", "files": ["none.txt"]}) == []

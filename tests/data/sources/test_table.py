"""CSV and Parquet files of numbers: what is read, and what is wrong with them."""

import numpy as np
import pandas as pd
import pytest
import torch
from source_images import fails
from valleys.data import counts
from valleys.data.options import validate_dataset
from valleys.data.sources.load import load_source
from valleys.errors import ValleysError

FRAME = pd.DataFrame({"a": [0.5, 1.0, -2.0, 4.0], "b": [1, 2, 3, 4], "y": [0.0, 1.0, 2.5, -1.0]})


def table(folder, frame=FRAME, name="train.csv", **options):
    path = folder / name
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    spec = {"source": "table", "task": "regression", "train": str(path), "labels": "y", **options}
    return spec if {"test", "train_size"} & set(options) else spec | {"test": str(path)}


@pytest.mark.parametrize("name", ["train.csv", "train.parquet", "numbers"])
def test_columns_of_numbers(tmp_path, name):
    train, test = load_source(table(tmp_path, name=name) if name != "numbers" else table(tmp_path))
    assert torch.equal(train.images, torch.tensor(FRAME[["a", "b"]].to_numpy(), dtype=torch.float32))
    assert torch.equal(train.labels, torch.tensor(FRAME[["y"]].to_numpy(), dtype=torch.float32))
    assert (train.in_shape, train.classes, train.task, len(test)) == ((2,), 1, "regression", 4)
    seen = train.floats(slice(None))
    assert torch.allclose(seen.mean(0), torch.zeros(2), atol=1e-6)
    assert torch.allclose(seen.std(0, unbiased=False), torch.ones(2), atol=1e-6)


def test_columns_that_are_named_and_labels_of_several(tmp_path):
    train, _ = load_source(table(tmp_path, inputs="b", labels=["a", "y"]))
    assert train.images.flatten().tolist() == [1, 2, 3, 4]
    assert (train.classes, train.labels[2].tolist()) == (2, [-2.0, 2.5])


def test_rows_cut_off_at_random_are_all_there_once(tmp_path):
    train, test = load_source(table(tmp_path, train_size=3))
    assert (len(train), len(test)) == (3, 1)
    assert sorted([*train.images[:, 1].tolist(), *test.images[:, 1].tolist()]) == [1, 2, 3, 4]
    other = load_source(table(tmp_path, train_size=3, split_seed=1))[1]
    another = load_source(table(tmp_path, train_size=3, split_seed=2))[1]
    assert len({x.images[0, 1].item() for x in (test, other, another)}) > 1
    by_seed = [load_source(table(tmp_path, train_size=3, split="by_seed"), seed=seed)[1] for seed in range(8)]
    assert len({x.images[0, 1].item() for x in by_seed}) > 1


def test_classes_and_tokens(tmp_path):
    frame = FRAME.assign(y=[0, 1, 2, 1])
    train, _ = load_source(table(tmp_path, frame) | {"task": None})
    assert (train.task, train.labels.tolist(), train.classes) == ("classification", [0, 1, 2, 1], 3)
    tokens = pd.DataFrame({"ids": [[0, 3, 1], [2, 2, 4]]})
    spec = table(tmp_path, tokens, "ids.parquet", labels=None) | {"task": "tokens"}
    train, _ = load_source(spec)
    assert train.images.tolist() == train.labels.tolist() == [[0, 3, 1], [2, 2, 4]]
    assert (train.classes, train.mean, train.images.dtype) == (5, (), torch.int64)


@pytest.mark.parametrize(
    ("frame", "options", "words"),
    [
        (FRAME, {"labels": "z"}, ["no column 'z'", "it has: a, b, y"]),
        (FRAME, {"inputs": ["a", "y"]}, ["'y' is named as input and as label"]),
        (FRAME[["y"]], {}, ["no columns besides the labels"]),
        (FRAME.assign(a=["x", "1", "2", "3"]), {}, ["row 0: column 'a' is 'x'", "numbers"]),
        (FRAME.assign(a=[1.0, None, 2.0, 3.0]), {}, ["row 1: column 'a' is empty"]),
        (FRAME.assign(a=[1.0, np.inf, 2.0, 3.0]), {}, ["row 1: the input is inf", "finite"]),
        (FRAME, {"train_size": 4}, ["train_size is 4", "has 4 rows; it must be below that"]),
        (FRAME, {"task": None}, ["labels are float64", "task classification must be integers"]),
        (FRAME[:0], {}, ["no rows"]),
        (FRAME, {"classes": 2}, ["has 1 numbers, but classes is 2"]),
        (FRAME, {"mean": [0.0]}, ["mean is [0.0]; it must be 2 numbers"]),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, frame, options, words):
    fails(table(tmp_path, frame, **options), *words)


def test_lists_of_other_lengths_and_files_that_are_none(tmp_path):
    frame = pd.DataFrame({"x": [[1, 2], [1]], "y": [0.0, 1.0]})
    fails(table(tmp_path, frame, "x.parquet"), "column 'x'", "all as long")
    path = tmp_path / "broken.parquet"
    path.write_bytes(b"PAR1" + b"x" * 30)
    fails({**table(tmp_path), "train": str(path)}, str(path), "cannot be read as a Parquet file")
    fails({**table(tmp_path), "train": str(tmp_path / "none.csv")}, "none.csv", "the train file")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"test": None}, "test and train_size are neither given"),
        ({"train_size": 3}, "test and train_size are both given"),
        ({"labels": None}, "mine.labels: missing; name the column that has the labels of this regression"),
        ({"task": "regresion"}, "did you mean 'regression'"),
        ({"label_noise": 0.1}, "label_noise: 0.1 of a regression"),
        ({"task": "tokens", "mean": [0.1]}, "tokens are not normalised"),
        ({"source": "digits"}, "unknown key"),
    ],
)
def test_what_can_be_known_before_the_file_is_read(change, words):
    spec = {"source": "table", "task": "regression", "train": "a.csv", "test": "b.csv", "labels": "y"}
    with pytest.raises(ValleysError, match=words):
        validate_dataset("mine", spec | change)


def test_images_with_a_class_each_are_no_regression():
    with pytest.raises(ValleysError, match="task: 'regression', but the source 'digits' has images"):
        validate_dataset("mine", {"source": "digits", "task": "regression"})
    assert "task" not in validate_dataset("mine", {"source": "digits", "task": "classification"})


@pytest.mark.parametrize("name", ["train.csv", "train.parquet"])
def test_rows_are_counted_before_they_are_read(tmp_path, name):
    spec = validate_dataset("mine", table(tmp_path, name=name))
    found = counts.count(spec)
    assert (found.train, found.test, found.shape, found.exact, found.itemsize) == (4, 4, (2,), True, 4)
    found = counts.count(validate_dataset("mine", table(tmp_path, name=name, train_size=3, inputs="a")))
    assert (found.train, found.test, found.shape) == (3, 1, (1,))

"""What a data set's entry may say: defaults, and one line for each mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from valleys.data.options import COMMON_OPTIONS, DATASET_OPTIONS, validate_dataset
from valleys.errors import ValleysError

SCRIPTS = Path(__file__).resolve().parents[2] / "workflow" / "scripts"


def test_options_need_no_torch():
    code = (
        "import sys, valleys.data.options as d; d.validate_dataset('digits', {}); "
        "print(sorted({'torch', 'numpy', 'sklearn', 'pandas', 'PIL', 'pyarrow'} & set(sys.modules)))"
    )
    env = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_defaults_are_filled_in():
    filled = validate_dataset("digits", {})
    assert filled == {
        "source": "digits",
        "train_size": 800,
        "split_seed": 0,
        "split": "fixed",
        "label_noise": 0.0,
        "max_train": None,
        "max_test": None,
        "subset_seed": 0,
        "classes": None,
    }
    for name, spec in (
        ("digits", {"max_train": 5}),
        ("x", {"source": "cifar10", "root": "r"}),
        ("x", {"source": "parquet", "train": ("a", "b"), "test": "c", "size": None}),
        ("x", {"source": "image_folder", "train": "a", "test": "b", "size": 8}),
    ):
        filled = validate_dataset(name, spec)
        options = {*COMMON_OPTIONS, *DATASET_OPTIONS[filled["source"]].options}
        # These are there when they are given: they came later, and prepared data should not be remade.
        assert set(filled) == {"source", *options} - {"mean", "std", "task", "upright"}
        assert validate_dataset(name, filled) == filled
        json.dumps(filled)
        if "upright" in options:
            assert validate_dataset(name, {**spec, "upright": False}) == filled
            assert validate_dataset(name, {**spec, "upright": True})["upright"] is True
    assert validate_dataset("x", {"source": "parquet", "train": ("a", "b"), "test": "c"})["train"] == [
        "a",
        "b",
    ]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("digits", ["mapping"]),
        ({}, ["missing source", "cifar10"]),
        ({"source": "cifar"}, ["'cifar'", "did you mean 'cifar10'"]),
        ({"source": "digits", "split": "by_sed"}, ["mine.split: 'by_sed'", "did you mean 'by_seed'"]),
        ({"source": "digits", "label_noise": 1}, ["label_noise: 1;", "at least 0 and below 1"]),
        ({"source": "digits", "label_noise": -0.1}, ["label_noise: -0.1;", "at least 0"]),
        ({"source": "digits", "label_noise": 6e-4}, ["label_noise: 0.0006 of 800", "above 0.000625, or 0"]),
        (
            {"source": "digits", "label_noise": 0.04, "max_train": 10},
            ["label_noise: 0.04 of 10 train labels makes none wrong; it must be above 0.05"],
        ),
        ({"source": 3}, ["source: 3"]),
        ({"source": "cifar10"}, ["missing root", "cifar10", "folder that holds"]),
        ({"source": "numpy", "train": "a"}, ["missing test"]),
        ({"source": "image_folder", "train": "a", "test": "b"}, ["missing size"]),
        ({"source": "digits", "max_trian": 3}, ["'max_trian'", "did you mean 'max_train'"]),
        ({"source": "digits", "root": "r"}, ["unknown key 'root'", "train_size"]),
        ({"source": "digits", "train_size": 1797}, ["train_size: 1797", "at most 1796", "default is 800"]),
        ({"source": "digits", "train_size": 800.0}, ["train_size: 800.0", "whole number"]),
        ({"source": "digits", "train_size": True}, ["whole number"]),
        ({"source": "digits", "max_train": 0}, ["max_train: 0", "at least 1"]),
        ({"source": "digits", "classes": 1}, ["classes: 1", "at least 2"]),
        ({"source": "cifar10", "root": "r", "download": "no"}, ["download: 'no'", "true or false", "false"]),
        ({"source": "cifar10", "root": ""}, ["root: ''", "a path"]),
        ({"source": "parquet", "train": [], "test": "b"}, ["train: []"]),
        ({"source": "parquet", "train": ["a", 3], "test": "b"}, ["one or more paths"]),
    ],
)
def test_bad_options(spec, words):
    with pytest.raises(ValleysError) as caught:
        validate_dataset("mine", spec)
    message = str(caught.value)
    assert message.startswith("datasets.mine")
    assert "\n" not in message
    for word in words:
        assert word in message, message

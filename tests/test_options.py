"""One option: what it takes, in Python as in the JSON schema that editors read."""

import json
import math

import pytest
from jsonschema import Draft202012Validator
from valleys.data.options import COMMON_OPTIONS, DATASET_OPTIONS
from valleys.errors import ValleysError, did_you_mean
from valleys.models.options import LOSSES, OPTIONS
from valleys.options import Option, check_name, check_options

EACH = {
    **{f"model.{key}": option for key, option in OPTIONS.items()},
    **{f"dataset.{key}": option for key, option in COMMON_OPTIONS.items()},
    **{f"{name}.{key}": o for name, source in DATASET_OPTIONS.items() for key, o in source.options.items()},
    **{f"loss.{key}": o for known in LOSSES.values() for key, o in known.items()},
    "above and below": Option("number", "a share", above=0, below=1),
}
VALUES = [
    *(
        True,
        False,
        "",
        "x",
        "batch",
        "a:b",
        [],
        ["a"],
        ["a", ""],
        ["a", 3],
        [0.5],
        [True],
        [0],
        [3, 4],
        {},
        {"a": 1},
    ),
    *(-(10**12), -1, 0, 1, 2, 1796, 1797, 4096, 4097, 10**12, -0.5, 1e-7, 0.5, 0.999),
]


@pytest.mark.parametrize("name", EACH)
def test_an_editor_takes_what_the_check_takes(name):
    option = EACH[name]
    validator = Draft202012Validator(option.schema())
    for value in VALUES:
        if option.kind in ("factory", "kwargs"):  # checked by factories.check
            continue
        assert validator.is_valid(value) == option.accepts(value), value
    nullable = Draft202012Validator(option.schema(or_null=True))
    assert nullable.is_valid(None) != option.required
    assert not option.accepts(None) or option.kind in ("factory", "kwargs")


def test_numbers_are_numbers():
    share = Option("number", "a share", minimum=0, below=1)
    assert [share.accepts(value) for value in (0, 0.5, 1, 1.0, math.nan, math.inf, True, "0")] == [
        True, True, False, False, False, False, False, False
    ]  # fmt: skip
    assert not Option("int", "a count").accepts(3.0)
    assert Option("int", "x", minimum=1, maximum=10**7).wanted() == (
        "a whole number at least 1 and at most 10000000"
    )
    assert Option("numbers", "x", minimum=1e-6).wanted() == "a list of numbers, each at least 1e-06"


def test_what_is_filled_in_is_a_copy_in_the_order_of_the_table():
    table = {"hidden": Option("ints", "units", default=[8]), "share": Option("number", "share", default=0.5)}
    filled = check_options("m", {"share": 1}, table, "it")
    assert json.dumps(filled) == '{"hidden": [8], "share": 1.0}'
    filled["hidden"].append(3)
    assert table["hidden"].default == [8]


def test_null_is_the_default_only_where_it_may_be():
    table = {"n": Option("int", "a count", default=3), "root": Option("path", "a folder", required=True)}
    assert check_options("d", {"n": None, "root": "r"}, table, "it", or_null=True) == {"n": 3, "root": "r"}
    with pytest.raises(
        ValleysError, match=r"^d.n: None; it must be a whole number \(a count\); the default is 3$"
    ):
        check_options("d", {"n": None, "root": "r"}, table, "it")
    with pytest.raises(ValleysError, match=r"^d: missing root, which it needs: a path \(a folder\)$"):
        check_options("d", {"root": None}, table, "it", or_null=True)


def test_the_nearest_word_is_offered():
    assert did_you_mean("ReLU", ("relu", "tanh")) == ", did you mean 'relu'?"
    assert did_you_mean("widht", {"Width": 1}) == ", did you mean 'Width'?"
    assert did_you_mean(7, ("relu", "tanh")) == did_you_mean("relu", ()) == ""
    with pytest.raises(ValleysError, match=r"^d.source: \['a'\] is not known.*; it must be one of: a, b$"):
        check_name("d", ["a"], {"a": 1, "b": 2}, "source")

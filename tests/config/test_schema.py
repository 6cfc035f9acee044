"""A config by its schema: mistakes of single keys, defaults, keys that are there twice."""

import re
import subprocess
import sys

import pytest
import yaml
from config_changes import BASE, experiment
from conftest import ROOT
from valleys.config.schema import check, check_files, input_path, read_yaml
from valleys.errors import ValleysError
from valleys.landscape.kinds import KINDS


def test_defaults_are_filled_in(experiment_config):
    recipe = experiment_config["recipes"]["quick"]
    assert (recipe["momentum"], recipe["weight_decay"], recipe["nesterov"]) == (0.9, 5e-4, False)
    assert recipe["loss"] == {"name": "cross_entropy", "smoothing": 0.1, "gamma": 2}
    assert recipe["swa"] == {"start": 3, "lr": 0.05, "every": 1, "window": None}
    assert experiment_config["asymmetry"] == {
        "c": 2,
        "zeta_max": 0.5,
        "minimum_within": 0.25,
        "min_span": 0.25,
        "noise": 1e-6,
    }
    assert experiment_config["probes"]["uniform"]["solutions"] == ["sgd", "swa"]
    assert experiment_config["bn_refresh"] == {"method": "exact", "batch_size": 250}


def test_reading_the_config_imports_no_torch():
    code = "import sys, valleys.config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT / "workflow/scripts")


def test_paths_below_a_folder_with_braces_are_made_relative(tmp_path, monkeypatch):
    folder = tmp_path / "a{seed}b"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert input_path(str(folder / "x" / "a.npz")) == "x/a.npz"
    assert input_path(str(tmp_path / "a.npz")) == str(tmp_path / "a.npz")
    assert input_path("{x.npz") == "{x.npz"
    for path in (str(folder / "{x}.npz"), str(tmp_path / "{y}" / "a.npz")):
        with pytest.raises(ValleysError, match="in a path for a wildcard"):
            input_path(path)


def test_blocks_that_hold_themselves_are_refused():
    loop = {}
    loop["a"] = [loop]
    with pytest.raises(ValleysError, match="more than 50 deep"):
        check(BASE | {"models": {"m": {"factory": "a:b", "kwargs": loop}}})


def test_names_are_as_long_as_files_may_be_called():
    experiment(("probes", {"q" * 150: {"kind": "uniform"}}))
    with pytest.raises(ValleysError, match=r"config: probes: 'q+' is too long"):
        experiment(("probes", {"q" * 151: {"kind": "uniform"}}))


TWICE = {
    "a: 1\nb: 2\na: 3": (3, "a is there twice, first in line 1"),
    "x:\n  lr: 1\n  y: {lr: 2, lr: 3}": (3, "x.y.lr is there twice, first in line 3"),
    "x:\n- {p: 1}\n- q: 1\n  'q': 2": (4, "x.1.q is there twice, first in line 3"),
    "yes: 1\ntrue: 2": (2, "true is there twice"),
    "1: a\n0x1: b": (2, "0x1 is there twice"),
    '{"a": 1, "b": {"c": 1,\n"c": 2}}': (2, "b.c is there twice"),
    "base: &b {lr: 1, lr: 2}\nmore: *b": (1, "base.lr is there twice"),
    "b: &b {lr: 1}\nc: &c {lr: 2}\nm:\n  <<: *b\n  <<: *c": (5, "m.<< is there twice"),
}


@pytest.mark.parametrize("text", TWICE)
def test_a_key_that_is_there_twice_is_refused_with_its_line(text, tmp_path):
    line, words = TWICE[text]
    with pytest.raises(ValleysError, match=f"^c.yaml, line {line}: {re.escape(words)}.* drop one"):
        read_yaml(text, "c.yaml")
    (tmp_path / "c").write_text(text)
    with pytest.raises(ValleysError, match=f"^config file .*c, line {line}: "):
        check_files([tmp_path / "c"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "base: &b {lr: 1, n: 2}\nmore: {<<: *b, lr: 3}",  # a merge, and what it brings set anew
        "a: &a {x: 1}\nb: &b {x: 2}\nc: {<<: [*a, *b]}",
        "a: {lr: 1}\nb: {lr: 2}",
        '1: a\n"1": b\n1.5: c',
        "a: [b, b]",
        "loop: &l\n  again: *l",
        "d: 2020-01-01\ne: 1e-3\nf: .nan",
    ],
)
def test_other_yaml_is_read_as_ever(text, tmp_path):
    assert repr(read_yaml(text, "c.yaml")) == repr(yaml.safe_load(text))
    (tmp_path / "c").write_text(text)
    check_files([tmp_path / "c"])


def test_json_with_tabs_is_looked_at_too(tmp_path):
    (tmp_path / "c.json").write_text('{\n\t"a": 1,\n\t"a": 2\n}')
    with pytest.raises(ValleysError, match=r"c\.json, line 3: a is there twice"):
        check_files([tmp_path / "c.json"])


def test_how_many_directions_a_probe_has_goes_by_its_kind():
    probes = {kind: {"kind": kind} for kind in KINDS if not KINDS[kind].seeds and kind != "pca"}
    found = experiment(("probes", probes)).config["probes"]
    assert {kind for kind in probes if found[kind]["n"] != 10} == {"searched"}
    assert found["searched"]["n"] == 1
    assert "search" not in found["searched"]
    assert experiment(("probes.new", {"kind": "searched", "n": 4})).config["probes"]["new"]["n"] == 4


def test_a_kind_that_is_none_is_told_by_name_with_defaults_filled_in_or_not():
    with pytest.raises(ValleysError, match="unknown kind 'serched', did you mean 'searched'"):
        experiment(("probes.new", {"kind": "serched"}))

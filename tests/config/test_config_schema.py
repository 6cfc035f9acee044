"""The config's schema: an editor can use it, it is read once, and its defaults are those there have been."""

import copy
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, fill_defaults, load_config
from jsonschema import Draft202012Validator
from valleys.cli.commands import options_schema
from valleys.config import schema
from valleys.config.experiment import Experiment
from valleys.config.schema import SCHEMA_FILE, check, with_defaults
from valleys.errors import ValleysError, number_hint
from valleys.landscape.kinds import KINDS, SEARCH, SEEKS, Kind
from valleys.models.options import LOSSES

OPTIONS_FILE = SCHEMA_FILE.with_name("options.schema.yaml")
SHIPPED = ["config.yaml", *(f"config/{path.name}" for path in sorted((ROOT / "config").glob("*.yaml")))]
SHIPPED += [f"examples/{path.name}" for path in sorted((ROOT / "examples").glob("*.yaml"))]
MARK = "# yaml-language-server: $schema="


def keys(node, defs, at="", known=False):
    """Yield the place and schema of each key that a schema declares."""
    if isinstance(node, list):
        for i, item in enumerate(node):
            yield from keys(item, defs, f"{at}.{i}")
    elif isinstance(node, dict):
        for word, value in node.items():
            if word == "properties":
                for key, one in value.items():
                    if one and "const" not in one:  # else a condition on a key that is declared above it
                        yield f"{at}.{key}", one
                    yield from keys(one, defs, f"{at}.{key}")
            elif word not in ("default", "examples"):
                yield from keys(value, defs, f"{at}.{word}")


def described(one, defs):
    """Whether a key, or what it refers to, has a description."""
    while one is not None:
        if one.get("description"):
            return True
        one = defs.get(one.get("$ref", "").rpartition("/")[2])
    return False


@pytest.mark.parametrize("path", [SCHEMA_FILE, OPTIONS_FILE], ids=lambda path: path.name)
def test_every_key_has_a_description(path):
    read = yaml.safe_load(path.read_text())
    found = list(keys(read, read["$defs"]))
    assert len(found) > 100
    assert not [at for at, one in found if not described(one, read["$defs"])]


@pytest.mark.parametrize("path", [SCHEMA_FILE, OPTIONS_FILE], ids=lambda path: path.name)
def test_each_is_a_sound_schema_and_its_examples_and_defaults_fit(path):
    read = yaml.safe_load(path.read_text())
    Draft202012Validator.check_schema(read)
    for at, one in keys(read, read["$defs"]):
        validator = Draft202012Validator({**one, "$defs": read["$defs"]}, registry=schema._REGISTRY)
        for value in one.get("examples", []):
            assert validator.is_valid(value), (at, value)
        if one.get("default") is not None and one["default"] != {}:
            assert validator.is_valid(one["default"]), at


def test_what_editors_know_of_options_is_current():
    assert OPTIONS_FILE.read_text() == options_schema(), (
        "python -m valleys options --schema > workflow/schemas/options.schema.yaml"
    )


@pytest.mark.parametrize("name", SHIPPED)
def test_an_editor_finds_the_schema_of_a_shipped_config(name):
    first = (ROOT / name).read_text().partition("\n")[0]
    assert first.startswith(MARK)
    assert ((ROOT / name).parent / first.removeprefix(MARK)).resolve() == SCHEMA_FILE.resolve()


@functools.cache
def editor():
    """A validator that resolves the schemas as an editor does: by their paths."""
    from referencing import Registry, Resource

    @functools.cache
    def read(uri):
        return Resource.from_contents(yaml.safe_load(Path(uri.removeprefix("file://")).read_text()))

    uri = SCHEMA_FILE.resolve().as_uri()
    return Draft202012Validator({"$ref": uri}, registry=Registry(retrieve=read))


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_an_editor_has_nothing_to_say_of_a_shipped_config(name):
    assert not list(editor().iter_errors(load_config(name)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("block", "spec", "place"),
    [
        ("datasets", {"source": "digits", "train_sise": 3}, ["datasets", "x"]),
        ("datasets", {"source": "digits", "train_size": 0}, ["datasets", "x", "train_size"]),
        ("datasets", {"source": "cifar10"}, ["datasets", "x"]),
        ("datasets", {"source": "cifar"}, ["datasets", "x", "source"]),
        ("models", {"arch": "mlp", "depth": 8}, ["models", "x"]),
        ("models", {"arch": "resnet8", "norm": "bacth"}, ["models", "x", "norm"]),
        ("models", {"factory": "a:b", "width": 3}, ["models", "x"]),
        ("models", {}, ["models", "x"]),
        ("probes", {"kind": "unifrom"}, ["probes", "x", "kind"]),
        ("probes", {"kind": "uniform", "group": "layer:"}, ["probes", "x", "group"]),
    ],
)
def test_an_editor_marks_a_wrong_option_where_it_is(block, spec, place):
    raw = load_config("config/smoke.yaml")
    raw[block]["x"] = spec
    (error,) = editor().iter_errors(raw)
    assert list(error.absolute_path) == place


@functools.cache
def read_by_snakemake(path, filetype):
    from snakemake.common.configfile import _load_configfile

    return _load_configfile(path, filetype)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config.yaml", "config/smoke.yaml", "config/paper.yaml"])
def test_defaults_are_those_that_snakemake_fills_in(name, monkeypatch):
    """But for `n` of some kinds, and options of data sets and models, which `Experiment` fills in."""
    from snakemake import utils

    # Snakemake reads a schema again at each reference to it, a hundred times in all.
    monkeypatch.setattr(utils, "_load_configfile", read_by_snakemake)

    ours, theirs = load_config(name), load_config(name)
    for probe in theirs["probes"].values():
        probe.setdefault("n", KINDS[probe["kind"]].n)
    utils.validate(theirs, str(SCHEMA_FILE))
    with_defaults(ours)
    own = {block: ours[block] for block in ("datasets", "models")}
    assert own == {block: load_config(name)[block] for block in own}
    assert json.dumps(ours) == json.dumps({**theirs, **own})  # in the same order


def test_a_config_may_be_checked_again_once_filled_in():
    filled = fill_defaults(load_config("config.yaml"))
    assert with_defaults(copy.deepcopy(filled)) == filled
    check(filled)


def test_the_schema_is_read_once_in_a_process():
    """As the rules do: check, fill in, build."""
    code = f"""
import yaml
from valleys.config import schema
from valleys.config.experiment import Experiment
from valleys.config.reading import load
read, times = type(schema.SCHEMA_FILE).read_text, []
def counted(path, *args, **kwargs):
    times.append(path.name)
    return read(path, *args, **kwargs)
type(schema.SCHEMA_FILE).read_text = counted
for _ in range(2):
    config = load({str(ROOT / "config.yaml")!r})
    schema.check(config)
    Experiment(schema.with_defaults(config))
assert times.count("config.schema.yaml") == 1, times
assert not any(name == "options.schema.yaml" for name in times)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow" / "scripts")}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


# --- losses ---


def test_the_schema_has_the_losses_and_options_there_are():
    """With the defaults and bounds of the tables: the params of recipes are filled in from the schema."""
    declared = dict(schema._schema()["$defs"]["loss"]["properties"])
    assert set(declared.pop("name")["enum"]) == set(LOSSES)
    assert [declared.pop(key).get("default") for key in ("factory", "kwargs")] == [None, None]  # of one's own
    options = {key: option for known in LOSSES.values() for key, option in known.items()}
    assert declared.keys() == options.keys()
    for key, option in options.items():
        assert {**declared[key], "description": option.help} == option.schema()


def with_loss(loss, block="recipes"):
    raw = load_config("config/smoke.yaml")
    if block == "recipes":
        raw["recipes"]["quick"]["loss"] = loss
    else:
        raw["checkpoints"] = {"mine": {"solutions": {"a": "a.pt"}, "loss": loss}}
    return raw


@pytest.mark.parametrize("block", ["recipes", "checkpoints"])
@pytest.mark.parametrize(
    ("loss", "words"),
    [
        ({"name": "cross_entropy", "smoothing": 0.3}, ["loss.smoothing: 0.3", "name to label_smoothing"]),
        ({"smoothing": 0.1}, ["loss.smoothing: 0.1", "name to label_smoothing"]),
        ({"name": "mse", "gamma": 2}, ["loss.gamma: 2", "name to focal"]),
        ({"name": "focal", "gamma": 2, "smoothing": 0.1}, ["loss.smoothing: 0.1", "name to label_smoothing"]),
        ({"name": "label_smoothing", "smothing": 0.1}, ["'smothing', did you mean 'smoothing'?"]),
    ],
)
def test_an_option_of_another_loss_is_refused(loss, words, block):
    with pytest.raises(ValleysError) as caught:
        check(with_loss(loss, block))
    message = str(caught.value)
    assert message.startswith(f"config: {block}.")
    assert "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    "loss", [{}, {"name": "focal", "gamma": 1}, {"name": "label_smoothing", "smoothing": 0}]
)
def test_a_loss_with_its_own_options_has_the_params_it_has_had(loss):
    raw = fill_defaults(with_loss(loss))
    found = raw["recipes"]["quick"]["loss"]
    assert found == {"name": "cross_entropy", "smoothing": 0.1, "gamma": 2} | loss
    raw["studies"] = {"losses": {**raw["studies"]["bn"], "factors": {"recipe.loss.name": ["mse", "focal"]}}}
    assert Experiment(raw).studies["losses"]


def test_a_wrong_type_is_told_with_what_the_key_means():
    raw = load_config("config/smoke.yaml")
    raw["recipes"]["quick"]["eval_every"] = "2"
    with pytest.raises(
        ValleysError, match=r"quick.eval_every: '2' is not .*'integer' \(Epochs between test losses"
    ):
        check(raw)


def numbers_in(value, at=()):
    """Yield place and value of each number in a config."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from numbers_in(item, (*at, key))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield at, value


def filled():
    return with_defaults(copy.deepcopy(load_config("config/smoke.yaml")))


@pytest.mark.parametrize("at", [at for at, _ in numbers_in(filled())], ids=lambda at: ".".join(map(str, at)))
def test_a_number_that_yaml_reads_as_text_is_told_how_to_be_written(at):
    """5e-2 has neither point nor sign before which YAML 1.1 takes it for a number."""
    config = filled()
    *way, last = at
    block = functools.reduce(lambda block, key: block[key], way, config)
    value, block[last] = block[last], f"{block[last]:.1e}".replace(".0e", "e").replace("e+", "e")
    with pytest.raises(ValleysError, match=r"text, write ") as caught:
        Experiment(check(config) or config)
    written = str(caught.value).rpartition("write ")[2]
    assert yaml.safe_load(written) == pytest.approx(value, rel=0.05)
    assert isinstance(yaml.safe_load(written), int | float)


@pytest.mark.parametrize(
    "text", ["5 %", "0,05", "inf", "nan", "", ".", "e3", "1e999", "1_0", "\u0665", None, [], True]
)
def test_what_is_no_number_gets_no_hint(text):
    assert number_hint(text) == ""


def test_options_of_a_search_are_those_that_the_library_has():
    probe = yaml.safe_load(SCHEMA_FILE.read_text())["$defs"]["probe"]["properties"]
    options = probe["search"]["properties"]
    assert {key: one["default"] for key, one in options.items()} == SEARCH
    assert tuple(options["seek"]["enum"]) == SEEKS
    assert "default" not in probe["search"]  # so that configs without it have the params that they had
    assert probe["n"]["default"] == Kind("").n
    assert f"of kind searched {KINDS['searched'].n} without it" in probe["n"]["description"]

"""Each source of data has one entry, which agrees with its module; what does not agree is one line."""

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import fill_defaults, load_config
from valleys.config.experiment import Experiment
from valleys.costs.jobs import Costs
from valleys.data import counts, options
from valleys.data.options import DATASET_OPTIONS, GUESS, image_shape, originals
from valleys.data.sources.load import load_source
from valleys.errors import ValleysError

SHARED = {"base", "decoding", "examples", "load"}  # by all of them
MADE_UP = {"source": "made_up", "train": "a", "test": "b"}


def test_each_file_of_sources_is_named_by_an_entry():
    folder = Path(options.__file__).with_name("sources")
    there = {path.stem for path in folder.glob("*.py")} - SHARED - {"__init__"}
    assert {source.reader for source in DATASET_OPTIONS.values()} == there


def test_entries_agree_with_their_readers():
    modules = {name: source.module() for name, source in DATASET_OPTIONS.items()}
    assert all(callable(module.read) for module in modules.values())
    can_count = {name for name, module in modules.items() if hasattr(module, "count")}
    assert can_count == {name for name, source in DATASET_OPTIONS.items() if source.counted}


def test_options_that_are_paths_are_watched():
    """But for those of torchvision, whose files have an MD5 each."""
    for name, source in DATASET_OPTIONS.items():
        paths = {key for key, option in source.options.items() if option.kind in ("path", "paths")}
        assert set(source.files) == paths - ({"root"} if source.reader == "torchvision" else set()), name


@pytest.mark.parametrize("name", DATASET_OPTIONS)
def test_each_source_is_priced(name, tmp_path, monkeypatch):
    """One that is missing from the costs would stop a run, or be taken for another."""
    monkeypatch.chdir(tmp_path)
    Path("mine_of_sources.py").write_text("def load(): raise AssertionError\n")
    values = {"int": 8, "factory": "mine_of_sources:load", "path": "x", "paths": ["x"]}
    needed = {k: values[o.kind] for k, o in DATASET_OPTIONS[name].options.items() if o.required}
    needed |= {"train_size": 8, "labels": "y"} if name == "table" else {}
    experiment = experiment_on({"source": name, **needed})
    costs, size = Costs(experiment), DATASET_OPTIONS[name].size_of(experiment.datasets["digits"])
    found = costs.data("digits")
    assert (found.train, found.test, found.classes) == (size.train, size.test, size.classes)
    assert found.counted == size.known
    assert costs("prepare_dataset", {"dataset": "digits"}).seconds > 0


@pytest.fixture
def made_up(monkeypatch):
    """Add a source whose entry is that of ``numpy`` with some fields replaced."""

    def add(**fields):
        entry = replace(DATASET_OPTIONS["numpy"], **fields)
        monkeypatch.setitem(DATASET_OPTIONS, "made_up", entry)

    return add


def experiment_on(spec):
    """The smoke run, with its data from elsewhere."""
    raw = load_config("config/smoke.yaml")
    return Experiment(fill_defaults(raw | {"datasets": {"digits": spec}, "studies": {}}))


def line(call):
    with pytest.raises(ValleysError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_reader_that_is_not_there_is_one_line(made_up):
    made_up(reader="nmupy")
    for call in (lambda: load_source(MADE_UP), lambda: counts.count(MADE_UP)):
        assert "names the reader 'nmupy'" in line(call)
        assert "add valleys/data/sources/nmupy.py" in line(call)


def test_a_reader_without_its_functions_is_one_line(made_up):
    made_up(reader="base")
    assert "sources.base has no function 'read'" in line(lambda: load_source(MADE_UP))
    made_up(reader="digits")
    assert "sources.digits has no function 'count'" in line(lambda: counts.count(MADE_UP))


def test_the_size_of_a_source_that_says_none_is_a_guess(made_up):
    made_up(counted=False)
    assert counts.count(MADE_UP) is None
    assert image_shape(MADE_UP) == (None, None)
    found = Costs(experiment_on(MADE_UP)).data("digits")
    assert (found.train, found.test, found.shape, found.counted) == (50_000, 10_000, GUESS.shape, False)


def test_originals_are_those_that_exist(tmp_path, made_up):
    for name in ("a.npz", "b.npz", "c.npz"):
        (tmp_path / name).touch()
    patterns = {"train": [f"{tmp_path}/[ab].npz", f"{tmp_path}/none"], "test": f"{tmp_path}/c.npz"}
    made_up(files=("train",))
    assert originals({"source": "made_up", **patterns}) == [f"{tmp_path}/a.npz", f"{tmp_path}/b.npz"]
    made_up(files=("test", "train"))
    assert len(originals({"source": "made_up", **patterns})) == 3

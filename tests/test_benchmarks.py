"""The scripts of `benchmarks/` start, and what they take from the configs is there."""

import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
SCRIPTS = sorted(
    path.stem for path in FOLDER.glob("*.py") if "peers" not in path.name
)  # these need other tools


@pytest.fixture(autouse=True)
def as_a_script(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", SCRIPTS)
def test_what_a_script_imports_is_there(name):
    assert importlib.import_module(name).__doc__


@pytest.mark.slow
@pytest.mark.long
def test_threads_trains_a_network_of_the_default_run(monkeypatch, one_thread):
    import threads

    monkeypatch.setattr(threads, "EPOCHS", (1,))
    monkeypatch.setattr(threads, "SEEDS", (0,))
    found = threads.measure(1)
    assert found["0 1"][0] < found["0 0"][0]
    assert found == threads.measure(1)

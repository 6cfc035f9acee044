"""Fixtures that several test modules share."""

import copy
import os
import warnings
from pathlib import Path

import pytest
import yaml

# One thread a process, set before torch is imported: the suite runs in two processes (make test), and two
# times two threads on two cores wait for each other, up to four hundred times as long as the work takes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]


LONGEST_FIRST = ("workflow", "execution", "costs", "landscape", "figures")


def pytest_collection_modifyitems(items):
    """Put folders with long files first, so that no worker of several is left alone with one at the end."""

    def turn(item):
        folder = item.path.parent.name
        return LONGEST_FIRST.index(folder) if folder in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=turn)


def load_config(name):
    """A config file as plain data, without defaults."""
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def fill_defaults(raw):
    """Check a config and fill in its defaults, as workflow/rules/common.smk does."""
    from valleys.config.schema import check, with_defaults

    filled = copy.deepcopy(raw)
    check(filled)
    return with_defaults(filled)


@pytest.fixture
def one_thread():
    """Small products cost more in waiting for threads than they gain, far more where cores are shared."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def one_core(monkeypatch):
    """What a script sets for a job of one thread is put back."""
    import torch

    before = torch.get_num_threads()
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(variable, "1")
    yield
    torch.set_num_threads(before)


@pytest.fixture
def experiment_config():
    """The smoke config with its defaults filled in; a fresh copy for each test."""
    return fill_defaults(load_config("config/smoke.yaml"))


@pytest.fixture
def tiny_split():
    """Twenty 1x4x4 images of three classes."""
    import torch
    from valleys.data.split import Split, channel_statistics

    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 1, 4, 4), dtype=torch.uint8, generator=generator)
    labels = torch.arange(20) % 3
    return Split(images, labels, 3, *channel_statistics(images))


@pytest.fixture
def no_warnings():
    """Any warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture(scope="session")
def figure_data(tmp_path_factory):
    """The tables of `figure_tables.make_rows`; tests do not change them."""
    from figure_tables import make_rows, through_parquet

    return through_parquet(tmp_path_factory.mktemp("tables"), make_rows())

"""A rule's script ends in one line or keeps its traceback, and leaves nothing behind."""

import logging
import os
import re
from types import SimpleNamespace

import pytest
import torch
from valleys.errors import ValleysError
from valleys.execution import jobs

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@pytest.fixture
def snakemake(tmp_path, monkeypatch):
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "7")
    threads = torch.get_num_threads()
    yield SimpleNamespace(log=[tmp_path / "logs" / "rule.log"], rule="some_rule", threads=1)
    torch.set_num_threads(threads)


def text(snakemake):
    return snakemake.log[0].read_text(encoding="utf-8")


def test_progress_goes_to_the_log(snakemake, capsys):
    with jobs.job(snakemake) as log:
        log.info("epoch %d of %d", 1, 2)
    first, last = text(snakemake).splitlines()
    assert first.endswith(" epoch 1 of 2")
    assert re.search(r" peak memory \d+ MB$", last)
    assert capsys.readouterr() == ("", "")
    assert logging.getLogger("valleys").handlers == []


def test_a_second_run_starts_a_new_log(snakemake):
    for word in ("first", "second"):
        with jobs.job(snakemake) as log:
            log.info(word)
    assert "first" not in text(snakemake)
    assert text(snakemake).count("\n") == 2


def test_a_job_says_how_much_memory_it_took(snakemake):
    before = jobs.peak_memory()
    with jobs.job(snakemake):
        held = torch.ones(int((before + 100) * 1e6 / 8), dtype=torch.float64)  # more than it ever had
    told = float(re.search(r"peak memory (\d+) MB", text(snakemake))[1])
    assert told == pytest.approx(jobs.peak_memory(), abs=1)
    assert told >= held.numel() * 8 / 1e6


@pytest.mark.parametrize("message", ["file x is corrupt", "first line\nsecond line"])
def test_a_valleys_error_is_one_line_and_status_1(snakemake, capsys, message):
    with pytest.raises(SystemExit) as caught, jobs.job(snakemake):
        raise ValleysError(message)
    assert caught.value.code == 1
    out, err = capsys.readouterr()
    line = message.replace("\n", " ")
    assert (out, err) == ("", f"error in rule some_rule: {line}\n")
    assert text(snakemake).endswith(f" error: {line}\n")
    assert text(snakemake).count("\n") == 1
    assert "Traceback" not in text(snakemake)
    assert logging.getLogger("valleys").handlers == []


def test_other_exceptions_keep_their_traceback(snakemake, capsys):
    with pytest.raises(ZeroDivisionError), jobs.job(snakemake):
        1 / 0  # noqa: B018
    assert "Traceback (most recent call last)" in text(snakemake)
    assert "1 / 0" in text(snakemake)
    assert text(snakemake).rstrip().endswith("ZeroDivisionError: division by zero")
    assert capsys.readouterr().out == ""
    assert logging.getLogger("valleys").handlers == []


def test_threads_are_those_of_the_job(snakemake):
    torch.set_num_threads(2)
    with jobs.job(snakemake):
        assert torch.get_num_threads() == 1
        assert [os.environ[variable] for variable in VARIABLES] == ["1"] * 3


@pytest.mark.parametrize(("wanted", "there", "found"), [
    ("auto", False, "cpu"), ("auto", True, "cuda"), ("cpu", True, "cpu"), ("cuda", True, "cuda"),
])  # fmt: skip
def test_pick_device(monkeypatch, wanted, there, found):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert jobs.pick_device({"execution": {"device": wanted}}) == torch.device(found)


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValleysError, match=r"execution\.device: 'cuda' but torch sees no GPU"):
        jobs.pick_device({"execution": {"device": "cuda"}})

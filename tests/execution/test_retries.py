"""What a job's log says about another try; that Snakemake then makes none: tests/workflow/test_retries.py."""

import os
import time
from types import SimpleNamespace

import pytest
from valleys.errors import PassingError, ValleysError
from valleys.execution import jobs
from valleys.execution.retries import MAY_PASS, Failures


def fail(folder, error):
    """The log of a job that an error ends."""
    log = folder / "rule.log"
    with (
        pytest.raises((SystemExit, type(error))),
        jobs.job(SimpleNamespace(log=[log], rule="some_rule", threads=1)),
    ):
        raise error
    return log


@pytest.mark.parametrize("error", [ValleysError("diverged\nat epoch 2"), PermissionError(13, "denied", "x")])
def test_an_error_of_ours_is_for_good(tmp_path, one_core, error):
    found = Failures().reason(fail(tmp_path, error))
    assert found == ("diverged at epoch 2" if isinstance(error, ValleysError) else jobs.denied(error))


@pytest.mark.parametrize(
    "error",
    [PassingError("the disk is full"), MemoryError(), RuntimeError("12:00:00 error: x"), SystemExit(143)],
)
def test_what_may_pass_and_what_has_a_traceback_is_not(tmp_path, one_core, error):
    log = fail(tmp_path, error)
    assert Failures().reason(log) is None
    assert log.read_text().endswith(f"the disk is full{MAY_PASS}\n") == isinstance(error, PassingError)


def test_a_log_that_was_written_at_once_is_of_this_run(tmp_path):
    log = tmp_path / "log"
    for _ in range(300):  # the time of a file may be a tick before that of its writing
        found = Failures()
        log.write_text("12:00:00 error: no file x\n", encoding="utf-8")
        assert found.reason(log) == "no file x"


def test_only_the_last_line_counts_and_only_of_this_run(tmp_path):
    log, found = tmp_path / "log", Failures()
    for text, reason in (
        ("", None),
        ("12:00:00 error: no file x\n", "no file x"),
        ("1\n" * 100_000 + "12:00:00 error: \u00e9\n", "\u00e9"),
        ("12:00:00 error: no file x\n12:00:01 epoch 2\n", None),
        ("12:00:00 an error: no file x\n", None),
    ):
        log.write_text(text, encoding="utf-8")
        assert found.reason(log) == reason, text[-40:]
    log.write_text("12:00:00 error: no file x\n")
    os.utime(log, (time.time() - 60,) * 2)
    assert found.reason(log) is None
    assert found.reason(tmp_path / "none") is None
    assert found.reason(tmp_path) is None

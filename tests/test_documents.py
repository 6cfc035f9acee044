"""Results in documents are those of the committed tables, and none is typed."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location("write", ROOT / "docs" / "results" / "write.py")
write = importlib.util.module_from_spec(spec)
spec.loader.exec_module(write)


@pytest.mark.parametrize("page", write.PAGES)
def test_a_page_says_what_its_tables_say(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert write.rendered(text) == text, f"{page}: run make docs"


@pytest.mark.parametrize("number", range(1, 13))
def test_each_claim_has_its_place(number):
    text = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    assert text.count(f"<!-- results: claim {number} -->") == 1


def test_tables_are_small_and_of_a_known_commit():
    runs = write.there()
    assert {"default", "default-replicate", "default-other-bits"} <= set(runs)
    for run in runs:
        files = list((ROOT / "docs" / "results" / run).iterdir())
        assert sum(file.stat().st_size for file in files) < 100_000
        assert {file.name for file in files} == set(FILES)


FILES = ("about.json", "verdicts.csv", "deciding.csv", "losses.csv", "seconds.csv")


def test_a_changed_table_is_noticed(tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    monkeypatch.setattr(write, "read", lambda run, name: _other(ORIGINAL(run, name)))
    assert write.rendered(text) != text


ORIGINAL = write.read


def _other(frame):
    return frame.assign(verdict="refuted") if "verdict" in frame else frame


@pytest.mark.parametrize("page", ["README.md", "docs/experiments.md"])
def test_no_verdict_stands_outside_the_places(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    outside = re.sub(r"<!-- results: .*?<!-- end -->", "", text, flags=re.DOTALL)
    assert not re.findall(r"\*\*(?:supported|refuted)\*\*|\d+ of \d+ (?:seeds|minima|directions)", outside)

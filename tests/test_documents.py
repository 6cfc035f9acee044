"""Results in documents are those of the committed tables, and none is typed; what they show works."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from valleys.config import schema

ROOT = Path(__file__).resolve().parents[1]


def script(*parts):
    path = ROOT.joinpath(*parts)
    spec = importlib.util.spec_from_file_location(f"documents_{path.parent.name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


write = script("docs", "results", "write.py")
reference = script("docs", "reference", "write.py")


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


def test_the_keys_in_the_readme_of_configs_are_those_of_the_schema():
    text = (ROOT / "config" / "README.md").read_text(encoding="utf-8")
    assert text == reference.config_readme(), "run docs/reference/write.py"
    for key in ("`<name>.swa.window`", "`<name>.search.restarts`", "`keep`", "`seeds`"):
        assert f"| {key} |" in text or f"### {key}" in text


def test_every_column_has_a_line():
    text = reference.tables()
    whole = yaml.safe_load((ROOT / "workflow" / "schemas" / "tables.yaml").read_text(encoding="utf-8"))
    for name, table in whole.items():
        if not name.startswith("_"):
            part = text.partition(f"## `{name}`\n")[2].partition("\n## ")[0]
            assert part.count("\n| `") == len(list(reference._flat(table["columns"]))) > 0


PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *(ROOT / "docs").rglob("*.md")]
    if path.name != "CHANGELOG.md"
)


LEAST = {
    "name": "mine",
    "seeds": [0],
    "datasets": {"mine": {"source": "digits"}},
    "models": {"net": {"arch": "mlp"}},
    "recipes": {"short": {"epochs": 2, "lr": 0.1, "swa": {"start": 1, "lr": 0.1}}},
    "grid": [{"dataset": "mine", "model": "net", "recipe": "short"}],
}


@pytest.mark.parametrize("page", [page for page in PAGES if "```yaml" in (ROOT / page).read_text()])
def test_configs_in_a_page_are_accepted(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^( *)```yaml\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    for _, block in blocks:
        schema.check(LEAST | yaml.safe_load(block))


def test_badges_are_true():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"Python {project['requires-python'].removeprefix('>=')} or newer" in readme
    assert f"Licence: {project['license']}" in readme

"""The command line."""

from pathlib import Path

import pytest
from valleys.cli.commands import main, options
from valleys.storage import tables

ROOT = Path(__file__).parents[2]


def test_docs_list_the_options_there_are():
    assert (ROOT / "docs" / "options.md").read_text() == options(), (
        "python -m valleys options > docs/options.md"
    )


def test_claims_prints_table_and_report(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text("name: trial\n")
    text = {c["name"]: "x" for c in tables.declared()["claims"]["columns"]}
    row = text | {"effect": 0.5, "low": 0.25, "high": 0.75, "n": 6, "experiment": 1, "p_value": None}
    tables.write("results/trial/tables/claims.parquet", "claims", [row | {"claim": "first_claim"}])
    assert main(["claims", "c.yaml"]) == 0
    printed = capsys.readouterr().out
    assert "first_claim" in printed
    assert "results/trial/report.html" in printed


@pytest.mark.parametrize("text", ["", "nome: x\n", "[1"])
def test_bad_config_is_one_line(tmp_path, capsys, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    assert main(["claims", str(path)]) == 1
    error = capsys.readouterr().err
    assert str(path) in error
    assert error.startswith("error: ")


def test_unfinished_run_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text("name: nothing\n")
    assert main(["claims", "c.yaml"]) == 1
    assert "claims.parquet does not exist" in capsys.readouterr().err

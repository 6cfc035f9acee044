"""The command line."""

from pathlib import Path

import pytest
from report_rows import claim, verdict
from valleys.cli.commands import main, options
from valleys.storage import tables

ROOT = Path(__file__).parents[2]


def test_docs_list_the_options_there_are():
    assert (ROOT / "docs" / "reference" / "options.md").read_text() == options(), (
        "python -m valleys options > docs/reference/options.md"
    )


def test_claims_prints_verdicts_or_all_rows_and_report(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text("name: trial\n")
    open_one = verdict(2, verdict="not decidable", effect="", n=0, p_value=None, p_adjusted=None)
    tables.write("results/trial/tables/verdicts.parquet", "verdicts", [verdict(1), open_one])
    rows = [claim(claim="of_none"), claim(claim="of_two", number=2), claim(claim="of_one", number=1)]
    tables.write("results/trial/tables/claims.parquet", "claims", rows)

    assert main(["claims", "c.yaml"]) == 0
    printed = capsys.readouterr().out.splitlines()
    first, second = printed[2:4]
    assert first.split()[:4] == ["1", "supported", "Statement", "1"]
    assert first.split()[-2:] == ["12", "0.012"]
    assert second.split() == ["2", "not", "decidable", "Statement", "2", "-", "0", "-"]
    assert "report: results/trial/report.html" in printed
    assert printed[-1] == "all rows: valleys claims c.yaml --all"

    assert main(["claims", "c.yaml", "--all"]) == 0
    printed = capsys.readouterr().out
    assert printed.index("of_one") < printed.index("of_two") < printed.index("of_none")
    assert "results/trial/report.html" in printed
    assert "Statement" not in printed


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
    assert "verdicts.parquet does not exist" in capsys.readouterr().err

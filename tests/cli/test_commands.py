"""The command line."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from report_rows import claim, verdict
from valleys.claims.verdicts import effect_text
from valleys.cli.arguments import parser
from valleys.cli.commands import main, options
from valleys.cli.requests import PROBE_KEYS, parse_block, request
from valleys.config import replicas
from valleys.data.options import validate_dataset
from valleys.models.options import validate_spec
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


def test_claims_prints_no_interval_that_is_not_known(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text("name: trial\n")
    unknown = {"low": float("nan"), "high": float("nan")}
    rows = [claim(claim="no_interval", **unknown), claim(claim="no_effect", effect=float("nan"), **unknown)]
    texts = [verdict(1, effect=effect_text(rows[0])), verdict(2, effect=effect_text(rows[1]))]
    tables.write("results/trial/tables/claims.parquet", "claims", rows)
    tables.write("results/trial/tables/verdicts.parquet", "verdicts", texts)
    for more in ([], ["--all"]):
        assert main(["claims", "c.yaml", *more]) == 0
        printed = capsys.readouterr().out
        assert "nan" not in printed
        assert "+0.25 nats" in printed


@pytest.mark.slow
@pytest.mark.parametrize("words", [["options"], ["options", "--schema"], ["claims", "c.yaml"], ["--help"]])
def test_a_reader_that_has_seen_enough_makes_no_traceback(tmp_path, words):
    (tmp_path / "c.yaml").write_text("name: trial\n")
    tables.write(tmp_path / "results/trial/tables/verdicts.parquet", "verdicts", [verdict(1)])
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow" / "scripts")}
    command = [sys.executable, "-m", "valleys", *words]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == (words != ["--help"])  # argparse says nothing of it either


def parsers(top):
    """The parser of each command by its name, and their top."""
    (commands,) = (
        action for action in top._actions if hasattr(action, "choices") and action.dest == "command"
    )
    return {"": top, **commands.choices}


def examples(one):
    """The command lines that a parser's help shows, each as words."""
    text = one.format_help().partition("\nexamples:\n")[2].replace("\\\n", " ")
    return [shlex.split(line)[4:] for line in text.splitlines() if line.startswith("  python -m valleys ")]


def test_the_examples_of_help_are_right(monkeypatch):
    """They are parsed, and their blocks are checked as a config's."""
    monkeypatch.setattr(sys, "argv", ["valleys-under-test"])
    found = {name: examples(one) for name, one in parsers(parser()).items()}
    assert len(found["probe"]) == 4
    assert all(
        ("example" in one.format_help()) == bool(found[name]) for name, one in parsers(parser()).items()
    )
    for words in found["probe"]:
        given = parser().parse_args(["probe", *words])
        if ":" in given.data:  # else it is a folder
            validate_dataset("data", parse_block(given.data, "source", "data"))
        if given.model:
            validate_spec(parse_block(given.model, "arch", "model"))
        asked = {key: value for key in PROBE_KEYS if (value := getattr(given, key)) is not None}
        request(given.direction, asked, parse_block(given.loss, "name", "loss"), {}, {})


def test_what_help_says_an_option_is_like_is_right():
    """`as in ...` of an option, and the values that it names."""
    options = {action.dest: action.help for action in parsers(parser())["probe"]._actions}
    shown = {
        key: re.findall(r"as in ([^\s,]+:[^\s]*[^\s,;]|\w+)", options[key]) for key in options if options[key]
    }
    shown = {key: words for key, words in shown.items() if words}
    assert set(shown) == {"data", "model", "loss", "search"}
    for text in shown["data"]:
        validate_dataset("data", parse_block(text, "source", "data"))
    for text in shown["model"]:
        validate_spec(parse_block(text, "arch", "model"))
    for text in shown["loss"]:
        request("uniform", {}, parse_block(text, "name", "loss"), {}, {})
    for text in shown["search"]:
        request("searched", {"search": parse_block(text, "seek", "search")}, {"name": "mse"}, {}, {})
    seeds = next(a.help for a in parsers(parser())["replicate"]._actions if a.dest == "seeds")
    assert replicas.parse_seeds(re.search(r"as in (\S+)", seeds)[1])


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

"""Snakemake's own report of a run, made without a network; and a run whose simulations are left out."""

import html
import json
import re
import zipfile

import pytest
from conftest import fill_defaults
from valleys.config import captions, outputs
from valleys.config.experiment import Experiment
from valleys.storage import tables
from workflow_runs import changed, load, planned, snakemake

pytestmark = [pytest.mark.slow, pytest.mark.long]

PROBES = {"uniform": {"kind": "uniform", "n": 2, "points": 21}}
SMALL = changed(load("config/smoke.yaml"), studies={}, planes={}, probes=PROBES)
WITHOUT = SMALL | {"simulations": False}


def figures_of(config):
    return outputs.figures(Experiment(fill_defaults(config)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished small run."""
    folder = tmp_path_factory.mktemp("small")
    status, text = snakemake(folder, SMALL, "--cores", "2")
    assert status == 0, text
    return folder


@pytest.fixture
def offline(monkeypatch):
    """Whatever asks for the network by its usual libraries is refused."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


def results_of(page):
    """What a page of Snakemake's has under results: what is known of each file, and the menu."""
    decoder = json.JSONDecoder()
    files, menu = (
        decoder.raw_decode(page, re.search(rf"var {name} = (?={{)", page).end())[0]
        for name in ("results", "categories")
    )
    return files, menu


def test_snakemakes_report_has_each_figure_with_its_caption(finished, offline):
    status, text = snakemake(finished, SMALL, "--report", "out.html")
    assert status == 0, text
    page = (finished / "out.html").read_text(encoding="utf-8")
    files, menu = results_of(page)
    made = figures_of(SMALL)
    folder = "results/smoke"
    assert set(files) == {
        *(f"{folder}/figures/{name}.svg" for name in made),
        *(f"{folder}/tables/{name}.parquet" for name in ("claims", "verdicts")),
        f"{folder}/report.html",
    }
    for name in made:
        one = files[f"{folder}/figures/{name}.svg"]
        assert one["labels"] == captions.labels(name)
        assert one["job_properties"]["rule"] == "figures"
        told = html.unescape(re.sub(r"<[^>]*>", "", one["caption"]))
        assert " ".join(told.split()) == " ".join(captions.text(captions.kind_of(name)[0]).split())
    for one in files.values():
        assert one["caption"]
        assert "system-message" not in one["caption"]  # what docutils could not read
    assert set(menu) == {"Claims", "Networks", "Simulations"}
    assert set(menu["Simulations"]) == {"One neuron", "Theorems"}
    assert "system-message" not in page[page.index("workflow_desc") :][:5000]


def test_snakemakes_report_as_a_zip(finished, offline):
    status, text = snakemake(finished, SMALL, "--report", "out.zip")
    assert status == 0, text
    with zipfile.ZipFile(finished / "out.zip") as archive:
        names = [name.rpartition("/")[2] for name in archive.namelist()]
    assert {f"{name}.svg" for name in figures_of(SMALL)} < set(names)
    assert names.count("report.html") == 2  # Snakemake's and ours


def test_a_caption_is_no_reason_to_draw_again(finished):
    """Snakemake keeps a job's params as they were, and compares them; the caption is not among them."""
    assert planned(finished, SMALL) == {}
    kept = [json.loads(path.read_text()) for path in (finished / ".snakemake" / "metadata").iterdir()]
    drawn = [one["params"] for one in kept if one["rule"] == "figures"]
    assert len(drawn) == 2 * len(figures_of(SMALL))
    assert not any(".rst" in text for params in drawn for text in params)


def test_a_run_without_simulations(finished):
    """In the folder of one with them, only what depends on the switch is made again."""
    status, text = snakemake(finished, WITHOUT, "toy", "-n")
    assert status != 0
    assert "target toy is left out by the config's simulations: false; set it to true" in text
    assert planned(finished, WITHOUT) == {"claims": 1, "report": 1}
    status, text = snakemake(finished, WITHOUT, "--cores", "2")
    assert status == 0, text
    folder = finished / "results" / "smoke"
    twelve = tables.read(folder / "tables" / "verdicts.parquet", "verdicts").to_pandas()
    told = twelve[twelve["note"].str.contains("simulations: false", regex=False)]
    assert told["number"].tolist() == [3, 6, 7]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert set(re.findall(r'<figure id="[^"]*" data-name="([^"]*)"', page)) == set(figures_of(WITHOUT))
    assert "They were left out" in page
    status, text = snakemake(finished, WITHOUT, "--report", "without.html")
    assert status == 0, text
    _, menu = results_of((finished / "without.html").read_text(encoding="utf-8"))
    assert set(menu) == {"Claims", "Networks"}


def test_a_run_without_simulations_plans_none(tmp_path):
    jobs = planned(tmp_path, WITHOUT)
    assert not {"toy_2d", "simulate_theory"} & set(jobs)
    assert jobs["figures"] == len(figures_of(WITHOUT))

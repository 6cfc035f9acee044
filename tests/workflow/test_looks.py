"""Seeds that are added until claims are decided: a run that stops, goes on, and retrains nothing."""

import re

import pytest
from valleys.cli.commands import main
from valleys.config.experiment import Experiment
from valleys.config.params import Params
from valleys.storage import tables
from workflow_runs import changed, load, planned, snakemake

pytestmark = [pytest.mark.slow, pytest.mark.long]

PROBES = {"uniform": {"kind": "uniform", "n": 1, "points": 11, "solutions": ["sgd"]}}
LINES = {"next": {"start": "sgd", "stop": "sgd", "stop_seed": "next", "divisions": 2}}
# Four rows decide claim 8, so against it p is 4 * 2 * 2^-n at least: 1/4 with 5 seeds.
FEW = {"until": "decided", "first": 5, "most": 10}
CONFIG = changed(
    load("config/smoke.yaml"), planes={}, studies={}, probes=PROBES, lines=LINES, simulations=False, seeds=FEW
)
CONFIG["recipes"]["quick"] |= {
    "epochs": 4,
    "swa": {"start": 2, "lr": 0.05},
    "descent": {"epochs": 1, "lr": 0.001},
}
STOPS, GOES_ON = (changed(CONFIG, claims={"alpha": alpha}) for alpha in (0.999, 0.3))
TRAINED = ("train_sgd", "cooldown", "descend", "probe", "evaluate", "interpolate")


def looks_in(folder):
    return tables.read(folder / "results/smoke/tables/looks.parquet", "looks").to_pandas()


def seeds_in(folder, table):
    return sorted(
        set(tables.read(folder / f"results/smoke/tables/{table}.parquet", table)["seed"].to_pylist())
    )


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The folder of a run that stopped at its first look, what it printed, and the jobs planned before."""
    folder = tmp_path_factory.mktemp("looks")
    before = planned(folder, STOPS), planned(folder, STOPS, "all", "most_seeds")
    status, text = snakemake(folder, STOPS, "--cores", "2", timeout=900)
    assert status == 0, text
    return folder, text, before


def test_a_dry_run_has_the_least_and_says_the_most(stopped):
    folder, _, (least, most) = stopped
    assert (least["train_sgd"], least["look"], least["claims"]) == (5, 1, 1)
    assert (most["train_sgd"], most["look"]) == (10, 2)
    assert (least["interpolate"], most["interpolate"]) == (4, 9)  # from each seed to the next
    _, text = snakemake(folder, changed(STOPS, name="another"), "-n")
    said = re.search(
        r"looks at 5, 10 seeds. With 5 seeds this dry run has (\d+) jobs.*about (\d+) at most,", text
    )
    assert int(said[1]) == sum(least.values()) + 1  # and the rule all
    assert abs(int(said[2]) - sum(most.values())) < 5


def test_a_run_stops_where_nothing_is_waited_for(stopped):
    folder, text, _ = stopped
    frame = looks_in(folder)
    assert set(frame["look"]) == {1}
    assert frame["stops"].all()
    assert frame.set_index("number")["state"][8] == "decided"
    assert seeds_in(folder, "solutions") == list(range(5))
    assert "Stopped at look 1 of 2, with 5 seeds" in text
    page = (folder / "results/smoke/report.html").read_text(encoding="utf-8")
    assert "How many seeds it took" in page
    assert "claim 8 decided: no claim is waited for, so it stops" in page
    assert planned(folder, STOPS) == {}


def test_its_verdicts_are_those_of_its_last_look_at_the_level_of_a_look(stopped):
    folder, _, _ = stopped
    frame, path = looks_in(folder), folder / "results/smoke/tables/verdicts.parquet"
    verdicts = tables.read(path, "verdicts").to_pandas()
    for column in ("verdict", "effect", "n"):
        assert frame[column].tolist() == verdicts[column].tolist()
    config = tables.about(path)["config"]
    assert config["claims"]["alpha"] == pytest.approx(0.999 / 2)
    assert config["claims"]["level"] == pytest.approx(0.975)
    assert config["seeds"] == list(range(5))


def test_claims_and_plan_tell_of_looks(stopped, monkeypatch, capsys):
    folder, _, _ = stopped
    monkeypatch.chdir(folder)
    assert main(["claims", "config-under-test.yaml"]) == 0
    said = capsys.readouterr().out
    assert "Stopped at look 1 of 2, with 5 seeds" in said
    assert "[97.5 % interval]" in said


def test_a_list_of_the_same_seeds_and_levels_makes_no_cell_anew(stopped):
    folder, _, _ = stopped
    claims = {"alpha": 0.999 / 2, "level": 0.975}
    jobs = planned(folder, changed(STOPS, seeds=list(range(5)), claims=claims))
    assert not {*TRAINED, "look"} & set(jobs)


def test_what_is_not_decided_takes_more_seeds_and_retrains_none(stopped):
    """Last of this module: the run goes on in the same folder."""
    folder, _, _ = stopped
    cells = folder / "results" / "smoke" / "cells"
    before = {path: path.stat().st_mtime_ns for path in cells.rglob("*") if path.is_file()}
    assert not set(TRAINED) & set(
        planned(folder, GOES_ON)
    )  # the first look is judged anew, and no more is known
    status, text = snakemake(folder, GOES_ON, "--cores", "2", timeout=900)
    assert status == 0, text
    assert {path: path.stat().st_mtime_ns for path in before} == before
    frame = looks_in(folder)
    assert frame.drop_duplicates("look")[["look", "seeds", "stops"]].values.tolist() == [
        [1, 5, False],
        [2, 10, True],
    ]
    assert frame[frame["look"] == 1].set_index("number")["state"][8] == "waited for"
    for table in ("solutions", "training", "asymmetry"):
        assert seeds_in(folder, table) == list(range(10))
    assert (
        len(
            set(
                tables.read(cells.parent / "tables/interpolation.parquet", "interpolation")[
                    "seed"
                ].to_pylist()
            )
        )
        == 9
    )
    assert planned(folder, GOES_ON) == {}
    more = changed(GOES_ON, seeds=FEW | {"most": 20})
    assert not set(TRAINED) & set(planned(folder, more))
    jobs = planned(folder, more, "all", "most_seeds")
    assert (jobs["train_sgd"], jobs["look"]) == (10, 3)


def test_params_of_the_tables_are_those_of_the_seeds_reached(stopped):
    from conftest import fill_defaults

    folder, _, _ = stopped
    path = folder / "results/smoke/tables/solutions.parquet"
    seeds = tables.about(path)["config"]["seeds"]
    found = Params(Experiment(fill_defaults(GOES_ON)).at(len(seeds)))
    assert tables.about(path)["config"] == found.provenance("solutions")

"""Tables, figures and targets of an experiment, and the files that tables are stacked from."""

import pytest
from config_changes import PATH, STUDY, experiment, lined, study
from valleys.config import outputs
from valleys.config.params import Params
from valleys.errors import ValleysError

SOUGHT = {"kind": "searched", "points": 21}


def test_lines_within_a_cell_are_for_swa_and_others_for_basin():
    assert outputs.of_target(experiment(), "basin") == (["interpolation"], [])
    swa = {"start": "swa", "stop": "swa"}
    found = lined(
        0,
        1,
        own={"start": "swa", "stop": "descent"},
        path=PATH,
        recipe=swa | {"stop_recipe": "wide"},
        next=swa | {"stop_seed": "next"},
    )
    assert outputs.of_target(found, "swa")[1] == ["training", "line-own"]
    assert outputs.of_target(found, "basin")[1] == ["line-path", "line-recipe", "line-next"]


def test_parts_and_figures_name_tables_that_are_declared():
    from valleys.storage import tables

    found = experiment()
    assert set(outputs.tables(found)) == set(tables.declared()) - {
        "study",
        "comparison",
        "averages",
        "alignment",
        "looks",
    }
    assert outputs.parts(found, found.cells[0], "training") == [
        f"{part}.parquet" for part in ("training", "cooldown", "descent")
    ]
    assert outputs.parts(found, found.cells[0], "interpolation") == ["lines/swa-descent.parquet"]
    assert outputs.parts(found, found.cells[0], "asymmetry") == ["asymmetry.parquet"]
    assert "curves-uniform" in outputs.figures(found)
    for figure in outputs.figures(found):
        assert set(outputs.figure_tables(found)[figure]) <= set(tables.declared())


def test_simulations_may_be_left_out():
    whole, without = experiment(), experiment(("simulations", False))
    gone = {f"toy_2d{part}" for part in ("", "_curves", "_surface", "_angles", "_scans")}
    gone |= {"theory_average", "theory_gain"}
    assert set(outputs.tables(whole)) - set(outputs.tables(without)) == gone
    assert set(outputs.claim_tables(whole)) - set(outputs.claim_tables(without)) <= gone
    drawn = {"toy-surface", "toy-curves", "toy-angles", "theory-average", "theory-gain"}
    assert set(outputs.figures(whole)) - set(outputs.figures(without)) == drawn
    for target in ("toy", "theory"):
        with pytest.raises(ValleysError, match=f"target {target} is left out .* simulations: false"):
            outputs.of_target(without, target)
    assert outputs.of_target(without, "gain") == outputs.of_target(whole, "gain")


def test_probes_of_kind_sign_have_one_figure_together():
    assert "sign" not in outputs.figures(experiment())
    probes = {
        "a": {"kind": "sign", "share": 1},
        "b": {"kind": "sign", "group": "conv"},
        "sign": {"kind": "uniform"},
    }
    found = outputs.figures(experiment(("probes", probes)))
    assert [name for name in found if name.startswith(("curves", "sign"))] == ["curves-sign", "sign"]


def test_a_study_has_tables_figures_and_a_target_of_its_own():
    found = study(factors={"recipe.weight_decay": [0, 0.1]}, solutions=["sgd", "swa"], lines=["swa-descent"])
    assert {"s", "s_lines"} < set(outputs.tables(found))
    assert outputs.of_target(found, "s") == (["s", "s_lines"], ["study-s", "line-swa-descent"])
    assert found.cells == experiment().cells  # other tables are of the grid's cells alone
    assert [cell.recipe for cell in outputs.cells_of(found, "s")] == [
        "quick", "quick.weight_decay-0", "quick.weight_decay-0.1",
    ]  # fmt: skip
    base = found.cells[0]
    assert base in found.studies["s"]  # shared: trained once
    assert outputs.figure_tables(found)["line-swa-descent"] == ["interpolation", "s_lines"]
    params = Params(found).study("s")
    assert [cell["levels"]["recipe.weight_decay"] for cell in params["cells"]] == [0.0005, 0, 0.1]
    assert Params(found).train_sgd("mlp", "quick.weight_decay-0.1", 0)["recipe"]["weight_decay"] == 0.1


def test_searches_are_in_files_of_the_searched_probes():
    found = experiment(("probes.a", SOUGHT), ("probes.b", SOUGHT | {"solutions": ["swa"]}))
    for config in (
        found,
        experiment(("probes", found.config["probes"]), ("execution.probe_jobs", "together")),
    ):
        for table in ("searches", "search_curves"):
            assert outputs.parts(config, config.cells[0], table) == [
                f"probes/a/{table}.parquet",
                f"probes/b/{table}.parquet",
            ]
    assert outputs.parts(experiment(), experiment().cells[0], "searches") == []
    assert {"searches", "search_curves"} <= set(outputs.of_target(found, "search")[0])
    assert "searches" in outputs.claim_tables(found)
    without = experiment(("probes.a", SOUGHT), ("grid.0.probes", ["uniform"]), ("planes", {}))
    assert outputs.parts(without, without.cells[0], "searches") == []


def test_searches_at_the_minima_of_studies_are_in_the_same_tables():
    decays = {"recipe.weight_decay": [0, 0.1]}
    sought = (("probes.a", SOUGHT), ("grid.0.probes", ["uniform"]), ("planes", {}))
    found = experiment(*sought, ("studies.s", STUDY | {"factors": decays, "probes": ["a"]}))
    for table in ("searches", "search_curves"):
        cells = outputs.cells_of(found, table)
        assert cells[: len(found.cells)] == found.cells
        assert set(cells) == {*found.cells, *found.studies["s"]}
        assert len(cells) == len(set(cells))
        assert Params(found).provenance(table)["studies"] == {"s": found.config["studies"]["s"]}
    for cell in found.studies["s"]:
        assert outputs.parts(found, cell, "searches") == ["probes/a/searches.parquet"]
    assert outputs.cells_of(found, "asymmetry") == found.cells
    other = experiment(*sought, ("studies.s", STUDY | {"factors": decays, "probes": ["uniform"]}))
    assert outputs.cells_of(other, "searches") == other.cells
    assert "studies" not in Params(other).provenance("searches")


def test_searched_directions_are_computed_ones_and_may_span_a_plane():
    found = experiment(("probes.a", SOUGHT), ("planes", {"p": {"span": ["uniform/0", "a/0"]}}))
    (cell,) = found.cells
    assert [name for name in found.probes_of(cell) if found.is_computed(name)] == ["gradient", "a"]
    assert [name for name in found.probes_of(cell) if found.is_searched(name)] == ["a"]
    assert found.direction_inputs(cell, "a") == ["sgd", "swa"]
    assert found.planes_of(cell) == ["p"]
    assert found.target_seeds(cell, "a") == []

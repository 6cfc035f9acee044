"""Cells of grid and studies, and the solutions, probes, lines and planes of each."""

import contextlib

import pytest
from config_changes import BASE, RECIPE, STUDY, changed, experiment, given, lined, study
from conftest import ROOT, fill_defaults, load_config
from valleys.config import outputs
from valleys.config.cells import Cell
from valleys.config.experiment import Experiment
from valleys.config.params import Params
from valleys.costs.jobs import Costs
from valleys.errors import ValleysError
from valleys.landscape import directions
from valleys.models import builder


@pytest.mark.parametrize(
    "path", ["config.yaml", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("config/*.yaml"))]
)
def test_shipped_configs_pass(path):
    found = Experiment(fill_defaults(load_config(path)))
    assert found.cells
    assert found.root == f"results/{found.name}"


def test_grid_is_expanded_in_order_and_without_repeats():
    raw = changed(BASE, "models.deep", {"arch": "mlp", "hidden": [8, 8]})
    raw = changed(raw, "seeds", [10, 9])
    raw["grid"] = [
        {"dataset": "digits", "model": ["mlp", "deep"], "recipe": "quick"},
        {"dataset": ["digits"], "model": "mlp", "recipe": ["quick", "quick"], "seeds": [9, 2]},
    ]
    cells = Experiment(fill_defaults(raw)).cells
    assert [(c.model, c.seed) for c in cells] == [
        ("deep", 9),
        ("deep", 10),
        ("mlp", 2),
        ("mlp", 9),
        ("mlp", 10),
    ]
    assert cells[0].path == "digits/deep/quick/seed-9"
    assert cells[0].columns() == {"dataset": "digits", "model": "deep", "recipe": "quick", "seed": 9}


def test_cells_are_ordered_by_name_then_by_number():
    cells = [Cell("b", "a", "a", 0), Cell("a", "a", "a", 10), Cell("a", "a", "a", 9), Cell("a", "b", "a", 1)]
    assert [cells.index(c) for c in sorted(cells)] == [2, 1, 3, 0]
    assert len({Cell("a", "a", "a", 1), Cell("a", "a", "a", 1)}) == 1


def test_probes_on_norm_parameters_are_skipped_without_norm():
    probes = {
        "whole": {"kind": "uniform"},
        "scale": {"kind": "uniform", "group": "bn_weight"},
        "norm": {"kind": "gaussian", "group": "bn"},
        "head": {"kind": "uniform", "group": "classifier"},
    }
    found = experiment(
        ("probes", probes),
        ("models.plain", {"arch": "mlp", "norm": "none"}),
        ("models.default", {"arch": "mlp"}),  # its norm is none by default
        ("grid.0.model", ["mlp", "plain", "default"]),
    )
    by_model = {cell.model: cell for cell in found.cells}
    assert found.probes_of(by_model["mlp"]) == ["whole", "scale", "norm", "head"]
    assert found.probes_of(by_model["plain"]) == found.probes_of(by_model["default"]) == ["whole", "head"]
    assert outputs.parts(found, by_model["plain"], "curves") == [
        f"probes/{p}/curves.parquet" for p in ("whole", "head")
    ]


def test_probes_on_groups_that_an_architecture_has_not_are_skipped():
    """And only those: of an mlp ``conv`` is its hidden layers."""
    groups = ("all", "not_bn", "bn", "bn_weight", "bn_bias", "conv", "classifier")
    found = experiment(
        ("probes", {name: {"kind": "uniform", "group": name} for name in groups}),
        ("models.linear", {"arch": "mlp", "norm": "batch", "hidden": []}),
        ("models.pixels", {"arch": "resnet8", "norm": "batch"}),
        ("grid.0.model", ["mlp", "linear", "pixels"]),
    )
    for cell in found.cells:
        net, there = builder.build(found.models[cell.model], in_shape=(1, 8, 8), classes=10), []
        for group in groups:
            with contextlib.suppress(ValleysError):  # an empty group
                there += [group] if directions.parameter_group(net, group) else []
        assert found.probes_of(cell) == there, cell.model


def seeded(*seeds, n=2, **probe):
    """An experiment that probes towards other seeds."""
    return experiment(("seeds", list(seeds)), ("probes.other", {"kind": "to_seed", "n": n, **probe}))


def targets(found):
    return {cell.seed: found.target_seeds(cell, "other") for cell in found.cells}


def test_directions_to_other_seeds_go_to_smaller_ones_first():
    assert targets(seeded(3, 7, 5, 0)) == {0: [3, 5], 3: [0, 5], 5: [3, 0], 7: [5, 3]}
    assert targets(seeded(0, 1, 2, n=1)) == {0: [1], 1: [0], 2: [1]}
    assert targets(seeded(4, 9, n=10)) == {4: [9], 9: [4]}, "fewer than n when there are no more"
    found = seeded(0, 1)
    assert all(found.target_seeds(cell, "gradient") == [] for cell in found.cells)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_greater_seed_leaves_complete_targets_as_they_were(n):
    for count in range(2, 6):
        before, after = targets(seeded(*range(count), n=n)), targets(seeded(*range(count + 1), n=n))
        changed = {seed for seed in before if before[seed] != after[seed]}
        assert changed == {seed for seed in before if len(before[seed]) < n}
        # Directions already probed keep their numbers.
        assert all(after[seed][: len(before[seed])] == before[seed] for seed in before)


def test_a_cell_without_other_seeds_has_no_direction_to_one():
    found = experiment(
        ("seeds", [0, 1]),
        ("probes.other", {"kind": "to_seed"}),
        ("models.alone", {"arch": "mlp"}),
        ("grid.1", {"dataset": "digits", "model": "alone", "recipe": "quick", "seeds": [5]}),
    )
    applies = {cell.path: "other" in found.probes_of(cell) for cell in found.cells}
    assert applies == {
        "digits/alone/quick/seed-5": False,
        "digits/mlp/quick/seed-0": True,
        "digits/mlp/quick/seed-1": True,
    }


def stops(found, line):
    """Where a line that starts in each cell stops."""
    ends = {(cell.recipe, cell.seed): found.stop_cell(cell, line) for cell in found.cells}
    assert {at for at, stop in ends.items() if stop} == {
        (cell.recipe, cell.seed) for cell in found.cells if line in found.lines_of(cell)
    }
    return {at: (stop.recipe, stop.seed) for at, stop in ends.items() if stop}


def test_lines_apply_where_the_other_end_exists():
    swa = {"start": "swa", "stop": "swa"}
    found = lined(
        3,
        7,
        5,
        own={"start": "swa", "stop": "descent"},
        recipe=swa | {"stop_recipe": "wide"},
        next=swa | {"stop_seed": "next"},
        both={"start": "sgd", "stop": "swa", "stop_recipe": "wide", "stop_seed": "next"},
    )
    cells = [("quick", 3), ("quick", 5), ("quick", 7), ("wide", 3), ("wide", 5)]
    assert stops(found, "own") == {cell: cell for cell in cells}
    assert stops(found, "recipe") == {("quick", 3): ("wide", 3), ("quick", 5): ("wide", 5)}
    assert stops(found, "next") == {
        ("quick", 3): ("quick", 5),
        ("quick", 5): ("quick", 7),
        ("wide", 3): ("wide", 5),
    }
    assert stops(found, "both") == {("quick", 3): ("wide", 5)}
    quick = {cell.seed: cell for cell in found.cells if cell.recipe == "quick"}
    assert outputs.parts(found, quick[7], "interpolation") == ["lines/own.parquet"]
    assert Params(found).interpolate(quick[3], "both")["line"]["stop_recipe"] == "wide"
    assert Params(found).interpolate(quick[3], "both")["line"]["stop_seed"] == 5
    with pytest.raises(ValleysError, match="line next: no cell for its stop"):
        Params(found).interpolate(quick[7], "next")


def test_greater_seeds_change_no_line_to_the_next():
    line = {"next": {"start": "swa", "stop": "swa", "stop_seed": "next"}}
    for count in range(2, 6):
        before, after = (stops(lined(*range(n), **line), "next") for n in (count, count + 2))
        assert before.items() <= after.items()
        assert len(before) == (count - 1) + (count - 2)


OWN = {"split": {"split": "by_seed"}, "label_noise": {"label_noise": 0.1}}
NEXT = {"start": "sgd", "stop": "sgd", "stop_seed": "next"}


def joining(options, *more):
    """Two data sets, of which the first has these options, and what joins two seeds."""
    return experiment(
        ("seeds", [0, 1]),
        ("datasets.digits", {"source": "digits", "train_size": 200, **options}),
        ("datasets.plain", {"source": "digits"}),
        ("grid.0.dataset", ["digits", "plain"]),
        ("probes.other", {"kind": "to_seed"}),
        ("lines.next", NEXT),
        ("lines.kin", {"start": "sgd", "stop": "swa", "stop_recipe": "wide"}),
        ("recipes.wide", RECIPE),
        ("grid.1", {"dataset": "digits", "model": "mlp", "recipe": "wide"}),
        *more,
    )


@pytest.mark.parametrize("key", OWN)
def test_nothing_joins_two_seeds_of_data_that_differ_by_seed(key):
    found = joining(OWN[key])
    for cell in found.cells:
        of_plain = cell.dataset == "plain"
        assert ("other" in found.probes_of(cell)) == of_plain
        assert ("next" in found.lines_of(cell)) == (of_plain and cell.seed == 0)
        assert ("kin" in found.lines_of(cell)) == (not of_plain and cell.recipe == "quick")  # of one seed


@pytest.mark.parametrize("key", OWN)
@pytest.mark.parametrize(
    ("where", "names", "what"),
    [
        ("grid.0.lines", ["swa-descent", "next"], "'next' has stop_seed next"),
        ("grid.0.probes", ["uniform", "other"], "'other' is of kind to_seed"),
        ("studies.s.lines", ["next"], "'next' has stop_seed next"),
        ("studies.s.probes", ["other"], "'other' is of kind to_seed"),
    ],
)
def test_who_asks_for_it_by_name_is_told_why_not(key, where, names, what):
    levels = {"factors": {"model.norm": ["none"]}}
    more = [] if where.startswith("grid") else [("studies.s", STUDY | levels)]
    with pytest.raises(ValleysError) as caught:
        joining(OWN[key], *more, (where, names))
    (value,) = OWN[key].values()
    right, other = ("fixed", "images") if key == "split" else (0, "labels")
    assert str(caught.value) == (
        f"config: {where}: {what}, but datasets.digits.{key} is {value}, so that two seeds were trained on "
        f"other {other}; drop it here, or set {key} to {right}"
    )


@pytest.mark.parametrize("key", OWN)
@pytest.mark.parametrize(
    ("place", "block", "words"),
    [
        ("probes.other", {"kind": "to_seed"}, "kind to_seed needs a second seed of some cell, but"),
        ("lines.next", NEXT, "stop_seed is next, but"),
    ],
)
def test_what_no_cell_can_have_is_refused_with_the_reason(key, place, block, words):
    data = {"source": "digits", **OWN[key]}
    with pytest.raises(ValleysError, match=rf"^config: {place}: {words} datasets.digits.{key} is "):
        experiment(("seeds", [0, 1]), ("datasets.digits", data), (place, block))


def test_planes_go_to_the_smallest_seeds_that_have_their_directions():
    found = experiment(
        ("seeds", [3, 0, 7]),
        ("grid.1", {"dataset": "digits", "model": "plain", "recipe": "quick", "seeds": [5]}),
        ("models.plain", {"arch": "mlp", "norm": "none"}),
        ("probes.scale", {"kind": "uniform", "group": "bn_weight"}),
        ("probes.other", {"kind": "to_seed", "n": 3}),
        ("planes.solutions.seeds", 2),
        ("planes.scale", {"span": ["scale/0", "scale/9"]}),
        ("planes.others", {"span": ["other/0", "other/1"]}),
        ("planes.too-many", {"span": ["other/0", "other/2"]}),
    )
    planes = {f"{cell.model}/{cell.seed}": found.planes_of(cell) for cell in found.cells}
    assert planes == {
        "mlp/0": ["solutions", "iterates", "directions", "scale", "others"],
        "mlp/3": ["solutions"],
        "mlp/7": [],
        "plain/5": ["solutions", "iterates", "directions"],
    }
    assert outputs.parts(found, found.cells[1], "plane_points") == ["planes/solutions/plane_points.parquet"]
    assert "plane-too-many" in outputs.figures(found)


def test_a_cell_without_all_solutions_has_no_plane():
    found = experiment(("grid.0.solutions", ["sgd"]), ("grid.0.lines", []))
    assert found.planes_of(found.cells[0]) == []
    assert experiment().planes_of(found.cells[0]) == list(found.config["planes"])


def test_the_default_probes_signs_and_controls():
    probes = Experiment(fill_defaults(load_config("config.yaml"))).config["probes"]
    signs = {(p["group"], p["share"]) for p in probes.values() if p["kind"] == "sign"}
    assert signs == {("all", share) for share in (1 / 8, 1 / 4, 1 / 2, 3 / 4, 7 / 8)}
    assert all(p["orthogonal"] for p in probes.values() if p["kind"] == "sign")
    rule = [probes["uniform"][key] for key in ("radius", "relative", "rise", "bn")]
    for probe in probes.values():
        if probe["kind"] in {"gaussian", "sign"}:
            assert [probe[key] for key in ("radius", "relative", "rise", "bn")] == rule


def test_a_grid_entry_chooses_solutions_probes_and_lines():
    found = experiment(("grid.0.solutions", ["sgd"]), ("grid.0.probes", ["uniform"]), ("grid.0.lines", []))
    cell = found.cells[0]
    assert found.solutions_of(cell) == ["sgd"]
    assert found.probes_of(cell) == ["uniform"]
    assert Params(found).probe(cell, "uniform")["probes"]["uniform"]["solutions"] == ["sgd"]
    assert outputs.parts(found, cell, "training") == ["training.parquet", "cooldown.parquet"]
    assert outputs.parts(found, cell, "interpolation") == []
    assert "curves-gradient" not in outputs.figures(found)
    assert "line-swa-descent" not in outputs.figures(found)


def test_a_line_makes_its_ends():
    found = experiment(("grid.0.solutions", ["sgd"]))
    assert found.solutions_of(found.cells[0]) == ["sgd", "swa", "descent"]


def test_entries_for_one_cell_add_up():
    one = {"dataset": "digits", "model": "mlp", "recipe": "quick", "solutions": ["sgd"], "lines": []}
    grid = [one | {"probes": ["gradient"]}, one | {"probes": ["uniform"], "solutions": ["swa"]}]
    found = experiment(("grid", grid))
    assert len(found.cells) == 1
    assert found.probes_of(found.cells[0]) == ["uniform", "gradient"]
    assert found.solutions_of(found.cells[0]) == ["sgd", "swa"]


START = {"epochs": 6, "lr": 0.1, "swa": {"start": 3, "lr": 0.05}}


STARTS = {
    "recipe not in the grid": ({"recipe": "first"}, {}),
    "its average": ({"recipe": "first", "solution": "swa"}, {"keep": "window"}),
    "its descent, nothing kept": ({"recipe": "first", "solution": "descent"}, {"keep": "none"}),
    "one that is itself started": ({"recipe": "second"}, {}),
}


@pytest.mark.parametrize(("start", "execution"), STARTS.values(), ids=STARTS)
def test_a_recipe_starts_from_cells_that_nobody_else_wants(start, execution):
    """Costs and plan know them, tables do not."""
    found = experiment(
        ("recipes.first", START),
        ("recipes.second", START | {"start_from": {"recipe": "first", "solution": "swa"}}),
        ("recipes.quick", RECIPE | {"start_from": start}),
        ("probes.other", {"kind": "to_seed"}),
        ("lines.next", {"start": "sgd", "stop": "sgd", "stop_seed": "next"}),
        ("grid.0.seeds", [0, 1]),
        ("execution", execution),
        ("studies.norms", STUDY | {"factors": {"model.norm": ["batch", "none"]}, "seeds": [5]}),
    )
    more = set(found.trained_cells) - set(found.all_cells)
    passed = {"first"} | ({"second"} if start["recipe"] == "second" else set())
    assert {cell.recipe for cell in more} == passed
    assert len(more) == 4 * len(passed)  # seeds 0 and 1, and two models with seed 5
    assert not more & set(found.wanted)
    priced = Costs(found)
    for cell in more:
        assert found.solutions_of(cell) == found.probes_of(cell) == found.planes_of(cell) == []
        wildcards = {**cell.columns(), "seed": str(cell.seed), "solution": "sgd"}
        for rule in ("train_sgd", "average", "refresh_bn", "descend"):
            assert priced(rule, wildcards).seconds > 0
        made = {"window": 3, "none": 0}.get(execution.get("keep"), 3)
        assert found.iterates_of(cell) == made


def test_studies_may_be_named_as_methods_of_snakemakes_lists():
    names = {name: STUDY | {"factors": {"model.norm": ["none"]}} for name in ("items", "get", "keys", "x")}
    assert list(experiment(("studies", names)).studies) == list(names)


def test_a_study_of_another_level_trains_just_that():
    few = study(factors={"model.activation": ["relu", "tanh"]})
    more = study(factors={"model.activation": ["relu", "tanh", "gelu"]})
    assert {c.model for c in set(more.all_cells) - set(few.all_cells)} == {"mlp.activation-gelu"}
    assert set(few.all_cells) < set(more.all_cells)


def test_probes_look_at_own_names_unless_they_list_one():
    def looked(solutions, listed):
        found = given(solutions, ("probes.u.solutions", listed))
        return found.probed_solutions(found.cells[0], "u")

    assert looked(["mine"], ["sgd", "swa"]) == ["mine"]
    assert looked(["mine", "swa", "b"], ["sgd", "swa"]) == ["swa", "mine", "b"]
    assert looked(["mine", "sgd", "b"], ["b", "sgd"]) == ["b", "sgd"]
    assert looked(["sgd", "swa", "descent"], ["swa", "sgd"]) == ["swa", "sgd"]
    found = given(["mine", "other", "swa"], ("grid.0.solutions", ["other"]))
    assert found.solutions_of(found.cells[0]) == ["other"]


def test_last_is_made_only_when_asked_for():
    assert experiment().solutions_of(experiment().cells[0]) == ["sgd", "swa", "descent"]
    for asked in (
        ("grid.0.solutions", ["swa", "last"]),
        ("lines.x", {"start": "last", "stop": "swa"}),
    ):
        found = experiment(asked, ("planes", {}))
        assert "last" in found.solutions_of(found.cells[0])
    # A probe that lists it asks for nothing: it looks at what is made.
    found = experiment(("probes.uniform.solutions", ["sgd", "last"]))
    assert found.probed_solutions(found.cells[0], "uniform") == ["sgd"]
    levels = {"factors": {"model.norm": ["none"]}}
    assert {tuple(one.solutions_of(c)) for one in [study(**levels)] for c in one.studies["s"]} == {
        ("sgd", "swa", "descent"),  # of the grid
        ("sgd",),
    }


def test_given_weights_named_last_are_looked_at_as_under_a_name_of_ones_own():
    found = given(["last", "averaged"])
    (cell,) = found.cells
    assert found.solutions_of(cell) == found.probed_solutions(cell, "u") == ["last", "averaged"]
    found = given(["sgd", "last"])
    assert found.probed_solutions(found.cells[0], "u") == ["sgd", "last"]
    found = given(["last", "averaged"], ("probes.u.solutions", ["last"]))
    assert found.probed_solutions(found.cells[0], "u") == ["last"]
    found = given(["last", "averaged"], ("grid.0.solutions", ["averaged"]))
    assert found.solutions_of(found.cells[0]) == ["averaged"]
    # That of trained cells beside them is not made for it.
    entry = {"dataset": "digits", "model": "mlp", "recipe": "quick"}
    found = given(["last"], ("recipes.quick", RECIPE), ("grid.1", entry))
    assert {cell.recipe: found.probed_solutions(cell, "u") for cell in found.cells} == {
        "theirs": ["last"],
        "quick": ["sgd", "swa"],
    }


def test_lines_and_planes_need_the_solutions_they_name():
    line = {"start": "mine", "stop": "swa"}
    plane = {"through": ["mine", "other", "swa"]}
    span = {"span": ["u/0", "u/1"], "at": "mine"}
    found = given(["mine", "other", "swa"], ("lines.x", line), ("planes", {"p": plane, "q": span}))
    assert [found.lines_of(cell) for cell in found.cells] == [["x"]]
    assert found.planes_of(found.cells[0]) == ["p", "q"]
    assert Params(found).plane("theirs", "p")["plane"]["at"] == "mine"


def test_given_weights_have_no_iterates():
    found = given(["mine"])
    assert {found.iterates_of(found.cells[0], keep) for keep in ("none", "window", "all")} == {0}


@pytest.mark.parametrize(
    ("probe", "made", "told"),
    [
        ({}, ["sgd", "swa"], True),
        ({}, ["sgd"], False),
        ({"solutions": ["swa"]}, ["sgd", "swa"], False),
        ({"kind": "gaussian"}, ["sgd", "swa"], False),
    ],
)
def test_searched_directions_at_sgd_are_told_where_swa_lies_if_there_is_one(probe, made, told):
    probes = {"s": {"kind": "searched", "points": 21, "solutions": ["sgd"], **probe}}
    entry = {"dataset": "digits", "model": "mlp", "recipe": "quick", "solutions": made, "lines": []}
    found = experiment(("probes", probes), ("grid", [entry]), ("planes", {}))
    assert found.looks_towards_swa(found.cells[0], "s") is told

"""Averages that a config asks for: which cells have them, what they change, and mistakes in one line."""

import json

import pytest
from config_changes import RECIPE, STUDY, experiment, given
from valleys.config import outputs
from valleys.config.averages import averages_of, block_of
from valleys.config.params import Params
from valleys.errors import ValleysError
from valleys.landscape.kinds import AVERAGES

EMA, LAST, SOUP = {"kind": "ema"}, {"kind": "last", "k": 2}, {"kind": "greedy", "most": 0.5}


def asked(*changes, **blocks):
    """The smoke experiment, which averages three iterates, with these averages."""
    return experiment(("averages", blocks or {"ema": EMA, "last": LAST, "soup": SOUP}), *changes)


def test_nothing_is_made_or_changed_without_them():
    plain, empty = experiment(), experiment(("averages", {}))
    assert "averages" not in outputs.tables(plain)
    assert "averages" not in outputs.claim_tables(plain)
    assert averages_of(plain, plain.cells[0]) == []
    assert "averages" not in Params(plain).results()
    for name in ("results", "report", "claims"):
        assert getattr(Params(plain), name)() == getattr(Params(empty), name)()


def test_blocks_have_the_defaults_of_their_kind():
    found = asked(a=EMA, b={"kind": "last"}, c={"kind": "weighted", "weights": [1, 2]}, d=SOUP)
    assert block_of(found, "a") == {"kind": "ema", "decay": 0.9, "most": 0.1}
    assert block_of(found, "b") == {"kind": "last", "k": 5, "most": 0.1}
    assert block_of(found, "c") == {"kind": "weighted", "weights": [1, 2], "most": 0.1}
    assert block_of(found, "d") == {"kind": "greedy", "most": 0.5}


def test_kinds_of_the_schema_are_those_there_are():
    from valleys.config.schema import read_yaml
    from valleys.storage import schemas

    block = read_yaml(schemas.schema("config.schema.yaml").read_text(), "schema")
    options = block["properties"]["averages"]["additionalProperties"]["properties"]
    assert set(options["kind"]["enum"]) == set(AVERAGES)
    assert set(options) - {"kind", "most"} == {key for own in AVERAGES.values() for key in own}


def test_a_cell_has_those_that_its_entry_names_and_that_it_has_iterates_for():
    (cell,) = asked().cells
    assert averages_of(asked(), cell) == ["ema", "last", "soup"]
    assert averages_of(asked(("grid.0.averages", ["soup", "ema"])), cell) == ["ema", "soup"]
    assert averages_of(asked(("grid.0.averages", [])), cell) == []
    # Three iterates: k is 5 without it. Without names they do not apply.
    found = asked(long={"kind": "last"}, four={"kind": "weighted", "weights": [1, 1, 1, 1]}, ema=EMA)
    assert averages_of(found, cell) == ["ema"]
    assert averages_of(asked(("recipes.quick.swa.window", 1), ("planes", {})), cell) == []
    weights = given(["sgd"], ("averages", {"ema": EMA}))
    assert [averages_of(weights, one) for one in weights.cells] == [[]]


def test_studies_have_none():
    found = asked(("studies.s", STUDY | {"factors": {"recipe.weight_decay": [0]}}))
    assert [bool(averages_of(found, cell)) for cell in found.all_cells] == [
        cell in found.cells for cell in found.all_cells
    ]
    assert len(found.all_cells) > len(found.cells)


def test_the_table_is_of_the_cells_that_have_some():
    found = asked(("recipes.more", RECIPE), (
        "grid.1", {"dataset": "digits", "model": "mlp", "recipe": "more", "averages": []},
    ))  # fmt: skip
    assert outputs.tables(found).index("averages") == outputs.tables(found).index("solutions") + 1
    assert "averages" in outputs.claim_tables(found)
    assert "averages" in outputs.of_target(found, "swa")[0]
    assert "averages" not in outputs.of_target(experiment(), "swa")[0]
    parts = {cell.recipe: outputs.parts(found, cell, "averages") for cell in found.cells}
    assert parts == {"quick": ["averages.parquet"], "more": []}


def test_params_follow_what_is_asked_and_no_other_rule_depends_on_it():
    plain, found = experiment(), asked(("grid.0.averages", ["ema"]))
    (cell,) = found.cells
    spec = Params(found).compare_averages(cell)
    assert spec["averages"] == {"ema": {"kind": "ema", "decay": 0.9, "most": 0.1}}
    assert (spec["window"], spec["loss"]["name"]) == (None, "cross_entropy")
    for table in outputs.tables(plain):
        if table not in ("claims", "verdicts"):
            own, other = (json.dumps(Params(one).provenance(table)) for one in (plain, found))
            assert own == other, table
    for rule in ("evaluate", "average"):
        assert getattr(Params(plain), rule)("quick") == getattr(Params(found), rule)("quick")
    assert Params(plain).claims() == Params(found).claims()
    assert "averages" in Params(found).provenance("averages")["grid"][0]


@pytest.mark.parametrize(
    ("blocks", "changes", "words"),
    [
        ({"a": {"kind": "ema", "k": 3}}, [], "averages.a.k: is of kind last; kind ema has decay"),
        ({"a": {"kind": "greedy", "decay": 0.5}}, [], "a.decay: is of kind ema; kind greedy has no option"),
        ({"a": {"kind": "weighted"}}, [], "averages.a: kind weighted needs weights"),
        ({"a": {"kind": "weighted", "weights": [0, 1]}}, [], r"averages.a.weights: \[0, 1\] is no average"),
        ({"swa": EMA}, [], "averages.swa: that is what the others are compared with; choose another name"),
        ({"a": {"kind": "emma"}}, [], "averages.a.kind"),
        ({"a": {"kind": "ema", "decay": 1}}, [], "averages.a.decay"),
        ({"a": {"kind": "last", "k": 1}}, [], "averages.a.k"),
        ({"a": {"kind": "ema", "decy": 0.9}}, [], "averages.a.*decy"),
        ({"ema": EMA}, [("grid.0.averages", ["emma"])], "'emma' is not among averages, did you mean 'ema'"),
        ({}, [("grid.0.averages", ["ema"])], "grid.0.averages: 'ema' is not among averages; there are none"),
        (
            {"last": {"kind": "last"}}, [("grid.0.averages", ["last"])],
            "grid.0.averages: 'last': it takes 5 iterates, and recipe quick averages 3; leave it out",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(blocks, changes, words):
    with pytest.raises(ValleysError, match=words) as caught:
        experiment(("averages", blocks), *changes)
    assert "\n" not in str(caught.value)


def test_given_weights_that_are_asked_for_averages_are_one_line():
    with pytest.raises(ValleysError, match="'ema': given weights have no iterates; leave it out"):
        given(["sgd"], ("averages", {"ema": EMA}), ("grid.0.averages", ["ema"]))

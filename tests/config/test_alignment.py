"""Pairs of seeds that are aligned: which there are, what they change, and mistakes in one line."""

import json

import pytest
from config_changes import STUDY, experiment, given
from valleys.config import outputs
from valleys.config.alignment import partner
from valleys.config.params import Params
from valleys.errors import ValleysError

ASKED = ("grid.0.alignment", True)


def pairs(found):
    return {cell.seed: other.seed for cell in found.all_cells if (other := partner(found, cell))}


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [
        ([0, 1], {0: 1}),
        ([0, 1, 2], {0: 1}),
        ([5, 0, 3, 9], {0: 3, 5: 9}),
        (list(range(12)), {0: 1, 2: 3, 4: 5, 6: 7, 8: 9, 10: 11}),
    ],
)
def test_no_two_pairs_share_a_seed(seeds, expected):
    found = experiment(("seeds", seeds), ASKED)
    assert pairs(found) == expected
    assert pairs(experiment(("seeds", seeds))) == {}
    parts = [part for cell in found.cells for part in outputs.parts(found, cell, "alignment")]
    assert parts == ["alignment.parquet"] * len(expected)


def test_a_seed_above_the_others_changes_no_pair():
    few, more = (experiment(("seeds", list(range(n))), ASKED) for n in (4, 6))
    for cell in few.cells:
        assert partner(few, cell) == partner(more, cell)
    assert Params(few).align(few.cells[0]) == Params(more).align(few.cells[0])
    with pytest.raises(ValleysError, match="seed-1 is the first of no pair"):
        Params(few).align(few.cells[1])


def test_seeds_of_entries_and_studies_that_do_not_ask_are_in_no_pair():
    found = experiment(
        ("seeds", [0, 1, 2]), ASKED, ("grid.0.seeds", [0, 2]),
        ("grid.1", {"dataset": "digits", "model": "mlp", "recipe": "quick", "seeds": [1]}),
        ("studies.s", STUDY | {"factors": {"recipe.weight_decay": [0]}}),
    )  # fmt: skip
    assert pairs(found) == {0: 2}


def test_nothing_else_depends_on_it():
    plain, found = experiment(("seeds", [0, 1])), experiment(("seeds", [0, 1]), ASKED)
    assert set(outputs.tables(found)) - set(outputs.tables(plain)) == {"alignment"}
    assert "alignment" in outputs.claim_tables(found)
    assert "alignment" in outputs.of_target(found, "basin")[0]
    for table in outputs.tables(plain):
        if table not in ("claims", "verdicts"):
            own, other = (json.dumps(Params(one).provenance(table)) for one in (plain, found))
            assert own == other, table
    assert Params(plain).claims() == Params(found).claims()


def test_given_weights_may_be_aligned():
    found = given(["sgd"], ("seeds", [0, 1]), ASKED)
    assert pairs(found) == {0: 1}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([("seeds", [4])], "it takes two seeds with a solution sgd; add a seed"),
        ([("datasets.digits.split", "by_seed")], "images or labels of data set digits differ by seed"),
    ],
)
def test_an_entry_without_a_pair_is_one_line(changes, words):
    with pytest.raises(ValleysError, match=words) as caught:
        experiment(("seeds", [0, 1]), *changes, ASKED)
    assert str(caught.value).startswith("config: grid.0.alignment: true, but there is no pair to align: ")
    assert "\n" not in str(caught.value)

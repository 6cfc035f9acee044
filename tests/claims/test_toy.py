"""Experiment 7: the line of the released code, and the scan over all angles."""

import pandas as pd
import pytest
from claim_tables import EMPTY, scans, toy
from valleys.claims.settings import Settings
from valleys.claims.toy import judge

NONE = {name: EMPTY[name] for name in ("toy_2d", "toy_2d_scans")}


def rows_of(**data):
    return list(judge(**NONE | data, settings=Settings()))


@pytest.mark.parametrize(
    ("hits", "n", "verdict"),
    [
        (46, 46, "supported"),
        (13, 13, "supported"),  # (3 / 4)^13 = 0.0238
        (12, 12, "inconclusive"),  # 0.0317
        (2, 2, "not decidable"),  # no hit of 2 would have 1 / 16 against it
        (10, 13, "inconclusive"),
        (20, 46, "refuted"),
    ],
)
def test_a_scan_finds_in_more_than_three_quarters_of_draws(hits, n, verdict):
    found, random = rows_of(toy_2d_scans=scans(*[True] * hits, *[False] * (n - hits)))
    assert (found["claim"], found["verdict"], found["n"]) == ("toy_found", verdict, n)
    assert found["effect"] == pytest.approx(hits / n)
    assert (found["number"], found["experiment"], found["decides"]) == (3, 7, True)
    assert (random["claim"], random["number"], random["decides"]) == ("toy_random", 3, False)


@pytest.mark.parametrize(
    ("share", "verdict"),
    [(0.6, "supported"), (0.25, "inconclusive"), (0.3, "inconclusive"), (0.01, "refuted")],
)
def test_random_directions_are_weighed_against_a_quarter(share, verdict):
    row = rows_of(toy_2d_scans=scans(*[True] * 40, share=share))[1]
    assert (row["verdict"], row["effect"]) == (verdict, pytest.approx(share))


def test_only_the_minimum_at_the_headline_rise_decides():
    every = pd.concat(
        scans(*[True] * 20, recipe=recipe, rise=rise)
        for recipe in ("released", "converged")
        for rise in (1.0, 2.0, 10.0)
    )
    deciding = [row["scope"] for row in rows_of(toy_2d_scans=every) if row["decides"]]
    assert deciding == ["one neuron/converged/2 nats"]


def test_draws_without_a_minimum_are_left_out_and_counted():
    statuses = ["asymmetric"] * 20 + ["no_minimum"] * 4
    table = toy(*statuses, recipe="converged")
    found, random, line = rows_of(toy_2d=table, toy_2d_scans=scans(*[True] * 20))
    assert "draws without a minimum, left out: 4" in found["note"]
    assert "left out: 4" in random["note"]
    assert (line["claim"], line["n"], line["verdict"]) == ("toy_released", 20, "supported")


def test_recipes_are_judged_apart_and_other_statuses_are_counted():
    lines = pd.concat(
        [
            toy(*["asymmetric"] * 19, "flat", "not_minimum"),
            toy(*["symmetric"] * 19, recipe="converged"),
            toy("no_minimum", recipe="lost"),
        ]
    )
    rows = rows_of(toy_2d=lines)
    assert [(row["scope"], row["verdict"], row["n"]) for row in rows] == [
        ("one neuron/converged", "refuted", 19),
        ("one neuron/released", "supported", 21),
    ]
    assert "1 flat; 1 not_minimum" in rows[1]["note"]
    assert not any(row["decides"] for row in rows)


def test_nothing_is_said_of_empty_tables():
    assert rows_of() == []

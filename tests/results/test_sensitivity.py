"""Verdicts at a grid of constants are those that detection itself gives at each."""

import math

import numpy as np
import pyarrow as pa
import pytest
from valleys.asymmetry.definition import detect
from valleys.results import sensitivity, stats
from valleys.storage import tables

CONSTANTS = {"c": 2.0, "zeta_max": 0.5, "min_span": 0.25, "minimum_within": 0.25, "noise": 1e-9}
SETTINGS = ("zeta_max", "min_span", "c")


def curve(steep, power=2.0, points=41):
    x = np.linspace(-1, 1, points)
    return x, np.where(x < 0, steep, 1.0) * np.abs(x) ** power


def make(curves, slopes=None, **names):
    """The curves table of one direction a curve, seeds alternating."""
    blank = {c["name"]: "" for c in tables.declared()["curves"]["columns"] if c["type"] == "string"}
    base = {**blank, "dataset": "d", "model": "m", "recipe": "r", "solution": "sgd", "probe": "u"}
    rows = [
        {**base, "kind": "uniform", "seed": i % 2, "k": i, "offset": x, "train_loss": y, "test_loss": y}
        | {
            "train_accuracy": 0.0,
            "test_accuracy": 0.0,
            "train_slope": None if slopes is None else slopes[i][j],
        }
        | names
        for i, (offsets, losses) in enumerate(curves)
        for j, (x, y) in enumerate(zip(offsets, losses, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=tables.schema("curves"))


CURVES = [curve(s, p) for s in (1.0, 2.0, 4.0, 9.0, 40.0) for p in (1.0, 1.5, 3.0)]


def test_each_row_is_what_detection_says(tmp_path):
    rows = sensitivity.rows(make(CURVES), CONSTANTS, 0.95)
    tables.write(tmp_path / "t", "sensitivity", rows)
    assert len(rows) == 3 * 2 * 4
    for row in rows:
        setting = {key: row[key] for key in SETTINGS}
        verdicts = [detect(*one, **CONSTANTS | setting).status for one in CURVES]
        assert (row["n"], row["asymmetric"]) == (15, verdicts.count("asymmetric"))
        share = stats.wilson(row["asymmetric"], 15)
        assert (row["share"], row["low"], row["high"]) == (share.estimate, share.low, share.high)
    assert len({row["asymmetric"] for row in rows}) > 3
    assert [[row[key] for key in SETTINGS] for row in rows if row["chosen"]] == [[0.5, 0.25, 2.0]]


def test_the_experiments_own_constants_join_the_grid():
    own = CONSTANTS | {"zeta_max": 0.9, "min_span": 0.1, "c": 2.5}
    rows = sensitivity.rows(make(CURVES[:3]), own, 0.95)
    (chosen,) = (row for row in rows if row["chosen"])
    assert [chosen[key] for key in SETTINGS] == [0.9, 0.1, 2.5]
    # A span of 1/4 has no room beside zeta_max of 0.9.
    assert len(rows) == (4 * 2 - 1) * 5


def test_exact_slopes_are_used():
    x = np.linspace(-1, 1, 41)
    exact = [np.where(x < 0, -6.0, 1.0)] * 2
    rows = sensitivity.rows(make([curve(1.0, 1.0)] * 2, exact), CONSTANTS, 0.95)
    assert all(row["asymmetric"] == 2 for row in rows)  # the slopes given, not those of the losses


def test_coarse_grids_skip_narrow_windows_and_sizes_may_differ():
    rows = sensitivity.rows(make([curve(9.0, 1.0, points=5), curve(9.0, 1.0)]), CONSTANTS, 0.95)
    assert {row["zeta_max"] for row in rows} == {0.5, 0.75}
    assert all((row["n"], row["asymmetric"]) == (2, 2) for row in rows)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_curve_that_is_not_finite_counts_as_not_asymmetric(bad):
    x, y = curve(9.0, 1.0)
    broken = np.where(x == 1, bad, y)
    rows = sensitivity.rows(make([(x, y), (x, broken)]), CONSTANTS, 0.95)
    assert all((row["n"], row["asymmetric"]) == (2, 1) for row in rows)
    none = sensitivity.rows(make([(x, broken)]), CONSTANTS, 0.95)
    assert all((row["n"], row["asymmetric"]) == (1, 0) for row in none)


@pytest.mark.parametrize("names", [{"kind": "sign"}, {"solution": "swa"}])
def test_kind_sign_and_other_solutions_are_left_out(names):
    assert sensitivity.rows(make(CURVES[:2], **names), CONSTANTS, 0.95) == []


def test_ties_count_as_detection_counts_them():
    """Slopes of exactly c : 1, which rounding puts a little below c."""
    tied = [(x, 0.1 * k + 0.3 * k * y) for k in range(1, 12) for x, y in [curve(2.0, 1.0)]]
    assert any(detect(*one).c_star < 2 for one in tied)
    (row,) = (row for row in sensitivity.rows(make(tied), CONSTANTS, 0.95) if row["chosen"])
    assert row["asymmetric"] == len(tied)

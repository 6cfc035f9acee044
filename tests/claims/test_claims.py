"""All claims together: the rows of the table, and its text."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from claim_tables import (
    ALL_SIX,
    EMPTY,
    HIGHER,
    KEPT,
    PAIR,
    T,
    asymmetry,
    average,
    bumps,
    descents,
    gain,
    judge,
    line,
    measured,
    scans,
    searched,
    shifted,
    signed,
    solutions,
    towards,
    toy,
)
from study_claims import LEVELS, SIX, TWICE, norms, recipes, sample
from study_tables import table, variants
from valleys import claims
from valleys.claims.rules import VERDICTS
from valleys.claims.settings import Settings
from valleys.errors import ValleysError
from valleys.storage import tables

SWA_LESS = ("train_loss", "test_loss", "test_accuracy")
PROBES = {"sought": {"rise": 2.0, "seek": "asymmetric"}, "even": {"rise": 2.0, "seek": "symmetric"}}
SETTINGS = Settings(probes=PROBES)


def test_no_data_have_no_rows():
    assert claims.judge(EMPTY, SETTINGS) == []


def everything():
    parts = [signed([(0.625, 1.0)]), shifted((0.5,), (0.1,), probe="other"), towards((0.5,), probe="sought")]
    parts.append({"asymmetry": asymmetry(("asymmetric", "flat"), ("symmetric", "symmetric"))})
    return {
        "asymmetry": pd.concat([part["asymmetry"] for part in parts]),
        "directions": pd.concat([parts[0]["directions"], parts[2]["directions"]]),
        "shift": parts[1]["shift"],
        "solutions": solutions([0.1]),  # one seed: no interval
        "interpolation": pd.concat(
            [
                *(line((T - 1) ** 2, T**2, seed=s) for s in range(2)),
                bumps(0.1, joins="cell", line="sgd-swa", start="sgd", stop="swa"),
                bumps(0.1),
                bumps(0.1, joins="seed", line="seeds"),
                bumps(0.1, joins="seed", line="path", path="bezier", t=np.linspace(0, 1, 5)),
            ]
        ),
        "toy_2d": toy("asymmetric"),
        "toy_2d_scans": scans(True),
        "theory_average": average((1.0, 0.0, 0.0, -0.5), (2.0, 0.2, 0.1, -0.5)),
        "theory_gain": gain((2.0, 0.5, 0.1, 0.05)),
        "training": descents([KEPT, HIGHER]),
        "theory_measured": pd.concat(
            [
                measured([(0.1, -0.1)]),
                measured([(0.1, -0.1)], probe="sought", kind="searched"),
                measured([(0.1, -0.1)], probe="even", kind="searched", status="symmetric"),
            ]
        ),
        "searches": searched(True, False),
    }


def test_rows_fit_the_declared_table(tmp_path):
    rows = claims.judge(everything(), SETTINGS)
    tables.write(tmp_path / "claims.parquet", "claims", rows)
    found = tables.read(tmp_path / "claims.parquet", "claims")
    assert found["claim"].to_pylist() == [row["claim"] for row in rows]
    assert {row["claim"] for row in rows} >= {
        "directions_are_asymmetric",
        *(f"swa_{what}_{of}" for what in SWA_LESS for of in ("sgd", "descent")),
        "swa_on_flat_side",
        "swa_on_flat_side_of_found",
        "sgd_and_swa_are_neighbours",
        "swa_is_better_across_barriers",
        "bias_gains_on_found_directions",
        "bias_gains_more_than_on_symmetric",
        "test_minimum_towards_swa",
        "toy_found",
        "toy_random",
        "toy_released",
        "average_on_flat_side",
        "average_bound_holds",
        "averaging_lowers_train_loss",
        "bias_to_flat_side_gains",
        "gain_bound_holds",
        "test_loss_is_shifted",
        "test_loss_is_shifted_and_lifted",
        "shift_is_symmetric",
        "matching_signs_flattens",
        "asymmetric_direction_is_found",
        "one_basin",
        "line_looks_sharp_from_one_side",
        "seeds_are_apart",
        "seeds_are_connected",
        "swa_paper_selection_exists",
        "swa_test_loss_paper_selection",
        *PAIR,
    }
    assert set(found["verdict"].to_pylist()) <= set(VERDICTS)
    assert all(set(row) == set(tables.schema("claims").names) for row in rows)


def test_a_mean_over_seeds_has_the_value_of_each():
    """So that two experiments can be compared seed by seed."""
    data = solutions(ALL_SIX)
    lines = pd.concat([line((T - 0.5) ** 2, (T - 0.4) ** 2, seed=seed) for seed in (3, 5)])
    apart = pd.concat([line(1 - (T - 0.5) ** 2, T, seed=s, line="s", stop_seed=s + 1) for s in (3, 5)])
    found = judge(
        solutions=data[data["seed"] != 2],
        interpolation=pd.concat([lines, apart]),
        training=descents([(-0.1, 0.2)], [(0.1, 0.2)], [(-0.3, 0.4)]),
        theory_measured=measured([(1.0, 0.5), (2.0, 0.5)], [(4.0, 0.5)]),
        **shifted((0.5,), (0.25,)),
    )
    by_seed = {claim: json.loads(row["by_seed"] or "null") for claim, row in found.items()}
    assert by_seed["swa_train_loss_sgd"] == by_seed["swa_train_loss_descent"]
    assert by_seed["swa_train_loss_sgd"] == pytest.approx({str(k): ALL_SIX[k] for k in (0, 1, 3, 4, 5)})
    assert set(by_seed["test_minimum_towards_swa"]) == set(by_seed["swa_on_flat_side"]) == {"3", "5"}
    assert by_seed["seeds_are_apart"] == {"3": pytest.approx(0.25), "5": pytest.approx(0.25)}
    assert by_seed["swa_test_loss_paper_selection"] == pytest.approx({"0": -0.2, "2": -0.4})
    assert by_seed["bias_gains_on_measured_curves"] == {"0": 1.5, "1": 4.0}
    assert by_seed["test_loss_is_shifted"] == pytest.approx({"0": 0.5, "1": 0.25})
    for claim, values in by_seed.items():
        if values:
            assert np.mean(list(values.values())) == pytest.approx(found[claim]["effect"]), claim
    assert by_seed["swa_paper_selection_exists"] is None


def test_text_contains_every_row():
    rows = claims.judge(everything(), SETTINGS)
    text = claims.as_text(pd.DataFrame(rows))
    body = text.splitlines()[2:]
    assert len(body) == len(rows)
    by_number = sorted(rows, key=lambda row: row["number"] or 99)
    for row, printed in zip(by_number, body, strict=True):
        effect = ("-",) if math.isnan(row["effect"]) else (row["unit"], f"{row['effect']:+.3g}")
        for word in (row["verdict"], row["claim"], row["scope"], *effect):
            assert word in printed


def test_a_duplicate_solution_is_not_averaged_away():
    table = pd.concat([solutions([0.1]), solutions([0.2])])
    with pytest.raises((ValueError, ValleysError)):
        claims.judge({**EMPTY, "solutions": table}, SETTINGS)


def test_judge_takes_studies_and_rows_fit_the_declared_table(tmp_path):
    parts = [
        table(variants([({}, 2.0)]), "none"),
        table(variants([(at, 2.0) for at in LEVELS]) + variants([(LEVELS[1], 2.0)], penalty=True), "decay"),
        table(norms({"batch": 3.0, "none": 2.0}, {"gaussian": 1.0}), "norms"),
        table(sample(lambda levels: 0.0, runs=5), "sampled"),
        table(recipes({"big": SIX, "small": TWICE}, {"big": TWICE, "small": SIX}), "two"),
    ]
    settings = Settings(factors={"two": {"recipe": ["small"]}})
    rows = claims.judge({**EMPTY, "study": pd.concat(parts, ignore_index=True)}, settings)
    tables.write(tmp_path / "claims.parquet", "claims", rows)
    assert {row["experiment"] for row in rows} == {1, 6, 8, 9, 10, 11}
    assert any(row["claim"] == "small_is_sharper" for row in rows)
    assert all(set(row) == set(tables.schema("claims").names) for row in rows)
    assert len({(row["claim"], row["scope"], row["measure"]) for row in rows}) == len(rows)

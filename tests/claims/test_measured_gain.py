"""Experiment 4 on measured curves."""

import numpy as np
import pandas as pd
import pytest
from claim_tables import PAIR, by_claim, deciding, judged, measured
from valleys.claims import measured_gain
from valleys.claims.settings import Settings

PROBES = {
    "uniform": {"rise": 2.0, "bn": "refreshed"},
    "searched": {"rise": 2.0, "bn": "refreshed", "seek": "asymmetric"},
    "searched-10": {"rise": 10.0, "bn": "refreshed", "seek": "asymmetric"},
    "symmetric": {"rise": 2.0, "bn": "refreshed", "seek": "symmetric"},
    "symmetric-frozen": {"rise": 2.0, "bn": "frozen", "seek": "symmetric"},
    "symmetric-10": {"rise": 10.0, "bn": "refreshed", "seek": "symmetric"},
}
FOUND, MORE = "bias_gains_on_found_directions", "bias_gains_more_than_on_symmetric"


def of(table, **settings):
    return by_claim(measured_gain.judge, Settings(**({"probes": PROBES} | settings)), theory_measured=table)


def found(*seeds, probe="searched", **about):
    return measured(*seeds, probe=probe, kind="searched", **about)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([(0.1, 0.3)] * 6, "supported"),
        ([(-0.1, -0.3)] * 6, "refuted"),
        ([(0.1, 0.3)] * 5, "not decidable"),
        ([(0.1, 0.3)] * 4 + [(-0.1, -0.2)] * 4, "inconclusive"),
        # Most directions gain, but in each minimum the mean is a loss.
        ([(0.1, 0.1, 0.1, -0.9)] * 6, "refuted"),
    ],
)
def test_a_bias_on_measured_curves(values, verdict, which):
    pairs = [[(v, 0.0) if which == 0 else (0.0, v) for v in seed] for seed in values]
    rows = of(measured(*pairs))
    row, other = rows[PAIR[which]], rows[PAIR[1 - which]]
    assert (row["verdict"], row["n"], row["experiment"]) == (verdict, len(values), 4)
    assert row["effect"] == pytest.approx(np.mean([np.mean(v) for v in values]))
    assert (row["unit"], row["scope"], row["number"]) == ("nats", "d/m/r/uniform", 7)
    assert other["verdict"] in ("inconclusive", "not decidable")
    assert deciding(rows) == set()


def test_symmetric_directions_are_a_control_in_the_note():
    both = pd.concat([
        measured(*[[(0.1, 0.2)] * 2] * 6),
        measured(*[[(-0.3, 0.4)]] * 5, [(0.5, -0.6)], status="symmetric"),
    ])  # fmt: skip
    rows = of(both)
    gain, test = (rows[claim]["note"] for claim in PAIR)
    assert "asymmetric directions: 12 of 18; along symmetric ones -0.167, above 0 in 1 of 6 minima" in gain
    assert "with twice the shift and bias 0.3" in gain
    assert "along symmetric ones 0.233, above 0 in 5 of 6 minima; train loss there -0.25" in test


@pytest.mark.parametrize("names", [{"kind": "sign"}, {"solution": "swa"}, {"status": "symmetric"}])
def test_without_asymmetric_directions_there_is_no_such_claim(names):
    assert of(measured(*[[(0.1, 0.1)]] * 6, **names)) == {}


@pytest.mark.parametrize(
    ("gains", "others", "verdicts"),
    [
        ([0.2] * 6, [0.1] * 6, ("supported", "supported")),
        ([0.2] * 6, [0.3] * 6, ("supported", "refuted")),
        ([-0.2] * 6, [-0.3] * 6, ("refuted", "supported")),
        ([0.2] * 6, [0.1, 0.3] * 3, ("supported", "inconclusive")),
        ([0.2] * 5, [0.1] * 5, ("not decidable", "not decidable")),
    ],
)
@pytest.mark.parametrize("status", ["symmetric", "asymmetric"])  # the most symmetric one may not be symmetric
def test_directions_found(gains, others, verdicts, status):
    rows = of(
        pd.concat([
            found(*[[(gain, 0.0)] for gain in gains]),
            found(*[[(gain, 0.0)] for gain in others], probe="symmetric", status=status),
        ])
    )  # fmt: skip
    assert tuple(rows[claim]["verdict"] for claim in (FOUND, MORE)) == verdicts
    assert deciding(rows) == {FOUND, MORE}
    assert rows[MORE]["effect"] == pytest.approx(np.mean(gains) - np.mean(others))
    assert rows[MORE]["scope"] == "d/m/r/searched against symmetric"
    assert all("at a rise of 2 nats" in rows[claim]["note"] for claim in (FOUND, MORE))
    assert set(rows) == {FOUND, MORE, "bias_lowers_test_loss"}


def test_minima_whose_direction_is_not_asymmetric_are_left_out_and_said():
    table = pd.concat([found(*[[(0.2, 0.0)]] * 6), found([(-9.0, 0.0)], status="symmetric", dataset="e")])
    rows = judged(measured_gain.judge, Settings(probes=PROBES), theory_measured=table)
    assert {row["scope"] for row in rows} == {"d/m/r/searched"}
    mixed = pd.concat([
        found(*[[(0.2, 0.0)]] * 6),
        found(*[[(-9.0, 0.0)]] * 7, status="symmetric").query("seed == 6"),
    ])  # fmt: skip
    row = of(mixed)[FOUND]
    assert (row["n"], row["effect"]) == (6, pytest.approx(0.2))
    assert "asymmetric directions: 6 of 7" in row["note"]


def test_a_comparison_at_other_rises_is_refused():
    table = [found(*[[(0.2, 0.0)]] * 6), found(*[[(0.1, 0.0)]] * 6, probe="symmetric", rise=0.5)]
    row = of(pd.concat(table))[MORE]
    assert (row["verdict"], row["p_for"], row["decides"]) == ("not decidable", None, True)
    assert "2 and 0.5" in row["note"] or "0.5 and 2" in row["note"]


def test_directions_are_compared_with_those_found_alike():
    others = [found(*[[(0.1, 0.0)]] * 6, probe=p) for p in ("symmetric-frozen", "symmetric-10")]
    assert MORE not in of(pd.concat([found(*[[(0.2, 0.0)]] * 6), *others]))
    table = pd.concat([found(*[[(0.2, 0.0)]] * 6, probe="searched-10"), others[1]])
    rows = of(table)
    assert rows[MORE]["verdict"] == "supported"
    assert deciding(rows) == set()  # not at the headline rise


def test_controls_and_own_weights_decide_nothing():
    table = pd.concat([found(*[[(0.2, 0.0)]] * 6), found(*[[(0.1, 0.0)]] * 6, probe="symmetric")])
    assert deciding(of(table, controls=["d"])) == deciding(of(table, checkpoints=["r"])) == set()
    own = measured(*[[(0.2, 0.0)]] * 6, probe="searched", kind="searched", solution="mine")
    assert set(of(own)) == {FOUND, "bias_lowers_test_loss"}
    assert deciding(of(own, checkpoints=["r"])) == set()


def test_minima_without_one_of_the_two_are_left_out_and_said():
    table = pd.concat([found(*[[(0.2, 0.0)]] * 8), found(*[[(0.1, 0.0)]] * 6, probe="symmetric")])
    row = of(table)[MORE]
    assert (row["verdict"], row["n"]) == ("supported", 6)
    assert "symmetric direction has no gain, left out: 2" in row["note"]

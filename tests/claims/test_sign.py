"""Experiment 12."""

import math

import pandas as pd
import pytest
from claim_tables import by_claim, deciding, judged, signed
from valleys.claims import sign
from valleys.claims.settings import Settings

RISING = [(0.5, 0.1), (0.5, -0.2), (0.75, 0.5), (0.875, 0.75)]
SLOPE = (0.25 * 0.5 + 0.375 * 0.75) / (0.25**2 + 0.375**2)  # through index 0 at one half
CLAIM = "matching_signs_flattens"
SHARES = ("s-all-0", "s-all-1")
PROBES = {probe: {"rise": 2.0, "orthogonal": True} for probe in SHARES}


def judge(*parts, **settings):
    return by_claim(sign.judge, Settings(**({"probes": PROBES} | settings)), **stacked(*parts))


def stacked(*parts):
    return {name: pd.concat([part[name] for part in parts]) for name in ("directions", "asymmetry")}


def times(factor):
    return [(share, factor * index) for share, index in RISING]


@pytest.mark.parametrize(
    ("seeds", "verdict"),
    [
        ([RISING] * 6, "supported"),
        ([times(-1)] * 6, "refuted"),
        ([RISING] * 5, "not decidable"),
        ([RISING] * 3 + [times(-1)] * 3, "inconclusive"),
    ],
)
def test_agreement_in_sign_against_asymmetry(seeds, verdict):
    rows = judge(signed(*seeds))
    row = rows[CLAIM]
    assert (row["verdict"], row["n"], row["experiment"]) == (verdict, len(seeds), 12)
    assert (row["scope"], row["number"]) == ("d/m/r/all/orthogonal, 2 nats", 12)
    assert row["effect"] == pytest.approx(
        0 if verdict == "inconclusive" else SLOPE * (1 - 2 * (verdict == "refuted"))
    )
    assert "at a rise of 2 nats; directions a minimum: 4, each as u and as -u" in row["note"]
    assert deciding(rows) == {CLAIM}


def test_each_direction_counts_as_u_and_as_minus_u():
    found = judge(signed([(0.6, 1.0), (0.1, -3.0)]))[CLAIM]
    assert found["effect"] == pytest.approx((0.1 * 1 + 0.4 * 3) / (0.1**2 + 0.4**2))
    assert judge(signed([(0.4, -1.0), (0.9, 3.0)]))[CLAIM]["effect"] == pytest.approx(found["effect"])


def test_groups_are_judged_apart_and_other_directions_do_not_count():
    data = stacked(
        signed(*[RISING] * 6),
        signed(*[times(-1)] * 6, group="conv"),
        signed(*[times(-1)] * 6, solution="swa"),
        signed(*[times(-1)] * 6, group="bn", kind="gaussian"),
    )
    probes = PROBES | {probe.replace("all", "conv"): about for probe, about in PROBES.items()}
    rows = judged(sign.judge, Settings(probes=probes), **data)
    assert [(r["scope"], r["verdict"], r["decides"]) for r in rows] == [
        ("d/m/r/all/orthogonal, 2 nats", "supported", True),
        ("d/m/r/conv/orthogonal, 2 nats", "refuted", False),
    ]


def test_rises_and_directions_that_are_not_orthogonal_are_judged_apart():
    data = signed(*[[*RISING, *times(-1), *times(3)]] * 6)  # two directions a probe
    about = [{"rise": 2.0, "orthogonal": True}, {"rise": 10.0, "orthogonal": True}, {"rise": 2.0}]
    probes = {f"s-all-{k}": about[k // 2] for k in range(6)}
    rows = judged(sign.judge, Settings(probes=probes), **data)
    assert {(r["scope"], round(r["effect"] / SLOPE, 6), r["decides"]) for r in rows} == {
        ("d/m/r/all/orthogonal, 2 nats", 1, True),
        ("d/m/r/all/orthogonal, 10 nats", -1, False),
        ("d/m/r/all/2 nats", 3, False),
    }


def test_controls_own_weights_and_unknown_probes_decide_nothing():
    data = signed(*[RISING] * 6)
    for settings in ({"controls": ["d"]}, {"checkpoints": ["r"]}, {"probes": {}}):
        rows = judge(data, **settings)
        assert rows[CLAIM]["verdict"] == "supported"
        assert deciding(rows) == set()


def test_directions_without_an_index_are_left_out():
    row = judge(signed(*[[*RISING[:3], (0.875, math.nan)]] * 6))[CLAIM]
    assert (row["verdict"], row["effect"]) == ("supported", pytest.approx(2.0))
    assert "6 of 24 directions left out: no index" in row["note"]
    row = judge(signed(*[[(0.875, math.nan)]] * 6))[CLAIM]
    assert (row["verdict"], row["n"]) == ("not decidable", 0)
    assert "left out, not finite: 6" in row["note"]

"""The twelve verdicts: which rows decide, how they are joined, and the adjustment over all of them."""

import pytest
from claim_tables import EMPTY, average, gain, scans, toy
from valleys.claims import CLAIMS, Settings, judge, judge_twelve
from valleys.results.measures import LEFT_OUT


def row(number, p_for, p_against, verdict="inconclusive", decides=True, **more):
    about = {"number": number, "decides": decides, "verdict": verdict, "p_for": p_for, "p_against": p_against}
    about |= {"claim": "a_claim", "scope": "digits/mlp/swa", "n": 12, "n_needed": None}
    about |= {"effect": 1.0, "low": 0.5, "high": 1.5, "unit": "nats"}
    return about | more


def verdict(rows, number=1, alpha=0.05):
    return judge_twelve(rows, alpha)[number - 1]


def test_there_are_twelve_each_with_a_name_of_its_own():
    assert [one.number for one in CLAIMS] == list(range(1, 13))
    assert len({one.name for one in CLAIMS}) == 12


def test_a_run_without_rows_decides_nothing():
    for found in judge_twelve([], 0.05):
        assert found["verdict"] == "not decidable"
        assert found["note"] == "nothing in this run decides it"


def test_claims_that_rest_on_simulations_say_when_these_are_left_out():
    rows = [row(6, 0.001, 1.0), row(8, 0.001, 1.0)]
    for found in judge_twelve(rows, 0.05, simulations=False):
        assert (LEFT_OUT in found["note"]) == (found["number"] in (3, 6, 7))
        assert found["verdict"] == ("supported" if found["number"] in (6, 8) else "not decidable")
    assert not any(LEFT_OUT in found["note"] for found in judge_twelve(rows, 0.05))


def test_which_claims_rest_on_simulations():
    rows = judge(with_simulations(), Settings())
    decided = {one["number"] for one in rows if one["decides"]}
    assert decided == {one.number for one in CLAIMS if one.simulated}
    assert judge({name: table for name, table in EMPTY.items() if name not in SIMULATED}, Settings()) == []


SIMULATED = ("toy_2d", "toy_2d_scans", "theory_average", "theory_gain")


def with_simulations():
    """Tables of a run with simulations and nothing else."""
    made = (toy("asymmetric"), scans(True), average((4, 1.0, 0.5, -0.1)), gain((4, 0.5, 0.1, 0.05)))
    return EMPTY | dict(zip(SIMULATED, made, strict=True))


def test_rows_that_stand_beside_have_no_part():
    found = verdict([row(1, 0.001, 1.0), row(1, 1.0, 0.0001, decides=False), row(2, 1.0, 0.0001)])
    assert found["verdict"] == "supported"
    assert found["decided_by"] == 1
    assert found["rows"] == 2


def test_all_rows_must_hold():
    assert verdict([row(1, 0.001, 1.0), row(1, 0.002, 1.0)])["verdict"] == "supported"
    assert verdict([row(1, 0.001, 1.0), row(1, 0.3, 0.7)])["verdict"] == "inconclusive"


def test_one_row_against_refutes_and_is_the_one_shown():
    found = verdict([row(1, 0.001, 1.0), row(1, 1.0, 0.001, scope="mnist/mlp/swa")])
    assert found["verdict"] == "refuted"
    assert "mnist/mlp/swa" in found["effect"]
    assert found["p_value"] == pytest.approx(2 * 2 * 0.001)


def test_several_chances_to_refute_are_paid_for():
    rows = [row(1, 0.001, 1.0) for _ in range(9)] + [row(1, 0.98, 0.02)]
    assert verdict(rows)["verdict"] == "inconclusive"


def test_one_row_is_enough_where_anything_will_do():
    found = verdict([row(11, 0.001, 1.0), row(11, 0.6, 1.0)], 11)
    assert found["verdict"] == "supported"
    assert found["p_value"] == pytest.approx(2 * 2 * 0.001)  # two rows had a chance
    assert verdict([row(11, 0.6, 1.0), row(11, 0.6, 1.0)], 11)["verdict"] == "inconclusive"


def test_the_adjustment_is_over_the_claims_that_were_tested():
    alone = verdict([row(1, 0.02, 1.0)])
    assert alone["verdict"] == "supported"
    assert alone["p_adjusted"] == pytest.approx(0.04)
    among = judge_twelve([row(1, 0.02, 1.0), *(row(n, 0.5, 0.5) for n in range(2, 13))], 0.05)
    assert among[0]["verdict"] == "inconclusive"
    assert among[0]["p_adjusted"] == pytest.approx(12 * 0.04)


def test_what_no_data_can_decide_is_named_with_the_n_it_takes():
    few = row(1, None, None, verdict="not decidable", n=3, n_needed=6)
    found = verdict([few])
    assert found["verdict"] == "not decidable"
    assert "n = 3, it takes 6" in found["note"]


def test_a_row_that_cannot_be_decided_keeps_the_claim_from_support_but_not_from_refutation():
    few = row(1, 0.2, 1.0, verdict="not decidable", n=3, n_needed=6)
    assert verdict([row(1, 0.001, 1.0), few])["verdict"] == "not decidable"
    assert verdict([row(1, 1.0, 0.001), few])["verdict"] == "refuted"


def test_the_note_counts_what_the_rows_say():
    found = verdict([row(1, 0.001, 1.0, verdict="supported"), row(1, 0.3, 0.7)])
    assert found["note"] == "2 rows decide: 1 supported, 1 inconclusive (a_claim digits/mlp/swa)"

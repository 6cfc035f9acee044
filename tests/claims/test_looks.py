"""What is decided at a look, what is waited for, and when no more seeds are added."""

import math

import pandas as pd
import pytest
from claim_tables import CELL, EMPTY, asymmetry, solutions
from valleys.claims import CLAIMS, Settings, judge, judge_twelve, looks
from valleys.claims.rules import NOT_DECIDABLE
from valleys.storage import tables

COUNTS = (8, 16, 24)


def row(number=1, n=8, scope="s", **more):
    about = {"number": number, "decides": True, "claim": "c", "scope": scope, "n": n, "n_needed": None}
    about |= {"effect": 0.0, "low": 0.0, "high": 0.0, "unit": "", "verdict": "inconclusive"}
    return about | {"p_for": 0.5, "p_against": 0.5} | more


def states(rows, fewer=(), seeds=8, alpha=0.05 / 3):
    path = looks.path(judge_twelve(rows, alpha), rows, fewer, seeds=seeds, looks=COUNTS, alpha=alpha)
    assert {one["state"] for one in path} <= set(looks.STATES)
    return {one["number"]: one["state"] for one in path}, path[0]["stops"]


@pytest.mark.parametrize(
    ("rows", "fewer", "state"),
    [
        ([row()], [], looks.WAITED),
        ([row(p_for=1e-6)], [], looks.DECIDED),
        ([row(p_against=1e-6)], [], looks.DECIDED),
        # The level is that of a look: 0.02 would do at 0.05.
        ([row(p_for=0.01)], [], looks.WAITED),
        ([row()], [row()], looks.UNSEEDED),
        ([row(), row(scope="other")], [row()], looks.WAITED),
        ([row(n=12)], [row(n=4)], looks.WAITED),
        ([], [], looks.NEVER),
        ([row(decides=False)], [], looks.NEVER),
        ([row(n=0, verdict=NOT_DECIDABLE, n_needed=7)], [], looks.NEVER),
        # 8 values grow to 24.
        ([row(verdict=NOT_DECIDABLE, n_needed=24)], [], looks.WAITED),
        ([row(verdict=NOT_DECIDABLE, n_needed=25)], [], looks.NEVER),
        ([row(verdict=NOT_DECIDABLE, n_needed=math.nan)], [], looks.NEVER),
        ([row(verdict=NOT_DECIDABLE)], [], looks.NEVER),
        # Four of eight are of the seeds that are added: these grow to twelve.
        ([row(verdict=NOT_DECIDABLE, n_needed=16)], [row(n=4)], looks.WAITED),
        ([row(verdict=NOT_DECIDABLE, n_needed=17)], [row(n=4)], looks.NEVER),
    ],
)
def test_what_is_waited_for(rows, fewer, state):
    found, stops = states(rows, fewer)
    assert found[1] == state
    assert stops == (state != looks.WAITED)


def test_the_last_look_stops_whatever_is_open():
    assert states([row()], seeds=16) == ({1: looks.WAITED} | dict.fromkeys(range(2, 13), looks.NEVER), False)
    assert states([row()], seeds=24)[1]


def test_one_claim_that_is_open_is_enough_to_go_on():
    rows = [row(number, p_for=1e-6) for number in range(1, 12)]
    assert states(rows)[1]
    assert not states([*rows, row(12)])[1]


def test_the_table_can_be_written_and_says_what_it_is_of(tmp_path):
    rows = [row(p_for=1e-6), row(2)]
    alpha = 0.05 / 3
    path = looks.path(judge_twelve(rows, alpha), rows, [], seeds=16, looks=COUNTS, alpha=alpha)
    tables.write(tmp_path / "looks.parquet", "looks", path)
    frame = tables.read(tmp_path / "looks.parquet", "looks").to_pandas()
    assert frame["number"].tolist() == [one.number for one in CLAIMS]
    assert set(frame["look"]) == {2}
    assert set(frame["seeds"]) == {16}
    assert not frame["stops"].any()


def test_what_is_said_of_the_end():
    def text(rows, seeds):
        alpha = 0.05 / 3
        path = looks.path(judge_twelve(rows, alpha), rows, [], seeds=seeds, looks=COUNTS, alpha=alpha)
        return looks.as_text(pd.DataFrame(path))

    said = text([row(p_for=1e-6)], 16)
    assert said.startswith(
        "Stopped at look 2 of 3, with 16 seeds: no claim that more seeds could decide is open."
    )
    assert "0.0167" in said
    assert "at look 3 of 3, with 24 seeds: the last look; claim 1 is still open." in text([row()], 24)
    assert "claims 1, 2 are still open" in text([row(), row(2)], 24)


def test_cells_are_left_out_of_all_tables_of_cells():
    cells = [(*CELL.values(), seed) for seed in (1, 2)]
    data = {"solutions": solutions([0.1] * 4), "asymmetry": asymmetry(*[["symmetric"]] * 4)}
    data["theory_gain"] = pd.DataFrame({"gain": [1.0, 2.0]})
    found = looks.without(data, cells)
    assert set(found["solutions"]["seed"]) == set(found["asymmetry"]["seed"]) == {0, 3}
    assert len(found["theory_gain"]) == 2
    assert len(looks.without(data, [])["solutions"]) == len(data["solutions"])
    assert len(data["solutions"]) == 12  # as it was


def test_rows_of_real_rules_rest_on_seeds():
    """Claim 8 of eight seeds, of which some or all are added."""
    data = EMPTY | {"solutions": solutions([0.1, -0.1] * 4, column="test_loss")}
    alpha = 0.05 / 3
    settings = Settings(alpha=alpha)

    def state(seeds):
        rows = judge(data, settings)
        fewer = judge(looks.without(data, [(*CELL.values(), seed) for seed in seeds]), settings)
        path = looks.path(judge_twelve(rows, alpha), rows, fewer, seeds=8, looks=COUNTS, alpha=alpha)
        return path[7]["state"]

    assert state(range(8)) == looks.WAITED
    assert state(range(4, 8)) == looks.WAITED
    assert state([]) == looks.UNSEEDED

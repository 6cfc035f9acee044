"""Below claim 8: averages against SWA, minimum by minimum."""

import math

import numpy as np
import pandas as pd
import pytest
from claim_tables import ALL_SIX, CELL, by_claim, judged
from valleys.claims import averages, verdicts
from valleys.claims.settings import Settings

TEST, TRAIN = "average_test_loss_swa", "average_train_loss_swa"
WHY = "between the iterates of epochs 4 and 6 the train loss rises by 0.3, above most=0.1"


def table(differences, column="judged_loss", name="ema", **cell):
    """The averages table: an average less SWA of one column as given, seed by seed; 0 in the other."""
    rows = []
    for seed, difference in enumerate(differences):
        base = {"train_loss": 0.2, "judged_loss": 0.5 + 0.1 * seed}
        about = {**CELL, **cell, "seed": seed, "refused": None}
        rows.append({**about, "average": "swa", "kind": "equal", **base})
        rows.append({**about, "average": name, "kind": "ema", **base, column: base[column] + difference})
    return pd.DataFrame(rows)


def of(frame, **settings):
    return by_claim(averages.judge, Settings(**settings), averages=frame)


@pytest.mark.parametrize(
    ("column", "claim", "other"), [("judged_loss", TEST, TRAIN), ("train_loss", TRAIN, TEST)]
)
@pytest.mark.parametrize(("sign", "verdict"), [(-1, "supported"), (1, "refuted")])
def test_lower_losses_than_swas(column, claim, other, sign, verdict):
    rows = of(table([sign * x for x in ALL_SIX], column))
    row = rows[claim]
    assert (row["verdict"], row["n"], row["unit"]) == (verdict, 6, "nats")
    assert row["p_value"] == pytest.approx(2 / 64)
    assert row["effect"] == pytest.approx(sign * np.mean(ALL_SIX))
    assert (row["scope"], row["number"], row["decides"], row["experiment"]) == ("d/m/r/ema", 8, False, 2)
    assert rows[other]["verdict"] == "inconclusive"


def test_a_mixed_sample_and_too_few_seeds_say_nothing():
    assert of(table([-1, 1, -1, 1, -1, 1]))[TEST]["verdict"] == "inconclusive"
    few = of(table([-x for x in ALL_SIX[:5]]))[TEST]
    assert (few["verdict"], few["n"]) == ("not decidable", 5)


def test_seeds_are_paired_with_their_own_swa_in_any_order():
    frame = table([-x for x in ALL_SIX]).sample(frac=1, random_state=3)
    assert of(frame)[TEST]["effect"] == pytest.approx(-np.mean(ALL_SIX))


def test_refused_averages_are_counted_and_have_no_value():
    frame = table([-x for x in ALL_SIX] + [9.0])
    gone = (frame["seed"] == 6) & (frame["average"] == "ema")
    frame.loc[gone, ["judged_loss", "train_loss"]] = math.nan
    frame.loc[gone, "refused"] = WHY
    row = of(frame)[TEST]
    assert (row["verdict"], row["n"]) == ("supported", 6)
    assert f"refused 1 of 7: seed 6, {WHY}" in row["note"]
    all_gone = frame[frame["seed"] == 6]
    row = of(all_gone)[TEST]
    assert (row["verdict"], row["n"]) == ("not decidable", 0)
    assert "refused 1 of 1" in row["note"]


def test_each_average_and_setting_is_judged_by_itself():
    down, up = [-x for x in ALL_SIX], ALL_SIX
    both = [table(down, name="a"), table(up, name="b"), table(up, name="a", model="other")]
    rows = judged(averages.judge, averages=pd.concat(both).drop_duplicates(["model", "seed", "average"]))
    found = {row["scope"]: row["verdict"] for row in rows if row["claim"] == TEST}
    assert found == {"d/m/r/a": "supported", "d/m/r/b": "refuted", "d/other/r/a": "refuted"}


def test_a_run_without_them_has_no_such_rows():
    assert judged(averages.judge, averages=None) == []
    assert judged(averages.judge, averages=table([]).reindex(columns=["average"])) == []


def test_they_have_no_part_in_the_verdict_of_claim_8():
    rows = judged(averages.judge, averages=table([-x for x in ALL_SIX]))
    twelve = {row["number"]: row for row in verdicts.judge_twelve(rows, 0.05)}
    assert twelve[8]["verdict"] == "not decidable"

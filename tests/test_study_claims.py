"""Claims about studies: each verdict where its rule says so, chosen by factors and not by names."""

import json
import math
import random

import numpy as np
import pandas as pd
import pytest
from study_tables import FILTER, GAUSSIAN, HESSIAN, UNIFORM, minimum, table, variants
from valleys import claims, stats, tables

DECAY, NORM, INIT = "recipe.weight_decay", "model.norm", "model.norm_init"
LEVELS = [{DECAY: 0}, {DECAY: 0.0005}, {DECAY: 0.005}]


def judge(rows, order=None, **options):
    """Rows of the claims table by claim; of several rows of one claim the list."""
    frame = rows if isinstance(rows, pd.DataFrame) else table(rows)
    options = {"c": 2.0, "alpha": 0.05, "level": 0.95} | options
    found = {}
    for row in claims.studies(frame, {"mine": order} if order else None, **options):
        found.setdefault(row["claim"], []).append(row)
    return found


def only(found, claim):
    (row,) = found[claim]
    return row


# --- no factors: experiment 8 ---


def test_prevalence_of_a_study_without_factors():
    rows = variants([({}, 2.0)]) + variants([({}, 0.1)], probe=GAUSSIAN)
    found = judge(rows + minimum({}, 6, (0.0, 0.0), train_accuracy=0.2))
    exists = {row["scope"]: row for row in found["asymmetric_direction_exists"]}
    assert {scope: row["verdict"] for scope, row in exists.items()} == {
        "mine/digits/m-base/r/uniform-far": "supported",
        "mine/digits/m-base/r/gaussian-far": "refuted",
    }
    assert {row["experiment"] for group in found.values() for row in group} == {8}
    row = exists["mine/digits/m-base/r/uniform-far"]
    assert (row["n"], row["effect"]) == (6, 1.0)  # not the untrained one
    assert "1 of 7 minima left out: train accuracy below 0.5" in row["note"]
    assert set(found) == {"asymmetric_direction_exists", "directions_are_asymmetric", "rises_are_uneven"}


def test_penalised_rows_are_no_further_directions():
    found = judge(variants([({}, 2.0)]) + variants([({}, 2.0)], penalty=True))
    assert only(found, "directions_are_asymmetric")["n"] == 12


# --- weight decay: experiment 9 ---


@pytest.mark.parametrize(("sizes", "verdict"), [
    ([2.0] * 6, "supported"), ([0.1] * 6, "refuted"), ([2.0, 0.1] * 3, "inconclusive"),
])  # fmt: skip
def test_asymmetry_survives_l2(sizes, verdict):
    found = judge(variants([(LEVELS[0], 2.0), (LEVELS[1], 2.0), (LEVELS[2], sizes)]))
    rows = {row["scope"]: row for row in found["asymmetry_survives_l2"]}
    assert len(rows) == 3
    row = rows["mine/weight decay 0.005/uniform-far"]
    assert (row["verdict"], row["experiment"], row["n"]) == (verdict, 9, 6)
    assert rows["mine/weight decay 0/uniform-far"]["verdict"] == "supported"


NOISE = np.array([0.01, -0.01, 0.02, -0.02, 0.03, -0.03])
TRENDS = {
    "none": ((2.0, 2.0, 2.0 + NOISE), "supported"),
    "up": ((1.0, 1.5, 2.0 + NOISE), "refuted"),
    "down": ((2.0, 1.5, 1.0 + NOISE), "refuted"),
    "small, one way": ((2.0, 2.0, 2.1 + NOISE), "refuted"),
    "noise": ((2.0, 2.0, 2.0 + 50 * NOISE), "inconclusive"),
    "not a line": ((1.0, 3.0, 1.0 + NOISE), "supported"),
}


@pytest.mark.parametrize("what", TRENDS)
def test_l2_does_not_change_asymmetry(what):
    sizes, verdict = TRENDS[what]
    parts = [(at, list(np.broadcast_to(size, 6))) for at, size in zip(LEVELS, sizes, strict=True)]
    row = only(judge(variants(parts)), "l2_does_not_change_asymmetry")
    assert (row["verdict"], row["experiment"], row["n"]) == (verdict, 9, 6)
    values = np.array([size for _, size in parts])
    change = (values[2] - values[0]) / values.mean(axis=0)  # of three levels the middle one has no weight
    assert row["effect"] == pytest.approx(change.mean())
    assert "refuted: p < 0.05; else supported: interval within" in row["rule"]


def test_few_seeds_show_no_absence_of_change():
    row = only(
        judge(variants([(at, [2.0] * 5) for at in LEVELS], seeds=range(5))), "l2_does_not_change_asymmetry"
    )
    assert (row["verdict"], row["n"]) == ("inconclusive", 5)
    assert "6 can" in row["note"]


def test_a_seed_without_all_levels_has_no_trend():
    rows = variants([(at, 2.0) for at in LEVELS])
    for row in rows[-2:]:
        row["train_accuracy"] = 0.1
    row = only(judge(rows), "l2_does_not_change_asymmetry")
    assert row["n"] == 5
    assert "seeds without a trained minimum at each level, left out: 1" in row["note"]
    assert "1 of 18 minima left out" in row["note"]


@pytest.mark.parametrize(("same", "verdict"), [(12, "supported"), (0, "refuted"), (6, "inconclusive")])
def test_penalty_leaves_verdicts(same, verdict):
    rows = variants([(at, 2.0) for at in LEVELS[:2]])
    more = variants([(LEVELS[1], 2.0)], penalty=True)
    for row in more[same:]:
        row["status"] = "not_minimum"
    row = only(judge(rows + more), "penalty_leaves_verdicts")
    assert (row["verdict"], row["n"], row["effect"]) == (verdict, 12, same / 12)
    assert row["scope"] == "mine/weight decay 0.0005/uniform-far"
    assert same == 12 or f"{12 - same} from asymmetric to not minimum" in row["note"]


@pytest.mark.parametrize(("gain", "verdict"), [(0.1, "supported"), (-0.1, "refuted"), (None, "inconclusive")])
def test_swa_at_each_level(gain, verdict):
    rows = []
    for levels, seed in ((at, seed) for at in LEVELS for seed in range(6)):
        own = (0.1 if seed % 2 else -0.1) if gain is None else gain
        swa = {"swa_gain": own if levels[DECAY] == 0.005 else 0.2, "swa_rise": 0.3}
        rows += minimum(levels, seed, (2.0,), **swa) + minimum(levels, seed, (2.0,), GAUSSIAN, **swa)
    found = judge(rows)
    last = {row["scope"]: row for row in found["swa_gain"]}["mine/weight decay 0.005"]
    assert (last["verdict"], last["n"], last["experiment"]) == (verdict, 6, 9)  # once, not once a probe
    assert "one of 3 levels, p not corrected" in last["note"]
    assert [row["effect"] for row in found["swa_rise"]] == pytest.approx([0.3] * 3)


# --- norms: experiment 10 ---


def norms(sizes, inits=(), **options):
    base = {NORM: "batch", INIT: "ones"}
    parts = [(base | {NORM: norm}, size) for norm, size in sizes.items()]
    parts += [(base | {INIT: init}, size) for init, size in dict(inits).items()]
    return variants(parts, **options)


@pytest.mark.parametrize(("batch", "verdict"), [
    (3.0, "supported"), (1.0, "refuted"), ([1.0, 3.0] * 3, "inconclusive"),
])  # fmt: skip
def test_batch_norm_makes_asymmetric(batch, verdict):
    rows = norms({"batch": batch, "group": 2.0, "none": 2.0})
    rows += norms({"batch": 9.0, "group": 2.0}, probe=UNIFORM | {"probe": "only-bn", "group": "bn"})
    found = judge(rows)["bn_makes_asymmetric"]
    assert [row["scope"] for row in found] == [
        "mine/batch against group/uniform-far", "mine/batch against none/uniform-far",
    ]  # fmt: skip
    assert {(row["verdict"], row["experiment"], row["n"]) for row in found} == {(verdict, 10, 6)}
    assert "one of 2 such comparisons in this study, p not corrected" in found[0]["note"]


def test_effects_of_batch_norm_are_within_seeds():
    row, _ = judge(norms({"batch": [3, 4, 5, 6, 7, 8], "group": [2, 3, 4, 5, 6, 7], "none": 0.5}))[
        "bn_makes_asymmetric"
    ]
    assert (row["effect"], row["low"], row["high"], row["p_value"]) == pytest.approx((1, 1, 1, 2 / 64))
    assert "asymmetric directions: batch 12 of 12, group 12 of 12" in row["note"]


@pytest.mark.parametrize(("inside", "verdict"), [
    (3.0, "supported"), (1.0, "refuted"), ([1.0, 3.0] * 3, "inconclusive"),
])  # fmt: skip
def test_directions_of_batch_norm(inside, verdict):
    """Within minima with batch norm: the other norm's, where it is the other way, do not count."""
    rows = norms({"batch": inside, "group": 0.1}, probe=UNIFORM | {"probe": "u-bn", "group": "bn"})
    rows += norms({"batch": 2.0, "group": 9.0}, probe=UNIFORM | {"probe": "u-not", "group": "not_bn"})
    row = only(judge(rows), "bn_directions_are_more_asymmetric")
    assert (row["verdict"], row["n"]) == (verdict, 6)
    assert row["scope"] == "mine/batch norm/u-bn against u-not"


@pytest.mark.parametrize(("gaussian", "verdict"), [
    (1.0, "supported"), (3.0, "refuted"), ([1.0, 3.0] * 3, "inconclusive"),
])  # fmt: skip
def test_initial_scales(gaussian, verdict):
    rows = norms({"batch": 2.0, "none": 0.0}, {"uniform": 9.0, "gaussian": gaussian})
    row = only(judge(rows), "bn_init_matters")
    assert (row["verdict"], row["n"], row["experiment"]) == (verdict, 6, 10)
    assert abs(row["effect"]) == pytest.approx(0.0 if verdict == "inconclusive" else 1.0, abs=0.01)


def test_untrained_minima_have_no_part_in_a_comparison():
    rows = norms({"batch": 3.0, "none": 2.0})
    for row in rows[-2:]:
        row |= {"train_accuracy": 0.1, "asymmetry_index": 99.0}
    row = only(judge(rows), "bn_makes_asymmetric")
    assert (row["n"], row["verdict"]) == (5, "inconclusive")
    assert row["effect"] == pytest.approx(1.0)
    assert "1 of 12 minima left out" in row["note"]


# --- sampled designs: experiment 11 ---

FACTORS = {
    "model.activation": ["relu", "tanh", "gelu"],
    "recipe.loss.name": ["mse", "focal"],
    "model.skip": [True, False],
}


def sample(effect, runs=36, noise=0.1, start=0):
    """Runs with random levels, each from a seed of its own; `effect`: of the levels on the index."""
    draw, rows = random.Random(start), []
    for run in range(runs):
        levels = {factor: draw.choice(values) for factor, values in FACTORS.items()}
        size = 2.0 + effect(levels) + draw.gauss(0, noise)
        rows += minimum(levels, run, (size, -size))
    return rows


def test_the_factor_that_matters_is_found():
    found = judge(sample(lambda levels: 1.0 * (levels["model.activation"] == "tanh")))
    verdicts = {
        claim: only(found, claim)["verdict"] for claim in found if claim.endswith("changes_asymmetry")
    }
    assert verdicts == {
        "activation_changes_asymmetry": "supported",
        "loss_changes_asymmetry": "inconclusive",
        "skip_changes_asymmetry": "inconclusive",
    }
    row = only(found, "activation_changes_asymmetry")
    assert (row["n"], row["experiment"], row["unit"]) == (36, 11, "log ratio")
    assert row["low"] < row["effect"] < row["high"]
    assert row["effect"] == pytest.approx(1.0, abs=0.15)
    assert "before adjustment" in row["note"]
    everything = only(found, "asymmetric_direction_exists")
    assert (everything["scope"], everything["n"]) == ("mine/all variants/uniform-far", 36)


def test_p_values_are_adjusted_over_the_factors():
    rows = sample(lambda levels: 0.04 * (levels["recipe.loss.name"] == "mse"), start=1)
    found = {c: only(judge(rows), c) for c in judge(rows) if c.endswith("changes_asymmetry")}
    frame = table(rows).drop_duplicates("seed")
    index = frame["asymmetry_index"].abs().round(9)
    levels = {factor: [json.loads(text)[factor] for text in frame["levels"]] for factor in FACTORS}
    plain = [
        stats.factor_test(index.rank(), own, [levels[o] for o in levels if o != factor]).p
        for factor, own in levels.items()
    ]
    assert [row["p_value"] for row in found.values()] == pytest.approx(stats.holm(plain))


def test_a_strong_factor_does_not_hide_a_weak_one():
    strong = {"mse": 0.0, "focal": 4.0}
    rows = sample(lambda at: strong[at["recipe.loss.name"]] + 0.3 * at["model.skip"])
    found = judge(rows)
    assert only(found, "skip_changes_asymmetry")["verdict"] == "supported"
    assert only(found, "loss_changes_asymmetry")["verdict"] == "supported"
    assert only(found, "activation_changes_asymmetry")["verdict"] == "inconclusive"


def test_adjustment_can_decide():
    """One p just below alpha among three factors is not enough."""
    for start in range(200):
        rows = sample(lambda levels: 0.06 * (levels["recipe.loss.name"] == "mse"), start=start)
        row = only(judge(rows), "loss_changes_asymmetry")
        plain = float(row["note"].split("p = ")[1].split(" ")[0])
        if plain < 0.05 < row["p_value"]:
            assert row["verdict"] == "inconclusive"
            return
    pytest.fail("no such sample")


def test_levels_that_did_not_train_are_named():
    rows = sample(lambda levels: 0.0)
    for row in rows:
        if json.loads(row["levels"])["recipe.loss.name"] == "mse":
            row["train_accuracy"] = 0.1
    row = only(judge(rows), "loss_changes_asymmetry")
    assert (row["verdict"], row["p_value"]) == ("inconclusive", None)
    assert "no minimum at mse" in row["note"]
    assert "left out: train accuracy below 0.5" in row["note"]


# --- two recipes: experiment 6 ---


def recipes(widths, eigenvalues):
    """Minima of recipes big and small with these widths R / |w| and curvatures by seed."""
    rows = []
    for name in ("big", "small"):
        for seed in range(6):
            about = {"recipe": name, "model": "m", "weight_norm": 4.0 + seed}
            radius = widths[name][seed] * about["weight_norm"]
            levels = {"recipe": name}
            rows += minimum(levels, seed, (1.0, 1.1), FILTER, radius=radius, **about)
            rows += minimum(levels, seed, (1.0,), HESSIAN, eigenvalue=eigenvalues[name][seed], **about)
    return rows


SIX = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5]
TWICE = [2 * value for value in SIX]


@pytest.mark.parametrize(("narrow", "wide", "verdict"), [
    (SIX, TWICE, "supported"), (TWICE, SIX, "refuted"), (SIX, SIX[::-1], "inconclusive"),
])  # fmt: skip
def test_which_recipe_is_sharper(narrow, wide, verdict):
    rows = recipes({"big": narrow, "small": wide}, {"big": wide, "small": narrow})
    width, curvature = judge(rows, order={"recipe": ["big", "small"]})["big_is_sharper"]
    for row in (width, curvature):
        assert (row["verdict"], row["n"], row["experiment"]) == (verdict, 6, 6)
    assert width["effect"] == pytest.approx(np.mean(wide) - np.mean(narrow))
    assert width["measure"].endswith("small - big, within a seed")
    assert curvature["measure"].endswith("big - small, within a seed")
    assert curvature["unit"] == "nats per squared 2-norm"


def test_the_configs_order_says_which_recipe_is_first():
    rows = recipes({"big": SIX, "small": TWICE}, {"big": TWICE, "small": SIX})
    found = judge(rows, order={"recipe": ["small", "big"]})
    assert {row["verdict"] for row in found["small_is_sharper"]} == {"refuted"}


# --- other factors, and all together ---


@pytest.mark.parametrize(
    ("factor", "experiment"), [("model.width", 11), ("recipe.loss.name", 11), ("recipe.lr", 1)]
)
def test_other_factors_have_prevalence_by_level(factor, experiment):
    found = judge(variants([({factor: 1}, 2.0), ({factor: 2}, 0.1)]))
    verdicts = [(row["verdict"], row["experiment"]) for row in found["asymmetric_direction_exists"]]
    assert verdicts == [("supported", experiment), ("refuted", experiment)]
    assert set(found) == {"asymmetric_direction_exists"}


def test_a_study_of_two_kinds_of_factors_has_the_claims_of_both():
    base = {DECAY: 0, NORM: "batch"}
    rows = variants([(base, 2.0), (base | {DECAY: 0.1}, 2.0), (base | {NORM: "none"}, 1.0)])
    found = judge(rows)
    assert {"asymmetry_survives_l2", "l2_does_not_change_asymmetry", "bn_makes_asymmetric"} <= set(found)
    assert only(found, "l2_does_not_change_asymmetry")["n"] == 6
    assert only(found, "bn_makes_asymmetric")["verdict"] == "supported"


@pytest.mark.parametrize("index", [math.nan, math.inf])
def test_directions_without_an_index_are_counted(index):
    rows = norms({"batch": 3.0, "none": 2.0})
    rows[0]["asymmetry_index"] = index
    row = only(judge(rows), "bn_makes_asymmetric")
    assert row["n"] == 6
    assert "1 of 24 directions without an index" in row["note"]
    for row in rows[:12]:
        row["asymmetry_index"] = index
    row = only(judge(rows), "bn_makes_asymmetric")
    assert (row["n"], row["verdict"]) == (0, "inconclusive")
    assert "means: none 2" in row["note"]
    assert "12 of 24 directions without an index" in row["note"]


def test_judge_takes_studies_and_rows_fit_the_declared_table(tmp_path):
    from test_claims import EMPTY

    parts = [
        table(variants([({}, 2.0)]), "none"),
        table(variants([(at, 2.0) for at in LEVELS]) + variants([(LEVELS[1], 2.0)], penalty=True), "decay"),
        table(norms({"batch": 3.0, "none": 2.0}, {"gaussian": 1.0}), "norms"),
        table(sample(lambda levels: 0.0, runs=5), "sampled"),
        table(recipes({"big": SIX, "small": TWICE}, {"big": TWICE, "small": SIX}), "two"),
    ]
    rows = claims.judge(
        {**EMPTY, "study": pd.concat(parts, ignore_index=True)}, factors={"two": {"recipe": ["small"]}}
    )
    tables.write(tmp_path / "claims.parquet", "claims", rows)
    assert {row["experiment"] for row in rows} == {6, 8, 9, 10, 11}
    assert any(row["claim"] == "small_is_sharper" for row in rows)
    assert all(list(row) == tables.schema("claims").names for row in rows)
    assert len({(row["claim"], row["scope"], row["measure"]) for row in rows}) == len(rows)

"""Verdicts follow from their stated rules, with both outcomes possible."""

import math

import numpy as np
import pandas as pd
import pytest
from valleys import claims, stats, tables
from valleys.errors import ValleysError

CELL = {"dataset": "d", "model": "m", "recipe": "r"}


RISES = {"asymmetric": (1.0, 5.0), "symmetric": (1.0, 1.0), "not_minimum": (-1.0, 1.0), "flat": (0.0, 0.0)}


NO_SHIFT = dict.fromkeys(("radius", "shift", "shift_gap", "shift_free", "shift_free_gap"), math.nan)


def asymmetry(*statuses_by_seed, probe="uniform", solution="sgd", **cell):
    """The asymmetry table of seeds 0, 1, ..., each with the statuses of its directions."""
    rows = []
    for seed, statuses in enumerate(statuses_by_seed):
        for k, status in enumerate(statuses):
            plus, minus = RISES[status]
            ratio = minus / plus if plus > 0 and minus > 0 else math.nan
            names = {
                **CELL,
                **cell,
                "seed": seed,
                "solution": solution,
                "probe": probe,
                "kind": "uniform",
                "group": "all",
                "k": k,
            }
            rises = {"rise_plus": plus, "rise_minus": minus, "rise_ratio": ratio}
            rises |= NO_SHIFT
            rows.append({**names, "status": status, **rises, "asymmetry_index": math.log(ratio)})
    return pd.DataFrame(rows)


def solutions(differences, column="train_loss", **cell):
    """The solutions table in which swa - descent of one column is as given, seed by seed; 0 in the others."""
    rows = []
    for seed, difference in enumerate(differences):
        base = {"train_loss": 0.5, "test_loss": 0.5, "test_accuracy": 0.5}
        for solution in ("sgd", "swa", "descent"):
            values = base | ({column: base[column] + difference} if solution == "swa" else {})
            rows.append({**CELL, **cell, "seed": seed, "solution": solution, **values})
    return pd.DataFrame(rows)


T = np.linspace(-2, 3, 11)


def line(train, test, seed=0, t=T, **names):
    names = {"line": "swa-descent", "start": "swa", "stop": "descent", "bn_policy": "refreshed"} | names
    names = {"path": "linear", "stop_recipe": CELL["recipe"], "stop_seed": seed} | names
    return pd.DataFrame({**CELL, "seed": seed, **names, "t": t, "train_loss": train, "test_loss": test})


def toy(*statuses, recipe="paper"):
    return pd.DataFrame({"recipe": recipe, "draw": i, "status": s} for i, s in enumerate(statuses))


def average(*rows, shape="linear"):
    """The theory_average table; of each row c, mean, bound and loss_change, all with standard error 0.01."""
    about = {"lr": 0.1, "noise": "uniform", "level": 1.0, "flat_share": 0.9, "average_loss": 1.0}
    about |= {"iterate_loss": 2.0, "loss_kept": 0.25, "mean_se": 0.01, "loss_change_se": 0.01}
    keys = ("c", "mean", "bound", "loss_change")
    found = [{"shape": shape, **about, **dict(zip(keys, row, strict=True))} for row in rows]
    return pd.DataFrame([{**row, "bound_applies": math.isfinite(row["bound"])} for row in found])


def gain(*rows, shape="linear"):
    """The theory_gain table; of each row c, bias, gain and bound, with limit 1 and standard error 0.01."""
    keys = ("c", "bias", "gain", "bound")
    about = {"shape": shape, "gain_se": 0.01, "limit": 1.0}
    return pd.DataFrame([{**about, **dict(zip(keys, row, strict=True))} for row in rows])


def shifted(*shares, deltas=None, flat=1, free=None, probe="uniform", kind="uniform", solution="sgd", **cell):
    """The shift and asymmetry tables of seeds whose directions' best shifts remove these shares of the gap.

    `deltas` are delta* / R, by seed and direction, at b = 0; the flatter side is `flat`; `free`: with b free.
    """
    curves, verdicts = [], []
    for seed, row in enumerate(shares):
        for k, share in enumerate(row):
            names = {**CELL, **cell, "seed": seed, "solution": solution, "probe": probe, "kind": kind}
            names |= {"group": "all", "k": k}
            other = share if free is None else free[seed][k]
            for policy, zero, left in (("fixed", 2.0, 1 - share), ("free", 0.5, 1 - other)):
                for delta, relative in ((-0.25, 3.0), (0.0, 1.0), (0.25, left)):
                    gaps = {"gap": zero * relative, "relative_gap": relative}
                    curves.append({**names, "policy": policy, "delta_over_r": delta, **gaps})
            delta = 4.0 * (0.1 if deltas is None else deltas[seed][k])
            best = {"shift": delta, "shift_gap": 2 * (1 - share), "shift_free": delta, "shift_free_b": 1.5}
            rises = {"rise_plus": 2.0 - flat, "rise_minus": 2.0 + flat, "asymmetry_index": flat * math.log(3)}
            best |= {"shift_free_gap": 0.5 * (1 - other), "radius": 4.0, "status": "symmetric", **rises}
            verdicts.append({**names, **best})
    return {"shift": pd.DataFrame(curves), "asymmetry": pd.DataFrame(verdicts)}


def signed(*seeds, group="all", solution="sgd", kind="sign"):
    """The directions and asymmetry tables of seeds with directions of given (sign agreement, index)."""
    known, verdicts = [], []
    rises = {"rise_plus": math.nan, "rise_minus": math.nan}
    for seed, points in enumerate(seeds):
        for k, (agreement, index) in enumerate(points):
            names = {**CELL, "seed": seed, "solution": solution, "probe": f"s-{group}-{k // 2}", "kind": kind}
            names |= {"group": group, "k": k % 2}
            known.append({**names, "sign_agreement": agreement})
            verdicts.append({**names, **NO_SHIFT, **rises, "asymmetry_index": index, "status": "symmetric"})
    return {"directions": pd.DataFrame(known), "asymmetry": pd.DataFrame(verdicts)}


def descents(*runs, **cell):
    """The training table of seeds whose descent epochs have (train, test) losses, less those of swa."""
    rows = []
    for seed, run in enumerate(runs):
        for epoch, (train, test) in enumerate([(0.0, 0.0), *run]):
            losses = {"train_loss": 0.5 + train, "test_loss": 0.5 + test}
            rows.append({**CELL, **cell, "seed": seed, "phase": "descent", "epoch": epoch, **losses})
        rows.append({**CELL, **cell, "seed": seed, "phase": "swa", "epoch": 9, "train_loss": 0.0})
    return pd.DataFrame(rows[::-1])


def measured(*seeds, status="asymmetric", probe="uniform", kind="uniform", solution="sgd"):
    """The theory_measured table of seeds with directions of given (gain, test gain) at b = d / 2 = R / 8."""
    rows = []
    for seed, directions in enumerate(seeds):
        for k, (gain, test) in enumerate(directions):
            names = {**CELL, "seed": seed, "solution": solution, "probe": probe, "kind": kind, "group": "all"}
            names |= {"k": k, "status": status, "train_gain": -0.25}
            for law, scale, share, factor in (
                ("uniform", 0.25, 0.5, 1.0),
                ("uniform", 0.25, 1.0, -9.0),  # other biases, laws and scales have no part in the verdict
                ("rademacher", 0.25, 0.5, -9.0),
                ("uniform", 0.5, 0.5, 3.0),
            ):
                values = {"gain": factor * gain, "test_gain": factor * test}
                rows.append({**names, "shift": law, "scale": scale, "bias": share * scale, **values})
    return pd.DataFrame(rows)


EMPTY = {
    "training": descents([(0.0, 0.0)]).iloc[:0],
    "theory_measured": measured([(0.0, 0.0)]).iloc[:0],
    "shift": shifted((0.5,))["shift"].iloc[:0],
    "directions": signed([(0.5, 0.0)])["directions"].iloc[:0],
    "asymmetry": asymmetry(("symmetric",)).iloc[:0],
    "solutions": solutions([0.0]).iloc[:0],
    "interpolation": line(T, T).iloc[:0],
    "toy_2d": toy("flat").iloc[:0],
    "theory_average": average((1.0, 0.0, 0.0, 0.0)).iloc[:0],
    "theory_gain": gain((1.0, 0.0, 0.0, 0.0)).iloc[:0],
}


def judge(**data):
    rows = claims.judge({**EMPTY, **data})
    return {row["claim"]: row for row in rows}


# --- the paired rule ---

ALL_SIX = [0.01, 0.02, 0.03, 0.01, 0.05, 0.02]
CASES = {
    "six of six above": (ALL_SIX, "supported", 2 / 64),
    "six of six below": ([-x for x in ALL_SIX], "refuted", 2 / 64),
    "five of five above": (ALL_SIX[:5], "inconclusive", 2 / 32),
    "five of six above": ([-0.9, *ALL_SIX[1:]], "inconclusive", 14 / 64),
    "three of six above": ([-1, 1, -1, 1, -1, 1], "inconclusive", 1.0),
    "six above and one tie": ([*ALL_SIX, 0.0], "supported", 2 / 64),
    "five above and one tie": ([*ALL_SIX[:5], 0.0], "inconclusive", 2 / 32),
    "nine of ten above, mean below": ([0.01] * 9 + [-5.0], "supported", 22 / 1024),
    "all ties": ([0.0] * 8, "inconclusive", 1.0),
    "one seed": ([0.1], "inconclusive", 1.0),
}


@pytest.mark.parametrize("what", CASES)
def test_train_loss_of_swa_above(what):
    differences, verdict, p = CASES[what]
    row = judge(solutions=solutions(differences))["swa_train_loss"]
    assert row["verdict"] == verdict
    assert row["p_value"] == pytest.approx(p)
    assert row["effect"] == pytest.approx(np.mean(differences), abs=1e-12)
    assert (row["n"], row["unit"], row["scope"], row["experiment"]) == (len(differences), "nats", "d/m/r", 2)
    above, below = (np.array(differences) > 0).sum(), (np.array(differences) < 0).sum()
    assert f"above 0 in {above} of {len(differences)} seeds, below in {below}" in row["note"]


@pytest.mark.parametrize(("column", "sign"), [("train_loss", 1), ("test_loss", -1), ("test_accuracy", 1)])
def test_the_claimed_sign(column, sign):
    found = [
        judge(solutions=solutions(s * np.array(ALL_SIX), column))[f"swa_{column}"] for s in (sign, -sign)
    ]
    assert [row["verdict"] for row in found] == ["supported", "refuted"]
    assert (found[0]["effect"] > 0) == (sign > 0)
    assert f"{'above' if sign > 0 else 'below'} 0" in found[0]["rule"]
    others = {"train_loss", "test_loss", "test_accuracy"} - {column}
    rows = judge(solutions=solutions(ALL_SIX, column))
    assert all(rows[f"swa_{other}"]["verdict"] == "inconclusive" for other in others)


def test_too_few_seeds_are_said_to_be_too_few():
    five, six = (judge(solutions=solutions(ALL_SIX[:n]))["swa_train_loss"]["note"] for n in (5, 6))
    assert "5 seeds cannot reach p < 0.05 in a sign test; 6 can" in five
    assert "cannot" not in six


def test_alpha_and_level_are_used():
    data = {**EMPTY, "solutions": solutions(ALL_SIX)}
    strict = claims.judge(data, alpha=0.01)[0]
    assert strict["verdict"] == "inconclusive"
    assert "6 seeds cannot reach p < 0.01 in a sign test; 8 can" in strict["note"]
    wide, narrow = (claims.judge(data, level=level)[0] for level in (0.99, 0.5))
    assert wide["low"] < narrow["low"] < narrow["effect"] < narrow["high"] < wide["high"]


def test_the_interval_is_students():
    row = judge(solutions=solutions([0.1, 0.3]))["swa_train_loss"]
    half = 12.7062 * 0.1  # t(0.975, 1) times sd / sqrt(2), sd = 0.2 / sqrt(2)
    assert (row["low"], row["high"]) == pytest.approx((0.2 - half, 0.2 + half), abs=1e-4)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_seed_that_diverged_is_left_out_and_named(bad):
    row = judge(solutions=solutions([*ALL_SIX, bad]))["swa_train_loss"]
    assert (row["verdict"], row["n"]) == ("supported", 6)
    assert "1 seed left out: not finite" in row["note"]


def test_each_cell_is_judged_by_itself():
    both = pd.concat([solutions(ALL_SIX, model="a"), solutions([-x for x in ALL_SIX], model="b")])
    rows = [row for row in claims.judge({**EMPTY, "solutions": both}) if row["claim"] == "swa_train_loss"]
    assert [(row["scope"], row["verdict"]) for row in rows] == [("d/a/r", "supported"), ("d/b/r", "refuted")]


def test_paired_verdict_takes_the_majoritys_sign():
    paired = stats.paired([1.0] * 9 + [-100.0])
    assert paired.mean < 0
    assert claims.paired_verdict(paired, 1, 0.05) == "supported"
    assert claims.paired_verdict(paired, -1, 0.05) == "refuted"
    assert claims.paired_verdict(stats.paired([]), 1, 0.05) == "inconclusive"


# --- the paper's selection of epochs ---

KEPT, LOWER, HIGHER = (-0.1, 0.2), (-0.1, -0.2), (0.1, 0.2)


@pytest.mark.parametrize(
    ("hits", "n", "verdict"),
    [(6, 6, "supported"), (0, 6, "refuted"), (3, 6, "inconclusive"), (3, 3, "inconclusive")],
)
def test_whether_the_papers_selection_finds_an_epoch(hits, n, verdict):
    runs = [[LOWER, KEPT, HIGHER]] * hits + [[LOWER, HIGHER, (0.0, 0.1), (-0.1, 0.0)]] * (n - hits)
    rows = judge(training=descents(*runs))
    row = rows["swa_paper_selection_exists"]
    assert (row["verdict"], row["effect"], row["n"], row["experiment"]) == (verdict, hits / n, n, 2)
    assert "epochs chosen by their test loss, as the paper's code does: biased" in row["note"]
    assert ("swa_test_loss_paper_selection" in rows) == (hits > 0)


def test_the_difference_at_selected_epochs_is_given_and_never_judged():
    runs = [[(-0.1, 0.1), LOWER, (-0.3, 0.2 + 0.01 * seed), HIGHER] for seed in range(8)]
    row = judge(training=descents(*runs, [LOWER]))["swa_test_loss_paper_selection"]
    assert (row["verdict"], row["p_value"], row["n"]) == ("inconclusive", None, 8)
    assert row["effect"] == pytest.approx(-0.235)  # swa less the last epoch kept
    assert row["low"] < row["effect"] < row["high"] < 0
    assert row["rule"] == "not judged: the selection fixes the sign"
    for words in ("by construction", "left out: 1", "at that epoch 0.3;", "test loss -0.1, train loss 0.1"):
        assert words in row["note"]


def test_epochs_that_are_not_finite_are_not_selected():
    run = descents([(math.nan, 1.0), (-0.1, math.nan), KEPT])
    kept = claims.selected_epochs(run[run["phase"] == "descent"])
    assert list(kept.index) == [3]


# --- a bias on measured curves ---

PAIR = ("bias_gains_on_measured_curves", "bias_lowers_test_loss")


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([(0.1, 0.3)] * 6, "supported"),
        ([(-0.1, -0.3)] * 6, "refuted"),
        ([(0.1, 0.3)] * 5, "inconclusive"),
        ([(0.1, 0.3)] * 4 + [(-0.1, -0.2)] * 4, "inconclusive"),
        # Most directions gain, but in each minimum the mean is a loss.
        ([(0.1, 0.1, 0.1, -0.9)] * 6, "refuted"),
    ],
)
def test_a_bias_on_measured_curves(values, verdict, which):
    pairs = [[(v, 0.0) if which == 0 else (0.0, v) for v in seed] for seed in values]
    rows = judge(theory_measured=measured(*pairs))
    row, other = rows[PAIR[which]], rows[PAIR[1 - which]]
    assert (row["verdict"], row["n"], row["experiment"]) == (verdict, len(values), 4)
    assert row["effect"] == pytest.approx(np.mean([np.mean(v) for v in values]))
    assert (row["unit"], row["scope"]) == ("nats", "d/m/r/uniform")
    assert other["verdict"] == "inconclusive"


def test_symmetric_directions_are_a_control_in_the_note():
    both = pd.concat([
        measured(*[[(0.1, 0.2)] * 2] * 6),
        measured(*[[(-0.3, 0.4)]] * 5, [(0.5, -0.6)], status="symmetric"),
    ])  # fmt: skip
    rows = judge(theory_measured=both)
    gain, test = (rows[claim]["note"] for claim in PAIR)
    assert "asymmetric directions: 12 of 18; along symmetric ones -0.167, above 0 in 1 of 6 minima" in gain
    assert "with twice the shift and bias 0.3" in gain
    assert "along symmetric ones 0.233, above 0 in 5 of 6 minima; train loss there -0.25" in test


@pytest.mark.parametrize("names", [{"kind": "sign"}, {"solution": "swa"}, {"status": "symmetric"}])
def test_without_asymmetric_directions_there_is_no_such_claim(names):
    assert judge(theory_measured=measured(*[[(0.1, 0.1)]] * 6, **names)) == {}


# --- the share rule ---


@pytest.mark.parametrize(
    ("hits", "n", "verdict"),
    [
        (4, 4, "supported"),  # Wilson: n / (n + 1.96^2) = 0.510 from below
        (3, 3, "inconclusive"),  # 0.438
        (0, 4, "refuted"),
        (0, 3, "inconclusive"),
        (5, 10, "inconclusive"),
        (9, 10, "supported"),  # 0.596
        (1, 10, "refuted"),
        (8, 10, "inconclusive"),  # 0.490
    ],
)
def test_share_rule(hits, n, verdict):
    row = judge(toy_2d=toy(*["asymmetric"] * hits, *["symmetric"] * (n - hits)))["toy_2d_asymmetric"]
    assert (row["verdict"], row["effect"], row["n"]) == (verdict, hits / n, n)
    z = 1.959964
    centre = (hits / n + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(hits / n * (1 - hits / n) / n + z * z / (4 * n * n))
    assert (row["low"], row["high"]) == pytest.approx((centre - half, centre + half), abs=1e-6)
    assert row["p_value"] is None


def test_no_data_are_inconclusive():
    assert claims.share_verdict(stats.wilson(0, 0)) == "inconclusive"
    assert claims.judge(EMPTY) == []


def test_toy_recipes_are_judged_apart_and_other_statuses_are_counted():
    data = pd.concat(
        [toy(*["asymmetric"] * 9, "flat", "not_minimum"), toy(*["symmetric"] * 9, recipe="converged")]
    )
    rows = claims.judge({**EMPTY, "toy_2d": data})
    assert [(r["scope"], r["verdict"], r["n"]) for r in rows] == [
        ("2-D MLP/converged", "refuted", 9),
        ("2-D MLP/paper", "supported", 11),
    ]
    assert set(rows[1]["note"].split(", ")) == {"1 flat", "1 not_minimum"}


# --- prevalence ---


def test_prevalence_over_minima_and_over_directions():
    # Each of eight minima has one asymmetric direction of five: minima 8 of 8, directions 8 of 40.
    one = ("asymmetric", "symmetric", "symmetric", "not_minimum", "flat")
    rows = judge(asymmetry=asymmetry(*[one] * 8))
    exists, share = rows["asymmetric_direction_exists"], rows["directions_are_asymmetric"]
    assert (exists["verdict"], exists["effect"], exists["n"]) == ("supported", 1.0, 8)
    assert (share["verdict"], share["effect"], share["n"]) == ("refuted", 0.2, 40)
    assert exists["scope"] == "d/m/r/uniform"
    assert exists["note"] == "5 directions a minimum"
    assert share["note"] == "8 not_minimum; 8 flat"


def test_prevalence_notes_verdicts_that_hang_on_a_subset_of_images():
    table = asymmetry(["asymmetric", "symmetric"], ["asymmetric", "symmetric"])
    noted = {}
    for name, known in (("all", table), ("subset", table.assign(certain=[True, False, False, True]))):
        rows = claims.prevalence(known, 2.0, 0.95)
        noted[name] = next(row["note"] for row in rows if row["claim"] == "directions_are_asymmetric")
    assert "verdict of 2 of 4 on a subset of the images might be another on all" in noted["subset"]
    assert "subset" not in noted["all"]


def test_prevalence_can_be_refuted_and_inconclusive():
    rows = judge(asymmetry=asymmetry(*[("symmetric",)] * 6))
    assert rows["asymmetric_direction_exists"]["verdict"] == "refuted"
    rows = judge(asymmetry=asymmetry(*[("asymmetric",), ("symmetric",)] * 4))
    assert rows["asymmetric_direction_exists"]["verdict"] == "inconclusive"
    assert rows["directions_are_asymmetric"]["verdict"] == "inconclusive"


def test_prevalence_counts_sgd_minima_only():
    table = pd.concat([
        asymmetry(*[("asymmetric",)] * 6, solution="swa"), asymmetry(*[("symmetric",)] * 6, solution="sgd"),
    ])  # fmt: skip
    rows = judge(asymmetry=table)
    assert rows["directions_are_asymmetric"]["n"] == 6
    assert rows["directions_are_asymmetric"]["verdict"] == "refuted"


@pytest.mark.parametrize(
    ("c", "n", "verdict"), [(4.9, 8, "refuted"), (5.1, 0, "refuted"), (0.99, 16, "inconclusive")]
)
def test_uneven_rises(c, n, verdict):
    # Of five directions one rises five times as much at -R, one evenly; the rest, with no ratio, are even.
    one = ("asymmetric", "symmetric", "flat", "not_minimum", "flat")
    rows = claims.judge({**EMPTY, "asymmetry": asymmetry(*[one] * 8)}, c=c)
    (row,) = (row for row in rows if row["claim"] == "rises_are_uneven")
    assert (row["effect"], row["n"], row["verdict"]) == (n / 40, 40, verdict)
    assert "steeper on the +u side in 0 of 40" in row["note"]


def test_prevalence_leaves_kind_sign_to_its_own_experiment():
    rows = claims.judge({**EMPTY, **signed([(0.5, 1.0)])})
    assert {row["experiment"] for row in rows} == {12}


# --- the shift ---


SHIFTED = ("test_loss_is_shifted", "test_loss_is_shifted_and_lifted")


@pytest.mark.parametrize(
    ("shares", "verdict"),
    [
        ([(0.6, 0.8)] * 6, "supported"),
        ([(0.4, 0.2)] * 6, "refuted"),
        ([(0.6, 0.8)] * 5, "inconclusive"),
        ([(0.6, 0.8)] * 5 + [(0.1, 0.2)], "inconclusive"),
        ([(0.5, 0.5)] * 8, "inconclusive"),
        # Of 60 directions 54 lose more than half, but in each minimum the mean is below one half.
        ([(0.51,) * 9 + (0.0,)] * 6, "refuted"),
    ],
)
def test_share_of_the_gap_that_a_shift_removes(shares, verdict):
    rows = judge(**shifted(*shares))
    means = [np.mean(row) for row in shares]
    for claim in SHIFTED:
        row = rows[claim]
        assert (row["verdict"], row["n"], row["experiment"]) == (verdict, len(shares), 5)
        assert row["effect"] == pytest.approx(np.mean(means))
        assert row["low"] <= row["effect"] <= row["high"]
        assert row["scope"] == "d/m/r/uniform"
        assert "above 0.5" in row["rule"]
        assert f"directions a minimum: {len(shares[0])}" in row["note"]


def test_b_fixed_and_b_free_are_judged_apart():
    rows = judge(**shifted(*[(0.2,)] * 6, free=[(0.9,)] * 6))
    assert [rows[claim]["verdict"] for claim in SHIFTED] == ["refuted", "supported"]
    assert "the constant alone removes 75% of the gap" in rows[SHIFTED[1]]["note"]
    assert "|delta*| is 0.1 R (median), at the bound of R/4 in 0" in rows[SHIFTED[0]]["note"]
    assert (
        "at the bound of R/4 in 6"
        in judge(**shifted(*[(0.2,)] * 6, deltas=[(-0.25,)] * 6))[SHIFTED[0]]["note"]
    )


def test_the_shift_is_judged_at_sgd_and_by_probe():
    parts = [
        shifted(*[(0.9,)] * 6),
        shifted(*[(0.1,)] * 6, solution="swa"),
        shifted(*[(0.1,)] * 6, probe="other"),
        shifted(*[(0.1,)] * 6, probe="s", kind="sign"),
    ]
    data = {name: pd.concat([part[name] for part in parts]) for name in ("shift", "asymmetry")}
    data["directions"] = signed(*[[(0.5, 0.0)]] * 6)["directions"].assign(probe="s")
    rows = [row for row in claims.judge({**EMPTY, **data}) if row["claim"] == SHIFTED[0]]
    assert [(row["scope"], row["verdict"]) for row in rows] == [
        ("d/m/r/other", "refuted"),
        ("d/m/r/uniform", "supported"),
    ]


def test_no_gap_and_curves_that_are_not_finite_count_for_nothing():
    data = shifted(*[(0.9, 0.8, 0.7)] * 6)
    for table, columns in (("shift", ["gap"]), ("asymmetry", ["shift", "shift_gap", "shift_free_gap"])):
        rows = data[table]
        rows.loc[rows["k"] == 1, columns] = math.nan
        rows.loc[rows["k"] == 2, [c for c in columns if "gap" in c]] = 0.0
    row = judge(**data)[SHIFTED[0]]
    assert (row["verdict"], row["effect"]) == ("supported", pytest.approx(0.9))
    assert "directions without a finite gap, left out: 12" in row["note"]


@pytest.mark.parametrize(
    ("towards", "against", "verdict"),
    [
        (6, 6, "supported"),
        (7, 7, "supported"),
        (6, 0, "refuted"),
        (0, 6, "refuted"),
        (5, 1, "inconclusive"),
        (3, 3, "inconclusive"),
        (3, 0, "inconclusive"),
        (20, 6, "refuted"),
    ],
)
@pytest.mark.parametrize("flat", [1, -1])
def test_symmetry_of_the_shift(towards, against, verdict, flat):
    # Two of three directions of a minimum one way: minima are counted, not directions.
    lean = [(0.1, 0.1, -0.1)] * towards + [(0.1, -0.1, -0.1)] * against
    data = shifted(*[(0.5,) * 3] * len(lean), deltas=flat * np.array(lean), flat=flat)
    row = judge(**data)["shift_is_symmetric"]
    n = towards + against
    assert (row["verdict"], row["n"], row["effect"]) == (verdict, n, pytest.approx(towards / n))
    assert f"of directions, {2 * towards + against} of {3 * n} with b = 0" in row["note"]
    assert ("cannot show symmetry; 12 can" in row["note"]) == (n < 12)


def test_minima_that_lean_to_no_side_are_left_out():
    row = judge(**shifted(*[(0.5, 0.5)] * 3, deltas=[(0.1, -0.1), (0.0, 0.0), (0.1, 0.1)]))[
        "shift_is_symmetric"
    ]
    assert (row["n"], row["effect"], row["verdict"]) == (1, 1.0, "inconclusive")
    assert "left out: 2" in row["note"]


# --- signs ---

RISING = [(0.5, 0.1), (0.5, -0.2), (0.75, 0.5), (1.0, 2.0)]


@pytest.mark.parametrize(
    ("seeds", "verdict"),
    [
        ([RISING] * 6, "supported"),
        ([[(a, -i) for a, i in RISING]] * 6, "refuted"),
        ([RISING] * 5, "inconclusive"),
        ([RISING] * 3 + [[(a, -i) for a, i in RISING]] * 3, "inconclusive"),
    ],
)
def test_agreement_in_sign_against_asymmetry(seeds, verdict):
    row = judge(**signed(*seeds))["matching_signs_flattens"]
    assert (row["verdict"], row["n"], row["experiment"], row["scope"]) == (
        verdict,
        len(seeds),
        12,
        "d/m/r/all",
    )
    assert -1 <= row["low"] <= row["effect"] <= row["high"] <= 1
    assert "directions a minimum: 4, each as u and as -u" in row["note"]


def test_each_direction_counts_as_u_and_as_minus_u():
    """All probed ones agree in half or more, so that the other half of the range comes from their mirrors."""
    found = judge(**signed([(0.6, 1.0), (0.9, 3.0)]))["matching_signs_flattens"]
    assert found["effect"] == pytest.approx(1.0)  # (0.1, -3), (0.4, -1), (0.6, 1), (0.9, 3)
    found = judge(**signed([(1.0, 1.0), (1.0, 1.0)]))["matching_signs_flattens"]  # one share is enough
    assert found["effect"] == pytest.approx(1.0)


def test_groups_are_judged_apart_and_other_directions_do_not_count():
    down = [(a, -i) for a, i in RISING]
    parts = [
        signed(*[RISING] * 6),
        signed(*[down] * 6, group="conv"),
        signed(*[down] * 6, solution="swa"),
        signed(*[down] * 6, group="bn", kind="gaussian"),
    ]
    data = {name: pd.concat([part[name] for part in parts]) for name in ("directions", "asymmetry")}
    rows = [r for r in claims.judge({**EMPTY, **data}) if r["claim"] == "matching_signs_flattens"]
    assert [(r["scope"], r["verdict"]) for r in rows] == [
        ("d/m/r/all", "supported"),
        ("d/m/r/conv", "refuted"),
    ]


def test_directions_without_an_index_are_left_out():
    row = judge(**signed(*[[*RISING, (0.9, math.nan)]] * 6))["matching_signs_flattens"]
    assert row["verdict"] == "supported"
    assert "6 of 30 directions left out: a side does not rise" in row["note"]
    row = judge(**signed(*[[(0.9, math.nan)]] * 6))["matching_signs_flattens"]
    assert (row["verdict"], row["n"]) == ("inconclusive", 0)
    assert "6 seeds left out: not finite" in row["note"]


# --- the line ---


def test_line_measures_on_a_known_line():
    # Train loss (t - 1)^2, steeper beyond 1: at t = 2 it is 1.5, at t = 0 it is 1. Test is least at t = 0.5.
    train = np.where(T > 1, 1.5, 1.0) * (T - 1) ** 2
    found = claims.line_measures(line(train, (T - 0.5) ** 2))
    assert found == pytest.approx({"mirror": 0.5, "argmin": -0.5})
    shuffled = line(train, (T - 0.5) ** 2).sample(frac=1, random_state=0)
    assert claims.line_measures(shuffled) == pytest.approx(found)


def test_the_mirror_image_is_about_the_lines_minimum_wherever_it_lies():
    # Least at 1.5 and steeper beyond: at t = 3 it is 1.5 * 2.25, at swa 2.25.
    train = np.where(T > 1.5, 1.5, 1.0) * (T - 1.5) ** 2
    assert claims.line_measures(line(train, train))["mirror"] == pytest.approx(0.5 * 2.25)
    # Least at 2: the line ends one step beyond, so both points are at distance 1.
    train = np.where(T > 2, 3.0, 1.0) * (T - 2) ** 2
    assert claims.line_measures(line(train, train))["mirror"] == pytest.approx(2.0)


def test_a_line_without_a_minimum_beyond_swa_has_no_mirror_image():
    short = np.linspace(0, 1.5, 7)
    for falling in (short, -short):  # least at swa, least at the end
        assert math.isnan(claims.line_measures(line(falling, falling, t=short))["mirror"])
    rows = judge(interpolation=pd.concat(line(short, short, seed=s, t=short) for s in range(6)))
    assert "swa_on_flat_side" not in rows
    assert rows["test_minimum_towards_swa"]["n"] == 6


@pytest.mark.parametrize(("steep", "least", "verdicts"), [
    (1.5, 0.5, ("supported", "supported")),
    (0.5, 1.5, ("refuted", "refuted")),
    (1.0, 1.0, ("inconclusive", "inconclusive")),
])  # fmt: skip
def test_verdicts_on_the_line(steep, least, verdicts):
    train = np.where(T > 1, steep, 1.0) * (T - 1) ** 2
    table = pd.concat(line(train, (T - least) ** 2, seed=s) for s in range(6))
    other = pd.concat(
        line(-train, -train, seed=s, line="back", start="descent", stop="swa") for s in range(6)
    )
    rows = judge(interpolation=pd.concat([table, other]))
    found = [rows[claim] for claim in ("swa_on_flat_side", "test_minimum_towards_swa")]
    assert tuple(row["verdict"] for row in found) == verdicts
    assert [row["effect"] for row in found] == pytest.approx([steep - 1, least - 1])
    assert all(row["scope"] == "d/m/r/swa-descent" for row in found)
    assert all("BN refreshed on the line" in row["note"] for row in found)


# --- lines between cells ---

SWA = {"start": "swa", "stop": "swa"}


def bumps(*heights, joins="recipe", t=T, **names):
    """One line a seed, from 0.2 to 0.4 nats, with a barrier of the given height (test loss: twice that)."""
    parts = []
    for seed, height in enumerate(heights):
        chord, bump = 0.2 + 0.2 * t, 4 * t * (1 - t) * height
        other = {"recipe": {"stop_recipe": "wide"}, "seed": {"stop_seed": seed + 1}, "cell": {}}[joins]
        about = {"line": "between", **SWA, **other, **names}
        parts.append(line(chord + bump, chord + 2 * bump, seed=seed, t=t, **about))
    return pd.concat(parts)


BARRIERS = {
    "clearly above": ((0.5, 0.6, 0.55), "above"),
    "clearly below": ((0.01, 0.02, 0.015), "below"),
    "none at all": ((0.0, 0.0), "below"),
    "a valley instead": ((-0.5, -0.4, -0.6), "below"),  # a barrier is never below 0
    "between": ((0.05, 0.15, 0.1), "unclear"),
    "above on average only": ((0.0, 0.5, 0.4), "unclear"),
    "one seed": ((5.0,), "unclear"),
}


@pytest.mark.parametrize("what", BARRIERS)
@pytest.mark.parametrize(
    ("claim", "joins", "path", "supported_when"),
    [
        ("one_basin", "recipe", "linear", "below"),
        ("seeds_are_apart", "seed", "linear", "above"),
        ("seeds_are_connected", "seed", "bezier", "below"),
        ("solutions_are_connected", "recipe", "chain", "below"),
        ("solutions_are_connected", "cell", "bezier", "below"),
    ],
)
def test_the_barrier_rule(what, claim, joins, path, supported_when):
    heights, side = BARRIERS[what]
    t = T if path == "linear" else np.linspace(0, 1, 11)
    stop = {"stop": "descent"} if joins == "cell" else {}
    rows = judge(interpolation=bumps(*heights, joins=joins, t=t, path=path, **stop))
    row = rows[claim]
    verdict = "inconclusive" if side == "unclear" else "supported" if side == supported_when else "refuted"
    assert row["verdict"] == verdict
    # The grid of straight lines here has t = 0.5 only between the ends: that is where the bump is greatest.
    assert row["effect"] == pytest.approx(max(0, np.mean(heights)))
    assert (row["n"], row["unit"], row["experiment"]) == (len(heights), "nats", 6)
    assert row["scope"] == "d/m/r/between"
    assert not row["low"] < 0
    assert f"test-loss barrier {max(0, 2 * np.mean(heights)):.3g} nats" in row["note"]
    assert not {"swa_on_flat_side", "test_minimum_towards_swa"} & set(rows)


def test_the_barrier_that_counts_as_none_is_the_configs():
    table = bumps(0.5, 0.6, 0.55)
    verdicts = []
    for threshold in (0.1, 0.55, 1.0):
        rows = claims.judge({**EMPTY, "interpolation": table}, barrier=threshold)
        row = next(row for row in rows if row["claim"] == "one_basin")
        verdicts.append(row["verdict"])
        assert f"{threshold:g} nats" in row["rule"]
    assert verdicts == ["refuted", "inconclusive", "supported"]


def test_the_note_says_what_is_joined_and_how():
    straight = bumps(2.0, 3.0, joins="seed")
    elsewhere = bumps(9.0, 9.0, joins="seed", line="other", start="sgd", stop="sgd")
    path = bumps(0.01, 0.02, joins="seed", t=np.linspace(0, 1, 5), path="bezier", line="curve")
    rows = judge(interpolation=pd.concat([elsewhere, straight, path]))
    note = rows["seeds_are_connected"]["note"]
    assert "from swa to swa of the next seed (0-1, 1-2)" in note
    assert "bezier path; on the straight line 2.5 nats (mean)" in note
    assert "neighbouring pairs share a seed" in note
    note = judge(interpolation=bumps(0.1, 0.2))["one_basin"]["note"]
    assert "from swa to swa of recipe wide" in note
    assert "straight" not in note
    assert "share a seed" not in note


def test_losses_between_the_ends_that_are_not_finite_are_left_out_and_counted():
    table = bumps(0.5, 0.6, 0.55, 0.5).reset_index(drop=True)
    inside = table.index[(table["t"] == 0.5) & (table["seed"] == 3)]
    table.loc[inside, "train_loss"] = np.inf
    table.loc[table["t"] > 2.5, ["train_loss", "test_loss"]] = np.nan  # beyond the ends: no matter
    row = judge(interpolation=table)["one_basin"]
    assert (row["verdict"], row["n"], row["effect"]) == ("refuted", 3, pytest.approx(0.55))
    assert "not finite, left out: 1" in row["note"]
    table["train_loss"] = np.nan
    row = judge(interpolation=table)["one_basin"]
    assert (row["verdict"], row["n"]) == ("inconclusive", 0)


def sided(*ratios, least=0.5, t=T):
    """One line a seed to another recipe, least at t = `least`, rising so many times as steeply beyond it."""
    table = []
    for seed, ratio in enumerate(ratios):
        train = np.where(t > least, ratio, 1.0) * np.abs(t - least)
        table.append(line(train, train, seed=seed, t=t, line="between", **SWA, stop_recipe="wide"))
    return pd.concat(table)


@pytest.mark.parametrize(
    ("ratios", "verdict", "effect", "towards"),
    [
        ([4] * 6, "supported", 1.0, "swa (t < m) in 0, towards swa of recipe wide (t > m) in 6"),
        ([0.25] * 6, "supported", 1.0, "swa (t < m) in 6, towards swa of recipe wide (t > m) in 0"),
        (
            [2, 0.5, 4, 0.25, 2, 2],
            "supported",
            1.0,
            "swa (t < m) in 2, towards swa of recipe wide (t > m) in 4",
        ),
        ([1.5] * 6, "refuted", 0.0, "swa (t < m) in 0, towards swa of recipe wide (t > m) in 0"),
        ([4, 4, 4, 1, 1, 1], "inconclusive", 0.5, "in 3"),
        ([4], "inconclusive", 1.0, "in 1"),
        ([0.0] * 6, "supported", 1.0, "swa (t < m) in 6"),  # does not rise at all on one side
    ],
)
def test_a_minimum_that_looks_sharp_from_one_side(ratios, verdict, effect, towards):
    row = judge(interpolation=sided(*ratios))["line_looks_sharp_from_one_side"]
    assert (row["verdict"], row["effect"], row["n"]) == (verdict, effect, len(ratios))
    assert towards in row["note"]


def test_sides_are_compared_as_far_as_the_line_reaches_on_both():
    def one(least, t):
        return claims.side_measures(sided(3, least=least, t=t))

    assert one(0.5, T) == pytest.approx({"start": 1.0, "stop": 3.0})
    assert one(2.5, T) == pytest.approx({"start": 0.5, "stop": 1.5})  # it ends at 3
    assert one(0.0, np.linspace(0, 1, 5)) == pytest.approx({"start": math.nan, "stop": math.nan}, nan_ok=True)
    row = judge(interpolation=pd.concat([sided(4, 4), sided(4, least=-2.0).assign(seed=2, stop_seed=2)]))
    found = row["line_looks_sharp_from_one_side"]
    assert (found["n"], found["effect"]) == (2, 1.0)
    assert "left out: 1" in found["note"]
    assert math.isnan(claims.side_measures(line(0 * T, T).assign(train_loss=np.nan))["start"])


def test_swa_claims_take_straight_lines_within_a_cell_only():
    train = (T - 1) ** 2
    own = pd.concat(line(train, T**2, seed=s) for s in range(6))
    same = {"start": "swa", "stop": "descent"}
    others = [bumps(*[1.0] * 6, joins=joins, line=f"x-{joins}", **same) for joins in ("recipe", "seed")] + [
        bumps(*[1.0] * 6, joins="cell", line="x-path", path="bezier", t=np.linspace(0, 1, 5), **same)
    ]
    rows = claims.judge({**EMPTY, "interpolation": pd.concat([own, *others])})
    swa = [row["scope"] for row in rows if row["experiment"] == 2]
    assert swa == ["d/m/r/swa-descent"] * 2
    assert len([row for row in rows if row["experiment"] == 6]) == 4


# --- simulations ---


@pytest.mark.parametrize(
    ("means", "verdict", "effect"),
    [
        ((0.5, 0.1), "supported", 0.1),
        ((0.5, 0.021), "inconclusive", 0.021),  # 2.1 standard errors: enough for one row, not for two
        ((0.5, -0.021), "inconclusive", -0.021),
        ((0.5, -0.1), "refuted", -0.1),
        ((0.021,), "supported", 0.021),
    ],
)
def test_grid_rule(means, verdict, effect):
    table = average((1.0, -0.9, math.nan, -0.5), *((2.0, mean, math.nan, -0.5) for mean in means))
    row = judge(theory_average=table)["average_on_flat_side"]
    assert (row["verdict"], row["effect"], row["n"]) == (verdict, effect, len(means))
    z = 2.241403 if len(means) == 2 else 1.959964  # normal quantile at 1 - 0.025 / rows
    assert (row["low"], row["high"]) == pytest.approx((effect - 0.01 * z, effect + 0.01 * z), abs=1e-6)
    assert (row["scope"], row["experiment"]) == ("simulation/linear", 3)


@pytest.mark.parametrize(
    ("bound", "verdict", "above"),
    [(0.1, "supported", 1), (0.2, "supported", 0), (0.21, "supported", 0), (0.24, "refuted", 0)],
)
def test_bound_rule(bound, verdict, above):
    table = average((2.0, 0.2, bound, -0.5), (2.0, 0.2, math.nan, -0.5))
    row = judge(theory_average=table)["average_bound_holds"]
    assert (row["verdict"], row["n"]) == (verdict, 1)
    assert f"clearly above in {above} of 1 rows; the bound applies in 1 of 2 rows" in row["note"]
    row = judge(theory_gain=gain((2.0, 2.0, 0.2, bound)))["gain_bound_holds"]
    assert (row["verdict"], row["n"], row["experiment"]) == (verdict, 1, 4)


def test_a_vacuous_bound_is_counted_as_such():
    row = judge(theory_average=average((2.0, 0.2, -0.1, -0.5)))["average_bound_holds"]
    assert "positive in 0" in row["note"]
    assert "average_bound_holds" not in judge(theory_average=average((2.0, 0.2, math.nan, -0.5)))


def test_training_loss_under_averaging_is_judged_apart_for_symmetric_valleys():
    data = {**EMPTY, "theory_average": average((1.0, 0.0, math.nan, -0.5), (2.0, 0.2, math.nan, 0.5))}
    rows = [row for row in claims.judge(data) if row["claim"] == "averaging_lowers_train_loss"]
    assert [(row["scope"], row["verdict"], row["effect"]) for row in rows] == [
        ("simulation/linear/symmetric", "supported", -0.5),
        ("simulation/linear/asymmetric", "refuted", 0.5),
    ]


def test_gains_are_claimed_below_the_limit_in_asymmetric_valleys():
    rows = [(2.0, 0.5, 0.1, 0.0), (2.0, 1.0, -0.3, -0.5), (1.0, 0.5, -0.3, -0.5)]
    row = judge(theory_gain=gain(*rows))["bias_to_flat_side_gains"]
    assert (row["verdict"], row["effect"], row["n"]) == ("supported", 0.1, 1)
    assert "1 of 2 biases are below the limit; of the others 1 lose" in row["note"]
    worse = judge(theory_gain=gain((2.0, 0.5, -0.1, -0.2)))["bias_to_flat_side_gains"]
    assert worse["verdict"] == "refuted"
    assert "bias_to_flat_side_gains" not in judge(theory_gain=gain(*rows[1:]))


def test_shapes_are_judged_apart():
    both = pd.concat([average((2.0, 0.5, 0.1, -1.0)), average((2.0, -0.5, 0.1, -1.0), shape="softplus")])
    rows = [
        r for r in claims.judge({**EMPTY, "theory_average": both}) if r["claim"] == "average_on_flat_side"
    ]
    assert [r["verdict"] for r in rows] == ["supported", "refuted"]


def test_no_rows_are_inconclusive():
    assert claims.grid_verdict(np.array([]), np.array([]), 1) == "inconclusive"
    assert claims.bound_verdict(np.array([])) == "inconclusive"


# --- the table ---


def everything():
    parts = [signed([(0.5, 1.0)]), shifted((0.5,), (0.1,), probe="other")]
    parts.append({"asymmetry": asymmetry(("asymmetric", "flat"), ("symmetric", "symmetric"))})
    return {
        "asymmetry": pd.concat([part["asymmetry"] for part in parts]),
        "directions": parts[0]["directions"],
        "shift": parts[1]["shift"],
        "solutions": solutions([0.1]),  # one seed: no interval
        "interpolation": pd.concat(
            [
                *(line((T - 1) ** 2, T**2, seed=s) for s in range(2)),
                bumps(0.1),
                bumps(0.1, joins="seed", line="seeds"),
                bumps(0.1, joins="seed", line="path", path="bezier", t=np.linspace(0, 1, 5)),
            ]
        ),
        "toy_2d": toy("asymmetric"),
        "theory_average": average((1.0, 0.0, 0.0, -0.5), (2.0, 0.2, 0.1, -0.5)),
        "theory_gain": gain((2.0, 0.5, 0.1, 0.05)),
        "training": descents([KEPT, HIGHER]),
        "theory_measured": measured([(0.1, -0.1)]),
    }


def test_rows_fit_the_declared_table(tmp_path):
    rows = claims.judge(everything())
    tables.write(tmp_path / "claims.parquet", "claims", rows)
    found = tables.read(tmp_path / "claims.parquet", "claims")
    assert found["claim"].to_pylist() == [row["claim"] for row in rows]
    assert {row["claim"] for row in rows} >= {
        "asymmetric_direction_exists",
        "directions_are_asymmetric",
        "swa_train_loss",
        "swa_test_loss",
        "swa_test_accuracy",
        "swa_on_flat_side",
        "test_minimum_towards_swa",
        "toy_2d_asymmetric",
        "average_on_flat_side",
        "average_bound_holds",
        "averaging_lowers_train_loss",
        "bias_to_flat_side_gains",
        "gain_bound_holds",
        "test_loss_is_shifted",
        "test_loss_is_shifted_and_lifted",
        "shift_is_symmetric",
        "matching_signs_flattens",
        "one_basin",
        "line_looks_sharp_from_one_side",
        "seeds_are_apart",
        "seeds_are_connected",
        "swa_paper_selection_exists",
        "swa_test_loss_paper_selection",
        *PAIR,
    }
    assert set(found["verdict"].to_pylist()) <= {"supported", "refuted", "inconclusive"}
    assert all(list(row) == tables.schema("claims").names for row in rows)


def test_text_contains_every_row():
    rows = claims.judge(everything())
    text = claims.as_text(pd.DataFrame(rows))
    body = text.splitlines()[2:]
    assert len(body) == len(rows)
    for row, printed in zip(rows, body, strict=True):
        for word in (row["verdict"], row["claim"], row["scope"], row["unit"], f"{row['effect']:+.3g}"):
            assert word in printed


def test_a_duplicate_solution_is_not_averaged_away():
    table = pd.concat([solutions([0.1]), solutions([0.2])])
    with pytest.raises((ValueError, ValleysError)):
        claims.judge({**EMPTY, "solutions": table})

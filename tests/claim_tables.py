"""Tables that claims are judged from, with known contents, and the verdicts on them by claim."""

import inspect
import itertools
import math

import numpy as np
import pandas as pd
from valleys import claims
from valleys.claims.settings import Settings
from valleys.results import measures

CELL = {"dataset": "d", "model": "m", "recipe": "r"}
RISES = {"asymmetric": (1.0, 5.0), "symmetric": (1.0, 1.0), "not_minimum": (-1.0, 1.0), "flat": (0.0, 0.0)}
NO_SHIFT = dict.fromkeys(("radius", "shift", "shift_gap", "shift_free", "shift_free_gap"), math.nan)
NO_SHIFT |= {"radius_status": "found"}


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
            rises = {"rise_plus": plus, "rise_minus": minus, "minimum": 0.0, "rise": max(plus, minus)}
            rises |= NO_SHIFT
            rows.append({**names, "status": status, **rises, "asymmetry_index": math.log(ratio)})
    return pd.DataFrame(rows)


def solutions(differences, column="train_loss", **cell):
    """The solutions table: swa less sgd and descent of one column as given, seed by seed; 0 in the others."""
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


def toy(*statuses, recipe="released"):
    return pd.DataFrame({"recipe": recipe, "draw": i, "status": s} for i, s in enumerate(statuses))


def scans(*hits, recipe="converged", rise=2.0, share=0.5):
    """The toy_2d_scans table of draws in which an asymmetric angle was found or not."""
    about = {"recipe": recipe, "rise": rise, "asymmetric_angles": share, "asymmetric_random": share}
    rows = [{**about, "draw": i, "found": hit, "flat_rise": 0.2} for i, hit in enumerate(hits)]
    return pd.DataFrame(rows)


def average(*rows, shape="linear", inside=True):
    """The theory_average table; of each row c, mean, bound and loss_change, all with standard error 0.01."""
    about = {"lr": 0.1, "noise": "uniform", "level": 1.0, "flat_share": 0.9, "average_loss": 1.0}
    about |= {"iterate_loss": 2.0, "loss_kept": 0.25, "mean_se": 0.01, "loss_change_se": 0.01}
    keys = ("c", "mean", "bound", "loss_change")
    found = [{"shape": shape, **about, **dict(zip(keys, row, strict=True))} for row in rows]
    marks = [
        {"bound_applies": math.isfinite(row["bound"]), "inside": inside and row["c"] > 1} for row in found
    ]
    return pd.DataFrame([row | mark for row, mark in zip(found, marks, strict=True)])


def gain(*rows, shape="linear", inside=True):
    """The theory_gain table; of each row c, bias, gain and bound, with limit 1 and standard error 0.01."""
    keys = ("c", "bias", "gain", "bound")
    about = {"shape": shape, "gain_se": 0.01, "limit": 1.0}
    found = [{**about, **dict(zip(keys, row, strict=True))} for row in rows]
    return pd.DataFrame([{**row, "inside": inside and row["c"] > 1 and row["bias"] < 1} for row in found])


def towards(*offsets, probe="searched", flat=1, kind="searched", solution="sgd", **cell):
    """The directions and asymmetry tables of seeds with directions along which SWA lies at these offsets."""
    known, verdicts = [], []
    for seed, along in enumerate(offsets):
        for k, offset in enumerate(along):
            names = {**CELL, **cell, "seed": seed, "solution": solution, "probe": probe, "kind": kind}
            names |= {"group": "all", "k": k}
            known.append({**names, "towards_swa": offset, "radius": 4.0, "sign_agreement": 0.5})
            verdicts.append({**names, **NO_SHIFT, "status": "asymmetric", "flat_side": flat})
    return {"directions": pd.DataFrame(known), "asymmetry": pd.DataFrame(verdicts)}


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
            best |= {"radius_status": "found"}
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


def measured(*seeds, status="asymmetric", probe="uniform", kind="uniform", solution="sgd", rise=2.0, **cell):
    """The theory_measured table of seeds with directions of given (gain, test gain) at b = d / 2 = R / 8."""
    rows = []
    for seed, directions in enumerate(seeds):
        for k, (gain, test) in enumerate(directions):
            names = {**CELL, **cell, "seed": seed, "solution": solution, "probe": probe, "kind": kind}
            names |= {"group": "all", "k": k, "status": status, "train_gain": -0.25, "rise": rise}
            for law, scale, share, factor in (
                ("uniform", 0.25, 0.5, 1.0),
                ("uniform", 0.25, 1.0, -9.0),  # other biases, laws and scales have no part in the verdict
                ("rademacher", 0.25, 0.5, -9.0),
                ("uniform", 0.5, 0.5, 3.0),
            ):
                values = {"gain": factor * gain, "test_gain": factor * test}
                rows.append({**names, "shift": law, "scale": scale, "bias": share * scale, **values})
    return pd.DataFrame(rows)


def searched(*hits, restarts=2, probe="search", solution="sgd", **values):
    """The searches table of seeds at whose minima a direction was found or not; the last restart is chosen.

    `values` are of the chosen restarts: one for all seeds, or a list by seed.
    """
    rows = []
    for seed, (hit, restart) in enumerate(itertools.product(hits, range(restarts))):
        seed //= restarts
        names = {**CELL, "seed": seed, "solution": solution, "probe": probe, "kind": "searched"}
        about = {"seek": "asymmetric", "rise": 1.0, "floor": 0.1, "bn_policy": "frozen", "group": "all"}
        row = {**names, **about, "k": 0, "restart": restart, "chosen": False, "start_status": "symmetric"}
        row |= dict.fromkeys(("found", "judge_c_star", "test_status", "test_flat_rise"))
        if restart == restarts - 1:
            status = "asymmetric" if hit else "symmetric"
            row |= {"chosen": True, "found": hit, "judge_c_star": 3.0 if hit else 1.5}
            row |= {"test_status": status, "test_flat_rise": 0.2}
            row |= {key: one[seed] if isinstance(one, list) else one for key, one in values.items()}
        rows.append(row)
    return pd.DataFrame(rows)


EMPTY = {
    "training": descents([(0.0, 0.0)]).iloc[:0],
    "theory_measured": measured([(0.0, 0.0)]).iloc[:0],
    "shift": shifted((0.5,))["shift"].iloc[:0],
    "directions": signed([(0.5, 0.0)])["directions"].iloc[:0],
    "asymmetry": asymmetry(("symmetric",)).iloc[:0],
    "searches": searched(True).iloc[:0],
    "solutions": solutions([0.0]).iloc[:0],
    "averages": None,  # tables of runs that ask for them
    "alignment": None,
    "interpolation": line(T, T).iloc[:0],
    "toy_2d": toy("flat").iloc[:0],
    "toy_2d_scans": scans(True).iloc[:0],
    "theory_average": average((1.0, 0.0, 0.0, 0.0)).iloc[:0],
    "theory_gain": gain((1.0, 0.0, 0.0, 0.0)).iloc[:0],
}


def judge(settings=None, **data):
    rows = claims.judge({**EMPTY, **data}, settings or Settings())
    return {row["claim"]: row for row in rows}


def judged(judge, settings=None, **data):
    """Rows of one of the judges."""
    return list(judge(**measures.with_own_minima(data), settings=settings or Settings()))


def by_claim(judge, settings=None, **data):
    """Rows of one of the judges by claim; tables that are not given are empty."""
    asked = {name: EMPTY[name] for name in inspect.signature(judge).parameters if name != "settings"}
    rows = judged(judge, settings, **(asked | data))
    assert len({(row["claim"], row["scope"]) for row in rows}) == len(rows)
    return {row["claim"]: row for row in rows}


def deciding(rows):
    """The names of claims whose rows decide."""
    return {claim for claim, row in rows.items() if row.get("decides")}


ALL_SIX = [0.01, 0.02, 0.03, 0.01, 0.05, 0.02]
KEPT, LOWER, HIGHER = (-0.1, 0.2), (-0.1, -0.2), (0.1, 0.2)
PAIR = ("bias_gains_on_measured_curves", "bias_lowers_test_loss")
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

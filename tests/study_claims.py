"""Studies of known outcome, and the verdicts on them by claim."""

import random

import pandas as pd
from claim_tables import searched
from study_tables import FILTER, GAUSSIAN, HESSIAN, UNIFORM, minimum, table, variants
from valleys.claims import studies
from valleys.claims.settings import Settings

DECAY, NORM, INIT = "recipe.weight_decay", "model.norm", "model.norm_init"
LEVELS = [{DECAY: 0}, {DECAY: 0.0005}, {DECAY: 0.005}]
PROBES = {probe["probe"]: {"rise": 2.0, "bn": "frozen"} for probe in (UNIFORM, GAUSSIAN, FILTER)}
PROBES |= {HESSIAN["probe"]: {"rise": 1.0, "bn": "frozen"}}


def judge(rows, order=None, searches=None, **options):
    """Rows of the claims table by claim; of several rows of one claim the list."""
    frame = rows if isinstance(rows, pd.DataFrame) else table(rows)
    searches = searched(True).iloc[:0] if searches is None else searches
    settings = Settings(**({"factors": {"mine": order} if order else None, "probes": PROBES} | options))
    found = {}
    for row in studies.judge(frame, searches, settings):
        found.setdefault(row["claim"], []).append(row)
    return found


def only(found, claim):
    (row,) = found[claim]
    return row


def norms(sizes, inits=(), **options):
    base = {NORM: "batch", INIT: "ones"}
    parts = [(base | {NORM: norm}, size) for norm, size in sizes.items()]
    parts += [(base | {INIT: init}, size) for init, size in dict(inits).items()]
    return variants(parts, **options)


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

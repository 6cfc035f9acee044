"""Study tables with known contents, for tests of what reads them."""

import json
import math

import pandas as pd
from figure_tables import fill

UNIFORM = {"probe": "uniform-far", "kind": "uniform", "group": "all"}
GAUSSIAN = {"probe": "gaussian-far", "kind": "gaussian", "group": "all"}
FILTER = {"probe": "filter", "kind": "filter", "group": "all"}
HESSIAN = {"probe": "hessian", "kind": "hessian", "group": "all"}


def minimum(levels, seed, indices, probe=UNIFORM, **values):
    """Rows of one minimum's directions, with these asymmetry indices; a size of log 3 or more: asymmetric."""
    text = "-".join(map(str, levels.values())) or "base"
    names = {"dataset": "digits", "model": f"m-{text}", "recipe": "r", "seed": seed, "solution": "sgd"}
    usual = {"levels": json.dumps(levels), "bn_policy": "frozen", "train_accuracy": 0.95, "weight_norm": 8.0}
    usual |= {"radius_status": "found" if probe["kind"] == "filter" else "fixed"}
    usual |= {"radius": 2.0, "rise": 2.0, "eigenvalue": None}
    usual |= dict.fromkeys(("swa_rise", "swa_gain", "swa_rise_sgd", "swa_gain_sgd"))
    rows = []
    for k, index in enumerate(indices):
        status = "asymmetric" if abs(index) >= math.log(3) else "symmetric"
        about = {"k": k, "asymmetry_index": index, "status": status}
        rows.append(fill("study", **(names | usual | probe | about | values)))
    return rows


def variants(levels_and_sizes, seeds=range(6), probe=UNIFORM, **values):
    """Rows of several variants: of each its levels, and the size of its minima's index by seed (or one)."""
    rows = []
    for levels, sizes in levels_and_sizes:
        for i, seed in enumerate(seeds):
            size = sizes[i] if isinstance(sizes, list | tuple) else sizes + 0.001 * seed
            rows += minimum(levels, seed, (size, -size), probe, **values)
    return rows


def table(rows, study="mine"):
    return pd.DataFrame(rows).assign(study=study)

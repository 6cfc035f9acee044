"""The algorithm version of each stage, part of its rule's params.

Snakemake's rerun triggers see a rule's params, inputs and script, not the library a script imports. Raise a
stage's number when its *results* change: everything downstream of it is then remade, and nothing else. A
test (tests/config/test_versions.py) fails when the code a stage uses has changed since its number was last
looked at.
"""

from __future__ import annotations

VERSIONS: dict[str, int] = {
    "prepare_dataset": 1,
    "split_dataset": 1,
    "train_sgd": 2,
    "cooldown": 1,
    "import_solution": 2,
    "average": 1,
    "refresh_bn": 3,
    "descend": 3,
    "evaluate": 4,
    "compare_averages": 1,
    "directions": 2,
    "search_directions": 2,
    "probe": 7,
    "connect": 1,
    "interpolate": 5,
    "plane": 4,
    "align": 1,
    "detect": 6,
    "measure_gain": 3,
    "sensitivity": 2,
    "study": 4,
    "toy_2d": 2,
    "simulate_theory": 2,
    "aggregate": 1,
    "figures": 10,
    "panels": 1,
    "claims": 11,
    "look": 1,
    "report": 8,
}

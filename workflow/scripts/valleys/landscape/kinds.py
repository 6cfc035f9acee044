"""Names of direction kinds and parameter groups, apart so that the Snakefile reads them without torch."""

from __future__ import annotations

RANDOM: dict[str, str] = {
    "uniform": "entries U(0, 1): the paper's",
    "uniform_symmetric": "entries U(-1, 1)",
    "gaussian": "entries N(0, 1)",
    "filter": "Gaussian, filter-normalised (Li et al. 2018)",
    "sign": "|N(0, 1)| with the sign of w in a given share of the entries (Li et al. 2024)",
    "constant": "all ones",
    "sign_w": "sign(w)",
}
COMPUTED: dict[str, str] = {
    "gradient": "gradient of the train loss at the solution",
    "hessian": "top eigenvectors of the train loss's Hessian at the solution, its BN statistics fixed",
    "pca": "principal components of the iterates",
    "sgd_to_swa": "from the sgd to the swa solution",
    "swa_to_descent": "from the swa to the descent solution",
    "to_seed": "to the same solution of n other seeds: smaller ones from the nearest, then greater ones",
}
NEEDS: dict[str, tuple[str, ...]] = {
    "sgd_to_swa": ("sgd", "swa"),
    "swa_to_descent": ("swa", "descent"),
}
"""Solutions of a cell that a computed kind is made from, beside the one it is probed at."""
SINGLE = frozenset({"constant", "sign_w", "gradient", "sgd_to_swa", "swa_to_descent"})
"""Kinds of which there is just one direction."""

KINDS = {**RANDOM, **COMPUTED}
GROUPS = ("all", "not_bn", "bn", "bn_weight", "bn_bias", "conv", "classifier", "layer:<name>")

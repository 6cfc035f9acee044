"""Kinds of directions and of averages, groups of parameters: what the Snakefile reads of them, without torch.

How a kind is made stands in `directions` (drawn) or `computed`, under the same name; kind ``searched`` in
`searching`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """What a config has to know of a kind of directions.

    Attributes
    ----------
    help : str
        What it is, in a line.
    single : bool
        Whether there is just one such direction.
    solutions : tuple of str
        Solutions of the cell that it is made from, beside the one that is probed.
    iterates, seeds : bool
        Whether it is made from the iterates of training; from the same solution of other seeds.
    searched : bool
        Whether it is searched for: by rule ``search_directions``, with options of its own (`SEARCH`).
    n : int
        How many directions a probe has whose config does not say.
    """

    help: str
    single: bool = False
    solutions: tuple[str, ...] = ()
    iterates: bool = False
    seeds: bool = False
    searched: bool = False
    n: int = 10

    @property
    def local(self) -> bool:
        """Whether the solution that is probed and the train set are all that it is made from."""
        return not (self.solutions or self.iterates or self.seeds)


DRAWN = {
    "uniform": Kind("entries U(0, 1): the paper's"),
    "uniform_symmetric": Kind("entries U(-1, 1)"),
    "gaussian": Kind("entries N(0, 1)"),
    "filter": Kind("Gaussian, filter-normalised (Li et al. 2018)"),
    "sign": Kind("|N(0, 1)| with the sign of w in a given share of the entries (Li et al. 2024)"),
    "constant": Kind("all ones", single=True),
    "sign_w": Kind("sign(w)", single=True),
}
"""Made anew from the weights, a seed and a number, whenever they are needed."""
COMPUTED = {
    "gradient": Kind("gradient of the train loss at the solution", single=True),
    "hessian": Kind("top eigenvectors of the train loss's Hessian at the solution, its BN statistics fixed"),
    "pca": Kind("principal components of the iterates", iterates=True),
    "sgd_to_swa": Kind("from the sgd to the swa solution", single=True, solutions=("sgd", "swa")),
    "swa_to_descent": Kind("from the swa to the descent solution", single=True, solutions=("swa", "descent")),
    "searched": Kind(
        "found by ascent: as asymmetric, symmetric or flat as can be at a given rise", searched=True, n=1
    ),
    "to_seed": Kind(
        "to the same solution of n other seeds: smaller ones from the nearest, then greater ones", seeds=True
    ),
}
"""Computed once by a job of their own, and stored."""
KINDS = {**DRAWN, **COMPUTED}
SEEKS = ("asymmetric", "symmetric", "flat")
"""What kind ``searched`` may search for."""
SEARCH = {"seek": "asymmetric", "restarts": 3, "steps": 60, "floor": 0.1}
"""Options of kind ``searched`` (a probe's ``search``), with their defaults."""
AVERAGES: dict[str, dict[str, Any]] = {
    "ema": {"decay": 0.9},
    "last": {"k": 5},
    "weighted": {"weights": None},
    "greedy": {},
}
"""Kinds of averages of iterates, each with the option of its own and its default; None: there is none."""
NEEDS = {name: kind.solutions for name, kind in KINDS.items() if kind.solutions}
"""Solutions of a cell that a computed kind is made from, beside the one it is probed at."""
SINGLE = frozenset(name for name, kind in KINDS.items() if kind.single)
"""Kinds of which there is just one direction."""
GROUPS = ("all", "not_bn", "bn", "bn_weight", "bn_bias", "conv", "classifier", "layer:<name>")


def why_not_orthogonal(kind: str, share: float) -> str:
    """Return why directions of a kind and share cannot be orthogonal to w, in a line; empty where they can.

    It is done by the sizes of the entries (`directions.orthogonal_by_size`), so that some have to agree in
    sign with w and some not.
    """
    if kind != "sign":
        return f"true is for kind sign alone, not {kind}; drop it"
    if not 0 < share < 1:
        return (
            f"with share {share:g} all terms of <u, w> have one sign and it cannot be 0; take a share above "
            "0 and below 1, such as 0.125 or 0.875"
        )
    return ""

"""The optimisers that a recipe may name, one function each; `trainer` steps them and sets their rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from valleys.errors import ValleysError

Recipe = Mapping[str, Any]
Builder = Callable[[Iterable[nn.Parameter], Recipe], torch.optim.Optimizer]
#: What makes each optimiser, by its name in the schema (``recipes.<name>.optimizer``). Training, descent and
#: trained paths all call it, with the parameters and the recipe; any key of the recipe that the schema has
#: can be an option. A path is trained with ``weight_decay`` 0: `paths.CurveNet` applies the recipe's itself.
OPTIMISERS: dict[str, Builder] = {}


def optimiser(function: Builder) -> Builder:
    """Enter a function as the optimiser of its name."""
    OPTIMISERS[function.__name__] = function
    return function


@optimiser
def sgd(parameters: Iterable[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """Return SGD with ``momentum``, of ``nesterov`` or not, and ``weight_decay`` in the gradient."""
    if recipe["nesterov"] and recipe["momentum"] == 0:
        raise ValleysError("recipe.nesterov: needs momentum above 0")
    return torch.optim.SGD(
        parameters,
        lr=recipe["lr"],
        momentum=recipe["momentum"],
        weight_decay=recipe["weight_decay"],
        nesterov=recipe["nesterov"],
    )


def build(parameters: Iterable[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """Return the optimiser that a recipe names, ``sgd`` where it names none.

    Raises
    ------
    ValleysError
        When there is no such optimiser, or its options contradict each other.
    """
    name = recipe.get("optimizer", "sgd")
    if name not in OPTIMISERS:
        raise ValleysError(f"recipe.optimizer: {name!r} is not known (valid: {', '.join(OPTIMISERS)})")
    return OPTIMISERS[name](parameters, recipe)

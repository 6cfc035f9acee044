"""Loss valleys: train, average, probe, detect.

For use on a network, a loss and a loader of one's own (docs/library.md)::

    from valleys import average, detect, directions, probe_line, refresh_bn

These names are imported when they are first used: importing the package imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from valleys import directions
    from valleys.asymmetry.barriers import barrier
    from valleys.asymmetry.definition import Detection, detect
    from valleys.asymmetry.shifts import shift
    from valleys.directions import random_direction
    from valleys.errors import ValleysError
    from valleys.networks.bn_refresh import refresh_bn
    from valleys.probe import Evaluator, Radius, find_radius, line_offsets, probe_line
    from valleys.training.averaging import average

__version__ = "0.1.0"

__all__ = [
    "Detection",
    "Evaluator",
    "Radius",
    "ValleysError",
    "average",
    "barrier",
    "detect",
    "directions",
    "find_radius",
    "line_offsets",
    "probe_line",
    "random_direction",
    "refresh_bn",
    "shift",
]

_HOME = {
    "asymmetry.definition": ("Detection", "detect"),
    "asymmetry.barriers": ("barrier",),
    "asymmetry.shifts": ("shift",),
    "training.averaging": ("average",),
    "networks.bn_refresh": ("refresh_bn",),
    "directions": ("directions", "random_direction"),
    "errors": ("ValleysError",),
    "probe": ("Evaluator", "Radius", "find_radius", "line_offsets", "probe_line"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOME.items():
        if name in names:
            home = importlib.import_module(f"valleys.{module}")
            return home if name == module else getattr(home, name)
    raise AttributeError(f"module 'valleys' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

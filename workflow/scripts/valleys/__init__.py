"""Loss valleys: train, average, probe, detect.

For use on a network, a loss and data of one's own (docs/how-to/network.md)::

    from valleys import Landscape

    landscape = Landscape(model, train_loader, loss, test=test_loader)
    print(landscape.line("gaussian"), landscape.search())

These names are imported when they are first used: importing the package imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from valleys.lazy import names_of

if TYPE_CHECKING:
    from valleys.api.landscape import Landscape
    from valleys.asymmetry.barriers import barrier
    from valleys.asymmetry.definition import Detection, detect
    from valleys.asymmetry.shifts import shift
    from valleys.data import loaders
    from valleys.errors import ValleysError
    from valleys.landscape import directions, hessian
    from valleys.landscape.directions import random_direction
    from valleys.landscape.evaluator import Evaluator
    from valleys.landscape.lines import Radius, find_radius, line_offsets, probe_line
    from valleys.landscape.searching import Search, find_asymmetric
    from valleys.models import checkpoints, losses
    from valleys.networks.bn_refresh import refresh_bn
    from valleys.torchvision_compat import import_torchvision
    from valleys.training import sgd
    from valleys.training.averaging import average

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = names_of(
    __name__,
    {
        "api.landscape": ("Landscape",),
        "asymmetry.barriers": ("barrier",),
        "asymmetry.definition": ("Detection", "detect"),
        "asymmetry.shifts": ("shift",),
        "data.loaders": ("loaders",),
        "errors": ("ValleysError",),
        "landscape.directions": ("directions", "random_direction"),
        "landscape.evaluator": ("Evaluator",),
        "landscape.hessian": ("hessian",),
        "landscape.lines": ("Radius", "find_radius", "line_offsets", "probe_line"),
        "landscape.searching": ("Search", "find_asymmetric"),
        "models.checkpoints": ("checkpoints",),
        "models.losses": ("losses",),
        "networks.bn_refresh": ("refresh_bn",),
        "torchvision_compat": ("import_torchvision",),
        "training.averaging": ("average",),
        "training.sgd": ("sgd",),
    },
)

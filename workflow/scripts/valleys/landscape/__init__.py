"""Looking around a solution: directions, curves, planes, curvature, as measured on fixed images."""

from typing import TYPE_CHECKING

from valleys.lazy import names_of

if TYPE_CHECKING:
    from valleys.landscape.adaptive import probe_adaptively
    from valleys.landscape.computed import Sources, compute, gradient, principal_components
    from valleys.landscape.directions import (
        drawn,
        parameter_group,
        random_direction,
        sign_agreement,
        unit,
        weights_of,
    )
    from valleys.landscape.evaluator import Evaluator, Point
    from valleys.landscape.hessian import hessian_eigenvectors
    from valleys.landscape.lines import CurvePoint, Radius, find_radius, line_offsets, probe_line
    from valleys.landscape.planes import Plane, describe, principal, spanned, surface, through
    from valleys.landscape.searching import Search, find_asymmetric, searches
    from valleys.landscape.subsets import with_errors

__getattr__, __dir__, __all__ = names_of(
    __name__,
    {
        "evaluator": ("Evaluator", "Point"),
        "lines": ("CurvePoint", "Radius", "find_radius", "line_offsets", "probe_line"),
        "adaptive": ("probe_adaptively",),
        "subsets": ("with_errors",),
        "directions": (
            "drawn",
            "parameter_group",
            "random_direction",
            "sign_agreement",
            "unit",
            "weights_of",
        ),
        "computed": ("Sources", "compute", "gradient", "principal_components"),
        "hessian": ("hessian_eigenvectors",),
        "searching": ("Search", "find_asymmetric", "searches"),
        "planes": ("Plane", "describe", "principal", "spanned", "surface", "through"),
    },
)

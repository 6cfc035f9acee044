"""Mathematics of curves: Definition 1, shifts, barriers, splines; numbers in, numbers out, no networks."""

from typing import TYPE_CHECKING

from valleys.lazy import names_of

if TYPE_CHECKING:
    from valleys.asymmetry.barriers import Barrier, barrier
    from valleys.asymmetry.bias import bias_level, bias_rise, bias_zeta
    from valleys.asymmetry.definition import Detection, detect, detect_many, reaches
    from valleys.asymmetry.next_point import first_points
    from valleys.asymmetry.robustness import errors_like, is_robust
    from valleys.asymmetry.shifts import Shift, shift, shift_curve
    from valleys.asymmetry.spline import upsample

__getattr__, __dir__, __all__ = names_of(
    __name__,
    {
        "definition": ("Detection", "detect", "detect_many", "reaches"),
        "shifts": ("Shift", "shift", "shift_curve"),
        "barriers": ("Barrier", "barrier"),
        "bias": ("bias_level", "bias_rise", "bias_zeta"),
        "robustness": ("errors_like", "is_robust"),
        "next_point": ("first_points",),
        "spline": ("upsample",),
    },
)

"""Which simulated rows the paper's two theorems are about, by their recalled assumptions.

Source: He, Huang and Yuan, "Asymmetric Valleys", NeurIPS 2019, Theorems 1 and 2. The statements are recalled,
not read (docs/theory.md).
"""

from __future__ import annotations

from math import log

from valleys.simulations.shapes import Noise, Valley


def inside_theorem_2(valley: Valley, noise: Noise, reached: tuple[float, float]) -> bool:
    """Return whether the paper's Theorem 2, as recalled in docs/theory.md, is about this valley and noise.

    There must be constants with ``b- <= L' <= a- < 0`` left of the minimum, ``0 < b+ <= L' <= a+`` right of
    it, ``-a- = c a+``, noise ``|omega| < nu <= a+`` and ``c' = (nu - b-) / b+ < exp(c / 3) / 6``. A smaller
    nu and a smaller a+ only help, so the least of each are tried. The last inequality and that for the noise
    are strict: what holds in the limit holds near it.

    Parameters
    ----------
    valley, noise
        What is simulated.
    reached : tuple of float
        The least x that chains reached, and the greatest: the slopes between them count.
    """
    left, right = valley.at_minimum()
    if not left < 0 < right:  # a smooth minimum: no a- and b+ are off 0
        return False
    steepest, most = (float(valley.gradient(x)) for x in reached)
    top = max(most, noise.level)  # a+ and, from above, nu
    ratio = -left / top
    return log(6 * (noise.level - min(steepest, left)) / right) < ratio / 3


def inside_theorem_1(valley: Valley, bias: float, shift: Noise) -> bool:
    """Return whether the paper's Theorem 1, as recalled in docs/theory.md, is about this bias and shift.

    Its shifts are ``+-delta``. Here the shift gap is 0, and Definition 1 must hold at a level above 1 in some
    window (zeta, r) with ``0 < bias <= min(r - delta, delta - zeta)``. As slopes do not fall, the window that
    is only just wide enough has the greatest level.
    """
    zeta, r = shift.level - bias, shift.level + bias
    if shift.kind != "rademacher" or not 0 < zeta < r:
        return False
    return float(-valley.gradient(-zeta)) > float(valley.gradient(r)) > 0

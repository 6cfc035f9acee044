"""Definition 1 by trying all there is."""

import math
from itertools import pairwise


def brute_force(offsets, losses, c, zeta_max, min_span, slopes=None, noise=0.0, minimum_within=0.25):
    """Definition 1 window by window, in plain Python: (status, c_star, side, zeta, r, p)."""
    n, m, radius = len(offsets), len(offsets) // 2, offsets[-1]
    eps = 1e-9 * radius
    inside = [k for k in range(n) if abs(offsets[k]) <= min(minimum_within, zeta_max) * radius + eps]
    low = min(inside, key=lambda k: (losses[k], abs(offsets[k])))
    none = (0, math.nan, math.nan, math.nan)
    if min(losses) < losses[low] - noise:
        return ("not_minimum", math.nan, *none)
    if max(losses) - losses[low] <= noise:
        return ("flat", math.nan, *none)

    def outward(side, i, k):
        ends = [m + side * j for j in range(i, k + 1)]
        if slopes is not None:
            return [side * slopes[j] for j in ends]
        pairs = pairwise(ends)
        return [(losses[b] - losses[a]) / abs(offsets[b] - offsets[a]) for a, b in pairs]

    found = {1: [], -1: []}
    for i in range(1, m + 1):
        zeta = offsets[m + i]
        if zeta > zeta_max * radius + eps or zeta < abs(offsets[low]) - eps:
            continue
        for k in range(i + 1, m + 1):
            r = offsets[m + k]
            if r - zeta < min_span * radius - eps:
                continue
            for side in (1, -1):
                sup, inf = max(outward(side, i, k)), min(outward(-side, i, k))
                if sup > 0 and sup * (r - zeta) > noise:
                    found[side].append((inf / sup, r - zeta, zeta, r, side, sup))
    if not (found[1] and found[-1]):
        return ("not_minimum", math.nan, *none)
    every = found[1] + found[-1]
    best = max(f[0] for f in every)
    ties = [f for f in every if f[0] >= best - 1e-9 * abs(best)]
    width = max(f[1] for f in ties)
    level, _, zeta, r, side, p = min((f for f in ties if f[1] >= width * (1 - 1e-9)), key=lambda f: f[2])
    reached, side = level >= c * (1 - 1e-5), side if level > 1 + 1e-5 else 0
    return ("asymmetric" if reached else "symmetric", level, side, zeta, r, p)

"""Mathematics of curves: Definition 1, shifts, barriers, splines; numbers in, numbers out, no networks."""

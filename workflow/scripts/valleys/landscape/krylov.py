"""The largest eigenvalues of a symmetric matrix known by its products, looked at after each product."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from valleys.errors import ValleysError

Floats = NDArray[np.float64]
#: Vectors that are held at most, beside `k`: then the iteration begins again from the best of them.
HELD = 40
#: Products after which it gives up.
MOST = 2000
#: From this tolerance on the basis is held in float32: half the memory, and half the time beside products.
COARSE = 1e-3
#: Of products in float32, relative to the largest eigenvalue: no residual gets below.
ROUNDING = 1e-6


def top(matrix: Any, start: Floats, first: Floats, k: int, tolerance: float) -> tuple[Floats, Floats, Floats]:
    """Return the `k` algebraically largest eigenvalues, their vectors as rows, and their residuals.

    Krylov-Schur iteration (Stewart 2001): Lanczos with each basis vector made orthogonal to all others, so
    that rounding makes no copies of eigenvalues, and thick restarts. It ends at the first product after which
    all residuals are below `tolerance` times their eigenvalues, and that of the next pair as well: where
    eigenvalues lie within the tolerance, one that shows late would be taken for one that is not there.
    Residuals ``|H v - value v|`` are computed from the products that have been taken, which takes no more.

    Parameters
    ----------
    matrix
        ``matrix @ vector``.
    start, first
        The first vector, not zero, and its product.

    Raises
    ------
    ValleysError
        When `tolerance` is not a number above 0, or it is not met after `MOST` products.
    """
    if not 0 < tolerance < np.inf:
        raise ValleysError(f"hessian: tolerance: {tolerance!r} is not a number above 0")
    n = len(start)
    width, random = min(n, k + HELD), np.random.default_rng(0)
    kind = np.float32 if tolerance >= COARSE else np.float64
    basis, projected = np.zeros((width + 1, n), kind), np.zeros((width + 1, width))
    length = float(np.linalg.norm(start))
    basis[0], vector = start / length, (first / length).astype(kind)
    j = coupled = 0  # vector number `coupled` has all before it as neighbours, any other just one
    for count in range(MOST):
        if count:
            vector = np.array(matrix @ basis[j].astype(np.float64), dtype=kind)
        scale, size = float(np.linalg.norm(vector)), j + 1
        # What the product has of its neighbours first, as removing that leaves rounding; then of all.
        for since in (0 if j == coupled else max(j - 1, 0), 0):
            along = basis[since:size] @ vector
            vector -= along @ basis[since:size]
            projected[since:size, j] += along
        beside = float(np.linalg.norm(vector))
        inner = projected[:size, :size]
        values, shares = eigh((inner + inner.T) / 2)
        values, shares = values[::-1], shares[:, ::-1]
        off = np.linalg.norm(inner @ shares - shares * values, axis=0)
        residuals = np.hypot(off, beside * shares[-1])
        small = ROUNDING * np.abs(values).max()
        enough = np.maximum(tolerance * np.abs(values[:k]), small)
        met = size >= k and (residuals[:k] <= enough).all() and (residuals[k : k + 1] <= enough[-1:]).all()
        if size == n or met:
            vectors = (shares[:, :k].T.astype(kind) @ basis[:size]).astype(np.float64)
            return values[:k], vectors / np.linalg.norm(vectors, axis=1, keepdims=True), residuals[:k]
        if beside <= ROUNDING * 1e-6 * scale:  # an invariant space of fewer than k: one goes on outside of it
            vector, beside = random.standard_normal(n, dtype=kind), 0.0
            vector -= (basis[:size] @ vector) @ basis[:size]
        if size == width:
            coupled = k + HELD // 4
            shares = shares[:, :coupled]
            basis[:coupled] = shares.T.astype(kind) @ basis[:size]
            inner = shares.T @ inner @ shares
            projected[:] = 0.0
            projected[:coupled, :coupled], projected[coupled, :coupled] = inner, beside * shares[-1]
            j = coupled
        else:
            projected[size, j] = beside
            j += 1
        basis[j] = vector / np.linalg.norm(vector)
    raise ValleysError(
        f"the Hessian's top {k} eigenvectors did not converge to {tolerance:.3g} in {count + 1} products; "
        "raise the tolerance or lower n"
    )

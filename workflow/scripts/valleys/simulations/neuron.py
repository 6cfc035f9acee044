"""One neuron: weight, bias and sigmoid, with binary cross-entropy; its loss, its minimum, its lines.

All arrays are float64: parameters ``wb`` are (..., 2) as (weight, bias), data ``x`` and labels ``y`` are
(..., n). Leading axes broadcast.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import elementwise

from valleys.errors import ValleysError

Floats = NDArray[np.float64]

_TOLERANCE = 1e-10


def loss(wb: ArrayLike, x: ArrayLike, y: ArrayLike) -> Floats:
    """Return the mean binary cross-entropy of ``sigmoid(weight x + bias)``, in nats.

    Parameters
    ----------
    wb : array_like, shape (..., 2)
        Weight and bias.
    x, y : array_like, shape (..., n)
        Points and labels; leading axes broadcast with those of ``wb``.

    Returns
    -------
    ndarray, shape (...)
        Losses. Exact for any size of the logits: softplus by ``logaddexp``, no sigmoid to saturate.
    """
    z = _logits(wb, x)
    return (np.logaddexp(0.0, z) - np.asarray(y) * z).mean(axis=-1)


def gradient(wb: ArrayLike, x: ArrayLike, y: ArrayLike) -> Floats:
    """Return the gradient of `loss` in (weight, bias), shape (..., 2)."""
    residual = _sigmoid(_logits(wb, x)) - y
    return np.stack([(residual * x).mean(axis=-1), residual.mean(axis=-1)], axis=-1)


def slope(wb: ArrayLike, direction: ArrayLike, x: ArrayLike, y: ArrayLike) -> Floats:
    """Return the derivative of `loss` along directions (..., 2), shape (...)."""
    return (gradient(wb, x, y) * direction).sum(axis=-1)


def train_gd(x: ArrayLike, y: ArrayLike, lr: float, epochs: int, init: ArrayLike) -> tuple[Floats, Floats]:
    """Run full-batch gradient descent from ``init`` (..., 2).

    Returns
    -------
    last, average : ndarray, shape (..., 2)
        The parameters after the last step, and the mean of those after each step.
    """
    wb = np.array(init, dtype=np.float64)
    total = np.zeros_like(wb)
    for _ in range(epochs):
        wb -= lr * gradient(wb, x, y)
        total += wb
    return wb, total / epochs


def separable(x: ArrayLike, y: ArrayLike) -> NDArray[np.bool_]:
    """Return whether a threshold splits the two classes, shape (...); then the loss has no minimum.

    Classes that touch in one point count too: the likelihood is then highest at infinity as well.
    """
    one = np.asarray(y) > 0.5
    low_1, high_1 = np.where(one, x, np.inf).min(axis=-1), np.where(one, x, -np.inf).max(axis=-1)
    low_0, high_0 = np.where(one, np.inf, x).min(axis=-1), np.where(one, -np.inf, x).max(axis=-1)
    return (high_0 <= low_1) | (high_1 <= low_0)


def converge(x: ArrayLike, y: ArrayLike, *, max_steps: int = 200) -> tuple[Floats, NDArray[np.bool_]]:
    """Find each draw's minimum by Newton's method with halved steps, to a gradient norm below 1e-10.

    Parameters
    ----------
    x, y : array_like, shape (B, n)
        Points and labels.
    max_steps : int
        Newton steps at most.

    Returns
    -------
    wb : ndarray, shape (B, 2)
        Minima; NaN where the data are separable.
    separable : ndarray of bool, shape (B,)
        Whether they are.

    Raises
    ------
    ValleysError
        A draw that is not separable and did not converge: nearly separable data, with a minimum too far out.
    """
    x = np.asarray(x, dtype=np.float64)
    y = np.broadcast_to(np.asarray(y, dtype=np.float64), x.shape)
    apart = separable(x, y)
    wb = np.where(apart[:, None], np.nan, np.zeros((len(x), 2)))
    for _ in range(max_steps):
        todo = np.flatnonzero(~apart & (np.linalg.norm(gradient(wb, x, y), axis=-1) >= _TOLERANCE))
        if not len(todo):
            return wb, apart
        wb[todo] = _newton_step(wb[todo], x[todo], y[todo])
    raise ValleysError(f"toy: draw {todo[0]} of {len(x)} did not converge in {max_steps} Newton steps")


def line(wb: ArrayLike, direction: ArrayLike, x: ArrayLike, y: ArrayLike, offsets: ArrayLike) -> Floats:
    """Return the losses along a line, shape (..., m), at m offsets.

    Parameters
    ----------
    wb, direction : array_like, shape (..., 2)
        Where the line passes at offset 0, and where it goes.
    x, y : array_like, shape (..., n)
        Points and labels.
    offsets : array_like, shape (m,) or (..., m)
        Steps, in units of the direction's length (2-norm 1 for `directions`).
    """
    return loss(points(wb, direction, offsets), np.asarray(x)[..., None, :], np.asarray(y)[..., None, :])


def points(wb: ArrayLike, direction: ArrayLike, offsets: ArrayLike) -> Floats:
    """Return the parameters at the offsets (..., m) of lines, shape (..., m, 2)."""
    steps = np.asarray(offsets, dtype=np.float64)[..., None]
    return np.asarray(wb)[..., None, :] + steps * np.asarray(direction)[..., None, :]


def radius(wb: ArrayLike, direction: ArrayLike, x: ArrayLike, y: ArrayLike, rise: float) -> Floats:
    """Return how far out the higher end of each line has risen by ``rise`` nats.

    Parameters
    ----------
    wb, direction : array_like, shape (B, 2)
        Where the lines pass at offset 0, and where they go.
    x, y : array_like, shape (B, n)
        Points and labels.
    rise : float
        Above 0.

    Returns
    -------
    ndarray, shape (B,)
        The R at which ``max(phi(R), phi(-R)) - phi(0)`` is the rise. There is just one: phi is convex.
    """
    wb, direction, x, y = (np.asarray(values, dtype=np.float64) for values in (wb, direction, x, y))
    start = loss(wb, x, y)

    def above(offset: Floats, k: Floats) -> Floats:
        at = k.astype(int)
        ends = line(wb[at], direction[at], x[at], y[at], offset[:, None] * np.array([-1.0, 1.0]))
        return ends.max(axis=-1) - start[at] - rise

    # The mean of both ends is at least (R mean|d| - mean|z|) / 2, with logits z that move by d.
    far = 2 * (rise + start) + np.abs(_logits(wb, x)).mean(axis=-1)
    far = 1.001 * far / np.abs(_logits(direction, x)).mean(axis=-1)
    found = elementwise.find_root(above, (np.zeros(len(wb)), far), args=(np.arange(len(wb), dtype=float),))
    return found.x


def surface(
    x: ArrayLike,
    y: ArrayLike,
    w_range: tuple[float, float],
    b_range: tuple[float, float],
    points: int,
) -> tuple[Floats, Floats, Floats]:
    """Return the loss of one data set on a square grid of parameters.

    Parameters
    ----------
    x, y : array_like, shape (n,)
        Points and labels.
    w_range, b_range : tuple of float
        Ends of the weight and bias axes, included.
    points : int
        Grid points per axis.

    Returns
    -------
    weights, biases : ndarray, shape (points,)
        The axes.
    losses : ndarray, shape (points, points)
        Weight along the first axis, bias along the second.
    """
    weights, biases = np.linspace(*w_range, points), np.linspace(*b_range, points)
    grid = np.stack(np.meshgrid(weights, biases, indexing="ij"), axis=-1)
    return weights, biases, loss(grid, x, y)


def _logits(wb: ArrayLike, x: ArrayLike) -> Floats:
    """Return ``weight x + bias``, shape (..., n)."""
    wb = np.asarray(wb, dtype=np.float64)
    return wb[..., :1] * np.asarray(x, dtype=np.float64) + wb[..., 1:]


def _sigmoid(z: Floats) -> Floats:
    """Return the logistic function, without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * z))


def _newton_step(wb: Floats, x: Floats, y: Floats) -> Floats:
    """Take one Newton step from (B, 2), halved until the loss does not rise: far out, full ones diverge."""
    s = _sigmoid(_logits(wb, x))
    v = s * (1 - s)
    h_wb = (v * x).mean(axis=-1)
    hessian = np.stack([(v * x * x).mean(axis=-1), h_wb, h_wb, v.mean(axis=-1)], axis=-1).reshape(-1, 2, 2)
    step = np.linalg.solve(hessian, gradient(wb, x, y)[..., None])[..., 0]
    before = loss(wb, x, y)
    before += 1e-14 * np.abs(before)  # at the minimum the loss no longer resolves the last steps
    scale = np.ones((len(wb), 1))
    for _ in range(60):
        worse = ~(loss(wb - scale * step, x, y) <= before)
        if not worse.any():
            break
        scale[worse] /= 2
    return wb - scale * step

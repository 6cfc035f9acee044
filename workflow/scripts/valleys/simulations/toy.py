"""The smallest network of the paper: one neuron on two 1-D Gaussians, so the loss is a surface over a plane.

Source: He, Huang and Yuan, "Asymmetric Valleys", NeurIPS 2019, the 2-D MLP: weight, bias and sigmoid, binary
cross-entropy, points from N(+1, 1) (label 1) and N(-1, 1) (label 0), full-batch gradient descent (rate 0.01,
30 epochs), a direction from U(0, 1)^2 normalised to length 1, steps of 0.5 to +-7.5, 50 draws.

Thirty steps at that rate do not reach a minimum. So each draw is probed along the same direction at two
places: where the paper's recipe stops ("paper") and at the minimum ("converged").

All arrays are float64 and carry draws in front: parameters ``wb`` are (..., 2) as (weight, bias), data ``x``
and labels ``y`` are (..., n). Every draw has its own random stream, so draw 7 is the same whether 8 or 800
are made.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from valleys.asymmetry.definition import Detection, detect_many
from valleys.errors import ValleysError

Floats = NDArray[np.float64]
Columns = dict[str, NDArray[Any]]

RECIPES = ("paper", "converged")
DEFAULTS: dict[str, float | int] = {
    "n_draws": 50,
    "n_per_class": 20,
    "seed": 0,
    "lr": 0.01,
    "epochs": 30,
    "step": 0.5,
    "reach": 7.5,
    "surface_points": 61,
    "c": 2.0,
    "zeta_max": 0.5,
    "min_span": 0.25,
    "minimum_within": 0.25,
}

_DATA, _INIT, _DIRECTION = range(3)  # random streams of a draw; never renumber, or every result changes
_TOLERANCE = 1e-10


def draw_data(n_draws: int, n_per_class: int, seed: int) -> tuple[Floats, Floats]:
    """Draw the data sets: per draw ``n_per_class`` points of N(+1, 1), then as many of N(-1, 1).

    Returns
    -------
    x, y : ndarray, shape (n_draws, 2 n_per_class)
        Points, and labels 1 then 0.
    """
    sign = np.repeat([1.0, -1.0], n_per_class)
    x = _per_draw(n_draws, seed, _DATA, lambda rng: sign + rng.standard_normal(2 * n_per_class), sign.shape)
    return x, np.broadcast_to((sign + 1) / 2, x.shape)


def initial(n_draws: int, seed: int) -> Floats:
    """Draw where training starts, shape (n_draws, 2): U(-1, 1), as torch.nn.Linear does for one input."""
    return _per_draw(n_draws, seed, _INIT, lambda rng: rng.uniform(-1, 1, 2), (2,))


def directions(n_draws: int, seed: int) -> Floats:
    """Draw one direction per draw, shape (n_draws, 2): U(0, 1)^2, normalised to 2-norm 1."""
    u = _per_draw(n_draws, seed, _DIRECTION, lambda rng: rng.uniform(0, 1, 2), (2,))
    return u / np.linalg.norm(u, axis=-1, keepdims=True)


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


def train_gd(x: ArrayLike, y: ArrayLike, lr: float, epochs: int, init: ArrayLike) -> Floats:
    """Run full-batch gradient descent from ``init`` (..., 2); return the last parameters, same shape."""
    wb = np.array(init, dtype=np.float64)
    for _ in range(epochs):
        wb -= lr * gradient(wb, x, y)
    return wb


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
    offsets : array_like, shape (m,)
        Steps, in units of the direction's length (2-norm 1 for `directions`).
    """
    wb, direction = np.asarray(wb)[..., None, :], np.asarray(direction)[..., None, :]
    points = wb + np.asarray(offsets)[:, None] * direction
    return loss(points, np.asarray(x)[..., None, :], np.asarray(y)[..., None, :])


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


def run(spec: dict[str, Any]) -> dict[str, Columns]:
    """Run the experiment (design, experiment 7) and return its three tables, as columns of equal length.

    Parameters
    ----------
    spec : dict
        Any of the keys of `DEFAULTS`, which fill the rest: ``n_draws``, ``n_per_class`` (points per class),
        ``seed``, ``lr`` and ``epochs`` of the paper's recipe, ``step`` and ``reach`` of the line,
        ``surface_points`` per axis (over weight and bias in [-reach, reach]), and the constants ``c``,
        ``zeta_max``, ``min_span``, ``minimum_within`` of `definition.detect`.

    Returns
    -------
    dict
        ``toy_2d``: recipe, draw, weight, bias, loss, gradient_norm, separable, direction_weight,
        direction_bias, and the fields of `Detection`, one row per recipe and draw. A separable draw
        has no minimum: its "converged" row has status "no_minimum", NaN for numbers, and no curve.
        ``toy_2d_curves``: recipe, draw, offset, loss.
        ``toy_2d_surface``: weight, bias, loss, for draw 0.

    Raises
    ------
    ValleysError
        Unknown keys, or values out of range.
    """
    s = _spec(spec)
    n_draws, seed = s["n_draws"], s["seed"]
    x, y = draw_data(n_draws, s["n_per_class"], seed)
    u = directions(n_draws, seed)
    half = round(s["reach"] / s["step"])
    offsets = s["step"] * np.arange(-half, half + 1)
    minima, apart = converge(x, y)
    solutions = {
        "paper": train_gd(x, y, s["lr"], s["epochs"], initial(n_draws, seed)),
        "converged": minima,
    }
    tables: list[Columns] = []
    curves: list[Columns] = []
    for recipe in RECIPES:
        wb = solutions[recipe]
        probed = np.flatnonzero(np.isfinite(wb).all(axis=-1))
        losses = line(wb[probed], u[probed], x[probed], y[probed], offsets)
        verdicts: list[dict[str, Any]] = [_no_minimum()] * n_draws
        constants = {key: s[key] for key in ("c", "zeta_max", "min_span", "minimum_within")}
        found = detect_many(offsets, losses, **constants)
        for draw, detection in zip(probed, found, strict=True):
            verdicts[draw] = detection.asdict()
        with np.errstate(invalid="ignore"):  # NaN parameters, where there is no minimum
            height = loss(wb, x, y)
        tables.append(
            {
                "recipe": np.full(n_draws, recipe),
                "draw": np.arange(n_draws),
                "weight": wb[:, 0],
                "bias": wb[:, 1],
                "loss": height,
                "gradient_norm": np.linalg.norm(gradient(wb, x, y), axis=-1),
                "separable": apart,
                "direction_weight": u[:, 0],
                "direction_bias": u[:, 1],
                **{name: np.array([v[name] for v in verdicts]) for name in verdicts[0]},
            }
        )
        curves.append(
            {
                "recipe": np.full(losses.size, recipe),
                "draw": np.repeat(probed, len(offsets)),
                "offset": np.tile(offsets, len(probed)),
                "loss": losses.ravel(),
            }
        )
    ends = (-s["reach"], s["reach"])
    weights, biases, heights = surface(x[0], y[0], ends, ends, s["surface_points"])
    return {
        "toy_2d": _stack(tables),
        "toy_2d_curves": _stack(curves),
        "toy_2d_surface": {
            "weight": np.repeat(weights, len(biases)),
            "bias": np.tile(biases, len(weights)),
            "loss": heights.ravel(),
        },
    }


def _per_draw(n_draws: int, seed: int, stream: int, draw: Any, shape: tuple[int, ...]) -> Floats:
    """Call ``draw(rng)`` with each draw's own generator, keyed and not spawned: the count does not matter."""
    out = np.empty((n_draws, *shape))
    for k in range(n_draws):
        out[k] = draw(np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream, k))))
    return out


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


def _no_minimum() -> dict[str, Any]:
    """Return the fields of a detection for a draw that has no minimum to probe."""
    fields: dict[str, Any] = dict.fromkeys(Detection.__dataclass_fields__, np.nan)
    return fields | {"status": "no_minimum", "flat_side": 0}


def _stack(tables: list[Columns]) -> Columns:
    """Put tables with the same columns under one another."""
    return {name: np.concatenate([t[name] for t in tables]) for name in tables[0]}


def _spec(spec: dict[str, Any]) -> dict[str, Any]:
    """Fill and check the keys of `run`."""
    unknown = sorted(set(spec) - set(DEFAULTS))
    if unknown:
        raise ValleysError(f"toy: unknown key {unknown[0]!r}; known: {', '.join(DEFAULTS)}")
    s = {**DEFAULTS, **spec}
    for key, least in {"n_draws": 1, "n_per_class": 1, "seed": 0, "epochs": 0, "surface_points": 2}.items():
        if int(s[key]) != s[key] or s[key] < least:
            raise ValleysError(f"toy: {key} is {s[key]!r}, needs a whole number of at least {least}")
        s[key] = int(s[key])
    for key in ("lr", "step", "reach"):
        if not (np.isfinite(s[key]) and s[key] > 0):
            raise ValleysError(f"toy: {key} is {s[key]!r}, needs a positive number")
    steps = s["reach"] / s["step"]
    if abs(steps - round(steps)) > 1e-6 * steps:
        raise ValleysError(f"toy: reach {s['reach']!r} is not a whole number of steps of {s['step']!r}")
    return s

"""The smallest network of the paper: one neuron on two 1-D Gaussians, so the loss is a surface over a plane.

Source: He, Huang and Yuan, "Asymmetric Valleys", NeurIPS 2019, the 2-D MLP, as its released code has it
(logistic_regression_2params.py of github.com/962086838/code-for-Asymmetric-Valley): weight, bias and sigmoid,
binary cross-entropy, 10 points of N(+1, 1) (label 0) and as many of N(-1, 1) (label 1), full-batch gradient
descent (rate 0.01, 30 epochs), and a line through the average of the 30 iterates along a direction from
U(0, 1)^2 normalised to length 1, in steps of 0.5 to +-7.5; 50 draws.

Thirty steps at that rate do not reach a minimum. So each draw is probed at two places: at the released
average ("released") and at the minimum ("converged"). One direction a draw says little of a plane. So there
is a scan too: directions at all angles, each out to where the loss has risen by a stated amount.

All arrays are float64 and carry draws in front: parameters ``wb`` are (..., 2) as (weight, bias), data ``x``
and labels ``y`` are (..., n). Every draw has its own random stream, so draw 7 is the same whether 8 or 800
are made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valleys.asymmetry.definition import Detection, detect_many
from valleys.errors import ValleysError
from valleys.simulations import neuron

Floats = NDArray[np.float64]
Columns = dict[str, NDArray[Any]]

RECIPES = ("released", "converged")
DEFAULTS: dict[str, Any] = {
    "n_draws": 50,
    "n_per_class": 10,
    "seed": 0,
    "lr": 0.01,
    "epochs": 30,
    "step": 0.5,
    "reach": 7.5,
    "surface_points": 61,
    "angles": 180,
    "rises": (1.0, 2.0, 10.0),
    "points": 41,
    "floor": 0.1,
    "c": 2.0,
    "zeta_max": 0.5,
    "min_span": 0.25,
    "minimum_within": 0.25,
}

_DATA, _INIT, _DIRECTION = range(3)  # random streams of a draw; never renumber, or every result changes


def draw_data(n_draws: int, n_per_class: int, seed: int) -> tuple[Floats, Floats]:
    """Draw the data sets: per draw ``n_per_class`` points of N(+1, 1), then as many of N(-1, 1).

    Returns
    -------
    x, y : ndarray, shape (n_draws, 2 n_per_class)
        Points, and labels 0 then 1, as in the released code. With the other labels weight and bias change
        their signs, and each line its sides.
    """
    sign = np.repeat([1.0, -1.0], n_per_class)
    x = _per_draw(n_draws, seed, _DATA, lambda rng: sign + rng.standard_normal(2 * n_per_class), sign.shape)
    return x, np.broadcast_to((1 - sign) / 2, x.shape)


def initial(n_draws: int, seed: int) -> Floats:
    """Draw where training starts, shape (n_draws, 2): U(-1, 1), as torch.nn.Linear does for one input."""
    return _per_draw(n_draws, seed, _INIT, lambda rng: rng.uniform(-1, 1, 2), (2,))


def directions(n_draws: int, seed: int) -> Floats:
    """Draw one direction per draw, shape (n_draws, 2): U(0, 1)^2, normalised to 2-norm 1."""
    u = _per_draw(n_draws, seed, _DIRECTION, lambda rng: rng.uniform(0, 1, 2), (2,))
    return u / np.linalg.norm(u, axis=-1, keepdims=True)


def angles(count: int) -> Floats:
    """Return ``count`` angles over half a turn, in degrees from the weight's axis: u and -u are one line."""
    return np.arange(count) * (180.0 / count)


def random_weights(count: int) -> Floats:
    """Return how often a direction of U(0, 1)^2 is nearest to each of `angles`; they sum to 1.

    The angle is below t with a probability of tan(t) / 2 up to 45 degrees, 1 - cot(t) / 2 from there to 90.
    """
    edges = np.deg2rad(np.clip((np.arange(count + 1) - 0.5) * (180.0 / count), 0, 90))
    below = np.where(edges < np.pi / 4, np.tan(edges) / 2, 1 - np.tan(np.pi / 2 - edges) / 2)
    return np.diff(below)


def scan(wb: Floats, x: Floats, y: Floats, rise: float, s: dict[str, Any]) -> Columns:
    """Apply Definition 1 along all angles through the solution of one draw, out to a rise.

    Slopes are exact.

    Parameters
    ----------
    wb : ndarray, shape (2,)
        The solution.
    x, y : ndarray, shape (n,)
        Points and labels.
    rise : float
        By how much the higher end of each line has risen, nats.
    s : dict
        As of `run`, all keys.

    Returns
    -------
    dict
        angle, radius, status, c_star, flat_side, flat_rise (of the flat side, NaN where neither is),
        asymmetry_index; one value an angle.
    """
    turn = np.deg2rad(angles(s["angles"]))
    u = np.stack([np.cos(turn), np.sin(turn)], axis=-1)
    wb, x, y = (np.broadcast_to(values, (len(u), len(values))) for values in (wb, x, y))
    reach = neuron.radius(wb, u, x, y, rise)
    offsets = reach[:, None] * np.linspace(-1, 1, s["points"])
    slopes = neuron.slope(neuron.points(wb, u, offsets), u[:, None], x[:, None], y[:, None])
    found = detect_many(offsets, neuron.line(wb, u, x, y, offsets), slopes=slopes, **_constants(s))
    flat = [{1: d.rise_plus, -1: d.rise_minus, 0: np.nan}[d.flat_side] for d in found]
    kept = ("status", "c_star", "flat_side")
    return {
        "angle": angles(s["angles"]),
        "radius": reach,
        **{name: np.array([getattr(d, name) for d in found]) for name in kept},
        "flat_rise": np.array(flat),
        "asymmetry_index": np.array([d.asymmetry_index for d in found]),
    }


def summary(scanned: Columns, floor: float) -> dict[str, Any]:
    """Return what a `scan` finds.

    Parameters
    ----------
    scanned
        Columns of `scan`.
    floor : float
        Least rise of the flat side for a find, nats.

    Returns
    -------
    dict
        asymmetric_angles and asymmetric_random: share of all angles that are asymmetric, and of directions
        from U(0, 1)^2. found: whether one angle is, with a flat side that rises by the floor. Of the angle
        with the greatest c* among those whose flat side does: angle, c_star, flat_rise, NaN where none does.
    """
    asymmetric = scanned["status"] == "asymmetric"
    risen = np.isfinite(scanned["c_star"]) & (scanned["flat_rise"] >= floor)
    best = int(np.where(risen, scanned["c_star"], -np.inf).argmax())
    about = {
        name: scanned[name][best] if risen.any() else np.nan for name in ("angle", "c_star", "flat_rise")
    }
    return {
        "asymmetric_angles": asymmetric.mean(),
        "asymmetric_random": (asymmetric * random_weights(len(asymmetric))).sum(),
        "found": bool((asymmetric & risen).any()),
        **about,
    }


def run(spec: dict[str, Any]) -> dict[str, Columns]:
    """Run the experiment (design, experiment 7) and return its tables, as columns of equal length.

    Parameters
    ----------
    spec : dict
        Any of the keys of `DEFAULTS`, which fill the rest: ``n_draws``, ``n_per_class`` (points per class),
        ``seed``, ``lr`` and ``epochs`` of the released recipe, ``step`` and ``reach`` of its line,
        ``surface_points`` per axis (over weight and bias in [-reach, reach]), ``angles``, ``rises`` and
        ``points`` of a line of the scan, ``floor`` (least rise of the flat side for a find), and the
        constants ``c``, ``zeta_max``, ``min_span``, ``minimum_within`` of `definition.detect`.

    Returns
    -------
    dict
        ``toy_2d``: one row per recipe and draw. A separable draw has no minimum: its "converged" row has
        status "no_minimum", NaN for numbers, and no curve. ``toy_2d_curves``: one row a point of its line.
        ``toy_2d_surface``: weight, bias, loss, for draw 0. ``toy_2d_angles``: one row per recipe, draw, rise
        and angle (`scan`), of draws that have the solution; ``toy_2d_scans``: one per recipe, draw and rise
        (`summary`). Columns are declared in workflow/schemas/tables.yaml.

    Raises
    ------
    ValleysError
        Unknown keys, or values out of range.
    """
    s = _spec(spec)
    n_draws, seed = s["n_draws"], s["seed"]
    x, y = draw_data(n_draws, s["n_per_class"], seed)
    u = directions(n_draws, seed)
    minima, apart = neuron.converge(x, y)
    average = neuron.train_gd(x, y, s["lr"], s["epochs"], initial(n_draws, seed))[1]
    solutions = dict(zip(RECIPES, (average, minima), strict=True))
    parts = [_along_lines(recipe, wb, u, x, y, s) for recipe, wb in solutions.items()]
    scans = [one for recipe, wb in solutions.items() for one in _scans(recipe, wb, x, y, s)]
    ends = (-s["reach"], s["reach"])
    weights, biases, heights = neuron.surface(x[0], y[0], ends, ends, s["surface_points"])
    return {
        "toy_2d": _stack([table | {"separable": apart} for table, _ in parts]),
        "toy_2d_curves": _stack([curves for _, curves in parts]),
        "toy_2d_surface": {
            "weight": np.repeat(weights, len(biases)),
            "bias": np.tile(biases, len(weights)),
            "loss": heights.ravel(),
        },
        "toy_2d_angles": _stack([one for one, _ in scans]),
        "toy_2d_scans": _stack([one for _, one in scans]),
    }


def _along_lines(
    recipe: str, wb: Floats, u: Floats, x: Floats, y: Floats, s: dict[str, Any]
) -> tuple[Columns, Columns]:
    """Return a recipe's columns of ``toy_2d``, but for separable, and of ``toy_2d_curves``."""
    half = round(s["reach"] / s["step"])
    offsets = s["step"] * np.arange(-half, half + 1)
    probed = np.flatnonzero(np.isfinite(wb).all(axis=-1))
    losses = neuron.line(wb[probed], u[probed], x[probed], y[probed], offsets)
    verdicts: list[dict[str, Any]] = [_no_minimum()] * len(wb)
    for draw, detection in zip(probed, detect_many(offsets, losses, **_constants(s)), strict=True):
        verdicts[draw] = detection.asdict()
    with np.errstate(invalid="ignore"):  # NaN parameters, where there is no minimum
        height = neuron.loss(wb, x, y)
    table = {
        "recipe": np.full(len(wb), recipe),
        "draw": np.arange(len(wb)),
        "weight": wb[:, 0],
        "bias": wb[:, 1],
        "loss": height,
        "gradient_norm": np.linalg.norm(neuron.gradient(wb, x, y), axis=-1),
        "direction_weight": u[:, 0],
        "direction_bias": u[:, 1],
        **{name: np.array([v[name] for v in verdicts]) for name in verdicts[0]},
    }
    curves = {
        "recipe": np.full(losses.size, recipe),
        "draw": np.repeat(probed, len(offsets)),
        "offset": np.tile(offsets, len(probed)),
        "loss": losses.ravel(),
    }
    return table, curves


def _scans(
    recipe: str, wb: Floats, x: Floats, y: Floats, s: dict[str, Any]
) -> Iterator[tuple[Columns, Columns]]:
    """Yield columns of ``toy_2d_angles`` and of ``toy_2d_scans`` for each draw with a solution, and rise."""
    for draw in np.flatnonzero(np.isfinite(wb).all(axis=-1)):
        for rise in s["rises"]:
            names = {"recipe": recipe, "draw": int(draw), "rise": float(rise)}
            found = scan(wb[draw], x[draw], y[draw], rise, s)
            told = {**names, **summary(found, s["floor"])}
            yield (
                {name: np.full(s["angles"], value) for name, value in names.items()} | found,
                {name: np.array([value]) for name, value in told.items()},
            )


def _per_draw(n_draws: int, seed: int, stream: int, draw: Any, shape: tuple[int, ...]) -> Floats:
    """Call ``draw(rng)`` with each draw's own generator, keyed and not spawned: the count does not matter."""
    out = np.empty((n_draws, *shape))
    for k in range(n_draws):
        out[k] = draw(np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream, k))))
    return out


def _constants(s: dict[str, Any]) -> dict[str, float]:
    """Return the constants of Definition 1."""
    return {key: s[key] for key in ("c", "zeta_max", "min_span", "minimum_within")}


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
    least_of = {"n_draws": 1, "n_per_class": 1, "seed": 0, "epochs": 1, "surface_points": 2}
    for key, least in (least_of | {"angles": 1, "points": 5}).items():
        if int(s[key]) != s[key] or s[key] < least:
            raise ValleysError(f"toy: {key} is {s[key]!r}, needs a whole number of at least {least}")
        s[key] = int(s[key])
    if s["points"] % 2 == 0:
        raise ValleysError(f"toy: points is {s['points']}, needs an odd number, so that one is the solution")
    for key, value in [(key, s[key]) for key in ("lr", "step", "reach")] + [("rises", v) for v in s["rises"]]:
        if not (np.isfinite(value) and value > 0):
            raise ValleysError(f"toy: {key} is {value!r}, needs a positive number")
    if not (np.isfinite(s["floor"]) and s["floor"] >= 0):
        raise ValleysError(f"toy: floor is {s['floor']!r}, needs 0 or more")
    steps = s["reach"] / s["step"]
    if abs(steps - round(steps)) > 1e-6 * steps:
        raise ValleysError(f"toy: reach {s['reach']!r} is not a whole number of steps of {s['step']!r}")
    return s

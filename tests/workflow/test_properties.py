"""What holds for any input: of the config, of directions, of the detector, of tables."""

import copy
import json
import math
import re

import config_generator
import numpy as np
import pytest
import torch
from brute_force import brute_force
from conftest import fill_defaults, load_config
from hypothesis import given, settings
from hypothesis import strategies as st
from valleys.asymmetry.definition import detect
from valleys.asymmetry.next_point import first_points, next_point
from valleys.asymmetry.spline import upsample
from valleys.config.experiment import Experiment
from valleys.config.schema import check
from valleys.errors import ValleysError
from valleys.landscape import directions
from valleys.storage import tables

pytestmark = pytest.mark.slow

# The same examples each time: a test that fails on one machine in a thousand runs says nothing of a change.
few = settings(max_examples=60, deadline=None, derandomize=True, database=None)
many = settings(few, max_examples=300)  # where an example takes a millisecond

# ---- the config

SMOKE = load_config("config/smoke.yaml")


def places(value, at=()):
    """Every key of a config, as a path."""
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, item in entries:
        yield (*at, key)
        yield from places(item, (*at, key))


PLACES = sorted(places(SMOKE), key=str)
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
anything = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


@settings(few, max_examples=100)
@given(st.sampled_from(PLACES), anything)
def test_a_config_with_anything_anywhere_is_taken_or_refused_in_one_line(place, value):
    config = copy.deepcopy(SMOKE)
    block = config
    for key in place[:-1]:
        block = block[key]
    block[place[-1]] = value
    message = "config"
    try:
        Experiment(fill_defaults(config))
    except ValleysError as error:
        message = str(error)
    assert "config" in message
    assert "\n" not in message


@few
@given(st.text(max_size=12))
def test_a_name_that_is_taken_is_one_harmless_word(name):
    try:
        check(SMOKE | {"name": name})
    except ValleysError:
        assert not re.fullmatch("[a-z0-9]+", name)
    else:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name, re.A)
        assert not name.endswith("\n")


# ---- directions


@few
@given(
    st.sampled_from(["uniform", "uniform_symmetric", "gaussian", "filter", "sign", "constant", "sign_w"]),
    st.lists(st.lists(st.integers(1, 5), min_size=2, max_size=4), min_size=1, max_size=3),
    st.text(max_size=10),
    st.integers(0, 10**6),
    st.floats(0, 1),
)
def test_directions_have_unit_norm_and_depend_on_their_name_alone(kind, shapes, key, k, share):
    generator = torch.Generator().manual_seed(1)
    weights = {f"w{i}": torch.randn(shape, generator=generator) for i, shape in enumerate(shapes)}
    drawn, norm = directions.random_direction(kind, weights, key=key, k=k, share=share)
    assert norm > 0
    assert {name: d.shape for name, d in drawn.items()} == {name: w.shape for name, w in weights.items()}
    assert math.isclose(sum(float(d.double().square().sum()) for d in drawn.values()), 1, rel_tol=1e-5)
    torch.rand(3)  # the global generator has no part in it
    again, _ = directions.random_direction(kind, weights, key=key, k=k, share=share)
    assert all(torch.equal(drawn[name], again[name]) for name in drawn)
    if kind == "uniform":
        assert all((d >= 0).all() for d in drawn.values())
    if kind in ("uniform", "uniform_symmetric", "gaussian") and sum(w.numel() for w in weights.values()) > 1:
        other, _ = directions.random_direction(kind, weights, key=key, k=k + 1, share=share)
        assert not all(torch.equal(drawn[name], other[name]) for name in drawn)
    if kind == "sign":
        agreement = directions.sign_agreement(drawn, weights)
        assert 0 <= agreement <= 1
        assert agreement == share or 0 < share < 1


# ---- the detector


@st.composite
def curves(draw):
    """A grid symmetric about 0, and losses on it, of which neighbours may be equal."""
    half = draw(st.integers(4, 10))
    steps = np.cumsum(draw(st.lists(st.integers(1, 3), min_size=half, max_size=half)))
    side = np.linspace(0, 1, half + 1)[1:] if draw(st.booleans()) else steps / steps[-1]
    grid = np.concatenate([-side[::-1], [0.0], side])
    level = st.integers(0, 64)
    if draw(st.booleans()):  # a valley, however crooked
        sides = [np.cumsum(draw(st.lists(level, min_size=half, max_size=half))) for _ in range(2)]
        losses = np.concatenate([sides[0][::-1], [0], sides[1]]) / 16
    else:
        losses = np.array(draw(st.lists(level, min_size=2 * half + 1, max_size=2 * half + 1))) / 16
    return grid, losses


def found(grid, losses, **options):
    """What is detected, or None where the grid is too coarse."""
    try:
        return detect(grid, losses, **options)
    except ValleysError:
        return None


@many
@given(curves(), st.sampled_from([1.5, 2.0, 4.0]))
def test_the_detector_agrees_with_definition_1_window_by_window(curve, c):
    d = found(*curve, c=c)
    if d is not None:
        status, level, side, *_ = brute_force(*curve, c, 0.5, 0.25, noise=1e-9)
        assert d.status == status
        assert d.c_star == pytest.approx(level, nan_ok=True)
        assert (d.flat_side or 0) == side
        assert (d.status == "asymmetric") is (d.c_star >= c * (1 - 1e-5))  # NaN is not


@few
@given(st.integers(2, 20), st.lists(st.floats(-1e6, 1e38), min_size=41, max_size=41), st.booleans())
def test_any_curve_asks_for_points_that_it_does_not_have_until_it_has_enough(half, values, jagged):
    grid = np.linspace(-1, 1, 2 * half + 1)
    losses = np.array(values[: 2 * half + 1]) if jagged else values[0] * grid**2 + grid
    at = first_points(len(grid))
    while (more := next_point(grid, at, losses[at], beside=losses[at][::-1])) is not None:
        assert more not in at
        at = sorted([*at, more])
    between, _ = upsample(grid, at, losses[at])
    assert np.isfinite(between).all()
    assert (between[at] == losses[at]).all()
    if len(at) == len(grid):
        assert (between == losses).all()


@many
@given(curves(), st.sampled_from([0.25, 2.0, 32.0]), st.sampled_from([0.5, 4.0]), st.integers(-8, 8))
def test_mirror_images_units_and_constants_change_nothing_that_they_should_not(curve, scale, width, shift):
    grid, losses = curve
    d = found(grid, losses, noise=0)
    if d is None:
        return
    mirrored = found(-grid[::-1], losses[::-1], noise=0)
    assert (mirrored.status, mirrored.c_star) == pytest.approx((d.status, d.c_star), nan_ok=True)
    assert (mirrored.flat_side or 0) == -(d.flat_side or 0)
    moved = found(grid * width, losses * scale + shift, noise=0)
    assert (moved.status, moved.flat_side) == (d.status, d.flat_side)
    assert moved.c_star == pytest.approx(d.c_star, nan_ok=True)


# ---- tables

rows = st.lists(
    st.fixed_dictionaries(
        {
            "dataset": st.text(max_size=8),
            "model": st.text(max_size=8),
            "recipe": st.text(max_size=8),
            "seed": st.integers(-(2**63), 2**63 - 1),
            "epoch": st.integers(-(2**63), 2**63 - 1),
            "phase": st.sampled_from(["sgd", "swa", "<b>'\"&"]),
            **{name: st.floats() for name in ("lr", "train_loss", "train_accuracy")},
            **{name: st.none() | st.floats() for name in ("test_loss", "test_accuracy")},
        }
    ),
    max_size=6,
)


@few
@given(rows, anything)
def test_any_rows_come_back_as_they_were_with_what_made_them(tmp_path_factory, rows, config):
    path = tmp_path_factory.mktemp("t") / "t.parquet"
    config = json.loads(json.dumps(config))
    tables.write(path, "training", rows, config)
    back = tables.read(path, "training").to_pylist()
    assert [repr(sorted(row.items())) for row in back] == [repr(sorted(row.items())) for row in rows]
    assert json.dumps(tables.about(path)["config"], sort_keys=True) == json.dumps(config, sort_keys=True)
    first = path.read_bytes()
    tables.write(path, "training", tables.read(path, "training"), config)
    assert path.read_bytes() == first


# ---- random configs that the schema accepts (tests/config_generator.py, longer by hand)


@pytest.mark.long
@pytest.mark.parametrize("batch", range(5))
def test_odd_but_legal_configs_are_priced_or_refused_in_one_line(batch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config_generator.lay_out(tmp_path)
    accepted = 0
    for i in range(20 * batch, 20 * (batch + 1)):
        found, lines = config_generator.settle(config_generator.draw(0, i))
        accepted += found is not None
        assert all(re.fullmatch("config: .+", line) for line in lines), (i, lines)
    assert accepted >= 15


@pytest.mark.parametrize("i", range(102, 108))  # 106 has a searched probe
def test_what_is_accepted_is_planned(tmp_path, monkeypatch, i):
    monkeypatch.chdir(tmp_path)
    told = config_generator.one(config_generator.draw(0, i), tmp_path, plan=True, run=False)
    assert told == "planned"

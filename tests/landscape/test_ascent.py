"""One ascent over directions: its gradient against differences, its steps, and how it begins and ends."""

import functools
import math

import pytest
import torch
from analytic_networks import classifier, cubic, on_function, unit
from valleys.landscape import ascent
from valleys.landscape.evaluator import Evaluator
from valleys.landscape.kinds import SEEKS
from valleys.landscape.objectives import OBJECTIVES, OFFSETS

DIM = 4
AXIS = unit([1.0, -2.0, 0.5, 0.0])
SCALES = torch.tensor([1.0, 2.0, 0.7, 1.5], dtype=torch.float64)


def bowl(theta):
    """Neither quadratic nor even, and rising along every line."""
    s = AXIS.to(theta) @ theta
    return (SCALES.to(theta) * theta.square()).sum() + 0.5 * s**3 + s**4 + 0.3 * theta[3] ** 3


def problem_of(evaluator, seek="asymmetric", basis=(), floor=0.1, steps=10):
    return ascent.Problem(list(evaluator.parameters), list(basis), seek, 1.0, floor, steps)


def radius_of(f, u, rise=1.0):
    """R at which the larger of the two rises is exactly the rise: by bisection."""
    low, high = 0.0, 4.0
    for _ in range(80):
        middle = (low + high) / 2
        if max(float(f(middle * u)), float(f(-middle * u))) < rise:
            low = middle
        else:
            high = middle
    return low


def ascent_of(evaluator, problem, u, radius):
    """The gradient of one step, on all images."""
    zero = torch.zeros_like(u)
    at = ascent.Ascent(u, u, radius, zero, zero, step=problem.steps // 2)  # the whole rise is asked for
    ascent._step(evaluator, problem, at, ascent.Vectors(evaluator.parameters, problem.names), 100.0)
    evaluator.reset()
    return at.moment / (1 - ascent.MOMENTUM), at


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("floor", [0.05, 0.3])
@pytest.mark.parametrize("seek", SEEKS)
def test_the_gradient_counts_that_the_radius_follows_the_direction(seek, floor, sign):
    evaluator = on_function(bowl, [0.0] * DIM, dtype=torch.float64)
    problem = problem_of(evaluator, seek, floor=floor)
    u = sign * unit([0.7, -1.0, 0.4, 0.6])

    def objective(vector):
        v = vector / vector.norm()
        radius = radius_of(bowl, v)
        rises = torch.stack([bowl(share * radius * v) for share in OFFSETS])
        return float(OBJECTIVES[seek](rises, torch.tensor(radius, dtype=torch.float64), 1.0, floor))

    gradient, at = ascent_of(evaluator, problem, u, radius_of(bowl, u))
    assert at.objective == pytest.approx(objective(u), rel=1e-9)
    assert gradient.norm() > 1e-3
    assert abs(float(gradient @ u)) < 1e-12
    h = 1e-5
    for e in torch.eye(DIM, dtype=torch.float64):
        quotient = (objective(u + h * e) - objective(u - h * e)) / (2 * h)
        assert float(gradient @ e) == pytest.approx(quotient, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("bn", ["frozen", "refreshed"])
def test_the_gradient_of_a_network_with_batch_norm(bn):
    net, train = classifier(norm=True, dtype=torch.float64)
    evaluator = Evaluator(net, train, bn=bn)
    problem = problem_of(evaluator)
    vectors = ascent.Vectors(evaluator.parameters, problem.names)
    generator = torch.Generator().manual_seed(0)
    u = unit(torch.randn(sum(vectors.sizes), generator=generator, dtype=torch.float64))

    def rises(v, radius):
        base = evaluator.train_loss()[0]
        found = []
        for share in OFFSETS:
            evaluator.move(vectors.direction(v), share * radius)
            found.append(evaluator.train_loss()[0] - base)
        evaluator.reset()
        return found

    def exact(v, radius):
        for _ in range(60):  # Newton's, with slopes of differences

            def larger(r):
                found = rises(v, r)
                return max(found[0], found[-1]) - 1.0

            step = larger(radius) * 2e-6 / (larger(radius + 1e-6) - larger(radius - 1e-6))
            radius -= step
            if abs(step) < 1e-10:
                return radius
        raise AssertionError("no radius")

    radius = exact(u, ascent.reach(evaluator, vectors.direction(u), 1.0).radius)
    gradient, _ = ascent_of(evaluator, problem, u, radius)

    def objective(vector):
        v = vector / vector.norm()
        r = exact(v, radius)
        found = torch.tensor(rises(v, r), dtype=torch.float64)
        return float(OBJECTIVES["asymmetric"](found, torch.tensor(r), 1.0, 0.1))

    e = unit(torch.randn(len(u), generator=generator, dtype=torch.float64))
    h = 1e-4
    quotient = (objective(u + h * e) - objective(u - h * e)) / (2 * h)
    assert float(gradient @ e) == pytest.approx(quotient, rel=1e-4, abs=1e-6)


def test_a_third_order_start_as_docs_theory_has_it():
    """The index to leading order, and one reverse pass over two nested forward ones for its gradient."""
    h, a = 2.0, 0.5
    for t in (0.2, 0.1, -0.1):
        rises = functools.partial(lambda t, x: h * x**2 / 2 + t * x**3 / 6, t)
        radius = radius_of(rises, torch.tensor(1.0), a)
        k = t * radius / (3 * h)
        index = math.log(rises(-radius)) - math.log(rises(radius))
        assert index == pytest.approx(math.log((1 - k) / (1 + k)), rel=1e-9)
        leading = -2 * math.sqrt(2 * a) / 3 * t / h**1.5
        assert abs(index - leading) < a * t**2 / h**3

    def second(w, u):
        inner = lambda v: torch.func.jvp(bowl, (v,), (u,))[1]  # noqa: E731
        return torch.func.jvp(inner, (w,), (u,))[1]

    def ratio(u):
        third = torch.func.jvp(lambda v: second(v, u), (w,), (u,))[1]
        return third / second(w, u) ** 1.5

    w = torch.full((DIM,), 0.2, dtype=torch.float64)
    u = unit([0.7, 1.0, 0.4, 0.6])
    by_w, by_u = torch.func.grad(second, (0, 1))(w, u)
    curvature, third = second(w, u), by_w @ u
    gradient = 3 * (by_w / curvature**1.5 - third * (by_u / 2) / curvature**2.5)
    torch.testing.assert_close(gradient, torch.func.grad(ratio)(u))
    assert abs(float(gradient @ u)) < 1e-12
    torch.testing.assert_close(by_u / 2, torch.autograd.functional.hessian(bowl, w) @ u)


def test_a_step_turns_by_its_angle_and_stays_orthogonal():
    evaluator = on_function(bowl, [0.0] * DIM, dtype=torch.float64)
    basis = [unit([0.0, 0.0, 1.0, 1.0])]
    u = ascent.without(unit([0.7, -1.0, 0.4, 0.6]), basis)
    u = u / u.norm()
    _, at = ascent_of(evaluator, problem_of(evaluator, basis=basis), u, radius_of(bowl, u))
    assert at.step == 6
    assert float(at.direction.norm()) == pytest.approx(1.0, abs=1e-12)
    assert abs(float(at.direction @ basis[0])) < 1e-12
    angle = ascent.ANGLE * (1 - 0.9 * 5 / 10)  # it shortens
    assert math.acos(float(at.direction @ u)) == pytest.approx(math.atan(angle), rel=1e-6)


def test_the_rise_asked_for_grows_to_the_whole_in_half_of_the_steps():
    evaluator = on_function(lambda t: SCALES.to(t)[0] * t.square().sum(), [0.0] * DIM, dtype=torch.float64)
    problem = problem_of(evaluator, steps=12)
    at = ascent.begin(evaluator, problem, {"theta": AXIS})
    # R after each step is that of the next rise but one step late, as a parabola tells it exactly.
    rises = [step.radius**2 for step in ascent.ascend(evaluator, problem, at, "key")]
    asked = [min(1.0, ascent.FROM + (1 - ascent.FROM) * k / 6) for k in range(12)]
    assert rises == pytest.approx(asked, rel=1e-6)


def test_an_ascent_begins_with_the_flat_side_ahead():
    evaluator = on_function(cubic(AXIS), [0.0] * DIM, dtype=torch.float64)
    problem = problem_of(evaluator)
    for sign in (1.0, -1.0):
        at = ascent.begin(evaluator, problem, {"theta": sign * AXIS})
        torch.testing.assert_close(at.direction, -AXIS)
        assert (at.end, at.step, at.passes) == ("", 0, 0.0)
        assert at.radius == pytest.approx(radius_of(lambda t: cubic(AXIS)(t), AXIS), rel=0.1)
    assert torch.equal(evaluator.parameters["theta"], torch.zeros(DIM, dtype=torch.float64))


def test_an_ascent_without_a_rise_or_a_direction_does_not_begin():
    flat = on_function(lambda t: 0 * t.sum(), [1.0, 1.0])
    at = ascent.begin(flat, problem_of(flat), {"theta": torch.tensor([1.0, 0.0])})
    assert (at.end, at.radius) == ("no_rise", pytest.approx(2 * math.sqrt(2)))
    bowls = on_function(bowl, [0.0] * DIM)
    basis = [torch.eye(DIM)[0]]
    at = ascent.begin(bowls, problem_of(bowls, basis=basis), {"theta": torch.eye(DIM)[0]})
    assert at.end == "no_rise"
    for one in (ascent.begin(flat, problem_of(flat), {"theta": torch.tensor([1.0, 0.0])}), at):
        assert list(ascent.ascend(bowls, problem_of(bowls), one, "key")) == []


def test_steps_see_other_images_each_time_and_all_are_counted(monkeypatch):
    noise = torch.randn(3, DIM, generator=torch.Generator().manual_seed(1))
    evaluator = on_function(bowl, [0.0] * DIM, noise=noise, n=40)
    seen, on = [], Evaluator.on
    monkeypatch.setattr(Evaluator, "on", lambda self, *a, **k: seen.append(a[0]) or on(self, *a, **k))
    problem = problem_of(evaluator, steps=5)
    at = ascent.begin(evaluator, problem, {"theta": AXIS.float()})
    steps = [(one.step, one.end) for one in ascent.ascend(evaluator, problem, at, "key")]
    assert steps == [(k, "") for k in range(1, 6)]
    assert at.end == "steps"
    assert [len(batches) for batches in seen] == [20] * 5  # half of them, as there are fewer than 512
    rows = [torch.cat([x for x, _ in batches]) for batches in seen]
    assert not any(torch.equal(rows[0], other) for other in rows[1:])
    # Six passes forward and backward, and one forward, a third of that.
    assert at.passes == pytest.approx(5 * (6 + 1 / 3) * 20 / 40)
    monkeypatch.setattr(ascent, "STEP_IMAGES", 8)
    again = ascent.begin(evaluator, problem, {"theta": AXIS.float()})
    list(ascent.ascend(evaluator, problem, again, "key"))
    assert len(seen[-1]) == 8


def test_a_loss_that_is_not_finite_draws_the_radius_in_and_ends_at_last():
    evaluator = on_function(lambda t: torch.sqrt(1e-9 - t.square().sum()) - 1e-4, [0.0] * DIM)
    problem = problem_of(evaluator, steps=40)
    zero = torch.zeros(DIM)
    at = ascent.Ascent(AXIS.float(), AXIS.float(), 1.0, zero, zero)
    steps = list(ascent.ascend(evaluator, problem, at, "key"))
    assert len(steps) == ascent.TRIES
    assert (at.end, at.failed, at.step) == ("not_finite", ascent.TRIES, ascent.TRIES)
    assert at.radius == pytest.approx(ascent.BACK**ascent.TRIES)
    assert math.isnan(at.objective)
    assert torch.equal(at.direction, AXIS.float())
    assert torch.equal(evaluator.parameters["theta"], zero)


@pytest.mark.parametrize("power", [1.0, 2.0, 4.0])
def test_the_radius_follows_the_rise(power):
    for end in (0, 5):
        rises = [abs(s) ** power * 0.5 for s in OFFSETS]
        found = ascent._followed(1.0, rises, end, 1.0, 100.0)
        assert found == pytest.approx(2 ** (1 / power))
    assert ascent._followed(1.0, [1e-9] * 6, 0, 1.0, 100.0) == 2.0  # no faster than that
    assert ascent._followed(1.0, [99.0] * 6, 0, 1.0, 100.0) == 0.5
    assert ascent._followed(9.0, [1e-9] * 6, 0, 1.0, 10.0) == 10.0  # and no further than the cap


def test_vectors_and_directions_are_each_other_in_any_format():
    own = {"a": torch.zeros(2, 3), "b": torch.zeros(2, dtype=torch.float64), "c": torch.zeros(())}
    vectors = ascent.Vectors(own, ["a", "b", "c"])
    vector = torch.arange(9, dtype=torch.float64)
    direction = vectors.direction(vector)
    assert {name: (d.shape, d.dtype) for name, d in direction.items()} == {
        name: (w.shape, w.dtype) for name, w in own.items()
    }
    assert torch.equal(vectors.vector(direction), vector)
    assert vectors.vector({"b": torch.ones(2)}).tolist() == [0.0] * 6 + [1.0] * 2 + [0.0]


def test_a_basis_is_orthonormal_and_without_what_adds_nothing():
    one, other = torch.tensor([3.0, 0.0, 0.0]), torch.tensor([1.0, 1e-3, 0.0])
    basis = ascent.orthonormal([one, torch.zeros(3), 2 * one, other, torch.full((3,), math.nan)])
    matrix = torch.stack(basis)
    assert len(basis) == 2
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(2))
    rest = ascent.without(torch.tensor([5.0, 5.0, 1.0]), basis)
    torch.testing.assert_close(rest, torch.tensor([0.0, 0.0, 1.0]))

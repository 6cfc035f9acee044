"""A search for a direction: on functions where theory says what there is, and what it may not touch."""

import itertools
import math

import pytest
import torch
from analytic_networks import classifier, cubic, images, on_function, unit
from naive_lines import make_split
from torch import nn
from valleys.asymmetry.definition import detect
from valleys.data import parts
from valleys.errors import ValleysError
from valleys.landscape import searching
from valleys.landscape.evaluator import Evaluator
from valleys.landscape.lines import line_offsets
from valleys.landscape.searching import find_asymmetric, searches
from valleys.models.losses import build
from valleys.storage.files import stable_seed

pytestmark = pytest.mark.usefixtures("one_thread")

POINTS = 41
QUICK = {"restarts": 1, "steps": 30}
TINY = {"restarts": 1, "steps": 2, "points": 21}
AXIS = unit([0.6, -0.8, 0.0, 0.0, 0.0, 0.0])


def of(phi, radius):
    """What `detect` says of a function of the offset."""
    offsets = line_offsets(radius, POINTS)
    return detect(offsets, [float(phi(x)) for x in offsets], noise=1e-6)


def flat(search):
    return torch.cat([d.double().flatten() for d in search.direction.values()])


def told(search):
    """All that a search says, NaN equal to NaN."""
    return (search.verdict, search.reason, repr(search.restarts), repr(search.curves))


def same(one, other):
    assert told(one) == told(other)
    assert all(torch.equal(d, other.direction[name]) for name, d in one.direction.items())


def rows_of(part, count, seed="0"):
    """Rows of the images of a part."""
    all_rows = parts.divide(count, list(searching.PARTS.values()), stable_seed("search parts", seed))
    return dict(zip(searching.PARTS, all_rows, strict=True))[part]


# ---- what theory says --------------------------------------------------------------------------------------


def test_a_quadratic_has_no_asymmetric_direction():
    """A linear network with squared error, at weights that fit all images: each line is a parabola."""
    torch.manual_seed(1)
    x, net = torch.randn(60, 5), nn.Linear(5, 1)
    y = net(x)[:, 0].detach()
    search = find_asymmetric(
        net,
        train=[(x, y)],
        test=[(x, y)],
        loss=lambda o, y: (o[:, 0] - y).square(),
        bn="frozen",
        rise=0.1,
        floor=0.01,
        **QUICK,
    )
    best = search.best
    assert search.verdict == "not found"
    assert search.reason.startswith("on the images judged on c* is 0.7")
    assert "\n" not in search.reason
    assert best["found"] is False
    for part in ("search", "choose", "judge", "test", "start"):
        assert abs(best[f"{part}_index"]) < 1e-4
        # Slopes are l at l, so on (R/2, 3R/4) the ratio is 2/3; over differences on this grid a little more.
        assert best[f"{part}_c_star"] == pytest.approx(of(lambda x: x * x, 1.0).c_star, rel=1e-3)
    assert 2 / 3 < best["judge_c_star"] < 0.75


@pytest.mark.parametrize(("flat_rise", "noisy"), [(0.2, False), (0.4, False), (0.3, True)])
def test_a_planted_cubic_is_found(flat_rise, noisy):
    """Along u the third derivative is t (v.u)^3 and the second is h: u = v is the most asymmetric.

    With noise the images searched on have a gradient at 0, so that it is v less its part along that.
    """
    noise = 0.05 * torch.randn(3, 6, generator=torch.Generator().manual_seed(2)) if noisy else None
    f = cubic(AXIS, flat_rise)
    search = find_asymmetric(on_function(f, [0.0] * 6, noise=noise, n=200), restarts=1, steps=45)
    u, best = flat(search), search.best
    axis = AXIS
    if noisy:
        x = torch.cat([x for x, _ in images(200)])[rows_of("search", 200)]
        gradient = (x.mean(0) @ noise).double()
        axis = unit(AXIS - gradient * (AXIS @ gradient) / gradient.square().sum())
    assert float(u @ -axis) >= 0.99  # t > 0 is steep on the side of v
    assert u.norm().item() == pytest.approx(1.0, abs=1e-5)
    assert best["judge_flat_rise"] == pytest.approx(flat_rise, rel=0.25)
    assert best["judge_rise_minus"] == pytest.approx(1.0, rel=0.03)
    assert best["judge_rise_plus"] == best["judge_flat_rise"]
    assert best["judge_index"] == pytest.approx(-math.log(flat_rise), rel=0.2)  # +u is flat: above 0
    exact = of(lambda x: f(-AXIS * x), best["judge_radius"])
    if not noisy:
        assert best["judge_c_star"] == pytest.approx(exact.c_star, rel=0.02)
        assert [best["judge_c_low"], best["judge_c_high"]] == pytest.approx([best["judge_c_star"]] * 2)
    else:
        assert best["judge_c_low"] <= best["judge_c_star"] <= best["judge_c_high"]
    assert (search.verdict == "found") == (best["judge_c_star"] >= 2) == best["found"]
    assert best["judge_c_star"] > best["start_c_star"] + 0.3


def test_at_the_bottom_of_a_double_well_the_side_of_the_other_well_is_flat():
    """(theta^2 - 1)^2 at 1 is x^2 (x + 2)^2: at rise 1 (x = sqrt 2 - 1) the other side rises by 0.43."""
    evaluator = on_function(lambda t: (t[0] ** 2 - 1) ** 2 + t[1:].square().sum(), [1.0, 0.0, 0.0])
    search = find_asymmetric(evaluator, **QUICK)
    u, best = flat(search), search.best
    assert float(u[0]) <= -0.99
    expected = of(lambda x: x**2 * (x - 2) ** 2, best["judge_radius"])
    assert best["judge_c_star"] == pytest.approx(expected.c_star, rel=0.02)
    assert best["judge_flat_rise"] == pytest.approx(0.4315, rel=0.05)
    assert search.verdict == "not found"
    assert search.reason == f"on the images judged on c* is {best['judge_c_star']:.3g}, below 2"
    found = find_asymmetric(evaluator, constants={"c": 1.2}, **QUICK)
    assert (found.verdict, found.reason) == ("found", "")


def test_at_the_top_of_a_double_well_there_is_no_minimum():
    search = find_asymmetric(on_function(lambda t: (t[0] ** 2 - 1) ** 2, [0.0]), **QUICK)
    assert search.verdict == "not found"
    assert search.reason == "on the images judged on the solution is no minimum along it (not_minimum)"
    assert search.best["judge_radius"] == pytest.approx(math.sqrt(1 + math.sqrt(2)), rel=0.02)
    assert math.isnan(search.best["judge_index"])
    assert math.isnan(search.best["judge_c_star"])


def test_at_a_saddle_each_line_is_even():
    """theta_1^2 - theta_2^2 is a parabola along each line: of those that rise c* is that of one."""
    search = find_asymmetric(on_function(lambda t: t[0] ** 2 - t[1] ** 2, [0.0, 0.0]), restarts=3, steps=10)
    assert search.verdict == "not found"
    assert search.best["judge_status"] == "symmetric"
    assert search.best["judge_c_star"] == pytest.approx(of(lambda x: x * x, 1.0).c_star, rel=1e-3)
    assert abs(search.best["judge_index"]) < 1e-3


def test_a_plateau_rises_nowhere():
    search = find_asymmetric(on_function(lambda t: 0 * t.sum(), [0.5, -1.0]), restarts=2, steps=10)
    assert search.verdict == "not found"
    assert search.reason == "on the images judged on the loss does not rise by 1 within reach along it"
    assert [row["end"] for row in search.restarts] == ["no_rise"] * 2
    assert [row["steps"] for row in search.restarts] == [0, 0]
    assert search.passes == 0
    assert search.best["judge_status"] == "flat"


def test_a_kink_has_the_level_of_its_slopes():
    """Slopes 3 and 1 along every line. torch's derivative at the kink is 0, so no line is ruled out."""

    def f(theta):
        s = unit([1.0, 2.0]).to(theta) @ theta
        return torch.relu(s) + 3 * torch.relu(-s)

    search = find_asymmetric(on_function(f, [0.0, 0.0]), **QUICK)
    assert search.verdict == "found"
    assert search.best["judge_c_star"] == pytest.approx(3.0, rel=1e-3)
    assert float(flat(search) @ unit([1.0, 2.0])) > 0
    assert search.best["judge_flat_rise"] == pytest.approx(1 / 3, rel=0.05)
    floor = find_asymmetric(on_function(f, [0.0, 0.0]), floor=0.5, **QUICK)
    assert floor.verdict == "not found"
    assert "its flat side rises by 0.33" in floor.reason
    assert "below 0.5" in floor.reason


def test_a_flat_direction_is_the_softest_axis_and_a_symmetric_one_has_equal_rises():
    scales = torch.tensor([1.0, 4.0, 9.0, 0.25, 16.0])

    def quadratic(theta):
        return (scales.to(theta) * theta.square()).sum() / 2

    soft = find_asymmetric(on_function(quadratic, [0.0] * 5), seek="flat", restarts=1, steps=50)
    assert (soft.verdict, soft.reason, soft.best["found"]) == ("measured", "", None)
    assert abs(flat(soft)[3]) > 0.99
    # Sharper ones have 1/2 s R^2 = 1; the softest would reach R = 2.83, beyond twice a norm of 1.
    assert soft.best["judge_radius"] > 0.95 * 2.0
    even = find_asymmetric(on_function(quadratic, [0.0] * 5), seek="symmetric", **QUICK)
    assert even.verdict == "measured"
    assert abs(even.best["judge_index"]) < 1e-3
    # Where the random directions are not symmetric, the search leaves the cubic's axis.
    f = cubic(AXIS, 0.1)
    even = find_asymmetric(on_function(f, [0.0] * 6), seek="symmetric", seed=3, **QUICK)
    assert abs(even.best["judge_index"]) < 0.02 < abs(even.best["start_index"])


# ---- losses that are not finite ----------------------------------------------------------------------------


@pytest.mark.parametrize("side", [torch.sqrt, torch.log])
def test_a_loss_that_ends_on_one_side_gives_a_verdict(side):
    """NaN or minus infinity for theta_1 at -0.1 or below, before the loss has risen by 1."""
    search = find_asymmetric(on_function(lambda t: t.square().sum() + 0 * side(t[0] + 0.1), [0.0]), **TINY)
    assert search.verdict == "not found"
    assert search.reason == (
        "on the images judged on the loss leaps over a rise of 1, or is not finite further out, along it"
    )
    assert search.best["judge_radius"] < 0.1
    # In more dimensions there are lines that keep clear of it.
    f = lambda t: 4 * t.square().sum() + 0 * side(t[0] + 0.1)  # noqa: E731
    wide = find_asymmetric(on_function(f, [0.0] * 4), restarts=2, steps=10)
    assert wide.verdict == "not found"
    assert wide.reason
    assert "\n" not in wide.reason


def test_a_loss_that_is_finite_at_the_solution_only_gives_a_verdict():
    search = find_asymmetric(on_function(lambda t: torch.sqrt(-t.square().sum()), [0.0, 0.0]), restarts=2)
    assert search.verdict == "not found"
    assert search.reason == "on the images judged on the loss is not finite along it"
    assert [row["end"] for row in search.restarts] == ["not_finite"] * 2
    assert [math.isnan(row["objective"]) for row in search.restarts] == [True] * 2
    assert search.best["judge_status"] == "not_finite"
    assert torch.isfinite(flat(search)).all()


def test_a_solution_that_is_not_finite_is_refused():
    for value in (math.nan, math.inf):
        with pytest.raises(ValleysError, match=r"the train loss at the solution is (nan|inf)"):
            find_asymmetric(on_function(lambda t, v=value: t.square().sum() + v, [0.0, 0.0]))


# ---- what a direction is orthogonal to ---------------------------------------------------------------------


def test_directions_are_orthogonal_to_each_other_and_to_the_gradient_and_keep_to_their_group():
    net, train = classifier(steps=20)
    evaluator = Evaluator(net, train, bn="frozen")
    found = [flat(search) for search in searches(evaluator, 3, **TINY)]
    for one, other in itertools.combinations(found, 2):
        assert abs(float(one @ other)) < 1e-5
    # The gradient of the images searched on.
    x, y = (torch.cat(each)[rows_of("search", 60)] for each in zip(*train, strict=True))
    nn.functional.cross_entropy(net(x), y).backward()
    gradient = torch.cat([p.grad.flatten() for p in net.parameters()]).double()
    assert gradient.norm() > 1e-3
    assert all(abs(float(u @ gradient)) < 1e-5 * float(gradient.norm()) for u in found)
    last = find_asymmetric(evaluator, group="classifier", **TINY)
    assert set(last.direction) == {"2.weight", "2.bias"}


def test_where_no_direction_is_left_one_line_says_so():
    evaluator = on_function(lambda t: (t - 0.1).square().sum(), [0.0, 0.0])  # a gradient along (1, 1)
    one = find_asymmetric(evaluator, **TINY)
    assert float(flat(one).sum().abs()) < 1e-5
    with pytest.raises(ValleysError, match=r"group: 'all' has 2 entries; .* 1 directions there is none left"):
        find_asymmetric(evaluator, orthogonal_to=[one.direction], **TINY)
    with pytest.raises(ValleysError, match="the network has no parameter 'thet'"):
        find_asymmetric(evaluator, orthogonal_to=[{"thet": torch.ones(2)}])
    with pytest.raises(ValleysError, match="'theta' has shape"):
        find_asymmetric(evaluator, start=[{"theta": torch.ones(3)}])


def test_directions_that_are_given_are_what_ascents_begin_at():
    evaluator = on_function(cubic(AXIS), [0.0] * 6)
    given = [{"theta": AXIS.float()}, {"theta": torch.eye(6)[4]}]
    search = find_asymmetric(evaluator, start=given, restarts=2, steps=1)
    assert search.restarts[0]["start_c_star"] > 2 > 1 > search.restarts[1]["start_c_star"]
    assert [row["start"] for row in search.restarts] == ["given"] * 2
    assert search.restarts[0]["chosen"]


# ---- the same again ----------------------------------------------------------------------------------------


def stops_at(step):
    def progress(steps):
        for i, number in enumerate(steps):
            if i == step:
                raise KeyboardInterrupt
            yield number

    return progress


@pytest.mark.parametrize("bn", ["frozen", "refreshed"])
def test_a_search_that_was_stopped_goes_on_bit_by_bit(tmp_path, monkeypatch, bn):
    monkeypatch.setattr(searching, "SAVE_EVERY_S", -1.0)
    monkeypatch.setattr(searching, "CHECK_EVERY", 2)
    net, train = classifier(norm=True)
    options = {"train": train, "bn": bn, "restarts": 2, "steps": 4, "points": 11}
    whole = find_asymmetric(net, **options)
    assert [row["steps"] for row in whole.restarts] == [4, 4]
    for stops in ([0], [1], [4], [7], [1, 3, 6]) if bn == "frozen" else ([2, 5],):
        state = tmp_path / f"{stops}.pt"
        for stop in stops:
            with pytest.raises(KeyboardInterrupt):
                find_asymmetric(net, state=state, progress=stops_at(stop), **options)
        seen = []
        again = find_asymmetric(
            net, state=state, progress=lambda s, seen=seen: (seen.append(i) or i for i in s), **options
        )
        same(whole, again)
        assert seen == list(range(8))  # what was done before counts too
    same(whole, find_asymmetric(net, state=state, **options))  # of a search that is done


def test_the_state_of_another_search_is_not_gone_on_from(tmp_path):
    evaluator, state = on_function(cubic(AXIS), [0.0] * 6), tmp_path / "state.pt"
    find_asymmetric(evaluator, state=state, **TINY)
    for other in ({"seed": 1}, {"steps": 3}):
        options = {**TINY, **other}
        same(find_asymmetric(evaluator, **options), find_asymmetric(evaluator, state=state, **options))
    state.write_bytes(b"no state")
    with pytest.raises(ValleysError, match=r"state.pt is corrupt"):
        find_asymmetric(evaluator, state=state, **TINY)


def test_the_seed_alone_decides():
    net, train = classifier()
    first, again, other = (find_asymmetric(net, train=train, seed=seed, **TINY) for seed in (0, "0", 1))
    same(first, again)
    assert told(first) != told(other)
    assert abs(float(flat(first) @ flat(other))) < 0.9

    def losses(search, part):
        return [p["loss"] for p in search.curves if p["images"] == part and p["offset"] == 0]

    assert losses(first, "judge")[0] != losses(other, "judge")[0]  # other images


# ---- what is left as it is ---------------------------------------------------------------------------------


def everything(net):
    values = {name: t.clone() for name, t in net.state_dict().items()}
    about = [(m.training, [p.requires_grad for p in m.parameters()]) for m in net.modules()]
    return values, about, [p.grad for p in net.parameters()]


def unchanged(before, net):
    values, about, grads = everything(net)
    return (
        all(torch.equal(values[name], tensor) for name, tensor in before[0].items())
        and about == before[1]
        and grads == before[2]
    )


@pytest.mark.parametrize("bn", ["frozen", "refreshed"])
def test_the_network_and_the_evaluator_are_left_as_they_are(bn):
    net, train = classifier(norm=True)
    net.train()
    net[0].bias.requires_grad_(False)
    evaluator = Evaluator(net, train, train, bn=bn, drawn_from={"train": 100})
    evaluator.point()
    evaluator.reset()
    held = [evaluator.train_batches, evaluator.test_batches, evaluator.start, evaluator.sets]
    nets, by_image = [everything(net), everything(evaluator.model)], dict(evaluator.by_image)

    def check():
        assert unchanged(nets[0], net)
        assert unchanged(nets[1], evaluator.model)
        now = [evaluator.train_batches, evaluator.test_batches, evaluator.start, evaluator.sets]
        assert all(a is b for a, b in zip(held, now, strict=True))
        assert evaluator.drawn_from == {"train": 100}
        assert {k: v.tolist() for k, v in evaluator.by_image.items()} == {
            k: v.tolist() for k, v in by_image.items()
        }

    torch_state = torch.get_rng_state()
    find_asymmetric(evaluator, **TINY)
    check()
    assert torch.equal(torch_state, torch.get_rng_state())
    with pytest.raises(KeyboardInterrupt) as kept:  # whose traceback keeps what was running alive
        find_asymmetric(evaluator, progress=stops_at(1), **TINY)
    check()
    del kept
    before = evaluator.loss
    calls = itertools.count()

    def fails(outputs, labels):
        if next(calls) > 40:
            raise RuntimeError("out of luck")
        return before(outputs, labels)

    fails.weighted, fails.loss, fails.factor = None, before, before.factor
    evaluator.loss = fails
    with pytest.raises((ValleysError, RuntimeError), match="out of luck") as kept:
        find_asymmetric(evaluator, **TINY)
    check()
    del kept


def test_a_solution_that_is_refused_leaves_the_evaluator_as_it_is():
    net, train = classifier(norm=True)
    with torch.no_grad():
        net[3].bias[0] = math.inf
    evaluator = Evaluator(net, train, bn="refreshed")
    before = everything(evaluator.model)
    with pytest.raises(ValleysError, match="the train loss at the solution"):
        find_asymmetric(evaluator)
    assert unchanged(before, evaluator.model)


# ---- networks, losses and images ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("norm", "options"),
    [
        (True, {"bn": "refreshed"}),
        (True, {"bn": "refreshed", "method": "streaming"}),
        (True, {"bn": "frozen"}),
        (False, {}),
        (False, {"precision": "bf16"}),
        (True, {"bn": "refreshed", "precision": "bf16"}),
        (False, {"loss": "mse"}),
        (False, {"loss": build({"name": "focal", "gamma": 2})}),
        (True, {"loss": {"name": "label_smoothing", "smoothing": 0.1}}),
        (False, {"loss": nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 3.0]))}),
        (False, {"dtype": torch.float64}),
        (True, {"bn": "refreshed", "dtype": torch.float64}),
    ],
)
def test_it_works_for_all_batch_norms_losses_and_precisions(norm, options):
    options = dict(options)
    net, train = classifier(norm=norm, dtype=options.pop("dtype", torch.float32))
    search = find_asymmetric(net, train=train, test=train, rise=0.5, floor=0.05, **TINY, **options)
    best = search.best
    assert search.verdict in ("found", "not found")
    assert best["steps"] == 2
    assert best["bn_policy"] == (options.get("bn", "refreshed") if norm else "none")
    assert best["precision"] == options.get("precision", "fp32")
    assert max(best["judge_rise_plus"], best["judge_rise_minus"]) == pytest.approx(0.5, rel=0.03)
    assert math.isfinite(best["objective"])
    assert flat(search).norm().item() == pytest.approx(1.0, abs=1e-5)
    assert all(d.dtype == p.dtype for d, p in zip(search.direction.values(), net.parameters(), strict=True))
    parts_of = {(p["of"], p["images"]) for p in search.curves}
    assert parts_of == {
        ("found", "search"), ("found", "choose"), ("found", "judge"), ("found", "test"), ("start", "judge")
    }  # fmt: skip
    assert best["search_images"] + best["choose_images"] + best["judge_images"] == 60


def test_it_works_on_a_split_and_has_no_bootstrap_where_the_loss_is_the_mean_over_a_batch():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    search = find_asymmetric(net, train=make_split(40), test=make_split(20, 1), **TINY)
    assert search.best["search_images"] == 20
    assert math.isfinite(search.best["judge_c_low"]) or not math.isfinite(search.best["judge_c_star"])
    mean = find_asymmetric(
        net, train=make_split(40), loss=lambda o, y: nn.functional.cross_entropy(o, y), **TINY
    )
    assert math.isnan(mean.best["judge_c_low"])
    assert mean.best["search_images"] == 20


def test_what_is_no_evaluator_is_refused():
    evaluator = on_function(cubic(AXIS), [0.0] * 6)
    with pytest.raises(ValleysError, match="str is neither a network nor an Evaluator"):
        find_asymmetric("net")
    with pytest.raises(ValleysError, match="a network needs train"):
        find_asymmetric(nn.Linear(2, 2))
    with pytest.raises(ValleysError, match="bn is settled by the evaluator"):
        find_asymmetric(evaluator, bn="frozen")
    with pytest.raises(ValleysError, match="7 train images are too few"):
        find_asymmetric(on_function(cubic(AXIS), [0.0] * 6, n=7))
    with pytest.raises(ValleysError, match="unknown parameter group 'some'"):
        find_asymmetric(evaluator, group="some")


# ---- held out ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_images_that_were_searched_on_flatter_the_direction():
    """Of a network that has learnt labels drawn at random, from few images: what is found is theirs."""
    searched, judged = [], []
    for seed in range(5):
        net, train = classifier(seed=seed, labels="noise", n=48, width=24, steps=150)
        best = find_asymmetric(net, train=train, seed=seed, restarts=1, steps=30, bn="frozen").best
        searched.append(best["search_c_star"])
        judged.append(best["judge_c_star"])
    gaps = torch.tensor(searched) - torch.tensor(judged)
    assert gaps.nanmedian() > 0

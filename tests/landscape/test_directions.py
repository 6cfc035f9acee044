"""Directions: unit length, the same on every draw, distributed as their names say."""

import hashlib
import math

import numpy as np
import pytest
import torch
from torch import nn
from valleys.errors import ValleysError
from valleys.landscape.directions import (
    difference,
    draw,
    inner,
    parameter_group,
    random_direction,
    sign_agreement,
    towards,
    unit,
)
from valleys.landscape.kinds import DRAWN, GROUPS, SINGLE
from valleys.models import builder
from valleys.models.layers import norm_parameters
from valleys.networks.tensors import check_apart


def test_a_direction_from_weights_to_themselves_is_refused():
    start = {"a": torch.ones(3), "b": torch.zeros(2)}
    stop = {"a": torch.ones(3), "b": torch.tensor([0.0, 1e-7])}
    assert towards(start, stop, ["a", "b"], "x")["b"].tolist() == pytest.approx([0.0, 1e-7])
    with pytest.raises(ValleysError, match=r"sgd and swa are the same weights: the line .* has length zero"):
        towards(start, stop, ["a"], "sgd and swa")  # apart, but not in these
    check_apart(start, stop, ["b"])
    assert difference(start, start, ["a"])["a"].tolist() == [0, 0, 0]  # as a distance it is right


def net(arch="resnet8", norm="batch", seed=0, **options):
    torch.manual_seed(seed)
    return builder.build({"arch": arch, "norm": norm, **options}, in_shape=(1, 8, 8), classes=3)


def weights(seed=0, **shapes):
    g = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=g) for name, shape in shapes.items()}


def small():
    return weights(conv=(4, 3, 3, 3), bias=(4,), linear=(5, 7))


def flat(direction):
    return torch.cat([d.reshape(-1).double() for d in direction.values()])


def norm(direction):
    return float(flat(direction).norm())


def equal(one, other):
    return list(one) == list(other) and all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize("kind", DRAWN)
def test_random_directions_are_unit_vectors_like_the_weights(kind):
    w = small()
    direction, scale = random_direction(kind, w, key="key", k=3)
    assert norm(direction) == pytest.approx(1, abs=1e-6)
    assert scale > 0
    assert {n: (d.shape, d.dtype) for n, d in direction.items()} == {
        n: (t.shape, t.dtype) for n, t in w.items()
    }
    double, _ = random_direction(kind, {n: t.double() for n, t in w.items()}, key="key", k=3)
    assert all(d.dtype == torch.float64 for d in double.values())


@pytest.mark.parametrize("kind", DRAWN)
def test_a_direction_depends_on_its_name_and_number_alone(kind):
    w = small()
    torch.manual_seed(1)
    one, _ = random_direction(kind, w, key="key", k=7)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    few = {k: d for k, d, _ in draw({"kind": kind, "n": 8, "share": 0.5}, w, "key")}
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    many = {k: d for k, d, _ in draw({"kind": kind, "n": 20, "share": 0.5}, w, "key")}
    assert equal(one, few[7])
    assert equal(one, many[7])
    assert list(many) == list(range(20))


@pytest.mark.parametrize("kind", sorted(DRAWN.keys() - SINGLE))
def test_other_names_and_numbers_give_other_directions(kind):
    w = small()
    found = [flat(random_direction(kind, w, key=key, k=k)[0]) for key in ("a", "b") for k in range(4)]
    cosines = torch.stack(found) @ torch.stack(found).T
    assert (cosines - torch.eye(8)).max() < 0.95  # 148 entries; uniform ones have a mean cosine of 3/4


#: One a kind, so that a new kind changes none. A new one may have its own.
PINS = {
    "constant": "23d71aa55971d02b",
    "filter": "603d52026754ac94",
    "gaussian": "d985153837723f19",
    "sign": "b679504f0d1f3629",
    "sign_w": "bd84b400b2d03f73",
    "uniform": "79f069fb17f0a925",
    "uniform_symmetric": "a6587e04e6a84a72",
}


@pytest.mark.parametrize("kind", PINS)
def test_the_stream_is_pinned(kind):
    # If this fails, stored rows no longer regenerate their directions: raise the versions of the stages.
    direction, scale = random_direction(kind, small_integers(), key="pinned", k=2, share=0.25)
    values = [round(x, 5) + 0.0 for x in flat(direction).tolist()]
    text = f"{kind} {scale:.4f} {values}\n"
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == PINS[kind]


def test_the_first_numbers_of_the_stream():
    first = flat(random_direction("gaussian", small_integers(), key="pinned", k=2)[0])[:3].tolist()
    assert first == pytest.approx([0.216653, 0.212828, 0.055112], abs=1e-5)


def small_integers():
    return {"conv": torch.arange(-6.0, 12).view(2, 1, 3, 3), "bias": torch.tensor([-1.0, 2.0])}


def test_distributions_are_what_the_names_say():
    w = weights(big=(200, 300))
    drawn = {}
    for kind in ("uniform", "uniform_symmetric", "gaussian", "sign"):
        direction, scale = random_direction(kind, w, key="big", k=0)
        drawn[kind] = flat(direction).numpy() * scale
    n = 60_000
    u, s, g, a = drawn.values()
    assert u.min() >= 0
    assert 0.999 < u.max() <= 1
    assert u.mean() == pytest.approx(0.5, abs=5 / math.sqrt(12 * n))
    assert u.var() == pytest.approx(1 / 12, rel=0.02)
    assert s.min() == pytest.approx(-1, abs=1e-3)
    assert s.max() == pytest.approx(1, abs=1e-3)
    assert s.mean() == pytest.approx(0, abs=5 / math.sqrt(3 * n))
    assert s.var() == pytest.approx(1 / 3, rel=0.02)
    for x in (g, a):
        assert x.mean() == pytest.approx(0, abs=5 / math.sqrt(n))
        assert x.var() == pytest.approx(1, rel=0.03)
        assert (np.abs(x) < 1).mean() == pytest.approx(0.6827, abs=0.01)
    assert np.abs(np.corrcoef(g.reshape(200, 300), rowvar=True) - np.eye(200)).max() < 0.3


def test_filters_have_the_norm_of_the_weights_filters():
    w = small()
    direction, scale = random_direction("filter", w, key="key", k=0)
    for name in ("conv", "linear"):
        own, want = (t.flatten(1).double().norm(dim=1) for t in (direction[name] * scale, w[name]))
        torch.testing.assert_close(own, want, rtol=1e-5, atol=0)
    assert (direction["bias"] == 0).all()
    assert scale == pytest.approx(math.sqrt(norm(w) ** 2 - float(w["bias"].norm()) ** 2), rel=1e-6)


def test_filter_leaves_biases_and_norm_parameters_at_zero():
    model = net(norm="batch")
    w = dict(model.named_parameters())
    direction, _ = random_direction("filter", w, key="key", k=0)
    zero = {n for n, d in direction.items() if not d.any()}
    assert zero == set(norm_parameters(model)) | {"classifier.bias"}


def test_a_filter_of_zeros_stays_zero():
    w = {"conv": torch.cat([torch.zeros(1, 2, 3, 3), torch.ones(1, 2, 3, 3)])}
    direction, scale = random_direction("filter", w, key="key", k=0)
    assert (direction["conv"][0] == 0).all()
    assert scale == pytest.approx(math.sqrt(18))


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_sign_agrees_in_the_share_asked_for(share):
    w = weights(a=(100, 100), b=(5000,))
    direction, _ = random_direction("sign", w, key="key", k=0, share=share)
    found = sign_agreement(direction, w)
    assert found == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / 15_000))
    sizes, _ = random_direction("sign", w, key="key", k=0, share=1 - share)
    torch.testing.assert_close(flat(sizes).abs(), flat(direction).abs())


def cosine(direction, w):
    return inner(direction, w) / math.sqrt(float(flat(w).square().sum()))


@pytest.mark.parametrize("share", [1 / 8, 1 / 4, 1 / 2, 3 / 4, 7 / 8])
def test_a_direction_of_signs_is_orthogonal_to_the_weights_with_its_signs_as_they_were(share):
    w = weights(a=(100, 100), b=(5000,))
    w["a"][:7, :9] = 0.0
    plain, _ = random_direction("sign", w, key="key", k=0, share=share)
    direction, _ = random_direction("sign", w, key="key", k=0, share=share, orthogonal=True)
    assert abs(cosine(direction, w)) < 1e-6
    assert share == 1 / 2 or abs(cosine(plain, w)) > 0.2
    assert float(flat(direction).norm()) == pytest.approx(1, abs=1e-6)
    assert sign_agreement(direction, w) == sign_agreement(plain, w) == pytest.approx(share, abs=0.02)
    assert (flat(direction).sign() == flat(plain).sign()).all()
    # One factor for all entries that agree, another for all that do not; by parameter group, not by tensor.
    factor = flat(direction) / flat(plain)
    agree = (flat(plain) * flat(w)) > 0
    for part in (factor[agree], factor[~agree & (flat(w) != 0)]):
        torch.testing.assert_close(part, part[:1].expand_as(part), rtol=1e-4, atol=0)


def test_complex_weights_take_part_in_orthogonality():
    w = {"a": torch.randn(300, dtype=torch.complex64), "b": torch.randn(300)}
    direction, _ = random_direction("sign", w, key="key", k=0, share=0.25, orthogonal=True)
    assert abs(inner(direction, w)) < 1e-5


def test_what_cannot_be_orthogonal_is_refused_in_a_line():
    w = weights(a=(10, 10))
    for kind, share, words in (
        ("gaussian", 0.5, "orthogonal: true is for kind sign alone, not gaussian"),
        ("sign", 0.0, "orthogonal: with share 0 all terms"),
        ("sign", 1.0, "orthogonal: with share 1 all terms"),
    ):
        with pytest.raises(ValleysError, match=words) as caught:
            random_direction(kind, w, share=share, orthogonal=True)
        assert "\n" not in str(caught.value)
    for w in ({"a": torch.tensor([2.0])}, {"a": torch.zeros(9)}):
        with pytest.raises(
            ValleysError, match=r"all of \d entries agreed in sign with w or none did"
        ) as caught:
            random_direction("sign", w, share=0.5, orthogonal=True)
        assert "\n" not in str(caught.value)


def test_a_small_group_is_drawn_again_until_it_has_both_signs():
    w = {"a": torch.tensor([1.0, -2.0, 0.5])}
    for k in range(50):
        direction, _ = random_direction("sign", w, key="few", k=k, share=7 / 8, orthogonal=True)
        assert abs(inner(direction, w)) < 1e-6
        assert 0 < sign_agreement(direction, w) < 1


def test_a_probe_that_is_orthogonal_draws_such_directions():
    w = weights(a=(20, 20))
    spec = {"kind": "sign", "n": 3, "share": 0.25, "orthogonal": True}
    for k, direction, _ in draw(spec, w, "key"):
        assert abs(inner(direction, w)) < 1e-6
        alone, _ = random_direction("sign", w, key="key", k=k, share=0.25, orthogonal=True)
        assert (flat(alone) == flat(direction)).all()


def test_single_kinds():
    w = {"a": torch.tensor([[-2.0, 0.0], [3.0, 0.5]]), "b": torch.tensor([-1.0])}
    constant, scale = random_direction("constant", w, key="x", k=0)
    assert scale == pytest.approx(math.sqrt(5))
    torch.testing.assert_close(
        flat(constant), torch.full((5,), 5**-0.5, dtype=torch.float64), rtol=1e-6, atol=0
    )
    sign, scale = random_direction("sign_w", w, key="y", k=9)
    assert scale == 2
    assert flat(sign).tolist() == [-0.5, 0, 0.5, 0.5, -0.5]


def test_unknown_kinds_are_an_error():
    with pytest.raises(ValleysError, match=r"'unifrom'; choose from uniform, "):
        random_direction("unifrom", small(), key="key", k=0)


def test_unit():
    scaled, length = unit({"a": torch.tensor([3.0]), "b": torch.tensor([[4.0]])})
    assert length == 5
    assert [float(d) for d in scaled.values()] == pytest.approx([0.6, 0.8])
    big, length = unit({"a": torch.full((4,), 1e30)})  # its square is beyond float32
    assert length == pytest.approx(2e30)
    assert norm(big) == pytest.approx(1)


@pytest.mark.parametrize("bad", [[0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0]])
def test_a_direction_without_a_length_is_an_error(bad):
    with pytest.raises(ValleysError, match="cannot be scaled to unit length"):
        unit({"a": torch.tensor(bad)})


def test_sign_agreement_leaves_zeros_out():
    d = {"a": torch.tensor([1.0, -1.0, 0.0, 2.0]), "b": torch.tensor([-3.0])}
    w = {"a": torch.tensor([2.0, 2.0, 2.0, 0.0]), "b": torch.tensor([-1.0]), "other": torch.ones(3)}
    assert sign_agreement(d, w) == pytest.approx(2 / 3)
    assert math.isnan(sign_agreement({"a": torch.zeros(4)}, w))


@pytest.mark.parametrize("arch", ["resnet8", "mlp"])
@pytest.mark.parametrize("layer", ["batch", "group", "layer", "none"])
def test_groups_split_the_parameters(arch, layer):
    model = net(arch, layer)
    names = [n for n, _ in model.named_parameters()]
    assert parameter_group(model, "all") == names
    groups = {g: parameter_group(model, g) for g in ("conv", "classifier")}
    if layer != "none":
        groups["bn"] = parameter_group(model, "bn")
        scale, shift = parameter_group(model, "bn_weight"), parameter_group(model, "bn_bias")
        assert [n for n in groups["bn"] if n.endswith("weight")] == scale
        assert [n for n in groups["bn"] if n.endswith("bias")] == shift
    together = [n for group in groups.values() for n in group]
    assert len(together) == len(set(together))
    rest = [n for n in names if n not in together]
    # What is left are biases of layers without a norm to bring its own.
    assert all(n.endswith("bias") for n in rest)
    assert bool(rest) == (layer == "none")
    for group in groups.values():
        assert group == [n for n in names if n in group], "not in the model's order"
    assert groups["classifier"] == ["classifier.weight", "classifier.bias"]
    if arch == "resnet8":
        assert all(model.get_parameter(n).dim() == 4 for n in groups["conv"])
        assert len(groups["conv"]) == 9
    else:
        assert groups["conv"] == ["features.0.weight", "features.3.weight"]


def test_layer_groups_match_whole_names():
    model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(12)])
    assert parameter_group(model, "layer:1") == ["1.weight", "1.bias"]
    assert parameter_group(model, "layer:10.bias") == ["10.bias"]


@pytest.mark.parametrize("group", ["bn", "bn_weight", "bn_bias", "layer:nowhere"])
def test_an_empty_group_is_an_error(group):
    with pytest.raises(ValleysError, match=f"'{group}' is empty"):
        parameter_group(net(norm="none"), group)


def test_an_unknown_group_is_an_error():
    with pytest.raises(ValleysError, match="unknown parameter group 'batch_norm'") as caught:
        parameter_group(net(), "batch_norm")
    assert all(name in str(caught.value) for name in GROUPS)


def test_difference_points_from_start_to_stop():
    start, stop = (
        {"a": torch.tensor([1.0]), "b": torch.tensor([5.0])},
        {"a": torch.tensor([3.0]), "b": torch.zeros(1)},
    )
    assert difference(start, stop, ["a"]) == {"a": torch.tensor([2.0])}


def test_computed_kinds_are_restricted_and_scaled():
    w = weights(a=(2,))
    stored = [{"a": torch.tensor([3.0, 4.0]), "b": torch.ones(9)}, {"a": torch.tensor([0.0, 2.0])}]
    drawn = list(draw({"kind": "pca", "n": 2, "share": 0.5}, w, "key", stored))
    assert [(k, length) for k, _, length in drawn] == [(0, 5.0), (1, 2.0)]
    assert [flat(d).tolist() for _, d, _ in drawn] == [pytest.approx([0.6, 0.8]), [0.0, 1.0]]
    assert len(list(draw({"kind": "pca", "n": 1, "share": 0.5}, w, "key", stored))) == 1

"""Averages of weights: parameters by role, buffers of the last iterate."""

import collections
import contextlib
import copy
import gc

import pytest
import torch
from bn_networks import deep_net
from torch import nn
from valleys.errors import ValleysError
from valleys.training.averaging import average


def test_average_is_the_mean_in_float64():
    states = [{"w": torch.tensor([1.0, 2.0]) * k, "num_batches_tracked": torch.tensor(k)} for k in (1, 2, 6)]
    mean = average(iter(states))
    assert torch.equal(mean["w"], torch.tensor([3.0, 6.0]))
    assert mean["num_batches_tracked"] == 6
    assert mean["w"].dtype == torch.float32
    # In float32 a running sum of these loses the small term altogether.
    big = [{"w": torch.tensor([2.0**25])}, {"w": torch.tensor([1.0])}, {"w": torch.tensor([-(2.0**25)])}]
    assert average(big)["w"].item() == pytest.approx(1 / 3)


def test_average_matches_torch_swa():
    base = deep_net()
    swa = torch.optim.swa_utils.AveragedModel(base)
    states = []
    for seed in range(4):
        other = deep_net(seed)
        states.append(other.state_dict())
        swa.update_parameters(other)
    ours = average(states)
    for name, parameter in swa.module.named_parameters():
        torch.testing.assert_close(ours[name], parameter.detach(), rtol=1e-5, atol=1e-6)


def test_average_refuses_nothing_and_strangers():
    with pytest.raises(ValleysError, match="window is empty"):
        average([])
    with pytest.raises(ValleysError, match="iterate 2"):
        average([{"w": torch.zeros(2)}, {"w": torch.zeros(3)}])


class Keeps(nn.Module):
    """Has a parameter of its own and buffers of many kinds."""

    def __init__(self):
        super().__init__()
        self.linear, self.cls_token = nn.Linear(2, 2), nn.Parameter(torch.zeros(2))
        self.norm = nn.InstanceNorm2d(2, track_running_stats=True)
        for name in ("running_max", "codebook", "r"):
            self.register_buffer(name, torch.zeros(2))
        self.register_buffer("table", torch.full((2,), 0.1))
        self.register_buffer("seen", torch.tensor(0))

    def at(self, k):
        with torch.no_grad():
            for name, tensor in self.state_dict().items():
                if name != "table":
                    tensor.fill_(k)
        return self


def clones(net, ks=(1, 2, 6)):
    return [{name: t.clone() for name, t in net.at(k).state_dict().items()} for k in ks]


PARAMETERS = ["linear.weight", "linear.bias", "cls_token"]


WAYS = {
    "state dicts, while the network lives": lambda net: average(clones(net)),
    "the network beside them": lambda net: average(iter(clones(net)), net),
    "names beside them": lambda net: average(clones(net), PARAMETERS),
    "networks": lambda net: average([copy.deepcopy(net.at(k)) for k in (1, 2, 6)]),
    "networks one by one": lambda net: average(net.at(k) for k in (1, 2, 6)),
    "parameters that know that they are": lambda net: average(
        copy.deepcopy(net.at(k).state_dict(keep_vars=True)) for k in (1, 2, 6)
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_parameters_are_averaged_and_buffers_are_those_of_the_last(way):
    net = Keeps()
    found = WAYS[way](net)
    assert found.keys() == net.state_dict().keys()
    for name, tensor in found.items():
        value = 0.1 if name == "table" else 3 if name in PARAMETERS else 6
        assert torch.equal(tensor, torch.full_like(tensor, value)), name
    assert not any(t.requires_grad for t in found.values())


@pytest.mark.slow
def test_without_the_network_what_cannot_be_told_is_refused_or_said(caplog):
    net = Keeps()
    kept = clones(net)
    del net
    gc.collect()
    with pytest.raises(
        ValleysError, match=r"whether codebook is a parameter or a buffer; .*\(iterates, model"
    ):
        average(kept)
    rest = [{n: t for n, t in state.items() if n not in ("codebook", "running_max")} for state in kept]
    assert torch.equal(average(rest)["cls_token"], torch.full((2,), 3.0))
    assert "taken for parameters, as their names say nothing else: cls_token, r" in caplog.text


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64, torch.complex128]
)
def test_all_kinds_of_numbers_are_averaged(dtype):
    values = torch.tensor([[1.0, 60000.0], [3.0, 64000.0], [5.0, 62000.0]]).to(dtype)
    if dtype.is_complex:
        values = values * 1j
    found = average([{"weight": row, "steps": torch.tensor(k)} for k, row in enumerate(values)])
    assert found["weight"].dtype == dtype
    wide = torch.promote_types(dtype, torch.float64)
    assert torch.equal(found["weight"], values.to(wide).mean(0).to(dtype))
    assert found["steps"] == 2


@pytest.mark.parametrize(
    ("make", "dim"),
    [
        (lambda: nn.utils.spectral_norm(nn.Linear(5, 4)), 0),
        (lambda: nn.utils.spectral_norm(nn.Conv2d(3, 4, 3)), 0),
        (lambda: nn.utils.spectral_norm(nn.ConvTranspose2d(4, 4, 3)), 1),
        (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(5, 4)), 0),
        (lambda: nn.utils.parametrizations.spectral_norm(nn.ConvTranspose2d(4, 4, 3)), 1),
        (lambda: nn.utils.parametrizations.spectral_norm(nn.ConvTranspose2d(3, 5, 3)), 1),
    ],
)
@pytest.mark.parametrize("beside", [False, True])
def test_spectral_norm_divides_by_the_norm_of_the_average(make, dim, beside):
    torch.manual_seed(0)
    nets = [make().eval() for _ in range(4)]
    kept = [net.state_dict() for net in nets]
    with torch.no_grad():
        average_of = make().eval()
        average_of.load_state_dict(average(kept, nets[0] if beside else None))
        with contextlib.suppress(RuntimeError):  # the old one computes its weight before a pass
            average_of(torch.zeros(1, average_of.weight.shape[1 - dim], 4, 4))
        with contextlib.suppress(RuntimeError):
            average_of(torch.zeros(1, average_of.weight.shape[1]))
        matrix = average_of.weight.movedim(dim, 0).flatten(1)
        assert float(torch.linalg.matrix_norm(matrix, 2)) == pytest.approx(1, abs=1e-3)


def test_weight_norm_has_no_buffers():
    net = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    one, three = ({n: t * k for n, t in net.state_dict().items()} for k in (1, 3))
    assert all(torch.equal(t, 2 * one[n]) for n, t in average([one, three]).items())


def test_a_frozen_part_may_be_shared_and_aliases_are_refused():
    def of(k, body):
        return {"body.weight": body, "head.weight": torch.full((2,), float(k))}

    body = torch.ones(3)
    kept = [of(k, body) for k in (1, 2, 6)]
    assert torch.equal(average(kept)["head.weight"], torch.full((2,), 3.0))
    for same in (
        [kept[0], dict(kept[0])],
        [kept[0], kept[1], dict(kept[0])],
        {3: kept[0], 4: dict(kept[0])}.values(),
        collections.deque([kept[0], kept[0]]),
        (state for state in [kept[0], kept[0]]),
    ):
        with pytest.raises(ValleysError, match="are the same tensors; keep copies"):
            average(same)


def test_a_network_that_trains_between_iterates_needs_no_copies():
    net = nn.Linear(2, 1)

    def training():
        for k in (1.0, 2.0, 6.0):
            nn.init.constant_(net.weight, k)
            yield net.state_dict()

    assert torch.equal(average(training())["weight"], torch.full((1, 2), 3.0))


WEIGHT = {"weight": torch.ones(2)}


NO_STATES = {
    "paths": (["a.pt", "b.pt"], "iterate 1 is a str; .*torch.load"),
    "a path": ("a.pt", "iterates is a str"),
    "one state": (WEIGHT, "iterates is one state dict"),
    "one network": (nn.Linear(1, 1), "iterates is a Linear"),
    "nothing": (None, "iterates is a NoneType"),
    "checkpoints": ([{"model": WEIGHT, "epoch": 3}], "'model' of iterate 1 is a dict"),
    "not finite": ([WEIGHT, {"weight": torch.tensor([0, torch.nan])}], "weight of iterate 2 has values"),
    "fewer": ([WEIGHT | {"bias": torch.ones(1)}, {"weight": torch.zeros(2)}], "iterate 2 lacks bias"),
    "more": ([WEIGHT, WEIGHT | {"bias": torch.ones(1)}], "iterate 2 has bias"),
    "another type": ([WEIGHT, {"weight": torch.ones(2).half()}], "iterate 2 has weight as torch.float16"),
    "no numbers": ([{"weight": torch.ones(2).int()}], "no parameters of real or complex"),
    "sparse": ([{"weight": torch.ones(2).to_sparse()}], "is sparse"),
}


@pytest.mark.parametrize("case", NO_STATES)
def test_what_is_no_iterate_is_one_line(case):
    iterates, words = NO_STATES[case]
    with pytest.raises(ValleysError, match=words) as error:
        average(iterates)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [("weight", "is 'weight'"), (["bias"], "has no bias"), (nn.Linear(1, 1), "no bias")],
)
def test_parameters_of_another_network_are_refused(parameters, words):
    with pytest.raises(ValleysError, match=words):
        average([WEIGHT], parameters)

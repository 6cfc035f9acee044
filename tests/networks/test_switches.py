"""Regions of a network under torch's switches stay its own in every pass."""

import contextlib
import threading

import pytest
import torch
from bn_networks import Activates, images, statistics
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from valleys.errors import ValleysError
from valleys.networks.bn_refresh import refresh_bn, refreshed_logits
from valleys.networks.switches import Switches


class Passes(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class Dispatches(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class DefaultDtype:
    def __enter__(self):
        self.before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)

    def __exit__(self, *error):
        torch.set_default_dtype(self.before)


REGIONS = {
    "no_grad": torch.no_grad,
    "enable_grad": torch.enable_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "no autocast": lambda: torch.autocast("cpu", enabled=False),
    "a function mode": Passes,
    "a dispatch mode": Dispatches,
    "a device": lambda: torch.device("cpu"),
    "a default dtype": DefaultDtype,
    "attention kernels": lambda: torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    "hooks": lambda: torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t),
}


class Regional(nn.Module):
    """Has batch norm in a region, and may fail there half-way, in a batch of seven images."""

    def __init__(self, region):
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Tanh(), nn.Conv2d(6, 6, 3))
        self.norm = nn.BatchNorm2d(6)
        self.outer = nn.Sequential(nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(96, 3))
        self.region, self.fails = region, False

    def within(self, x):
        x = self.norm(self.inner(x))
        if self.fails and len(x) == 7:
            raise KeyError("half-way")
        return x + 0

    def forward(self, x):
        if self.region in ("reentrant", "not reentrant"):
            x = checkpoint(self.within, x, use_reentrant=self.region == "reentrant")
        else:
            with REGIONS[self.region]():
                x = self.within(x)
        return self.outer(x.clone().float())


@pytest.fixture
def same_switches():
    before = Switches()
    yield
    assert before.hold()


@pytest.mark.usefixtures("same_switches")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("around", [contextlib.nullcontext, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("region", [*REGIONS, "reentrant", "not reentrant"])
def test_regions_of_a_network_stay_its_own(region, around):
    torch.manual_seed(0)
    one, many = Regional(region), Regional(region)
    many.load_state_dict(one.state_dict())
    x = images(37, shift=2.0)
    near = {"rtol": 3e-2, "atol": 3e-2} if region == "autocast" else {"rtol": 1e-4, "atol": 1e-5}
    with around():
        before = Switches()
        whole, cut = refresh_bn(one, [x]), refresh_bn(many, x.split(10))
        assert before.hold()
        torch.testing.assert_close(torch.cat(cut), torch.cat(whole), **near)
        torch.testing.assert_close(statistics(many), statistics(one), **near)
        torch.testing.assert_close(torch.cat(refreshed_logits(many, x.split(10))), torch.cat(whole), **near)
        assert before.hold()
        many.fails = True
        for door in (refresh_bn, refreshed_logits):
            with pytest.raises((ValleysError, KeyError), match="'half-way'"):
                door(many, x.split(10))
            assert before.hold()
        assert F.batch_norm.__module__ == "torch.nn.functional"


@pytest.mark.usefixtures("same_switches")
@pytest.mark.filterwarnings("ignore")
def test_batches_that_part_in_a_region_leave_no_trace():
    net = Regional("no_grad")
    net.within = lambda x: net.norm(net.inner(x)) if len(x) == 10 else net.inner[0](x) * 1
    with pytest.raises(ValleysError, match="different paths"):
        refresh_bn(net, images(37).split(10))


def test_another_thread_may_train_meanwhile():
    started, done, found = threading.Event(), threading.Event(), []

    class Waits(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = Activates(3)

        def forward(self, x):
            started.set()
            assert done.wait(60)
            return self.norm(x)

    def train():
        started.wait(60)
        x = images(4)
        found.append(nn.BatchNorm2d(3)(x))  # in train mode
        found.append(torch.cat(refresh_bn(Activates(3), x.split(2))))
        done.set()

    other = threading.Thread(target=train)
    other.start()
    refresh_bn(Waits(), images(8).split(4))
    other.join()
    torch.testing.assert_close(found[1], F.silu(found[0]).detach(), rtol=1e-4, atol=1e-5)
    assert F.batch_norm.__module__ == "torch.nn.functional"


def test_context_variables_of_the_caller_are_seen_in_every_pass():
    import contextvars

    width = contextvars.ContextVar("width", default=1.0)

    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x):
            return self.norm(x) * width.get()

    width.set(0.0)
    assert not torch.cat(refresh_bn(Reads(), images(8).split(4))).any()

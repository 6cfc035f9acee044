"""What makes a network no function of its weights and images: found by trial, before anything is measured.

`check` looks for random numbers, an input changed in place, state that outlives a pass, weights folded at
``eval()`` or kept from the first pass, outputs that hang on the other images of the batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from valleys.data.inputs import Inputs
from valleys.errors import ValleysError
from valleys.networks.copies import MOVE, Watch, line, refuse_folded, shake
from valleys.networks.tensors import (
    address_of,
    addresses_of,
    copied,
    distance,
    equal_values,
    has_rows,
    held_tensors,
    leaf_shape,
    put_back,
    random_numbers,
    random_numbers_equal,
    random_numbers_kept,
    same_values,
    tensors_in,
)

#: Images of the first batch that `check` passes.
IMAGES = 16
#: Passes that a network gets to show what it draws random numbers for.
DRAWS = 32
#: Images of the batch on which gradients are compared with differences.
SOME = 128
_NORMS = nn.modules.batchnorm._NormBase  # keep statistics as long as their weights


def check(net: nn.Module, images: Any, original: nn.Module | None = None) -> float:
    """Raise unless a network, in eval mode, is a function of its parameters and of each image.

    A handful of passes over `IMAGES` images, at the weights as they are and a little off them, where all is
    as it was in the end: weights, buffers, random numbers, and `images`. What is not a defect passes: layers
    without use, kinks, outputs that are all zero or not finite, rounding of any number format.

    Parameters
    ----------
    net
        A `twin` in eval mode whose parameters require no gradient.
    images
        The first batch, (N, ...). If they are no tensor, all of them go through together.
    original
        What `net` is a copy of, so that hooks which compute with the original are found out.

    Returns
    -------
    Relative rounding of the coarsest number format in which it computes.

    Raises
    ------
    ValleysError
        When it is none, saying of what kind it is; or when it raises on these images.
    """
    parameters = dict(net.named_parameters())
    before = {name: t.detach().clone() for name, t in (*parameters.items(), *net.named_buffers())}
    modes = [(module, module.training) for module in net.modules() if hasattr(module, "training")]
    device = next(iter(parameters.values())).device
    with random_numbers_kept(device), torch.no_grad():
        try:
            passes = _Passes(net, images, parameters, before, device)
            passes.run(original)
            return passes.eps
        finally:
            put_back(parameters, before)
            put_back(dict(net.named_buffers()), before)  # by name: a pass may have set others
            for module, training in modes:
                if module.training != training:
                    module.training = training


class _Passes:
    """The passes of `check`: one after the other, from the plainest defect to those that it could hide."""

    def __init__(
        self,
        net: nn.Module,
        images: Any,
        parameters: dict[str, Tensor],
        before: Mapping[str, Tensor],
        device: Any,
    ) -> None:
        self.net, self.parameters, self.before, self.device = net, parameters, before, device
        self.names = list(net.state_dict())
        self.whole = images
        self.images = images[:IMAGES] if isinstance(images, Tensor | Inputs) else images
        self.eps = 0.0

    def run(self, original: nn.Module | None) -> None:
        first, watch, drew = self._first()
        self.eps = watch.eps or torch.finfo(torch.float32).eps
        self._own_memory(watch, original)
        self._parameters_stayed("a pass in eval mode")
        between = self._halves()
        again, later = self._watched()
        self._repeats(first, again, drew, watch)
        self._by_image(first, between)
        self._nothing_kept(watch, later)
        self._weights_count(first)

    def _pass(self, images: Any) -> list[Tensor]:
        """Return the outputs for a copy of these images, and see whether the network changed it."""
        given = copied(images)
        found = tensors_in(self.net(given))
        if not all(same_values(a, b) for a, b in zip(tensors_in(images), tensors_in(given), strict=True)):
            raise ValleysError(
                "network: it changes its input in place, so that each pass sees other images; set "
                "inplace=False in its first layers, or let forward begin with x = x.clone()"
            )
        return [tensor.detach().clone() for tensor in found if tensor.is_floating_point()]

    def _watched(self) -> tuple[list[Tensor], Watch]:
        watch = Watch()
        try:
            with watch:
                return self._pass(self.images), watch
        except ValleysError:
            raise
        except Exception:  # of the network, which raises it again, or of an operation that cannot be watched
            return self._pass(self.images), Watch()

    def _first(self) -> tuple[list[Tensor], Watch, bool]:
        drawn = random_numbers(self.device)
        try:
            try:
                found, watch = self._watched()
            except ValleysError:
                raise
            except Exception:  # made for batches of one size, or for no part of the images
                self.images = self.whole
                found, watch = self._watched()
        except ValleysError:
            raise
        except Exception as error:
            shapes = " and ".join(str(tuple(t.shape)) for t in tensors_in(self.whole))
            raise ValleysError(f"network: given images {shapes}, it raises {line(error)}") from error
        return found, watch, not random_numbers_equal(drawn, random_numbers(self.device))

    def _own_memory(self, watch: Watch, original: nn.Module | None) -> None:
        if original is None:
            return
        for name, tensor in (*original.named_parameters(), *original.named_buffers()):
            if tensor.numel() and address_of(tensor) in watch.touched:
                raise ValleysError(
                    f"network: a copy of it computes with {name} of the network itself, through a hook or a "
                    "function that refers to it; let hooks use the module that they are given"
                )

    def _parameters_stayed(self, after: str) -> None:
        new = next((name for name in self.net.state_dict() if name not in self.names), None)
        if new is not None:
            raise ValleysError(
                f"network: {after} gives it the new tensor {new}; pass a batch through the network "
                "before probing"
            )
        for name, parameter in self.net.named_parameters():
            # The place too: what moves a network moves the tensors that it had.
            kept = name in self.before and address_of(parameter) == address_of(self.parameters[name])
            if not kept or not same_values(parameter, self.before[name]):
                raise ValleysError(
                    f"network: {after} changes its parameter {name}; if it is set by the first batch, pass "
                    "one through the network before probing; if weights are merged or folded, do it for good "
                    "first, or not at all"
                )

    def _halves(self) -> list[Tensor] | None:
        """Return the outputs of each half of the images, joined; None where these cannot be cut."""
        if not isinstance(self.images, Tensor | Inputs) or len(self.images) < 2:
            return None
        middle = len(self.images) // 2
        try:
            # Nothing that `state` names requires a gradient.
            with torch.enable_grad():
                low = self.net(self.images[:middle].clone())
            high = self._pass(self.images[middle:])
        except Exception:
            return None
        needs = next((t for t in tensors_in(low) if t.requires_grad), None)
        if needs is not None:
            raise ValleysError(
                f"network: its outputs depend on a tensor {leaf_shape(needs)} that requires a gradient and "
                "is none of its parameters, so no line moves it; register it (nn.Parameter, "
                "nn.ParameterList, nn.ModuleList), or give it requires_grad=False"
            )
        low = [t.detach() for t in tensors_in(low) if t.is_floating_point()]
        count = len(self.images)
        return [
            torch.cat([a, b]) if has_rows(a, middle) and has_rows(b, count - middle) else a.new_empty(0)
            for a, b in zip(low, high, strict=False)
        ]

    def _repeats(self, first: list[Tensor], again: list[Tensor], drew: bool, watch: Watch) -> None:
        """Compare two passes over the same images; others came between them."""
        changed = [
            n for n, t in self.net.named_buffers() if n in self.before and not same_values(t, self.before[n])
        ]
        apart = distance(first, again)
        if drew and apart <= 20 * self.eps:  # what is drawn may matter now and then
            apart = max(distance(first, self._pass(self.images)) for _ in range(DRAWS))
        if drew and apart > 20 * self.eps:
            by = f" ({', '.join(watch.random)})" if watch.random else ""
            raise ValleysError(
                f"network: it draws random numbers in eval mode{by}, and its outputs differ from pass to "
                "pass; switch them off there: F.dropout(x, training=self.training), no noise or dropped "
                f"paths in eval mode{self._in_train_mode()}"
            )
        if changed and apart > 0:
            raise ValleysError(
                f"network: a pass in eval mode changes {changed[0]}, and with it the outputs of the next "
                f"pass; update it only where self.training{self._in_train_mode()}"
            )
        if apart > 20 * self.eps:
            raise ValleysError(
                "network: its outputs for the same images differ from pass to pass in eval mode: it keeps "
                "something from one pass to the next (a hidden state, a memory, a count), or draws random "
                "numbers of its own; reset it in forward, or use it only where self.training"
            )

    def _by_image(self, first: list[Tensor], halves: list[Tensor] | None) -> None:
        if halves is None or len(halves) != len(first):
            return
        on_gpu = self.device.type == "cuda"
        eps = max(self.eps, 1e-3) if on_gpu else self.eps  # TF32
        for whole, cut in zip(first, halves, strict=True):
            if whole.shape != cut.shape or not (whole.isfinite().all() and cut.isfinite().all()):
                continue
            whole, cut = (t.reshape(len(t), -1).double() for t in (whole, cut))
            spread = (whole - whole.mean(0)).abs().max()
            tolerance = max(1e-3, 20 * eps) * spread + 100 * eps * whole.abs().max()
            # A few images may flip by rounding where a network rounds, sorts or chooses.
            if ((whole - cut).abs().amax(1) > tolerance).double().mean() > 0.25:
                raise ValleysError(
                    "network: the outputs of an image depend on the other images of its batch in eval mode, "
                    "so that a loss would depend on how the images are cut; normalise by running statistics "
                    f"or by image (track_running_stats=True, GroupNorm, LayerNorm){self._in_train_mode()}"
                )

    def _nothing_kept(self, watch: Watch, later: Watch) -> None:
        """Find weights that are computed once and kept: the parameters behind them are never read again."""
        if not later.touched:
            return
        parameters = dict(self.net.named_parameters())
        for name, parameter in parameters.items():
            if parameter.numel() and address_of(parameter) in watch.touched - later.touched:
                self._refuse_kept(name)
        unread = {n: p for n, p in parameters.items() if p.numel() > 1 and address_of(p) not in later.touched}
        if not unread:
            return
        ours = addresses_of(parameters.values())
        kept = [
            (path, module, tensor)
            for path, module in self.net.named_modules()
            for place, tensor in held_tensors(module)
            if place in later.touched and place not in ours
        ]
        for name, parameter in unread.items():
            for path, module, tensor in kept:
                # Unused layers are common, and so are vectors of their length, and of ones.
                matrix = tensor.dim() > 1 and tensor.shape == parameter.shape
                owner = name.rpartition(".")[0]
                if (
                    (owner == path and tensor.numel() == parameter.numel() and not isinstance(module, _NORMS))
                    or (matrix and f"{owner}.".startswith(path and f"{path}."))
                    or (matrix and torch.equal(tensor.to(parameter), parameter) and parameter.std() > 0)
                ):
                    self._refuse_kept(name)

    def _refuse_kept(self, name: str) -> None:
        raise ValleysError(
            f"network: it computes with a copy of {name} that it keeps, so that moving {name} moves nothing; "
            "compute it from the parameter in every forward, or fold the weights for good and keep no others"
        )

    def _weights_count(self, first: list[Tensor]) -> None:
        """Move the weights: the outputs must follow, and be the same after train() and eval()."""
        if not first or not all(t.isfinite().all() for t in first):
            return
        for size in (MOVE, 1.0):
            shake(self.parameters, self.before, size)
            moved = self._pass(self.images)
            if not equal_values(first, moved):
                break
        there = {name: tensor.detach().clone() for name, tensor in self.parameters.items()}
        for switch in (self.net.train, self.net.eval):  # merged before, weights change in train mode
            with contextlib.suppress(NotImplementedError):  # networks by torch.export have one mode
                switch()
            for name, parameter in self.net.named_parameters():
                if name not in there or not same_values(parameter, there[name]):
                    refuse_folded(f"parameter {name}")
        finite = all(t.isfinite().all() for t in moved)
        if finite and distance(moved, self._pass(self.images)) > 20 * self.eps:
            refuse_folded("what its weights mean")
        if equal_values(first, moved):
            raise ValleysError(
                "network: moving all of its parameters does not change its outputs: it computes with a copy "
                "of them, or with none; let forward use the parameters themselves"
            )
        put_back(self.parameters, self.before)
        if finite and distance(first, self._pass(self.images)) > 20 * self.eps:
            raise ValleysError(
                "network: with its weights put back its outputs are not what they were: it keeps something "
                "from one pass to the next; compute everything in forward"
            )

    def _in_train_mode(self) -> str:
        names = [n or type(m).__name__ for n, m in self.net.named_modules() if getattr(m, "training", False)]
        return f" ({', '.join(names[:3])}: in train mode after eval())" if names else ""

"""A network that is called otherwise than with one tensor, as a network of one argument."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from valleys.data.inputs import Inputs
from valleys.errors import ValleysError

#: Where outputs of known losses are scores, in what networks return.
SCORES = ("logits", "out")
_SHARED = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")


class Adapter(nn.Module):
    """A network that is called otherwise, with `Inputs` or a tensor; its parameters keep their names.

    It holds the network's own tables of parameters, buffers and modules, so that all that is done to one is
    done to the other: moved weights, modes, statistics, another device.

    Parameters
    ----------
    network
        Any module but a TorchScript one.
    call
        ``call(network, value)`` returns what is made of an `Inputs`' value, or of a tensor.

    Raises
    ------
    ValleysError
        For a TorchScript module, whose tables cannot be shared.
    """

    def __init__(self, network: nn.Module, call: Callable[[nn.Module, Any], Any]) -> None:
        super().__init__()
        if isinstance(network, torch.jit.ScriptModule):
            raise ValleysError(
                "network: a TorchScript module can be probed on batches of (input, labels) alone, input one "
                "tensor; give the module that it was made from"
            )
        self.__dict__.update({name: network.__dict__[name] for name in _SHARED})
        self.__dict__.update(network=network, call=call)  # not as a module of this one

    @property
    def training(self) -> bool:
        """The mode of the network."""
        return self.__dict__["network"].training if "network" in self.__dict__ else True

    @training.setter
    def training(self, mode: bool) -> None:
        if "network" in self.__dict__:
            self.__dict__["network"].training = mode

    def train(self, mode: bool = True) -> Adapter:
        """Set the mode as the network's own ``train`` does."""
        self.network.train(mode)
        return self

    def forward(self, inputs: Inputs | Tensor) -> Any:
        """Return what `call` does."""
        return self.call(self.network, inputs.value if isinstance(inputs, Inputs) else inputs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Adapter:
        """Copy the network by its own rules; `call` is a function, and stays."""
        return Adapter(copy.deepcopy(self.network, memo), self.call)


def called(network: nn.Module, value: Any) -> Any:
    """Call a network with a mapping's items by name, a tuple's or list's in order, else with the value."""
    if isinstance(value, Mapping):
        return network(**value)
    if isinstance(value, tuple | list):
        return network(*value)
    return network(value)


def scores_of(outputs: Any) -> Any:
    """Return the scores in what a network returns, where they are a part of it (`SCORES`); else all of it."""
    for name in () if isinstance(outputs, Tensor) else SCORES:
        found = outputs.get(name) if isinstance(outputs, Mapping) else getattr(outputs, name, None)
        if isinstance(found, Tensor):
            return found
    return outputs


def scored(network: nn.Module, value: Any) -> Any:
    """Call a network (`called`) and return its scores (`scores_of`)."""
    return scores_of(called(network, value))

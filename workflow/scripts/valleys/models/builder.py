"""A network from the config's block: one of ours, or what a user's factory returns."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from valleys import factories
from valleys.data.tasks import CLASSIFICATION, TASKS
from valleys.errors import ValleysError
from valleys.models.architectures import BUILDERS, PreActBlock
from valleys.models.layers import LayerMaker, classifier_name, init_norm_weights
from valleys.models.options import ARCHS, validate_spec
from valleys.networks import bn_refresh, checks, copies
from valleys.networks.adapter import Adapter, scored, scores_of
from valleys.networks.batch_norm import bn_policy, has_unseen_bn
from valleys.networks.tensors import random_numbers_kept

# The argument of He et al. 2015 ("Delving Deep into Rectifiers") for any activation f: weights of variance
# gain^2 / fan_in keep the second moment of the pre-activations when gain^2 E[f(z)^2] = 1 for z ~ N(0, 1).
GAINS = {
    "relu": math.sqrt(2.0),
    "gelu": 1.53353,
    "tanh": 1.59254,
    "sigmoid": 1.84623,
    "softplus": 1.04187,
    "silu": 1.67653,
}


def build(
    spec: Mapping[str, Any], *, in_shape: tuple[int, ...], classes: int, task: str = CLASSIFICATION
) -> nn.Module:
    """Build the network that `spec` describes, with initial weights from the global random generator.

    Parameters
    ----------
    spec
        Config block of a model, ``{"arch": name, option: value, ...}``; see :data:`ARCHS`. Or
        ``{"factory": "module:attribute", "kwargs": {...}}``: see :func:`from_factory`.
    in_shape
        Channels, height and width of one image; images come as floats (N, C, H, W), already normalised. Or
        the shape of one input of another kind (`valleys.data.split.Split`).
    classes
        Number of logits, of tokens, or of numbers in a label.
    task
        Of `valleys.data.tasks.TASKS`.

    Raises
    ------
    ValleysError
        When the spec is wrong or the architecture cannot take images of that size, or is none for the task.
    """
    spec = validate_spec(spec)
    if "factory" in spec:
        return from_factory(spec, in_shape, classes, task)
    arch = spec["arch"]
    if not TASKS[task].archs:
        raise ValleysError(
            f"model.arch: {arch!r} is none for {task}; give a network of your own, factory: module:attribute"
        )
    least = ARCHS[arch].min_size
    if len(in_shape) != 3 and arch != "mlp":
        raise ValleysError(
            f"model.arch: {arch!r} takes images (C, H, W), but inputs have the shape {in_shape}; take mlp, "
            "or give a network of your own, factory: module:attribute"
        )
    if len(in_shape) == 3 and min(in_shape[1:]) < least:
        _, height, width = in_shape
        fits = ", ".join(name for name, other in ARCHS.items() if other.min_size <= min(height, width))
        raise ValleysError(
            f"model.arch: {arch!r} needs images of at least {least}x{least}, got {height}x{width} "
            f"(these take them: {fits})"
        )
    if arch not in BUILDERS:
        raise ValleysError(f"model.arch: {arch!r} has options, but no builder in models/architectures.py")
    layers = LayerMaker(spec["norm"], spec["groups"], spec["activation"])
    model = BUILDERS[arch](spec, layers, in_shape, classes)
    _initialise(model, layers)
    if spec["norm_init"] != "ones":
        seed = int(torch.randint(2**63 - 1, ()))  # drawn from the global generator: the caller's seed rules
        init_norm_weights(model, spec["norm_init"], torch.Generator().manual_seed(seed))
    return model


def from_factory(
    spec: Mapping[str, Any], in_shape: tuple[int, ...], classes: int, task: str = CLASSIFICATION
) -> nn.Module:
    """Build a user's own network and check that it maps images to logits, or as the task has it.

    The factory is called with its ``kwargs`` and, as far as its signature names them and ``kwargs`` does not
    set them, ``num_classes`` and ``classes`` (the number of classes), ``in_chans`` and ``in_channels`` (those
    of an image) and ``in_shape`` (channels, height, width); for rows of numbers ``in_features``, for a
    regression ``out_features``, for tokens ``vocab_size``. A network that returns more than its scores, and
    these as ``logits`` or ``out``, is made to return them alone (`adapter.scores_of`).

    A factory that takes ``**kwargs`` is called again with ``num_classes``, and then ``in_chans``, if its
    network does not fit the images without. What it draws from torch's global generator follows the caller's
    seed.

    Raises
    ------
    ValleysError
        When the factory cannot be found or raises; when what it returns is no module of float32 parameters
        that maps two images, in eval mode, to logits of shape (2, classes), or as the task has it; when it
        cannot be copied or is no function of its weights and of each image (`valleys.networks`); or when a
        batch-norm layer is not one whose statistics can be recomputed
        (`valleys.networks.bn_refresh.refresh_bn`).
    """
    factory, wanted = spec["factory"], _Wanted(tuple(in_shape), classes, task)
    model = _first_that_fits(factory, _calls(spec, wanted), wanted)
    for name, parameter in model.named_parameters():
        if parameter.dtype != torch.float32 or not parameter.requires_grad:
            what = f"is {parameter.dtype}" if parameter.dtype != torch.float32 else "requires no gradient"
            raise ValleysError(
                f"factory {factory!r}: parameter {name} {what}; all must be float32 and trained (what is "
                "fixed can be a buffer)"
            )
    places: dict[tuple[int, int], str] = {}
    for name, tensor in model.state_dict().items():
        first = places.setdefault((tensor.data_ptr(), tensor.numel()), name) if tensor.numel() else name
        if first != name:
            raise ValleysError(
                f"factory {factory!r}: {first} and {name} are one tensor; weights files keep no tied "
                "weights; have the network made without (tie_word_embeddings=False)"
            )
    if not any(True for _ in model.parameters()):
        raise ValleysError(
            f"factory {factory!r} returns a module without parameters; there is nothing to train"
        )
    try:
        _can_be_probed(model, wanted)
    except ValleysError as error:
        raise ValleysError(f"factory {factory!r}: {error}") from error
    return model


def check_outputs(
    specs: Mapping[str, Mapping[str, Any]], in_shape: tuple[int, ...], classes: int, task: str
) -> None:
    """Check that factories' networks have the right outputs, as far as torch's meta device can tell.

    There it takes no memory and next to no time, so this can be asked before the data are there. A factory
    that cannot be called there, or a network that hangs on more than shapes, is left to `from_factory`.

    Parameters
    ----------
    specs
        Config blocks of models by name: those with a factory.
    in_shape, classes, task
        As of `build`.

    Raises
    ------
    ValleysError
        For the first of which no call gives a network that maps inputs to outputs of the right shape.
    """
    for name, spec in specs.items():
        if problem := _problem_on_meta(spec, _Wanted(tuple(in_shape), classes, task)):
            raise ValleysError(f"config: models.{name}: factory {spec['factory']!r}: {problem}")


@torch.no_grad()
def _problem_on_meta(spec: Mapping[str, Any], wanted: _Wanted) -> str | None:
    """Return what is wrong with the outputs of a factory's network; None where nothing is, or is known."""
    problems, calls = [], _calls(spec, wanted)  # modules are imported as always
    with warnings.catch_warnings(), random_numbers_kept(torch.device("cpu")), torch.device("meta"):
        warnings.simplefilter("ignore")  # as of weights that are read into no memory
        try:
            for make, arguments in calls:
                scores = scores_of(make(**arguments).eval()(wanted.zeros(2).to("meta")))
                problem = _misfit(scores, wanted)
                if problem is None:
                    return None
                problems.append(problem)
        except Exception:  # users' code may raise anything where it was not made to run
            return None
    return problems[0]


def _calls(spec: Mapping[str, Any], wanted: _Wanted) -> list[tuple[Any, Mapping[str, Any]]]:
    """Return the calls of a factory to try in turn: callable and arguments."""
    in_shape, classes, task = wanted.in_shape, wanted.classes, wanted.task
    values = {"num_classes": classes, "classes": classes, "in_shape": in_shape}
    if task == "tokens":
        values |= {"vocab_size": classes}
    elif len(in_shape) == 1:
        values |= {"in_features": in_shape[0]}
    else:
        values |= {"in_chans": in_shape[0], "in_channels": in_shape[0]}
    values |= {"out_features": classes} if task == "regression" else {}
    make = factories.resolve(spec["factory"])
    given = factories.offered(make, values, spec["kwargs"])
    known = {key: values[key] for key in ("num_classes", "in_chans") if key in values}
    return [(make, arguments) for arguments in factories.guesses(make, given, known)]


@dataclass(frozen=True)
class _Wanted:
    """What a network is to map to what."""

    in_shape: tuple[int, ...]
    classes: int
    task: str

    def inputs(self, n: int) -> Tensor:
        """Return inputs, drawn always alike."""
        generator = torch.Generator().manual_seed(0)
        if self.task == "tokens":
            return torch.randint(0, self.classes, (n, *self.in_shape), generator=generator)
        return torch.rand(n, *self.in_shape, generator=generator) - 0.5

    def zeros(self, n: int) -> Tensor:
        """Return inputs of zeros."""
        return torch.zeros(n, *self.in_shape, dtype=torch.int64 if self.task == "tokens" else torch.float32)

    def outputs(self, n: int) -> tuple[int, ...]:
        """Return the shape of outputs."""
        if self.task == "tokens":
            return n, *self.in_shape, self.classes
        if self.task == "segmentation":
            return n, self.classes, *self.in_shape[1:]
        return n, self.classes

    def fits(self, outputs: Tensor, n: int) -> bool:
        """Whether outputs are of that shape; one number of a regression needs no axis of its own."""
        shape, wanted = tuple(outputs.shape), self.outputs(n)
        is_flat = self.task == "regression" and self.classes == 1 and shape == (n,)
        return outputs.is_floating_point() and (shape == wanted or is_flat)


def _can_be_probed(model: nn.Module, wanted: _Wanted) -> None:
    """Raise unless a network can be copied after a step of training and is a function of its weights.

    Both are needed when it has been trained, and are known before.
    """
    images = wanted.inputs(4)
    trained = copies.twin(model).train()
    with random_numbers_kept(torch.device("cpu")):
        with contextlib.suppress(Exception):  # what is wrong with it, training will say
            trained(images.clone()).sum().backward()
        checks.check(copies.standing(trained), images, model)


def _first_that_fits(
    factory: str, calls: Iterable[tuple[Any, Mapping[str, Any]]], wanted: _Wanted
) -> nn.Module:
    """Make one call (callable, arguments) after the other until its network maps images to logits.

    Each call finds the random state of the first. When none fits, the first one's error is raised.
    """
    state, errors = torch.get_rng_state(), []
    for make, arguments in calls:
        torch.set_rng_state(state)
        try:
            model = factories.call(factory, make, arguments)
            if not isinstance(model, nn.Module):
                raise ValleysError(
                    f"factory {factory!r} returns {type(model).__name__}; it must be a torch.nn.Module"
                )
            return _dry_run(factory, model, wanted)
        except ValleysError as error:
            errors.append(error)
    raise errors[0]


@torch.no_grad()
def _dry_run(factory: str, model: nn.Module, wanted: _Wanted) -> nn.Module:
    """Return a module that maps two images to logits; its mode and the random state stay as they are.

    It is the one given, or one that returns its scores alone.
    """
    images = wanted.zeros(2)
    with torch.random.fork_rng(devices=[]), copies.evaluating(model):
        try:
            outputs = factories.call(factory, model, {}, images)
        except ValleysError as error:
            raise ValleysError(
                f"{error}; {_described(wanted)}: set the network for them in kwargs, or name a function of "
                "your own that does"
            ) from error
    scores = scores_of(outputs)
    if problem := _misfit(scores, wanted):
        raise ValleysError(f"factory {factory!r}: {problem}")
    if scores is not outputs:
        model = Adapter(model, scored)
    with torch.random.fork_rng(devices=[]):
        try:
            bn_policy(model, "frozen")
            if not has_unseen_bn(model):  # else it may be that statistics stay as they are
                bn_refresh.refreshed_logits(model, [images])
        except ValleysError as error:
            raise ValleysError(f"factory {factory!r}: {error}") from error
    return model


def _misfit(scores: Any, wanted: _Wanted) -> str | None:
    """Return how a network's scores on two inputs are not as they must be; None if they are."""
    shape = (2, *wanted.in_shape)
    of = f"it must map inputs {shape} to {wanted.outputs(2)}"
    if wanted.task == CLASSIFICATION and len(wanted.in_shape) == 3:
        of = f"it must map images {shape} to logits (2, {wanted.classes})"
    if not isinstance(scores, Tensor):
        return f"the network returns {type(scores).__name__}; {of}"
    if wanted.fits(scores, 2):
        return None
    kind = "" if scores.is_floating_point() else f" of {scores.dtype}"
    each = "one for each class (kwargs can set the number)" if wanted.task == CLASSIFICATION else wanted.task
    return f"the network returns the shape {tuple(scores.shape)}{kind}; {of}, {each}"


def _described(wanted: _Wanted) -> str:
    """Return what inputs are, in words."""
    if len(wanted.in_shape) == 3:
        channels, height, width = wanted.in_shape
        return f"images here have {channels} channel{'s' * (channels > 1)} of {height} x {width} pixels"
    kind = f" of {wanted.classes} tokens" if wanted.task == "tokens" else ""
    return f"inputs here have the shape {wanted.in_shape}{kind}"


@torch.no_grad()
def _initialise(model: nn.Module, layers: LayerMaker) -> None:
    """Draw He-normal weights with the activation's gain and zero the biases.

    The classifier keeps torch's own draw, so that first logits are small.

    With normalisation the fan is that of the outputs, as in the published code of these networks. Without it
    nothing downstream mends the scale of the signal, so the fan of the inputs keeps it.
    """
    last = model.get_submodule(classifier_name(model))
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            if module is not last:
                by_outputs = isinstance(module, nn.Conv2d) and layers.norm != "none"
                fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(module.weight)
                std = GAINS[layers.activation] / math.sqrt(fan_out if by_outputs else fan_in)
                module.weight.normal_(0.0, std)
            if module.bias is not None:
                module.bias.zero_()
    if layers.norm == "none":
        # Each residual branch would add a variance as large as its input's, doubling it block by block.
        # Dividing the branches' last weights by sqrt(blocks) keeps the growth over all blocks below e.
        # Zeroing them (Fixup) would too, but then the branches' other weights start without a gradient, and
        # the start is a point that may be probed.
        ends = _branch_ends(model)
        for conv in ends:
            conv.weight.mul_(len(ends) ** -0.5)


def _branch_ends(model: nn.Module) -> list[nn.Conv2d]:
    """Return the last convolution of every residual branch that has a shortcut around it."""
    ours = [m.branch[-1] for m in model.modules() if isinstance(m, PreActBlock) and m.skip]
    torchvisions = [m.conv3 for m in model.modules() if hasattr(m, "conv3")]
    return ours + torchvisions

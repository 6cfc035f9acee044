"""Images and labels that a user's own function returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from valleys import factories
from valleys.data.loaders import what
from valleys.data.sources.base import Original, channels_first, check_arrays, check_images, from_array
from valleys.data.sources.examples import from_examples
from valleys.data.tasks import CLASSIFICATION, task_of
from valleys.errors import ValleysError


def read(spec: Mapping[str, Any]) -> tuple[Original, Original]:
    """Call a user's own function and check what it returns."""
    factory, wanted = spec["factory"], "it must return (train images, labels), (test images, labels)"
    parts, task = factories.call(factory, factories.resolve(factory), spec["kwargs"]), task_of(spec)
    try:
        train, test = parts
    except (TypeError, ValueError) as error:
        raise ValleysError(
            f"factory {factory!r} returns {type(parts).__name__} that is no pair of pairs; {wanted}"
        ) from error
    found = []
    for name, part in (("train", train), ("test", test)):
        where = f"factory {factory!r}, {name}"
        try:
            images, labels = part if isinstance(part, tuple | list) else _gathered(part, where, task)
        except (TypeError, ValueError) as error:
            raise ValleysError(
                f"factory {factory!r} returns {type(parts).__name__} that is no pair of pairs; {wanted}"
            ) from error
        found.append(_returned(images, labels, where, task))
    return found[0], found[1]


def _gathered(loader: Any, where: str, task: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Read a loader of (inputs, labels), or of tokens alone, once."""
    wanted = "of tensors" if task != "tokens" else "of tensors, or tensors of tokens"
    inputs, labels = [], []
    for i, batch in enumerate(loader):
        pair = (batch,) if isinstance(batch, torch.Tensor) and task == "tokens" else batch
        fits = isinstance(pair, tuple | list) and all(isinstance(each, torch.Tensor) for each in pair)
        if not fits or len(pair) not in (1, 2) or (len(pair) == 1 and task != "tokens"):
            raise ValleysError(
                f"{where}: batch {i} is {what(batch)}; it must be a pair (inputs, labels) {wanted}"
            )
        inputs.append(pair[0].detach().cpu().clone())
        labels += [each.detach().cpu().clone() for each in pair[1:]]
    if not inputs:
        raise ValleysError(f"{where}: it yields no batches; there must be one or more")
    try:
        return torch.cat(inputs), torch.cat(labels) if labels else None
    except RuntimeError as error:
        raise ValleysError(
            f"{where}: batches are not alike ({' '.join(str(error).split())}); all inputs must have one shape"
        ) from error


def _returned(images: Any, labels: Any, where: str, task: str) -> Original:
    """Check one part's images and labels, arrays or tensors, and wrap them."""
    arrays = []
    for name, value in (("images", images), ("labels", labels)):
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu()
            value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
        elif value is None and name == "labels" and task == "tokens":
            value = arrays[0]
        elif not isinstance(value, np.ndarray) and not (name == "labels" and isinstance(value, list | tuple)):
            raise ValleysError(
                f"{where}: {name} are a {type(value).__name__}; they must be a numpy array or a torch tensor"
            )
        arrays.append(np.asarray(value))
    layout = "CHW" if isinstance(images, torch.Tensor) else "HWC"
    pixels, numbers = arrays
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4):
        return from_examples(pixels, numbers, task, where)
    if task == CLASSIFICATION:
        check_arrays(where, pixels.dtype, pixels.shape, numbers.dtype, numbers.shape, layout)
    else:
        check_images(where, pixels.dtype, pixels.shape, layout)
    whole = channels_first(pixels) if layout == "HWC" or pixels.ndim == 3 else pixels
    if task == CLASSIFICATION:
        return from_array(whole, numbers, where)
    return from_examples(whole, numbers, task, where)

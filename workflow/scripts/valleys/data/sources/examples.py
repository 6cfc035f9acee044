"""Inputs and labels that are no images with a class each: arrays, as a task has them."""

from __future__ import annotations

import numpy as np

from valleys.data.sources.base import Original, in_pieces
from valleys.data.tasks import CLASSIFICATION, IGNORED
from valleys.errors import ValleysError


def from_examples(inputs: np.ndarray, labels: np.ndarray | None, task: str, where: str) -> Original:
    """Wrap inputs and labels that are in memory.

    Parameters
    ----------
    inputs
        Numbers (N, ...), images of bytes (N, C, H, W), or of task ``tokens`` integers (N, T).
    labels
        As the task has them: integers (N,), numbers (N,) or (N, K), integers (N, T), integers (N, H, W). None
        for tokens that are their own labels.
    task, where
        Of `data.tasks.TASKS`; what the two are called in messages.

    Returns
    -------
    Original
        Inputs uint8, float32 or int64, labels int64 or float32, as `data.split.Split` has them.

    Raises
    ------
    ValleysError
        For other types and shapes, numbers that are not finite, or tokens below 0.
    """
    if labels is None and task == "tokens":
        labels = inputs
    if labels is None:
        raise ValleysError(f"{where}: labels are missing; only task tokens can do without")
    _check_kind(where, "inputs", inputs)
    _check_kind(where, "labels", labels)
    if len(inputs) != len(labels):
        raise ValleysError(
            f"{where} has {len(inputs)} inputs but {len(labels)} labels; there must be as many"
        )
    inputs, labels = _inputs(inputs, task, where), _labels(labels, inputs, task, where)
    greatest = int(inputs.max(initial=-1)) if task == "tokens" else -1
    return Original(labels, in_pieces(inputs), lambda row: f"{where}, row {row}", greatest)


def _check_kind(where: str, name: str, array: np.ndarray) -> None:
    if array.dtype.kind not in "fiub" or array.ndim < 1:
        raise ValleysError(
            f"{where}: {name} are {array.dtype} of shape {array.shape}; they must be numbers, one row each"
        )


def _inputs(inputs: np.ndarray, task: str, where: str) -> np.ndarray:
    shape = inputs.shape
    if 0 in shape[1:]:
        raise ValleysError(f"{where}: inputs have the shape {shape}; there must be numbers in each")
    if task == "tokens":
        if inputs.dtype.kind not in "iu" or inputs.ndim != 2:
            raise ValleysError(
                f"{where}: inputs are {inputs.dtype} of shape {shape}; tokens must be integers (N, T)"
            )
        tokens = inputs.astype(np.int64)
        _check_rows(tokens < 0, tokens, where, "token", "it must be 0 or more")
        return tokens
    if task == "segmentation" and inputs.ndim != 4:
        raise ValleysError(f"{where}: inputs have the shape {shape}; those of pixels must be (N, C, H, W)")
    if inputs.ndim == 4 and shape[3] <= 4 < shape[1]:
        raise ValleysError(
            f"{where}: inputs have the shape {shape}; the network takes them as they are, so channels must "
            "come first, (N, C, H, W)"
        )
    if inputs.dtype == np.uint8 and inputs.ndim == 4:
        return inputs
    numbers = inputs.astype(np.float32)
    if numbers.ndim == 1:
        numbers = numbers[:, None]
    _check_rows(~np.isfinite(numbers), numbers, where, "input", "it must be finite, and below 3.4e38 in size")
    return numbers


def _labels(labels: np.ndarray, inputs: np.ndarray, task: str, where: str) -> np.ndarray:
    given = f"{where}: labels are {labels.dtype} of shape {labels.shape}"
    if task == "regression":
        if labels.ndim not in (1, 2) or 0 in labels.shape[1:]:
            raise ValleysError(f"{given}; those of a regression must be numbers (N,) or (N, K)")
        numbers = labels.astype(np.float32).reshape(len(labels), -1)
        _check_rows(~np.isfinite(numbers), numbers, where, "label", "it must be a finite number")
        return numbers
    n, *rest = inputs.shape
    wanted = {CLASSIFICATION: (n,), "tokens": (n, *rest), "segmentation": (n, *rest[1:])}[task]
    if labels.dtype.kind == "f" and np.array_equal(labels, np.floor(labels)):
        labels = labels.astype(np.int64)  # a column with whole numbers, as CSV files have
    if labels.dtype.kind not in "iu" or labels.shape != wanted:
        raise ValleysError(f"{given}; those of task {task} must be integers of shape {wanted}")
    return labels.astype(np.int64)


def _check_rows(wrong: np.ndarray, values: np.ndarray, where: str, what: str, wanted: str) -> None:
    """Raise for the first value that is wrong."""
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        raise ValleysError(f"{where}, row {at[0]}: the {what} is {values[at]}; {wanted}")


def classes_of(parts: dict[str, Original], task: str, given: int | None) -> int:
    """Return the number of classes, tokens or outputs of a task other than classification, all checked.

    Parameters
    ----------
    parts
        ``train`` and ``test``.
    given
        What the entry says of it.

    Raises
    ------
    ValleysError
        When a label does not fit, or the entry says another number than there are.
    """
    train = parts["train"]
    if task == "regression":
        found = train.labels.shape[1]
        for name, part in parts.items():
            if part.labels.shape[1] != (given or found):
                what = f"classes is {given}" if given else f"those of train {found}"
                raise ValleysError(
                    f"{part.where(0)}: a label of the {name} part has {part.labels.shape[1]} numbers, "
                    f"but {what}"
                )
        return found
    ignored = IGNORED[task]
    counted = {name: part.labels[part.labels != ignored] for name, part in parts.items()}
    for name, labels in counted.items():
        if not labels.size:
            raise ValleysError(
                f"{parts[name].where(0)}: no label of the {name} part counts; all are {ignored}"
            )
    greatest = int(counted["train"].max())
    if task == "tokens":  # of test too: there is a vocabulary before there are data
        greatest = max(greatest, int(counted["test"].max()), *(part.greatest for part in parts.values()))
    known = greatest + 1 if given is None else given
    for part in parts.values():
        wrong = (part.labels != ignored) & ((part.labels < 0) | (part.labels >= known))
        if wrong.any():
            at = tuple(np.argwhere(wrong)[0])
            raise ValleysError(
                f"{part.where(int(at[0]))}: the label is {part.labels[at]}; it must be in 0..{known - 1}, or "
                f"{ignored} where none counts"
            )
    for name, part in parts.items():
        if part.greatest >= known:
            raise ValleysError(f"the {name} part has the token {part.greatest}, but classes is {known}")
    return known

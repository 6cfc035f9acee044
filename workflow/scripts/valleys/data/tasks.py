"""Tasks: what the inputs and labels of a data set are. Pure Python: importing this imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: The task of a data set that names none.
CLASSIFICATION = "classification"
#: Labels of tokens and of pixels that no loss counts, as torch and torchvision have them.
IGNORED = {"tokens": -100, "segmentation": 255}


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes
    ----------
    description
        A line for the user: inputs, labels, and what the network returns.
    losses
        Names of the losses that fit it, the first one to be advised.
    archs
        Whether architectures of ours fit it; else the network is a factory's.
    has_accuracy
        Whether it counts labels that are predicted.
    """

    description: str
    losses: tuple[str, ...]
    archs: bool = True
    has_accuracy: bool = True


TASKS: dict[str, Task] = {
    CLASSIFICATION: Task(
        "inputs are images, or other numbers; a label is a class; the network returns scores (N, classes)",
        ("cross_entropy", "label_smoothing", "focal", "mse"),
    ),
    "regression": Task(
        "inputs are images, or other numbers; a label is one or more numbers; the network returns as many, "
        "(N, K), and there is no accuracy",
        ("mse",),
        has_accuracy=False,
    ),
    "tokens": Task(
        "inputs are token numbers (N, T); labels too, mostly the same ones, and -100 where none counts; the "
        "network returns scores (N, T, classes), those at a token for the next one; loss and accuracy are "
        "means over the tokens that count",
        ("cross_entropy",),
        archs=False,
    ),
    "segmentation": Task(
        "inputs are images, or other numbers (N, C, H, W); labels are a class a pixel (N, H, W), 255 for "
        "none; the network returns scores (N, classes, H, W); loss and accuracy are means over the pixels "
        "that count",
        ("cross_entropy",),
        archs=False,
    ),
}


def losses_of(task: str) -> str:
    """Return what may be written for the loss of a task, in words."""
    return f"write {', '.join(TASKS[task].losses)}, or factory: module:attribute for one of your own"


def said(task: str) -> dict[str, str]:
    """Return what files and keys say of a task: nothing of the usual one, as before there were others."""
    return {} if task == CLASSIFICATION else {"task": task}


def task_of(spec: Mapping[str, Any]) -> str:
    """Return the task of a data set by its entry, as `options.validate_dataset` returns it."""
    return str(spec.get("task", CLASSIFICATION))

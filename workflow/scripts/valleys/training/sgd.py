"""A cell's training by the paper's schedule of SWA, its cooldown and descent; the loop is `trainer`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from valleys.data.split import Split
from valleys.models import losses
from valleys.networks import copies
from valleys.storage import files
from valleys.storage.weights import save_weights
from valleys.training.evaluation import evaluate
from valleys.training.iterates import iterate_name
from valleys.training.schedule import cooldown_epochs, cooldown_rate, kept_epochs, learning_rate
from valleys.training.trainer import Trainer

START = "start.safetensors"
"""Name of the file with the weights that averaging begins with, beside the checkpoint."""


def train(
    model: nn.Module,
    splits: tuple[Split, Split],
    recipe: Mapping[str, Any],
    *,
    seed: int,
    state_dir: Path,
    checkpoint_every: int = 10,
    batch_size: int = 1000,
    keep_last: int | None = None,
    compiled: bool = False,
) -> list[dict[str, Any]]:
    """Train one cell; iterates of the averaging phase go to ``state_dir/iterates``.

    The weights after epoch ``swa.start``, with which averaging and cooldown begin, go to ``state_dir/START``.

    Parameters
    ----------
    model
        Freshly initialised; holds the final weights (the *last* solution) afterwards.
    splits
        Training and test images.
    recipe
        A checked recipe; see ``config.schema.yaml``.
    batch_size
        Images at a time in evaluation passes; has no part in the result but rounding.
    keep_last
        Write this many iterates, the last ones; ``None``: all of the averaging phase.
    compiled
        As in `Trainer`.

    Returns
    -------
    One row an epoch: ``epoch, phase, lr, train_loss, train_accuracy`` (seen while training, augmented) and
    ``test_loss, test_accuracy`` (every `eval_every` epochs, with the running BN statistics; else ``None``).

    Raises
    ------
    Stopped, ValleysError
        See `Trainer.run_epoch` and `Trainer.resume`.
    """
    train_split, test_split = splits
    loss = losses.build(recipe["loss"], train_split.task)
    begin = recipe["swa"]["start"]
    if begin == 0 and not (state_dir / START).exists():
        save_weights(state_dir / START, model.state_dict(), {"epoch": 0})
    keep = set(kept_epochs(recipe)[-keep_last:] if keep_last else kept_epochs(recipe))

    def after_epoch(epoch: int, row: dict[str, Any]) -> None:
        row["phase"] = "swa" if epoch > begin else "sgd"
        row["test_loss"] = row["test_accuracy"] = None
        if epoch % recipe["eval_every"] == 0 or epoch == recipe["epochs"]:
            row["test_loss"], row["test_accuracy"] = evaluate(model, test_split, loss, batch_size)
        if epoch == begin:
            save_weights(state_dir / START, model.state_dict(), {"epoch": epoch})
        if epoch in keep:
            save_weights(
                state_dir / "iterates" / iterate_name(epoch),
                model.state_dict(),
                {"epoch": epoch},
            )

    trainer = Trainer(
        model,
        train_split,
        recipe,
        seed=seed,
        state=state_dir / "checkpoint.pt",
        checkpoint_every=checkpoint_every,
        compiled=compiled,
    )
    trainer.run(recipe["epochs"], lambda epoch: learning_rate(epoch, recipe), after_epoch)
    return trainer.rows


def cool_down(
    model: nn.Module,
    splits: tuple[Split, Split],
    recipe: Mapping[str, Any],
    *,
    seed: int,
    state_dir: Path,
    checkpoint_every: int = 10,
    batch_size: int = 1000,
    compiled: bool = False,
) -> list[dict[str, Any]]:
    """Let the rate fall to nothing from where averaging begins: the *sgd* solution.

    So `sgd` and `swa` have the same start and, unless the recipe says otherwise, the same number of epochs
    after it. Momentum begins anew; the order of images is drawn from a stream of its own.

    Parameters
    ----------
    model
        Holds the weights after epoch ``swa.start`` (changed in place to the *sgd* solution).
    recipe
        A checked recipe; its ``cooldown`` may set the epochs and the first rate (`schedule.cooldown_rate`).
    batch_size, compiled, checkpoint_every
        As in `train`.

    Returns
    -------
    Rows as those of `train`, with ``phase="cooldown"`` and epochs counted on from ``swa.start``.

    Raises
    ------
    Stopped, ValleysError
        See `Trainer.run_epoch` and `Trainer.resume`.
    """
    train_split, test_split = splits
    loss = losses.build(recipe["loss"], train_split.task)
    begin, epochs = recipe["swa"]["start"], cooldown_epochs(recipe)

    def after_epoch(epoch: int, row: dict[str, Any]) -> None:
        row |= {"epoch": begin + epoch, "phase": "cooldown", "test_loss": None, "test_accuracy": None}
        if (begin + epoch) % recipe["eval_every"] == 0 or epoch == epochs:
            row["test_loss"], row["test_accuracy"] = evaluate(model, test_split, loss, batch_size)

    trainer = Trainer(
        model,
        train_split,
        {**recipe, "lr": cooldown_rate(0, recipe)},
        seed=files.stable_seed("cooldown", seed),
        state=state_dir / "checkpoint.pt",
        checkpoint_every=checkpoint_every,
        compiled=compiled,
    )
    trainer.run(epochs, lambda epoch: cooldown_rate(epoch, recipe), after_epoch)
    return trainer.rows


def descend(
    model: nn.Module,
    splits: tuple[Split, Split],
    recipe: Mapping[str, Any],
    *,
    seed: int,
    refresh: Callable[[nn.Module], None],
    state_dir: Path,
    checkpoint_every: int = 10,
    batch_size: int = 1000,
    compiled: bool = False,
) -> list[dict[str, Any]]:
    """Continue training from the SWA solution at a constant low rate (paper, section 3.2, "SGD after SWA").

    The number of epochs is fixed in advance: no epoch is chosen by its test loss. Each row records train
    and test loss with refreshed BN on the un-augmented sets, so that a reader can see where the train loss
    first falls below that of `swa` (epoch 0), and what the paper's own selection would have taken.

    Parameters
    ----------
    model
        Holds the SWA weights (changed in place to the *descent* solution).
    refresh
        Refreshes the BN statistics of the model it is given.
    compiled
        As in `Trainer`.

    Returns
    -------
    Rows ``epoch, phase="descent", lr, train_loss, train_accuracy, test_loss, test_accuracy``; epoch 0 is
    the SWA solution itself.
    """
    train_split, test_split = splits
    loss = losses.build(recipe["loss"], train_split.task)
    settings = recipe["descent"]

    def measure(row: dict[str, Any]) -> None:
        twin = copies.twin(model)  # the run's own running statistics stay as training left them
        refresh(twin)
        row["train_loss"], row["train_accuracy"] = evaluate(twin, train_split, loss, batch_size)
        row["test_loss"], row["test_accuracy"] = evaluate(twin, test_split, loss, batch_size)
        row["phase"] = "descent"

    trainer = Trainer(
        model,
        train_split,
        {**recipe, "lr": settings["lr"], "momentum": settings["momentum"]},
        seed=files.stable_seed("descent", seed),
        state=state_dir / "checkpoint.pt",
        checkpoint_every=checkpoint_every,
        compiled=compiled,
    )
    first: dict[str, Any] = {"epoch": 0, "lr": settings["lr"]}
    measure(first)
    trainer.rows = [first]
    trainer.run(settings["epochs"], lambda epoch: settings["lr"], lambda epoch, row: measure(row))
    return trainer.rows

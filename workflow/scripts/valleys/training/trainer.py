"""A loop that trains, saves itself, and ends the same when it was stopped on the way; no recipe here."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from valleys.data.augment import epoch_batches, ready_images
from valleys.data.split import Split
from valleys.errors import ValleysError
from valleys.models import losses
from valleys.models.compilation import forward_of
from valleys.models.precision import at_least_fp32, autocast
from valleys.networks.copies import evaluating
from valleys.storage import files
from valleys.storage.state import load_checkpoint, save_checkpoint
from valleys.training import optimisers
from valleys.training.signals import SignalFlag, Stopped

log = logging.getLogger("valleys")


class Trainer:
    """One run of an optimiser over a data set, with its checkpoint file.

    The random numbers of an epoch (permutation, then augmentation batch by batch) come from one CPU
    generator seeded by (seed, epoch), so that data order and augmentation do not depend on the device, on
    what ran before, or on how often the run was interrupted.

    Parameters
    ----------
    model, train_split
        The network and the training images, on one device. The model is trained in place.
    recipe
        ``lr, batch_size, loss, augment``, what its optimiser takes (`optimisers`) and, if it is not ``fp32``,
        ``precision`` (see ``config.schema.yaml``).
    seed
        Names the random stream of data order, augmentation and dropout.
    state
        Checkpoint file; ``None`` trains without.
    checkpoint_every
        Epochs between checkpoints.
    compiled
        Whether steps run the network compiled (`compilation.forward_of`).

    A last batch of one image, of which batch norm cannot take statistics where it has one value a channel,
    joins the batch before it.

    Raises
    ------
    ValleysError
        Where all batches are such, or the optimiser's options contradict each other.
    """

    def __init__(
        self,
        model: nn.Module,
        train_split: Split,
        recipe: Mapping[str, Any],
        *,
        seed: int,
        state: Path | None = None,
        checkpoint_every: int = 10,
        compiled: bool = False,
    ) -> None:
        self.model, self.split, self.recipe = model, train_split, recipe
        self.seed, self.state, self.checkpoint_every = seed, state, checkpoint_every
        self.forward = forward_of(model, compiled)
        self.loss = losses.PerImage(losses.build(recipe["loss"], train_split.task))
        self.factor = self.loss.factor([train_split.labels])
        self.counted = self.loss.counted(train_split.labels)
        self.precision = recipe.get("precision", "fp32")
        self.ready = ready_images(train_split, recipe["augment"])
        self.optimizer = optimisers.build(model.parameters(), recipe)
        self.batch_size = recipe["batch_size"]
        self.steps = math.ceil(len(train_split) / self.batch_size)
        self.joins_last = self._cannot_end_on_one()
        self.steps -= self.joins_last
        self.epoch, self.step = 0, 0
        self.rows: list[dict[str, Any]] = []
        self._epoch_start()

    @torch.no_grad()
    def _cannot_end_on_one(self) -> bool:
        """Whether the last batch is one image, of which batch norm can take no statistics.

        Tried on one; the model, its mode and the random state stay as they are.
        """
        images = len(self.split)
        if images - (self.steps - 1) * self.batch_size != 1:
            return False
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        with torch.random.fork_rng(devices=[]), evaluating(self.model):
            try:
                self.model.train()
                self.model(self.split.floats(slice(0, 1)))
                return False
            except ValueError as error:
                if "more than 1 value per channel" not in str(error):
                    raise
                if self.batch_size == 1 or images == 1:
                    raise ValleysError(
                        f"recipe.batch_size: {self.batch_size} of {images} training images makes batches of "
                        "one, of which batch norm can take no statistics; choose 2 or more"
                    ) from error
            finally:
                for name, buffer in self.model.named_buffers():
                    buffer.copy_(buffers[name])
        log.info("the last image of an epoch joins the batch before it: batch norm needs two or more")
        return True

    def _epoch_start(self) -> None:
        """Seed the epoch's randomness and draw its permutation."""
        device = self.split.device
        self.generator = torch.Generator().manual_seed(files.stable_seed("epoch", self.seed, self.epoch))
        self.permutation = torch.randperm(len(self.split), generator=self.generator)
        torch.manual_seed(files.stable_seed("dropout", self.seed, self.epoch))
        self.step_losses = torch.zeros(self.steps, dtype=torch.float64, device=device)
        self.hits = torch.zeros((), dtype=torch.float64, device=device)

    def run_epoch(self, lr: float, stop: SignalFlag) -> dict[str, float]:
        """Train to the end of the current epoch; return mean loss (nats) and accuracy seen while training.

        Raises
        ------
        Stopped
            When a signal arrived; the state of the step just done has been saved.
        ValleysError
            When a loss is not finite: says at which step, and what to lower.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.model.train()
        batches = epoch_batches(
            self.split,
            self.permutation,
            self.batch_size,
            self.generator,
            self.recipe["augment"],
            start=self.step,
            join_last=self.joins_last,
            ready=self.ready,
        )
        for images, labels in batches:
            with autocast(images.device, self.precision):
                logits = self.forward(images)
            each = self.loss(at_least_fp32(logits), labels)
            self.optimizer.zero_grad(set_to_none=True)
            self.loss.batch_mean(each, labels).backward()
            self.optimizer.step()
            with torch.no_grad():
                # Kept on the device: reading a value here would wait for the GPU at every step.
                self.step_losses[self.step] = each.sum(dtype=torch.float64)
                found = self.loss.hits(logits, labels)
                self.hits += math.nan if found is None else found
            self.step += 1
            if stop.received is not None:
                self._check_finite(lr)
                self.save()
                log.info("stopped by signal %d; state saved to %s", stop.received, self.state)
                raise Stopped(128 + stop.received)
        self._check_finite(lr)
        metrics = {
            "train_loss": float(self.step_losses.sum() / len(self.split)) * self.factor,
            "train_accuracy": float(self.hits) / self.counted,
        }
        self.epoch, self.step = self.epoch + 1, 0
        self._epoch_start()
        return metrics

    def _check_finite(self, lr: float) -> None:
        bad = (~torch.isfinite(self.step_losses[: self.step])).nonzero()
        if len(bad):
            raise ValleysError(
                f"training diverged: the loss is not finite at epoch {self.epoch + 1}, "
                f"step {int(bad[0]) + 1} of {self.steps} (lr {lr:g}); lower the recipe's lr "
                f"(now {self.recipe['lr']:g}) or swa.lr, or choose a norm"
            )

    def save(self) -> None:
        """Write all that decides the rest of the run: weights, momentum, position, random state."""
        if self.state is None:
            return
        save_checkpoint(
            self.state,
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "epoch": self.epoch,
                "step": self.step,
                "generator": self.generator.get_state(),
                "permutation": self.permutation,
                "dropout": torch.get_rng_state(),
                "dropout_cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
                "step_losses": self.step_losses,
                "hits": self.hits,
                "rows": self.rows,
            },
        )

    def resume(self) -> bool:
        """Restore the state saved last, if there is one; return whether there was.

        Raises
        ------
        ValleysError
            When the checkpoint is corrupt or belongs to another model.
        """
        if self.state is None or not self.state.exists():
            return False
        saved = load_checkpoint(self.state)
        try:
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.epoch, self.step, self.rows = saved["epoch"], saved["step"], saved["rows"]
            self.generator.set_state(saved["generator"])
            self.permutation = saved["permutation"]
            self.step_losses.copy_(saved["step_losses"])
            self.hits.copy_(saved["hits"])
            torch.set_rng_state(saved["dropout"])
            if saved["dropout_cuda"] is not None and torch.cuda.is_available():
                torch.cuda.set_rng_state(saved["dropout_cuda"])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise ValleysError(
                f"checkpoint {self.state} does not fit this run ({reason}); delete it to train from the start"
            ) from error
        log.info("resumed from %s at epoch %d, step %d", self.state, self.epoch + 1, self.step)
        return True

    def run(
        self,
        epochs: int,
        rate: Callable[[int], float],
        after_epoch: Callable[[int, dict[str, Any]], None],
    ) -> None:
        """Train until `epochs` epochs are done, resuming if there is a checkpoint.

        ``after_epoch(epoch, row)`` is called after each 1-based epoch, may add to the row, and runs again
        for an epoch that is repeated after a kill: it must be idempotent.
        """
        self.resume()
        with SignalFlag() as stop:
            while self.epoch < epochs:
                lr = rate(self.epoch)
                row: dict[str, Any] = {"epoch": self.epoch + 1, "lr": lr}
                row.update(self.run_epoch(lr, stop))
                after_epoch(self.epoch, row)
                self.rows.append(row)
                log.info("%s", _progress(row, epochs + row["epoch"] - self.epoch))  # which may count on
                if self.epoch % self.checkpoint_every == 0 or stop.received is not None:
                    self.save()
                if stop.received is not None and self.epoch < epochs:
                    log.info("stopped by signal %d after epoch %d", stop.received, self.epoch)
                    raise Stopped(128 + stop.received)


def _progress(row: Mapping[str, Any], epochs: int) -> str:
    text = f"epoch {row['epoch']}/{epochs}  lr {row['lr']:.4g}  train loss {row['train_loss']:.4f}"
    text += f" acc {row['train_accuracy']:.4f}"
    if row.get("test_loss") is not None:
        text += f"  test loss {row['test_loss']:.4f} acc {row['test_accuracy']:.4f}"
    return text


def state_folder(cell: str | Path, stage: str, key: object) -> Path:
    """Return where a stage keeps resumable state: beside the outputs, but no declared output.

    Snakemake deletes a job's declared outputs before it runs the job again, so state must live elsewhere;
    `key` (everything that decides the result) is part of the name, so another recipe never resumes from it.
    """
    # `stage` may have two names of the config in it, and a file system allows 255 bytes; the key decides.
    return Path(cell) / "state" / f"{stage[:200]}-{files.fingerprint(key)}"

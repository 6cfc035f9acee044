"""The cooldown: where it begins, against a plain loop, and when it is stopped and resumed."""

import os
import signal

import pytest
import torch
from small_training import RECIPE, cool, fresh, make_split, same, train
from torch import nn
from valleys.data.augment import epoch_batches
from valleys.errors import ValleysError
from valleys.models import losses
from valleys.storage import files
from valleys.storage.weights import load_weights
from valleys.training import sgd
from valleys.training.evaluation import evaluate
from valleys.training.signals import Stopped
from valleys.training.trainer import Trainer


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """The weights after epoch 3 of a training of six epochs."""
    folder = tmp_path_factory.mktemp("trained")
    train(folder)
    return load_weights(folder / sgd.START, ours=True)[0]


def test_it_begins_with_the_weights_after_swa_start(tmp_path, start):
    recipe = RECIPE | {"eval_every": 3}
    kept = recipe | {"epochs": 4, "swa": RECIPE["swa"] | {"start": 3}}
    train(tmp_path / "four", kept)
    assert same(load_weights(tmp_path / "four" / sgd.START, ours=True)[0], start)
    # One epoch less of averaging's start keeps as an iterate what is the start here.
    shorter = recipe | {"swa": RECIPE["swa"] | {"start": 3, "every": 3}}
    weights, _ = train(tmp_path / "every", shorter)
    assert same(load_weights(tmp_path / "every" / sgd.START, ours=True)[0], start)
    assert not same(weights, start)


def test_with_start_0_it_begins_with_the_initial_weights(tmp_path):
    recipe = RECIPE | {"epochs": 2, "swa": RECIPE["swa"] | {"start": 0}}
    weights, _ = train(tmp_path, recipe)
    begun = load_weights(tmp_path / sgd.START, ours=True)[0]
    assert same(begun, fresh().state_dict())
    assert not same(begun, weights)
    # A run that goes on from its checkpoint keeps them.
    train(tmp_path, recipe)
    assert same(load_weights(tmp_path / sgd.START, ours=True)[0], begun)


def test_one_epoch_equals_a_plain_loop_with_fresh_momentum_and_its_own_order(tmp_path, start):
    recipe = RECIPE | {"cooldown": {"epochs": 1, "lr": 0.06}}
    cooled, (row,) = cool(tmp_path, start, recipe)
    model, split = fresh(), make_split(72)
    model.load_state_dict(start)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9, weight_decay=5e-4)
    generator = torch.Generator().manual_seed(files.stable_seed("epoch", files.stable_seed("cooldown", 0), 0))
    order = torch.randperm(72, generator=generator)
    for x, y in epoch_batches(split, order, 16, generator, RECIPE["augment"]):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert same(cooled, model.state_dict())
    assert (row["epoch"], row["phase"], row["lr"]) == (4, "cooldown", pytest.approx(0.03))
    model.eval()
    loss = losses.build({"name": "cross_entropy"})
    assert row["test_loss"] == pytest.approx(evaluate(model, make_split(40, 1), loss)[0], rel=1e-6)


def test_rows_count_on_from_the_start_and_end_with_a_test_loss(tmp_path, start, caplog):
    caplog.set_level("INFO", "valleys")
    _, rows = cool(tmp_path, start)
    told = [message.split()[1] for message in caplog.messages if message.startswith("epoch ")]
    assert told == ["4/6", "5/6", "6/6"]
    assert [row["epoch"] for row in rows] == [4, 5, 6]
    assert {row["phase"] for row in rows} == {"cooldown"}
    assert [row["lr"] for row in rows] == pytest.approx([0.05 * (1 - x / 6) for x in (1, 3, 5)])
    assert [row["test_loss"] is not None for row in rows] == [True, False, True]
    assert [row["test_accuracy"] is not None for row in rows] == [True, False, True]
    _, rows = cool(tmp_path / "longer", start, RECIPE | {"cooldown": {"epochs": 4, "lr": None}})
    assert [row["epoch"] for row in rows] == [4, 5, 6, 7]
    assert rows[-1]["test_loss"] is not None  # the last, also where eval_every does not ask for it


def test_it_does_not_depend_on_averaging(tmp_path, start):
    """Neither on how often iterates are kept, nor on the epochs where the cooldown has its own."""
    own = RECIPE | {"cooldown": {"epochs": 2, "lr": None}}
    first, rows = cool(tmp_path / "a", start, own)
    other = own | {"epochs": 40, "swa": RECIPE["swa"] | {"every": 2, "window": 1}}
    second, again = cool(tmp_path / "b", start, other)
    assert same(first, second)
    assert again == rows


@pytest.mark.parametrize("every", [1, 10])
@pytest.mark.parametrize("at_step", range(1, 16))
def test_stopped_at_any_step_it_resumes_bit_identical(tmp_path, monkeypatch, start, at_step, every):
    whole, rows = cool(tmp_path / "whole", start)
    steps, step = 0, torch.optim.SGD.step

    def counted(self, *args, **kwargs):
        nonlocal steps
        steps += 1
        if steps == at_step:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", counted)
    with pytest.raises(Stopped):
        cool(tmp_path / "stopped", start, checkpoint_every=every)
    assert steps < 16  # of 15, and not all over again
    weights, again = cool(tmp_path / "stopped", start, checkpoint_every=every)
    assert same(whole, weights)
    assert again == rows


def test_a_stop_in_training_leaves_the_start_as_it_was(tmp_path, monkeypatch, start):
    """Stopped in the first epoch after swa.start: that checkpoint is past where the start is written."""
    steps, step = 0, Trainer.run_epoch

    def counted(self, *args, **kwargs):
        nonlocal steps
        steps += 1
        if steps == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "run_epoch", counted)
        with pytest.raises(Stopped):
            train(tmp_path)
    train(tmp_path)
    assert same(load_weights(tmp_path / sgd.START, ours=True)[0], start)


def test_divergence_says_where_and_what_to_lower(tmp_path, start):
    with pytest.raises(ValleysError, match=r"not finite at epoch \d+, step \d+ of 5 "):
        cool(tmp_path, start, RECIPE | {"cooldown": {"epochs": 3, "lr": 1e30}, "momentum": 0.99})

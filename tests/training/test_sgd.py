"""Training against a plain loop, and runs that are killed and resumed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from small_training import RECIPE, SPEC, fresh, make_split, same, train
from torch import nn
from valleys.data.augment import epoch_batches
from valleys.errors import ValleysError
from valleys.models import losses, solutions
from valleys.networks.bn_refresh import refresh_bn
from valleys.storage import files
from valleys.storage.weights import load_weights
from valleys.training import sgd
from valleys.training.evaluation import evaluate
from valleys.training.signals import Stopped

SCRIPTS = Path(__file__).parents[2] / "workflow" / "scripts"


def test_one_epoch_equals_a_plain_loop(tmp_path):
    recipe = {**RECIPE, "epochs": 1, "swa": {"start": 0, "lr": 0.1, "every": 1}}
    trained, rows = train(tmp_path, recipe)
    model, split = fresh(), make_split(72)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    generator = torch.Generator().manual_seed(files.stable_seed("epoch", 0, 0))
    order = torch.randperm(72, generator=generator)
    total = 0.0
    for x, y in epoch_batches(split, order, 16, generator, RECIPE["augment"]):
        loss = nn.functional.cross_entropy(model(x), y)
        total += loss.item() * len(y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert same(trained, model.state_dict())
    assert rows[0]["train_loss"] == pytest.approx(total / 72, rel=1e-6)


def test_it_learns_and_reports(tmp_path):
    weights, rows = train(tmp_path)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["phase"] for row in rows] == ["sgd"] * 3 + ["swa"] * 3
    assert [row["test_loss"] is not None for row in rows] == [False, True, False, True, False, True]
    assert rows[-1]["train_loss"] < 0.9 * rows[0]["train_loss"]
    kept = sorted(p.name for p in (tmp_path / "iterates").iterdir())
    assert kept == [f"epoch-0000{e}.safetensors" for e in (4, 5, 6)]
    assert same(load_weights(tmp_path / "iterates" / kept[-1])[0], weights)


@pytest.mark.slow
def test_training_depends_on_the_seed_and_on_nothing_else(tmp_path):
    first, _ = train(tmp_path / "a")
    torch.manual_seed(99)
    torch.rand(5)
    second, _ = train(tmp_path / "b", checkpoint_every=1)
    assert same(first, second)
    other = solutions.fresh(SPEC, (1, 8, 8), 4, seed=0)
    sgd.train(other, (make_split(72), make_split(40, 1)), RECIPE, seed=1, state_dir=tmp_path / "c")
    assert not same(first, other.state_dict())


@pytest.mark.parametrize("at_step", [1, 5, 7, 13, 22])
def test_resume_in_mid_epoch_is_bit_identical(tmp_path, monkeypatch, at_step):
    whole, rows = train(tmp_path / "whole")
    steps = 0
    step = torch.optim.SGD.step

    def counted(self, *args, **kwargs):
        nonlocal steps
        steps += 1
        if steps == at_step:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", counted)
    with pytest.raises(Stopped) as stopped:
        train(tmp_path / "killed")
    assert stopped.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    weights, again = train(tmp_path / "killed")
    assert same(whole, weights)
    assert again == rows
    for path in (tmp_path / "whole" / "iterates").iterdir():
        assert path.read_bytes() == (tmp_path / "killed" / "iterates" / path.name).read_bytes()


RUN = """
import json, sys
sys.path[:0] = [{scripts!r}, {tests!r}]
import torch
torch.set_num_threads(1)
import small_training
from pathlib import Path
recipe = {{**small_training.RECIPE, "epochs": 30, "swa": {{"start": 15, "lr": 0.05, "every": 1}}}}
weights, rows = small_training.train(Path({state!r}), recipe, checkpoint_every=2)
from valleys.storage.weights import save_weights
save_weights({out!r}, weights)
"""


def run_process(state, out):
    code = RUN.format(
        scripts=str(SCRIPTS), tests=str(Path(__file__).parents[1]), state=str(state), out=str(out)
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.slow
@pytest.mark.long
def test_a_real_run_killed_twice_ends_bit_identical(tmp_path):
    """SIGKILL a real process, and SIGTERM the next, before one gets through."""
    undisturbed = run_process(tmp_path / "a", tmp_path / "a.safetensors")
    assert undisturbed.wait(120) == 0, undisturbed.stdout.read().decode()
    checkpoint = tmp_path / "b" / "checkpoint.pt"
    for kills, signal_number in enumerate((signal.SIGKILL, signal.SIGTERM)):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        process = run_process(tmp_path / "b", tmp_path / "b.safetensors")
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            # Kill once it has got further than the last time, or the run would never end.
            if checkpoint.exists() and checkpoint.stat().st_mtime_ns != before:
                time.sleep(0.02 * (kills + 1))
                process.send_signal(signal_number)
                break
            time.sleep(0.005)
        code = process.wait(60)
        assert code in (-signal.SIGKILL, 128 + signal.SIGTERM), process.stdout.read().decode()
        assert not (tmp_path / "b.safetensors").exists()
    final = run_process(tmp_path / "b", tmp_path / "b.safetensors")
    assert final.wait(120) == 0, final.stdout.read().decode()
    a, _ = load_weights(tmp_path / "a.safetensors")
    b, _ = load_weights(tmp_path / "b.safetensors")
    assert same(a, b)


def test_divergence_says_where_and_what_to_lower(tmp_path):
    recipe = {**RECIPE, "lr": 1e18}
    model = solutions.fresh({**SPEC, "norm": "none"}, (1, 8, 8), 4, seed=0)
    with pytest.raises(ValleysError, match=r"not finite at epoch \d+, step \d+ of 5 .*lower the recipe's lr"):
        sgd.train(model, (make_split(72), make_split(40, 1)), recipe, seed=0, state_dir=tmp_path)
    assert not list(tmp_path.rglob("*.pt"))


def test_descent_lowers_the_train_loss_and_keeps_all_epochs(tmp_path):
    train(tmp_path / "train")
    swa = fresh()
    swa.load_state_dict(load_weights(tmp_path / "train" / "iterates" / "epoch-00006.safetensors")[0])
    splits = make_split(72), make_split(40, 1)

    def refresh(net):
        refresh_bn(net, splits[0].batches(50))

    refresh(swa)
    rows = sgd.descend(
        swa, splits, RECIPE, seed=0, refresh=refresh, state_dir=tmp_path / "d", checkpoint_every=1
    )
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert {row["phase"] for row in rows} == {"descent"}
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    refresh(swa)
    loss = losses.build({"name": "cross_entropy"})
    assert evaluate(swa, splits[0], loss)[0] == pytest.approx(rows[-1]["train_loss"], rel=1e-5)
    # A finished descent that is run again resumes at its end and changes nothing.
    again = sgd.descend(
        fresh(), splits, RECIPE, seed=0, refresh=refresh, state_dir=tmp_path / "d", checkpoint_every=1
    )
    assert again == rows


def test_a_tiny_runs_losses_are_pinned(tmp_path):
    """A change of schedule, order, augmentation or initial weights moves these by far more.

    Other instruction sets and thread counts move them by 1e-6 of their value.
    """
    _, rows = train(tmp_path)
    assert rows[-1]["train_loss"] == pytest.approx(1.202695, rel=1e-4)
    assert rows[-1]["test_loss"] == pytest.approx(1.154067, rel=1e-4)
    _, again = train(tmp_path / "again")
    assert again == rows  # to the bit, with the thread count the same

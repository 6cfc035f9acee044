"""The training loop against a plain one, its schedule, and runs that are killed and resumed."""

import itertools
import json
import math
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
from valleys.networks import tensors
from valleys.networks.bn_refresh import refresh_bn
from valleys.storage import files
from valleys.storage.state import save_checkpoint
from valleys.storage.weights import load_weights
from valleys.training import sgd
from valleys.training.evaluation import evaluate
from valleys.training.iterates import DROPPED, iterate_files, note_dropped
from valleys.training.schedule import kept_epochs, learning_rate
from valleys.training.trainer import Stopped, Trainer, _SignalFlag, state_folder

SCRIPTS = Path(__file__).parents[2] / "workflow" / "scripts"


def test_schedule_of_izmailov_et_al():
    recipe = {"lr": 0.1, "swa": {"start": 100, "lr": 0.05}}
    rates = [learning_rate(e, recipe) for e in range(150)]
    assert rates[:51] == [0.1] * 51
    assert rates[90:] == [0.05] * 60
    assert rates[70] == pytest.approx(0.075)
    assert all(a >= b for a, b in itertools.pairwise(rates))
    # A constant rate above lr in the averaging phase is allowed too.
    assert learning_rate(99, {"lr": 0.01, "swa": {"start": 100, "lr": 0.05}}) == 0.05


@pytest.mark.parametrize(
    ("start", "every", "epochs", "kept"),
    [(3, 1, 6, [4, 5, 6]), (0, 2, 6, [2, 4, 6]), (3, 2, 6, [5]), (5, 1, 6, [6])],
)
def test_kept_epochs(start, every, epochs, kept):
    assert kept_epochs({"epochs": epochs, "swa": {"start": start, "every": every}}) == kept


def vector_net(norm=nn.BatchNorm1d):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), norm(8), nn.ReLU(), nn.Linear(8, 4))


@pytest.mark.parametrize(("images", "batch"), [(1, 16), (5, 1)])
def test_batches_of_one_are_refused_where_batch_norm_has_one_value(images, batch):
    recipe, split, net = {**RECIPE, "batch_size": batch}, make_split(images), vector_net()
    with pytest.raises(ValleysError, match=f"batch_size: {batch} of {images} training images"):
        Trainer(net, split, recipe, seed=0)
    for other in (vector_net(nn.LayerNorm), fresh()):  # no batch norm; batch norm of pixels
        Trainer(other, split, recipe, seed=0).run(1, lambda epoch: 0.01, lambda epoch, row: None)


def test_nesterov_without_momentum_is_refused():
    recipe = {**RECIPE, "nesterov": True}
    Trainer(fresh(), make_split(40), recipe, seed=0)
    with pytest.raises(ValleysError, match="nesterov: needs momentum above 0"):
        Trainer(fresh(), make_split(40), {**recipe, "momentum": 0}, seed=0)


def test_a_last_image_joins_the_batch_before_it_where_batch_norm_needs_it(tmp_path):
    split, net = make_split(65), vector_net().eval()
    net[2].train()
    before, state = {n: t.clone() for n, t in net.state_dict().items()}, torch.get_rng_state()
    trainer = Trainer(net, split, {**RECIPE, "augment": None}, seed=0)
    assert same(net.state_dict(), before)  # nothing but what training changes
    assert [m.training for m in net] == [False, False, True, False, False]
    sizes = []
    net.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0])))
    trainer.run(2, lambda epoch: 0.01, lambda epoch, row: None)
    assert sizes == [16, 16, 16, 17] * 2
    assert (trainer.steps, len(trainer.step_losses)) == (4, 4)
    assert trainer.rows[0]["train_accuracy"] <= 1
    torch.set_rng_state(state)
    for other in (vector_net(nn.LayerNorm), fresh()):  # as it always was
        assert Trainer(other, split, RECIPE, seed=0).steps == 5
    assert Trainer(vector_net(), make_split(66), RECIPE, seed=0).steps == 5


@pytest.mark.parametrize("stop_at", [1, 3, 4])
def test_a_run_with_a_joined_batch_resumes_to_the_same_bits(tmp_path, stop_at):
    def run(name, stop=None):
        net = vector_net()
        trainer = Trainer(net, make_split(65), RECIPE, seed=0, state=tmp_path / name)
        steps = itertools.count(1)

        def after_step(module, given):
            if net.training and next(steps) == stop:
                os.kill(os.getpid(), signal.SIGTERM)

        if stop:
            net.register_forward_pre_hook(after_step)
        trainer.run(2, lambda epoch: 0.01, lambda epoch, row: None)
        return net.state_dict()

    whole = run("whole")
    with pytest.raises(Stopped):
        run("cut", stop_at)
    assert same(run("cut"), whole)


def test_evaluation_leaves_every_module_in_its_mode():
    net = fresh().train()
    frozen = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)][1].eval()
    evaluate(net, make_split(9), losses.build({"name": "cross_entropy"}))
    assert [m for m in net.modules() if not m.training] == [frozen]


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


def test_bf16_rounds_the_passes_and_not_the_weights():
    found = {}
    for precision in ("fp32", "bf16"):
        model = fresh()
        trainer = Trainer(model, make_split(72), {**RECIPE, "precision": precision}, seed=1)
        metrics = trainer.run_epoch(0.05, _SignalFlag())
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert {p.grad.dtype for p in model.parameters()} == {torch.float32}
        found[precision] = metrics["train_loss"]
    assert found["bf16"] != found["fp32"]
    assert found["bf16"] == pytest.approx(found["fp32"], rel=0.02)


def test_it_learns_and_reports(tmp_path):
    weights, rows = train(tmp_path)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["phase"] for row in rows] == ["sgd"] * 3 + ["swa"] * 3
    assert [row["test_loss"] is not None for row in rows] == [False, True, False, True, False, True]
    assert rows[-1]["train_loss"] < 0.9 * rows[0]["train_loss"]
    kept = sorted(p.name for p in (tmp_path / "iterates").iterdir())
    assert kept == [f"epoch-0000{e}.safetensors" for e in (4, 5, 6)]
    assert same(load_weights(tmp_path / "iterates" / kept[-1])[0], weights)


def test_training_depends_on_the_seed_and_on_nothing_else(tmp_path):
    first, _ = train(tmp_path / "a")
    torch.manual_seed(99)
    torch.rand(5)
    second, _ = train(tmp_path / "b", checkpoint_every=1)
    assert same(first, second)
    other = solutions.fresh(SPEC, (1, 8, 8), 4, seed=0)
    sgd.train(other, (make_split(72), make_split(40, 1)), RECIPE, seed=1, state_dir=tmp_path / "c")
    assert not same(first, other.state_dict())


class Interrupt(Exception):
    pass


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


def test_checkpoint_errors_name_the_file(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(ValleysError, match=r"checkpoint .*checkpoint.pt is corrupt.*delete it"):
        train(tmp_path)
    save_checkpoint(tmp_path / "checkpoint.pt", {"model": {}, "optimizer": {}})
    with pytest.raises(ValleysError, match="does not fit this run"):
        train(tmp_path)


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


def test_evaluate_accumulates_in_float64_and_keeps_the_mode():
    model, split = fresh().train(), make_split(40)
    loss = losses.build({"name": "cross_entropy"})
    value, accuracy = evaluate(model, split, loss, batch_size=7)
    assert model.training
    model.eval()
    with torch.no_grad():
        logits = model(split.floats(slice(None)))
        expected = nn.functional.cross_entropy(logits.double(), split.labels).item()
    assert value == pytest.approx(expected, rel=1e-6)
    assert accuracy == (logits.argmax(1) == split.labels).float().mean().item()


def test_state_folder_is_keyed_by_what_decides_the_result(tmp_path):
    a, b = state_folder(tmp_path, "train", {"lr": 1}), state_folder(tmp_path, "train", {"lr": 2})
    assert a != b
    assert a == state_folder(tmp_path, "train", json.loads('{"lr": 1}'))


def test_vector_norm():
    assert tensors.vector_norm({"a": torch.tensor([3.0]), "b": torch.tensor([[4.0]])}) == 5.0
    assert math.isclose(tensors.vector_norm({"a": torch.full((10**6,), 1e-3)}), 1.0, rel_tol=1e-6)


SHORT = {"epochs": 10, "swa": {"start": 4, "every": 2}}


def test_iterates_of_the_window_are_found(tmp_path):
    for epoch in (6, 8, 10):
        (tmp_path / f"epoch-{epoch:05d}.safetensors").write_text("")
    note_dropped(tmp_path, SHORT)
    assert not (tmp_path / DROPPED).exists()
    assert [path.stem for path in iterate_files(tmp_path, None)] == [
        "epoch-00006",
        "epoch-00008",
        "epoch-00010",
    ]
    assert [path.stem for path in iterate_files(tmp_path, 2)] == ["epoch-00008", "epoch-00010"]


def test_thinned_iterates_say_so_when_more_are_wanted(tmp_path):
    for epoch in (8, 10):
        (tmp_path / f"epoch-{epoch:05d}.safetensors").write_text("")
    note_dropped(tmp_path, SHORT)
    assert len(iterate_files(tmp_path, 2)) == 2
    for window, wanted in ((3, "3"), (None, "all")):
        with pytest.raises(ValleysError, match=rf"keeps the last 2 iterates .* and {wanted} are wanted"):
            iterate_files(tmp_path, window)


def test_a_lost_iterate_is_no_smaller_average(tmp_path):
    folder = tmp_path / "iterates"
    folder.mkdir()
    for epoch in (6, 8, 10):
        (folder / f"epoch-{epoch:05d}.safetensors").write_text("")
    epochs = kept_epochs(SHORT)
    assert len(iterate_files(folder, None, epochs)) == 3
    (folder / "epoch-00008.safetensors").unlink()
    for window in (None, 2, 3):
        with pytest.raises(ValleysError, match=r"lacks epoch-00008.safetensors; delete the folder") as caught:
            iterate_files(folder, window, epochs)
        assert str(folder) in str(caught.value)
    assert len(iterate_files(folder, 1, epochs)) == 1


def test_a_tiny_runs_losses_are_pinned(tmp_path):
    """A change of schedule, order, augmentation or initial weights moves these by far more.

    Other instruction sets and thread counts move them by 1e-6 of their value.
    """
    _, rows = train(tmp_path)
    assert rows[-1]["train_loss"] == pytest.approx(1.202695, rel=1e-4)
    assert rows[-1]["test_loss"] == pytest.approx(1.154067, rel=1e-4)
    _, again = train(tmp_path / "again")
    assert again == rows  # to the bit, with the thread count the same

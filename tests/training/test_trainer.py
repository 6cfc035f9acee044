"""The loop: last batches, precision, checkpoints."""

import itertools
import json
import os
import signal

import pytest
import torch
from small_training import RECIPE, fresh, make_split, same, train
from torch import nn
from valleys.data import augment as augmentation
from valleys.errors import ValleysError
from valleys.storage.state import save_checkpoint
from valleys.training.signals import SignalFlag, Stopped
from valleys.training.trainer import Trainer, state_folder


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


def test_bf16_rounds_the_passes_and_not_the_weights():
    found = {}
    for precision in ("fp32", "bf16"):
        model = fresh()
        trainer = Trainer(model, make_split(72), {**RECIPE, "precision": precision}, seed=1)
        metrics = trainer.run_epoch(0.05, SignalFlag())
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert {p.grad.dtype for p in model.parameters()} == {torch.float32}
        found[precision] = metrics["train_loss"]
    assert found["bf16"] != found["fp32"]
    assert found["bf16"] == pytest.approx(found["fp32"], rel=0.02)


def test_checkpoint_errors_name_the_file(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(ValleysError, match=r"checkpoint .*checkpoint.pt is corrupt.*delete it"):
        train(tmp_path)
    save_checkpoint(tmp_path / "checkpoint.pt", {"model": {}, "optimizer": {}})
    with pytest.raises(ValleysError, match="does not fit this run"):
        train(tmp_path)


def test_state_folder_is_keyed_by_what_decides_the_result(tmp_path):
    a, b = state_folder(tmp_path, "train", {"lr": 1}), state_folder(tmp_path, "train", {"lr": 2})
    assert a != b
    assert a == state_folder(tmp_path, "train", json.loads('{"lr": 1}'))


@pytest.mark.parametrize("augment", [None, {"shift": 0, "flip": False, "pad_mode": "zero"}])
def test_images_that_are_ready_train_to_the_same_bits(augment, monkeypatch):
    """Those that are not augmented are normalised once; a batch has the numbers of one made for itself."""
    recipe, ends = {**RECIPE, "augment": augment}, []
    for most in (augmentation.READY_BYTES, 0):
        monkeypatch.setattr(augmentation, "READY_BYTES", most)
        net = fresh()
        run = Trainer(net, make_split(70), recipe, seed=0)
        assert (run.ready is None) == (most == 0)
        run.run(2, lambda epoch: 0.05, lambda epoch, row: None)
        ends.append(({n: t.clone() for n, t in net.state_dict().items()}, run.rows))
    assert same(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]
    assert Trainer(fresh(), make_split(70), RECIPE, seed=0).ready is None  # images are shifted and mirrored

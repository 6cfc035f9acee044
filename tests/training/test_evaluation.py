"""Loss and accuracy on a split, in float64."""

import pytest
import torch
from small_training import fresh, make_split
from torch import nn
from valleys.models import losses
from valleys.training.evaluation import evaluate


def test_evaluation_leaves_every_module_in_its_mode():
    net = fresh().train()
    frozen = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)][1].eval()
    evaluate(net, make_split(9), losses.build({"name": "cross_entropy"}))
    assert [m for m in net.modules() if not m.training] == [frozen]


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

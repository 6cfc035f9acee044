"""Networks and losses of other tasks: against torch's own losses, and what is refused."""

import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from valleys.data.split import Split
from valleys.data.tasks import IGNORED
from valleys.errors import ValleysError
from valleys.landscape.evaluator import Evaluator
from valleys.models import builder, losses, solutions
from valleys.storage.weights import load_weights
from valleys.training.evaluation import evaluate
from valleys.training.trainer import Trainer

NETS = """
import torch
from torch import nn

class Texts(nn.Module):
    def __init__(self, tokens, width=6):
        super().__init__()
        self.embed, self.head = nn.Embedding(tokens, width), nn.Linear(width, tokens)

    def forward(self, ids):
        return self.head(self.embed(ids).cumsum(1))

def texts(vocab_size, width=6):
    return Texts(vocab_size, width)

class Tied(Texts):
    def __init__(self, tokens):
        super().__init__(tokens)
        self.head.weight = self.embed.weight

def tied(vocab_size):
    return Tied(vocab_size)

class Masks(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, classes, 3, padding=1), nn.BatchNorm2d(classes)

    def forward(self, x):
        return {"out": self.norm(self.conv(x)), "features": x}

def masks(in_chans, num_classes):
    return Masks(in_chans, num_classes)

def line(in_features, out_features):
    return nn.Linear(in_features, out_features)

def flat(in_features):
    return nn.Sequential(nn.Linear(in_features, 1), nn.Flatten(0))

def wrong(in_features):
    return nn.Linear(in_features, 7)

def robust(delta=1.0):
    loss = nn.HuberLoss(reduction="none", delta=delta)
    return lambda outputs, labels: loss(outputs, labels).mean(1)

def weighted(scale=1.0):
    return nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 4.0]) * scale)

def nothing():
    return 3
"""
GENERATOR = torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def nets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "nets_of_tasks.py").write_text(NETS)
    yield
    sys.modules.pop("nets_of_tasks", None)


def own(name, **kwargs):
    return {"factory": f"nets_of_tasks:{name}", "kwargs": kwargs}


def tokens(n=23, length=7, padded=True):
    ids = torch.randint(0, 5, (n, length), generator=GENERATOR)
    labels = ids.clone()
    if padded:
        for row, ends in enumerate(torch.randint(2, length + 1, (n,), generator=GENERATOR)):
            labels[row, ends:] = -100
    return Split(ids, labels, 5, (), (), "tokens")


def masks(n=12):
    images = torch.randint(0, 256, (n, 2, 6, 5), generator=GENERATOR).to(torch.uint8)
    labels = torch.randint(0, 3, (n, 6, 5), generator=GENERATOR)
    labels[torch.rand(labels.shape, generator=GENERATOR) < 0.3] = 255
    return Split(images, labels, 3, (0.4, 0.6), (0.2, 0.3), "segmentation")


def numbers(n=30, outputs=2):
    x, y = torch.randn(n, 4, generator=GENERATOR), torch.randn(n, outputs, generator=GENERATOR)
    return Split(x, y, outputs, (0.0,) * 4, (1.0,) * 4, "regression")


def of_torch(split, outputs):
    """Loss and accuracy of a whole set, as torch has them."""
    y = split.labels
    if split.task == "regression":
        return float(F.mse_loss(outputs, y)), float("nan")
    scores = outputs[:, :-1].transpose(1, 2) if split.task == "tokens" else outputs
    wanted = y[:, 1:] if split.task == "tokens" else y
    ignored = -100 if split.task == "tokens" else 255
    known = wanted != ignored
    right = (scores.argmax(1) == wanted)[known].float().mean()
    return float(F.cross_entropy(scores, wanted, ignore_index=ignored)), float(right)


CASES = {"tokens": (tokens, "texts"), "segmentation": (masks, "masks"), "regression": (numbers, "line")}


def made(task):
    make, network = CASES[task]
    split = make()
    name = "mse" if task == "regression" else "cross_entropy"
    model = solutions.fresh(own(network), *split.kind, seed=1).eval()
    return split, model, losses.build({"name": name}, task)


@pytest.mark.parametrize("task", CASES)
@pytest.mark.parametrize("batch_size", [1000, 5, 1])
def test_the_loss_of_a_set_is_torchs_however_it_is_cut(task, batch_size):
    split, model, loss = made(task)
    with torch.no_grad():
        expected = of_torch(split, model(split.floats(slice(None))))
    assert evaluate(model, split, loss, batch_size) == pytest.approx(expected, rel=1e-6, nan_ok=True)
    found = Evaluator(model, split, split, loss, bn="frozen", batch_size=batch_size).point()
    assert (found.train_loss, found.train_accuracy) == pytest.approx(expected, rel=1e-6, nan_ok=True)
    assert (found.test_loss, found.test_accuracy) == pytest.approx(expected, rel=1e-6, nan_ok=True)


@pytest.mark.parametrize("task", CASES)
def test_a_step_of_training_is_that_of_torchs_loss(task):
    """One epoch of two batches: the same weights as a plain loop, and the loss and accuracy that it saw."""
    split, model, _ = made(task)
    name = "mse" if task == "regression" else "cross_entropy"
    recipe = {"lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 0.01, "batch_size": 6}
    recipe |= {"loss": {"name": name}, "augment": None}
    plain = solutions.fresh(own(CASES[task][1]), *split.kind, seed=1)
    trainer = Trainer(model, split, recipe, seed=3)
    order = trainer.permutation.clone()
    trainer.run(1, lambda epoch: 0.1, lambda epoch, row: None)
    sgd = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    total, right, counted = 0.0, 0.0, 0
    for rows in order.split(6):
        part = Split(split.images[rows], split.labels[rows], *split.kind[1:2], split.mean, split.std, task)
        outputs = plain(part.floats(slice(None)))
        loss, accuracy = of_torch(part, outputs.detach())
        sgd.zero_grad()
        scores = outputs[:, :-1].transpose(1, 2) if task == "tokens" else outputs
        wanted = part.labels[:, 1:] if task == "tokens" else part.labels
        of = {"regression": F.mse_loss}.get(task, F.cross_entropy)
        of(scores, wanted, **({} if task == "regression" else {"ignore_index": IGNORED[task]})).backward()
        sgd.step()
        known = len(part) if task == "regression" else int(((wanted != -100) & (wanted != 255)).sum())
        total, counted = total + float(loss) * known, counted + known
        right += float(accuracy) * known
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-5, atol=1e-6)
    row = trainer.rows[0]
    assert row["train_loss"] == pytest.approx(total / counted, rel=1e-5)
    assert row["train_accuracy"] == pytest.approx(right / counted, rel=1e-5, nan_ok=True)


@pytest.mark.parametrize("task", CASES)
def test_a_stored_solution_knows_its_task(task, tmp_path):
    split, model, _ = made(task)
    about = solutions.describe({"model": own(CASES[task][1])}, split, "a/b/c/seed-0")
    solutions.save(tmp_path / "w.safetensors", model.state_dict(), about, solution="sgd", iterates=0)
    again, header = solutions.load(tmp_path / "w.safetensors")
    assert header["task"] == task
    inputs = split.floats(slice(None))
    assert torch.equal(again(inputs), model(inputs))
    assert set(load_weights(tmp_path / "w.safetensors")[0]) == set(model.state_dict())


def test_scores_in_what_a_network_returns_are_found():
    split, model, _ = made("segmentation")
    assert model(split.floats(slice(0, 2))).shape == (2, 3, 6, 5)
    assert set(model.state_dict()) >= {"conv.weight", "norm.running_mean"}, "the network's own names"
    assert solutions.fresh(own("flat"), (4,), 1, "regression")(torch.zeros(3, 4)).shape == (3,)


@pytest.mark.parametrize(
    ("spec", "kind", "words"),
    [
        (
            own("wrong"),
            ((4,), 2, "regression"),
            r"the shape \(2, 7\); it must map inputs \(2, 4\) to",
        ),
        (own("texts"), ((4,), 2, "regression"), "texts.*cannot be called|vocab_size"),
        (own("line"), ((3, 4, 4), 2, "segmentation"), "in_features"),
        (own("tied"), ((4,), 3, "tokens"), "one tensor; weights files keep no tied weights.*tie_word_embed"),
        ({"arch": "mlp"}, ((4,), 3, "tokens"), "'mlp' is none for tokens; give a network of your own"),
        ({"arch": "resnet8"}, ((4,), 3, "regression"), r"takes images \(C, H, W\), but.*\(4,\); take mlp"),
    ],
)
def test_networks_that_do_not_fit_are_one_line(spec, kind, words):
    in_shape, classes, task = kind
    with pytest.raises(ValleysError, match=words) as caught:
        builder.build(spec, in_shape=in_shape, classes=classes, task=task)
    assert "\n" not in str(caught.value)


def test_an_mlp_takes_rows_of_numbers():
    split = numbers()
    model = solutions.fresh({"arch": "mlp", "hidden": [5], "norm": "batch"}, *split.kind, seed=0)
    assert model(split.floats(slice(None))).shape == (30, 2)


def test_a_loss_of_ones_own():
    split, model, _ = made("regression")
    loss = losses.build(own("robust", delta=0.3), "regression")
    with torch.no_grad():
        expected = float(F.huber_loss(model(split.floats(slice(None))), split.labels, delta=0.3))
    for size in (30, 7):
        assert evaluate(model, split, loss, size)[0] == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValleysError, match="returns int; it must return a loss"):
        losses.build(own("nothing"))
    with pytest.raises(ValleysError, match="'focal' is none of a regression; write mse, or factory"):
        losses.build({"name": "focal"}, "regression")


def test_class_weights_of_a_factorys_loss_are_those_of_the_set():
    """As torch has it for the whole set at once, and in a step of training for its batch."""
    images = torch.randn(31, 4, generator=GENERATOR)
    split = Split(images, torch.arange(31) % 3, 3, (0.0,) * 4, (1.0,) * 4)
    model = solutions.fresh({"arch": "mlp", "hidden": [5]}, *split.kind, seed=0).eval()
    loss = losses.build(own("weighted"))
    with torch.no_grad():
        expected = float(loss(model(split.floats(slice(None))), split.labels))
    assert evaluate(model, split, loss, 7)[0] == pytest.approx(expected, rel=1e-6)
    values = losses.PerImage(loss)
    outputs = model(split.floats(slice(0, 9)))
    assert float(
        values.batch_mean(values(outputs, split.labels[:9]), split.labels[:9]).detach()
    ) == pytest.approx(float(loss(outputs, split.labels[:9]).detach()), rel=1e-6)


class ByLength(nn.Module):
    """A user's loss whose examples count differently: its two methods."""

    def forward(self, outputs, labels):
        return self.values(outputs, labels)

    def values(self, outputs, labels):
        return (outputs[:, 0] - labels[:, 0]).square() * labels[:, 1]

    def weights(self, labels):
        return float(labels[:, 1].sum())


def test_examples_that_count_differently():
    split, model, _ = made("regression")
    split = Split(split.images, split.labels.abs() + 0.1, *split.kind[1:2], split.mean, split.std, split.task)
    with torch.no_grad():
        apart = (model(split.floats(slice(None)))[:, 0] - split.labels[:, 0]).square()
    weights = split.labels[:, 1]
    expected = float((apart * weights).sum() / weights.sum())
    # Labels of numbers are weighted too, where the loss says so itself.
    found = Evaluator(model, split, None, ByLength(), bn="frozen", batch_size=8).train_loss()[0]
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_batch_of_padding_alone_moves_nothing():
    loss = losses.PerImage(losses.build({"name": "cross_entropy"}, "tokens"))
    labels = torch.full((2, 4), -100)
    outputs = torch.randn(2, 4, 5, requires_grad=True)
    loss.batch_mean(loss(outputs, labels), labels).backward()
    assert not outputs.grad.any()

"""Batches, outputs and losses of any shape: the numbers are those of a plain loop over the set."""

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from valleys import Landscape, ValleysError
from valleys.data import parts
from valleys.models import losses

GENERATOR = torch.Generator().manual_seed(0)
X, Z = torch.randn(36, 5, generator=GENERATOR), torch.randn(36, 3, generator=GENERATOR)
Y = torch.randint(0, 4, (36,), generator=GENERATOR)
CUTS = [(0, 10), (10, 20), (20, 33), (33, 36)]


class Two(nn.Module):
    """Takes two inputs by name, in order."""

    def __init__(self, wrap=None):
        super().__init__()
        torch.manual_seed(1)
        self.scale = nn.Parameter(torch.ones(8))
        self.left, self.right = nn.Linear(5, 8), nn.Linear(3, 8)
        self.norm, self.last = nn.BatchNorm1d(8), nn.Linear(8, 4)
        self.wrap = wrap

    def forward(self, x, z):
        scores = self.last(F.gelu(self.norm(self.left(x) + self.right(z)) * self.scale))
        return scores if self.wrap is None else self.wrap(scores)


@dataclass
class Output:
    """As a Hugging Face network returns."""

    logits: torch.Tensor
    hidden: None = None


class Batch(NamedTuple):
    x: torch.Tensor
    z: torch.Tensor
    y: torch.Tensor


def batches(make):
    return [make(X[a:b], Z[a:b], Y[a:b]) for a, b in CUTS]


def expected():
    """Loss and accuracy with batch norm refreshed: those of one batch of all, normalised by itself."""
    net = Two().train()
    with torch.no_grad():
        scores = net(X, Z)
    return float(F.cross_entropy(scores, Y)), float((scores.argmax(1) == Y).double().mean())


FORMS = {
    "dict": (lambda x, z, y: {"x": x, "z": z, "labels": y}, {}),
    "dict, other names": (
        lambda x, z, y: {"id": torch.arange(len(y)), "x": x, "z": z, "y": y},
        {"inputs": ("x", "z"), "labels": "y"},
    ),
    "pair of a dict": (lambda x, z, y: ({"x": x, "z": z}, y), {}),
    "pair of a tuple": (lambda x, z, y: ((x, z), y), {}),
    "three": (lambda x, z, y: (x, z, y), {"labels": 2}),
    "three, chosen": (lambda x, z, y: (y, x, z), {"inputs": (1, 2), "labels": 0}),
    "named tuple": (Batch, {"inputs": ("x", "z"), "labels": "y"}),
    "int32 labels": (lambda x, z, y: {"x": x, "z": z, "labels": y.int()}, {}),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_of_any_shape_gives_the_same_loss_and_accuracy(form):
    make, chosen = FORMS[form]
    net = Two()
    landscape = Landscape(net, batches(make), "cross_entropy", progress=False, **chosen)
    found = landscape.loss()
    loss, accuracy = expected()
    assert found["train_loss"] == pytest.approx(loss, rel=1e-6)
    assert found["train_accuracy"] == pytest.approx(accuracy)
    assert list(landscape.weights) == [name for name, _ in net.named_parameters()]


@pytest.mark.parametrize("wrap", [Output, lambda scores: {"logits": scores}, lambda scores: {"out": scores}])
@pytest.mark.parametrize("loss", ["cross_entropy", nn.CrossEntropyLoss()])
def test_class_scores_are_taken_out_of_what_a_network_returns(wrap, loss):
    data = batches(lambda x, z, y: {"x": x, "z": z, "labels": y})
    found = Landscape(Two(wrap), data, loss, progress=False).loss()
    assert found["train_loss"] == pytest.approx(expected()[0], rel=1e-6)
    assert found["train_accuracy"] == pytest.approx(expected()[1])


def test_a_loss_that_calls_the_network_gives_the_same_and_no_accuracy():
    def loss(model, batch):
        return F.cross_entropy(model(batch["x"], batch["z"]), batch["y"], reduction="none")

    data = batches(lambda x, z, y: {"x": x, "z": z, "y": y})
    landscape = Landscape(Two(), data, loss, test=data[:1], progress=False)
    found = landscape.loss()
    assert found["train_loss"] == pytest.approx(expected()[0], rel=1e-6)
    assert str(found["train_accuracy"]) == "nan"
    plain = Landscape(Two(), batches(FORMS["dict"][0]), progress=False)
    direction = plain.random_direction("gaussian")
    curves = [one.line(direction, radius=2.0, points=5).train_loss for one in (plain, landscape)]
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)


class Tokens(nn.Module):
    """A causal language model of one block, as small as they come."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.embed = nn.Embedding(11, 16)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, norm_first=True)
        self.head = nn.Linear(16, 11)

    def forward(self, input_ids, attention_mask=None):
        size = input_ids.shape[1]
        causal = nn.Transformer.generate_square_subsequent_mask(size)
        return Output(self.head(self.block(self.embed(input_ids), src_mask=causal, is_causal=True)))


def padded(lengths=(9, 4, 2, 7, 3, 6, 9, 2, 5), size=4):
    """Batches of token numbers that are padded to the longest of each, with labels of -100 there."""
    draw = torch.Generator().manual_seed(3)
    texts = [torch.randint(1, 11, (n,), generator=draw) for n in lengths]
    for i in range(0, len(texts), size):
        some = texts[i : i + size]
        ids = nn.utils.rnn.pad_sequence(some, batch_first=True)
        labels = nn.utils.rnn.pad_sequence(some, batch_first=True, padding_value=-100)
        yield {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": labels}


def loss_of_all_tokens(net):
    total, count = 0.0, 0
    with torch.no_grad():
        for batch in padded(size=1):
            total_here, count_here = losses.next_token(net(batch["input_ids"]), batch["labels"])
            total, count = total + float(total_here), count + int(count_here)
    return total / count


def test_padding_does_not_count_where_a_loss_says_how_much_does():
    net = Tokens().eval()
    for loss in (
        losses.next_token,
        lambda model, batch: losses.next_token(model(batch["input_ids"]), batch["labels"]),
    ):
        for size in (2, 4, 9):
            found = Landscape(net, list(padded(size=size)), loss, progress=False).loss()["train_loss"]
            assert found == pytest.approx(loss_of_all_tokens(net), rel=1e-5)


def test_a_mean_over_the_tokens_of_a_batch_is_refused_in_one_line():
    def loss(outputs, labels):
        return F.cross_entropy(outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())

    def of_model(model, batch):
        return loss(model(batch["input_ids"]), batch["labels"])

    for one in (loss, of_model):
        with pytest.raises(ValleysError, match="hangs on how") as caught:
            Landscape(Tokens(), list(padded()), one, progress=False)
        assert "\n" not in str(caught.value)
    assert "return (sum, count)" in str(caught.value)


def test_a_language_model_has_lines_slopes_a_hessian_and_a_search():
    net = Tokens()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    landscape = Landscape(net, list(padded()), losses.next_token, progress=False)
    line = landscape.line("filter", points=9, slopes=True)
    assert max(line.train_loss) - line.train_loss[4] == pytest.approx(1.0, rel=0.15)
    steps = (line.train_loss[2:] - line.train_loss[:-2]) / (line.offsets[2:] - line.offsets[:-2])
    slopes = [point["train_slope"] for point in line.points]
    assert slopes[1:-1] == pytest.approx(steps, abs=0.2 * max(map(abs, slopes)))
    pairs = landscape.hessian(2)
    assert pairs.values[0] > pairs.values[1]
    assert max(pairs.residuals) < 1e-3 * pairs.values[0]
    more = Landscape(net, list(padded(lengths=(5, 3, 8, 4) * 4)), losses.next_token, progress=False)
    assert more.search(restarts=1, steps=4).verdict in ("found", "not found")
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_parts_of_padded_batches_have_the_loss_of_their_own_tokens():
    net = Tokens().eval()
    data = list(padded(lengths=(5, 3, 8, 4, 9, 2) * 3))
    landscape = Landscape(net, data, losses.next_token, progress=False)
    whole = landscape.loss()["train_loss"]
    landscape.search(restarts=1, steps=2)
    evaluator = landscape.evaluator
    assert evaluator.on(evaluator.train_batches).train_loss()[0] == pytest.approx(whole, rel=1e-6)
    rows = torch.tensor([0, 1, 5, 6, 9, 17])
    part = evaluator.on(parts.take(evaluator.train_batches, rows, 100)).train_loss()[0]
    total, count, at = 0.0, 0, 0
    for batch in data:
        for i in range(len(batch["labels"])):
            if at in rows:
                with torch.no_grad():
                    scores = net(batch["input_ids"][i : i + 1])
                sums, counts = losses.next_token(scores, batch["labels"][i : i + 1])
                total, count = total + float(sums), count + int(counts)
            at += 1
    assert part == pytest.approx(total / count, rel=1e-5)


def test_counts_that_do_not_add_up_are_one_line():
    def loss(outputs, labels):
        total, count = losses.next_token(outputs, labels)
        return total, count + 1

    data = list(padded(lengths=(5,) * 16))
    with pytest.raises(ValleysError, match=r"hangs on how|its counts do not add up"):
        Landscape(Tokens(), data, loss, progress=False).search(restarts=1, steps=1)


def test_segmentation_counts_the_pixels_that_have_a_class():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 1))
    images, labels = torch.randn(10, 3, 6, 6), torch.randint(0, 4, (10, 6, 6))
    labels[:6, 2:] = 255
    with torch.no_grad():
        whole = float(F.cross_entropy(net(images), labels, ignore_index=255))
    data = [(images[a:b], labels[a:b]) for a, b in ((0, 4), (4, 7), (7, 10))]
    assert Landscape(net, data, losses.segmentation, progress=False).loss()["train_loss"] == pytest.approx(
        whole
    )


def test_regression_on_a_set_that_is_one_batch():
    net = nn.Linear(5, 1)
    targets = X.sum(1, keepdim=True)
    loss = Landscape(net, (X, targets), nn.MSELoss(reduction="none"), progress=False).loss()["train_loss"]
    with torch.no_grad():
        assert loss == pytest.approx(float(F.mse_loss(net(X), targets)), rel=1e-6)


def test_a_metric_of_ones_own_stands_in_place_of_accuracy():
    def top_two(outputs, labels):
        return (outputs.topk(2, dim=1).indices == labels[:, None]).any(1).double()

    for metric in (top_two, lambda outputs, labels: top_two(outputs, labels).mean()):
        landscape = Landscape(Two(), batches(FORMS["dict"][0]), metric=metric, progress=False)
        with torch.no_grad():
            whole = float(top_two(Two().train()(X, Z), Y).mean())
        assert landscape.loss()["train_accuracy"] == pytest.approx(whole)

    def loss(model, batch):
        return F.cross_entropy(model(batch["x"], batch["z"]), batch["labels"])

    with pytest.raises(ValleysError, match="metric: it needs outputs"):
        Landscape(Two(), batches(FORMS["dict"][0]), loss, metric=top_two, progress=False)


@pytest.mark.parametrize(
    ("make", "chosen", "words"),
    [
        (lambda x, z, y: (x, z, y), {}, "which part is the labels? Say so, as in inputs=(0, 1), labels=2"),
        (lambda x, z, y: {"x": x, "z": z, "y": y}, {}, "a dict of x, z, y; which part is the labels?"),
        (lambda x, z, y: {"x": x, "z": z, "y": y}, {"labels": "why"}, "they have no 'why'"),
        (lambda x, z, y: {"x": x, "labels": y}, {}, "missing 1 required positional argument: 'z'"),
        (lambda x, z, y: 3, {}, "batches are a int"),
    ],
)
def test_batches_that_do_not_say_enough_are_one_line(make, chosen, words):
    with pytest.raises(ValleysError) as caught:
        Landscape(Two(), batches(make), "cross_entropy", progress=False, **chosen)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("text", "it returns str; return one value an example, their mean, or (sum, count)"),
        (torch.zeros(3), "it returns shape (3,) for 10 examples"),
        ((torch.zeros(3), 3), "of a pair (sum, count) it must return a tensor of one number"),
    ],
)
def test_losses_of_no_use_are_one_line(value, words):
    with pytest.raises(ValleysError) as caught:
        Landscape(Two(), batches(FORMS["dict"][0]), lambda model, batch: value, progress=False)
    assert words in str(caught.value)


def test_data_that_yields_nothing_or_is_none():
    with pytest.raises(ValleysError, match="it yields no batches"):
        Landscape(Two(), [], progress=False)
    with pytest.raises(ValleysError, match="int is no data"):
        Landscape(Two(), 3, progress=False)
    with pytest.raises(ValleysError, match="str is no network"):
        Landscape("net", [], progress=False)


class OneBuffer:
    """Yields one dict again and again, with other values in its tensors."""

    def __iter__(self):
        batch = {
            "x": torch.empty(12, 5),
            "z": torch.empty(12, 3),
            "labels": torch.empty(12, dtype=torch.long),
        }
        for i in range(0, 36, 12):
            for name, whole in zip(batch, (X, Z, Y), strict=True):
                batch[name].copy_(whole[i : i + 12])
            yield batch


def test_a_loader_that_fills_one_buffer_again_and_again():
    def loss(model, batch):
        return F.cross_entropy(model(batch["x"], batch["z"]), batch["labels"])

    for data in (OneBuffer(), iter(OneBuffer())):
        found = Landscape(Two(), data, progress=False).loss()
        assert found["train_loss"] == pytest.approx(expected()[0], rel=1e-6)
    for data in (OneBuffer(), iter(OneBuffer())):
        found = Landscape(Two(), data, loss, progress=False).loss()
        assert found["train_loss"] == pytest.approx(expected()[0], rel=1e-6)


def test_a_loader_that_shuffles_gives_one_set_and_leaves_random_numbers_alone():
    data = [{"x": x, "z": z, "labels": y} for x, z, y in zip(X, Z, Y, strict=True)]
    loader, net = DataLoader(data, batch_size=12, shuffle=True), Two()
    torch.manual_seed(5)
    expected_next = torch.rand(1)
    torch.manual_seed(5)
    landscape = Landscape(net, loader, progress=False)
    assert torch.rand(1) == expected_next
    assert landscape.loss()["train_loss"] == pytest.approx(expected()[0], rel=1e-6)
    line = landscape.line("uniform", radius=1.0, points=5)
    assert line.train_loss[2] == landscape.loss()["train_loss"]

"""The loss of a set is one number, however the set is cut into batches; or it is refused."""

import collections
import copy
import dataclasses
import functools
import types

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from valleys import Evaluator, ValleysError, probe_line, refresh_bn
from valleys.data.split import Split
from valleys.landscape import computed, directions, hessian

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(90, 6, generator=GENERATOR)
Y = torch.randint(0, 3, (90,), generator=GENERATOR).sort().values  # sorted: batches differ
ONE_HOT = F.one_hot(Y, 3).float()
IGNORED = torch.where(torch.arange(90) < 50, -100, Y)
WEIGHT = torch.tensor([1.0, 5.0, 20.0])
REAL = torch.randn(90, generator=GENERATOR)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Linear(6, 3)


def line(net, labels, loss=None, x=X, size=25, exact=False, **given):
    u, _ = directions.random_direction("gaussian", net)
    data = DataLoader(TensorDataset(x, labels), batch_size=size)
    given |= {} if loss is None else {"loss": loss}
    return probe_line(net, u, [0.0], exact, train=data, **given)[0]


def on_all(net, loss, labels, x=X):
    with torch.no_grad():
        return float(loss(net(x), labels))


def slope_on_all(net, loss, labels, x=X):
    u, _ = directions.random_direction("gaussian", net)
    grads = torch.autograd.grad(loss(net(x), labels), list(net.parameters()))
    return sum(float((g * u[n]).sum()) for g, (n, _) in zip(grads, net.named_parameters(), strict=True))


# --- torch's cross-entropies: right to rounding ---

WEIGHTED = {
    "plain": (nn.CrossEntropyLoss(), Y),
    "weights": (nn.CrossEntropyLoss(weight=WEIGHT), Y),
    "weights, smoothed": (nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.2), Y),
    "ignored": (nn.CrossEntropyLoss(), IGNORED),
    "all of it": (nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.1), IGNORED),
    "a class ignored": (nn.CrossEntropyLoss(ignore_index=0), Y),
    "double weights": (nn.CrossEntropyLoss(weight=WEIGHT.double()), Y),
    "the function": (F.cross_entropy, IGNORED),
    "a partial": (functools.partial(F.cross_entropy, weight=WEIGHT), IGNORED),
    "probabilities": (nn.CrossEntropyLoss(weight=WEIGHT), (ONE_HOT + 0.1) / 1.3),
}


@pytest.mark.parametrize("size", [90, 25, 7, 1])
@pytest.mark.parametrize("name", WEIGHTED)
def test_weighted_means_are_those_of_the_whole_set(net, name, size):
    loss, labels = WEIGHTED[name]
    found = line(net, labels, loss, size=size, exact=True)
    plain = copy.deepcopy(loss).float() if isinstance(loss, nn.Module) else loss
    assert found["train_loss"] == pytest.approx(on_all(net, plain, labels), rel=1e-6)
    assert found["train_slope"] == pytest.approx(slope_on_all(net, plain, labels), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("loss", [nn.NLLLoss(weight=WEIGHT), F.nll_loss])
def test_negative_log_likelihoods_as_well(net, loss):
    net = nn.Sequential(net, nn.LogSoftmax(1))
    assert line(net, IGNORED, loss)["train_loss"] == pytest.approx(on_all(net, loss, IGNORED), rel=1e-6)


class Tokens(nn.Module):
    """Logits (N, C, L) of tokens (N, L)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head = nn.Embedding(10, 8), nn.Linear(8, 5)

    def forward(self, ids):
        return self.head(self.table(ids)).movedim(-1, 1)


IDS = torch.randint(0, 10, (40, 7), generator=GENERATOR)
FULL = torch.randint(0, 5, (40, 7), generator=GENERATOR)
PADDED = torch.where(torch.arange(7) < 7 - torch.arange(40)[:, None] // 8, FULL, -100)  # later batches


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(weight=torch.arange(1.0, 6.0))])
def test_padding_is_not_counted(loss):
    found = line(Tokens(), PADDED, loss, IDS, 8, exact=True)
    assert found["train_loss"] == pytest.approx(on_all(Tokens(), loss, PADDED, IDS), rel=1e-6)
    assert found["train_slope"] == pytest.approx(slope_on_all(Tokens(), loss, PADDED, IDS), rel=1e-4)


def test_accuracy_is_a_share_of_the_images_with_a_class(net):
    with torch.no_grad():
        hits = (net(X).argmax(1) == Y)[50:].float().mean().item()
    assert line(net, IGNORED, nn.CrossEntropyLoss())["train_accuracy"] == pytest.approx(hits)


def test_the_test_set_has_weights_of_its_own(net):
    u, _ = directions.random_direction("gaussian", net)
    loss = nn.CrossEntropyLoss(weight=WEIGHT)
    (point,) = probe_line(
        net, u, [0.0], train=[(X, Y)], test=[(X[:40], Y[:40]), (X[40:50], Y[40:50])], loss=loss
    )
    assert point["test_loss"] == pytest.approx(on_all(net, loss, Y[:50], X[:50]), rel=1e-6)


def test_gradient_and_hessian_are_those_of_the_weighted_mean():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (50, 1, 2, 3), generator=generator).to(torch.uint8)
    split = Split(images, torch.randint(0, 3, (50,), generator=generator), 3, (0.5,), (0.25,))
    net, loss = nn.Sequential(nn.Flatten(), nn.Linear(6, 3)), nn.CrossEntropyLoss(weight=WEIGHT)
    found = computed.gradient(net, split, loss, 20)
    loss(net(split.floats(slice(None))), split.labels).backward()
    torch.testing.assert_close(found["1.weight"], net[1].weight.grad, rtol=1e-5, atol=1e-6)
    whole, cut = (hessian.hessian_eigenvectors(net, split, loss, ["1.bias"], 1, n)[1] for n in (50, 7))
    assert whole == pytest.approx(cut, rel=1e-5)


# --- any other loss: it must not hang on the cut ---


def smoothed(outputs, labels):
    logs = outputs.log_softmax(-1)
    return (-0.9 * logs.gather(-1, labels[:, None]).squeeze(1) - 0.1 * logs.mean(-1)).mean()


def dice(outputs, labels):
    p, t = outputs.softmax(1), F.one_hot(labels, 3)
    return 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)


MEANS = {
    "closure": (lambda z, y: F.cross_entropy(z, y), Y),
    "smoothed": (smoothed, Y),
    "sum over classes": (lambda z, y: F.kl_div(z.log_softmax(1), y, reduction="batchmean"), ONE_HOT),
    "many labels": (nn.BCEWithLogitsLoss(pos_weight=WEIGHT), ONE_HOT),
    "margins": (nn.MultiMarginLoss(weight=WEIGHT), Y),
    "regression": (nn.HuberLoss(), ONE_HOT + REAL[:, None]),
    "weights that do not divide": (
        lambda z, y: (F.cross_entropy(z, y, reduction="none") * (1 + y)).mean(),
        Y,
    ),
    "errors": (lambda z, y: (z.argmax(1) != y).float().mean(), Y),
    "outputs written to": (lambda z, y: F.cross_entropy(z.mul_(-1), y), Y),
    "double": (lambda z, y: F.cross_entropy(z.double(), y), Y),
}


@pytest.mark.parametrize("size", [90, 25, 1])
@pytest.mark.parametrize("name", MEANS)
def test_means_over_images_are_right_as_they_are(net, name, size):
    loss, labels = MEANS[name]
    assert line(net, labels, loss, size=size)["train_loss"] == pytest.approx(
        on_all(net, loss, labels), rel=2e-6
    )


HANGING = {
    "weights": (lambda z, y: F.cross_entropy(z, y, weight=WEIGHT), Y),
    "ignored": (lambda z, y: F.cross_entropy(z, y), IGNORED),
    "counts of the batch": (
        lambda z, y: F.cross_entropy(z, y, weight=1 / (1 + torch.bincount(y, minlength=3)).float()),
        Y,
    ),
    "positives": (lambda z, y: F.cross_entropy(z, y, reduction="none").sum() / (y > 0).sum().clamp(1), Y),
    "dice": (dice, Y),
    "contrastive": (lambda z, y: F.cross_entropy(z @ z.T, torch.arange(len(z))), Y),
    "contrastive, by image": (lambda z, y: (z @ z.T).logsumexp(1), Y),
    "hard images": (lambda z, y: F.cross_entropy(z, y, reduction="none").topk(len(y) // 2).values.mean(), Y),
    "greatest": (lambda z, y: F.cross_entropy(z, y, reduction="none").max(), Y),
    "root of the mean": (lambda z, y: F.mse_loss(z, y).sqrt(), ONE_HOT),
    "targets of the batch": (lambda z, y: F.mse_loss(z[:, 0], (y - y.mean()) / y.std()), REAL),
}


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("name", HANGING)
def test_losses_that_hang_on_the_cut_are_refused(net, name, fresh):
    """Also at a head of zeros, where all images have one loss and no weight shows."""
    if fresh:
        nn.init.zeros_(net.weight)
        nn.init.zeros_(net.bias)
    loss, labels = HANGING[name]
    with pytest.raises(ValleysError, match="hangs on how images are cut into batches") as caught:
        line(net, labels, loss)
    assert "\n" not in str(caught.value)


def test_a_weight_of_one_class_in_a_thousand_shows():
    torch.manual_seed(0)
    net, labels, weight = nn.Linear(6, 1000), torch.arange(90), torch.ones(1000)
    assert line(net, labels, lambda z, y: F.cross_entropy(z, y))["train_accuracy"] <= 1
    weight[57] = 10
    with pytest.raises(ValleysError, match="hangs on how"):
        line(net, labels, lambda z, y: F.cross_entropy(z, y, weight=weight))
    loss = nn.CrossEntropyLoss(weight=weight)
    assert line(net, labels, loss)["train_loss"] == pytest.approx(on_all(net, loss, labels), rel=1e-6)


def test_padding_in_later_batches_or_other_lengths_shows():
    def mean_of_tokens(outputs, labels):
        return F.cross_entropy(outputs, labels)

    assert line(Tokens(), FULL, mean_of_tokens, IDS, 8)["train_loss"] == pytest.approx(
        on_all(Tokens(), mean_of_tokens, FULL, IDS), rel=1e-6
    )
    with pytest.raises(ValleysError, match="hangs on how"):
        line(Tokens(), PADDED, mean_of_tokens, IDS, 8)
    net, (short, long) = Tokens(), ((IDS[:8, :5], FULL[:8, :5]), (IDS[8:], PADDED[8:]))
    u, _ = directions.random_direction("gaussian", net)
    with pytest.raises(ValleysError, match="hangs on how"):
        probe_line(net, u, [0.0], train=[short, long], loss=mean_of_tokens)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("shapes", [((90, 1), (90,)), ((90,), (90, 1))])
def test_outputs_and_labels_that_broadcast_are_refused(shapes, reduction):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 1), nn.Identity() if shapes[0] == (90, 1) else nn.Flatten(0))
    with (
        pytest.warns(UserWarning, match="broadcasting"),
        pytest.raises(ValleysError, match="broadcast against"),
    ):
        line(net, REAL.reshape(shapes[1]), nn.MSELoss(reduction=reduction))
    fit = line(net, REAL.reshape(shapes[0]), nn.MSELoss(reduction=reduction))
    assert fit["train_loss"] == pytest.approx(on_all(net, nn.MSELoss(), REAL.reshape(shapes[0])), rel=1e-6)


def random_loss(outputs, labels):
    return F.cross_entropy(outputs + torch.randn_like(outputs), labels)


MISTAKES = {
    "sum": (nn.CrossEntropyLoss(reduction="sum"), Y, "a sum over the batch"),
    "random": (random_loss, Y, "another value for the same outputs"),
    "changes labels": (lambda z, y: F.cross_entropy(z, y.clamp_(max=1)), Y, "changes the labels"),
    "tuple": (lambda z, y: (F.cross_entropy(z, y), {}), Y, "returns tuple"),
    "nothing": (lambda z, y: None, Y, "returns NoneType"),
    "raises": (
        lambda z, y: {}["x"],
        Y,
        r"raises KeyError: 'x' \(test_loss_checks.py, l",
    ),
    "wrong shapes": (nn.MSELoss(), REAL, r"given outputs \(25, 3\) .* and labels \(25,\)"),
    "column of labels": (None, Y[:, None], r"labels \(25, 1\) of torch.int64 \(train\), it raises"),
    "integers, one-hot": (None, F.one_hot(Y, 3), "Expected floating point type for target"),
    "narrow labels": (lambda z, y: F.cross_entropy(z, y), Y.int(), r"torch.int32 .* labels.long\(\)"),
    "label too great": (None, Y + 1, "train: batch 2 has the label 3 and the network 3 outputs; .* in 0..2$"),
    "label too small": (
        nn.CrossEntropyLoss(),
        Y - 1,
        "batch 0 has the label -1 .* 0..2, or -100 to be ignored",
    ),
    "ignored by name": (None, IGNORED, "batch 0 has the label -100"),
    "all ignored": (nn.CrossEntropyLoss(), Y * 0 - 100, "every label is ignored"),
    "weights": (nn.CrossEntropyLoss(weight=torch.ones(4)), Y, r"weights of shape \(4,\) for 3 outputs"),
    "weights NaN": (nn.CrossEntropyLoss(weight=torch.tensor([1, 2, torch.nan])), Y, "that are not finite"),
    "weights in a list": (functools.partial(F.cross_entropy, weight=[1.0, 2, 3]), Y, "raises TypeError"),
    "option of none": ({"name": "cross_entropy", "smoothing": 0.2}, Y, "names none; write cross_entropy"),
    "misspelt option": ({"name": "focal", "gama": 2}, Y, "names none"),
    "option out of range": ({"name": "label_smoothing", "smoothing": 2}, Y, "names none"),
    "option no number": ({"name": "focal", "gamma": "2"}, Y, "names none"),
    "no such name": ("hinge", Y, "loss: 'hinge' names none; write cross_entropy"),
    "needs options": ("focal", Y, "loss: 'focal' names none"),
    "a class": (nn.CrossEntropyLoss, Y, r"is a class; give one of its objects, CrossEntropyLoss\(\)"),
    "a number": (3, Y, "loss: 3 cannot be called"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line(net, name):
    loss, labels, message = MISTAKES[name]
    with pytest.raises(ValleysError, match=message) as caught:
        line(net, labels.clone(), loss)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [torch.int32, torch.int16, torch.uint8, torch.int8, torch.uint16])
@pytest.mark.parametrize("loss", [None, nn.CrossEntropyLoss(weight=WEIGHT), "mse"])
def test_labels_of_any_width(net, kind, loss):
    assert line(net, Y.to(kind), loss) == pytest.approx(line(net, Y, loss), nan_ok=True)


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_a_loss_that_takes_no_batch_of_one_is_tried_on_none(net, classes):
    """``squeeze`` makes a number of a batch of one, which then fits no label."""

    def loss(outputs, labels):
        return F.binary_cross_entropy_with_logits(outputs[:, :1].squeeze(), labels.float())

    labels = Y.clamp(max=classes - 1)
    assert line(net, labels, loss)["train_loss"] == pytest.approx(on_all(net, loss, labels), rel=1e-6)
    with pytest.raises(ValleysError, match=r"given outputs \(1, 3\) .* it raises ValueError"):
        line(net, labels[:51], loss, X[:51])  # where there is one, it is


@pytest.mark.parametrize("bn", ["refreshed", "frozen"])
def test_what_raises_in_a_later_batch_is_one_line(bn):
    """Which shows in none of the batches that are tried: an id beyond the table, a last batch of one."""
    ids = torch.arange(40).remainder(8)[:, None]
    ids[-1] = 8
    table = nn.Sequential(nn.EmbeddingBag(8, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
    with pytest.raises(ValleysError, match=r"^(train|BN refresh): the network.* raises .*range"):
        line(table, Y[:40], None, ids, bn=bn)
    net = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 1), Squeeze())
    with pytest.raises(ValleysError, match=r"^train: the network or the loss raises ValueError: Target size"):
        line(net, (Y[:51] > 0).float(), nn.BCEWithLogitsLoss(), X[:51], bn=bn)


class Squeeze(nn.Module):
    def forward(self, x):
        return x.squeeze()


@pytest.mark.parametrize("loss", [nn.BCEWithLogitsLoss(), nn.HingeEmbeddingLoss(), nn.MSELoss()])
@pytest.mark.parametrize("size", [25, 18])
def test_one_number_an_image(loss, size):
    net = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0))
    labels = (Y > 0).float() * 2 - 1
    found = line(net, labels, loss, size=size)["train_loss"]
    assert found == pytest.approx(on_all(net, loss, labels), rel=1e-6)


def test_losses_by_name_and_a_mean_that_has_no_errors_of_images(net):
    assert line(net, Y, "cross_entropy") == pytest.approx(line(net, Y), nan_ok=True)
    block = {"name": "focal", "gamma": 0}
    assert line(net, Y, block)["train_loss"] == pytest.approx(line(net, Y)["train_loss"])
    with pytest.raises(ValleysError, match="errors of a subset need one value an image"):
        Evaluator(net, [(X, Y)], loss=lambda z, y: F.cross_entropy(z, y), drawn_from={"train": 200})


# --- one column ---

BINARY = (Y > 0).long()
OVER_ONE = {
    "default": None,
    "torch's": nn.CrossEntropyLoss(),
    "focal": {"name": "focal", "gamma": 2},
    "smoothed": {"name": "label_smoothing", "smoothing": 0.1},
}


@pytest.mark.parametrize("last", [nn.Identity(), nn.Flatten(0)])
@pytest.mark.parametrize("name", OVER_ONE)
def test_cross_entropy_over_one_column_is_refused(name, last):
    net = nn.Sequential(nn.Linear(6, 1), last)
    for labels in (BINARY, BINARY * 0):
        with pytest.raises(ValleysError, match="have one column, over which cross-entropy is always 0"):
            line(net, labels, OVER_ONE[name])


@pytest.mark.parametrize("labels", [BINARY * 0, torch.ones(90, 1)])
def test_it_is_found_out_in_a_loss_of_ones_own(labels):
    with pytest.raises(ValleysError, match="one column"):
        line(nn.Linear(6, 1), labels, lambda z, y: F.cross_entropy(z, y))


def test_a_single_logit_has_a_loss_and_no_accuracy():
    net = nn.Linear(6, 1)
    loss = lambda z, y: F.binary_cross_entropy_with_logits(z[:, 0], y.float())  # noqa: E731
    found = line(net, BINARY, loss)
    assert found["train_loss"] == pytest.approx(on_all(net, loss, BINARY), rel=1e-6)
    assert found["train_accuracy"] != found["train_accuracy"]


def test_labels_that_are_no_columns_have_no_accuracy(net):
    shifted = line(net, Y + 1, lambda z, y: F.cross_entropy(z, y - 1))
    assert shifted["train_loss"] == pytest.approx(on_all(net, F.cross_entropy, Y), rel=1e-6)
    assert shifted["train_accuracy"] != shifted["train_accuracy"]
    wide = line(nn.Linear(6, 50), Y)  # more columns than classes are as good as any
    assert 0 <= wide["train_accuracy"] <= 1


# --- outputs that are no tensor ---


class Out(dict):
    __getattr__ = dict.__getitem__


@dataclasses.dataclass
class Record:
    logits: torch.Tensor
    other: object = None


Named = collections.namedtuple("Named", ["logits", "hidden"])
RETURNS = {
    "dict": (lambda z: {"logits": z}, lambda o: o["logits"]),
    "dict with attributes": (lambda z: Out(logits=z), lambda o: o.logits),
    "tuple": (lambda z: (z, None), lambda o: o[0]),
    "list": (lambda z: [z, [z]], lambda o: o[0]),
    "dataclass": (Record, lambda o: o.logits),
    "namedtuple": (lambda z: Named(z, (z,)), lambda o: o.logits),
    "object": (lambda z: types.SimpleNamespace(logits=z), lambda o: o.logits),
}


class Returning(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.head, self.wrap = nn.BatchNorm1d(6), nn.Linear(6, 3), wrap

    def forward(self, x):
        return self.wrap(self.head(self.norm(x)))


@pytest.mark.parametrize("bn", ["refreshed", "frozen"])
@pytest.mark.parametrize("name", RETURNS)
def test_a_loss_may_take_what_a_network_returns(name, bn):
    wrap, take = RETURNS[name]
    net, plain = Returning(wrap), Returning(lambda z: z)
    refresh_bn(net, [X])
    torch.testing.assert_close(net.norm.running_mean, X.mean(0), rtol=0, atol=1e-6)
    refresh_bn(plain, [X])
    expected = line(plain, Y, lambda z, y: F.cross_entropy(z, y, reduction="none"), exact=True, bn=bn)
    for reduction in ("none", "mean"):

        def loss(outputs, labels, reduction=reduction):
            return F.cross_entropy(take(outputs), labels, reduction=reduction)

        found = line(net, Y, loss, exact=True, bn=bn)
        assert found["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-6)
        assert found["train_slope"] == pytest.approx(expected["train_slope"], rel=1e-4)
    half = line(net, Y, loss, precision="bf16", bn=bn)["train_loss"]
    assert half == pytest.approx(expected["train_loss"], rel=0.02)
    with pytest.raises(ValleysError, match="hangs on how"):
        line(net, Y, lambda o, y: F.cross_entropy(take(o), y, weight=WEIGHT), bn=bn)
    for loss in (None, nn.CrossEntropyLoss()):
        with pytest.raises(ValleysError, match="give a loss that takes what the network returns"):
            line(net, Y, loss, bn=bn)


# --- networks ---


def test_a_loss_that_computes_with_the_network_itself_is_refused(net):
    """The network stays at the start while the evaluator's copy moves: a penalty would be constant."""

    def decayed(outputs, labels):
        return F.cross_entropy(outputs, labels) + sum(p.square().sum() for p in net.parameters())

    def physics(outputs, labels):
        return F.cross_entropy(outputs, labels) + net(X[:3]).square().mean()

    for loss in (decayed, physics):
        with pytest.raises(ValleysError, match="computes with the network's own weights"):
            line(net, Y, loss)
    temperature = nn.Parameter(torch.tensor(2.0))  # of the loss alone
    assert line(net, Y, lambda z, y: F.cross_entropy(z / temperature, y))["train_loss"] > 0


def test_a_network_for_batches_of_one_size_is_tried_on_a_whole_one(net):
    fixed = nn.Sequential(nn.Unflatten(0, (45, -1)), nn.Flatten(), net)
    assert line(fixed, Y, size=45)["train_loss"] == pytest.approx(on_all(net, F.cross_entropy, Y), rel=1e-6)


def test_outputs_that_have_no_row_an_image_are_cut_with_the_images():
    class Flat(Tokens):
        def forward(self, ids):
            return super().forward(ids).movedim(1, -1).flatten(0, 1)

    def loss(outputs, labels):
        return F.cross_entropy(outputs, labels.flatten())

    net = Flat()
    assert line(net, FULL, loss, IDS, 8)["train_loss"] == pytest.approx(
        on_all(net, loss, FULL, IDS), rel=1e-6
    )
    with pytest.raises(ValleysError, match="hangs on how"):
        line(net, PADDED, loss, IDS, 8)


def test_a_loss_is_tried_also_where_the_start_is_not_finite(net):
    nn.init.constant_(net.weight, torch.nan)
    with pytest.raises(ValleysError, match="the train loss at the solution is nan"):
        line(net, Y)
    with pytest.raises(ValleysError, match="hangs on how"):
        line(net, Y, lambda z, y: F.cross_entropy(z, y, weight=WEIGHT))


def test_trials_leave_random_numbers_alone(net):
    torch.manual_seed(5)
    after = torch.rand(1)
    torch.manual_seed(5)
    Evaluator(net, [(X, Y)], loss=lambda z, y: F.cross_entropy(z, y))
    assert torch.equal(torch.rand(1), after)

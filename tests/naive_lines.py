"""Lines measured the plain way, to compare with."""

import copy

import torch
from torch import nn
from valleys.data.split import Split
from valleys.landscape import directions
from valleys.landscape.evaluator import Evaluator
from valleys.models import losses, solutions
from valleys.networks import bn_refresh

LOSS = losses.build({"name": "cross_entropy"})
BLOCK = {
    "kind": "uniform",
    "n": 3,
    "group": "all",
    "share": 0.0,
    "points": 7,
    "radius": None,
    "relative": None,
    "relative_to": "all",
    "rise": 0.5,
    "bn": "refreshed",
    "slopes": "differences",
}


def make_split(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 1, 8, 8), generator=generator).to(torch.uint8)
    return Split(images, torch.randint(0, 4, (n,), generator=generator), 4, (0.5,), (0.25,))


def naive(model, direction, offset, bn, test=False):
    """Three plain passes: move a copy, refresh batch norm on one whole batch, evaluate."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            parameter += offset * direction.get(name, torch.zeros_like(parameter))
    train = make_split(60)
    if bn == "refreshed":
        bn_refresh.refresh_bn(twin, [train.floats(slice(None))])
    split = make_split(30, 1) if test else train
    with torch.no_grad():
        logits = twin.eval()(split.floats(slice(None))).double()
    accuracy = (logits.argmax(1) == split.labels).double().mean().item()
    return nn.functional.cross_entropy(logits, split.labels).item(), accuracy


def make_model(norm="batch"):
    model = solutions.fresh({"arch": "resnet8", "norm": norm}, (1, 8, 8), 4, seed=3)
    if norm == "batch":
        bn_refresh.refresh_bn(model, make_split(60).batches(60))
    return model.eval()


def make_evaluator(norm="batch", **options):
    return Evaluator(make_model(norm), make_split(60), make_split(30, 1), LOSS, **options)


def draw(model, k=0, kind="gaussian"):
    weights = dict(model.named_parameters())
    return directions.random_direction(kind, weights, key="test", k=k)[0]


CONSTANTS = {"c": 2.0, "zeta_max": 0.5, "min_span": 0.25, "minimum_within": 0.25, "noise": 1e-6}


FIRST = [0, 3, 6, 8, 10, 12, 14, 17, 20]  # of 21


def subset_evaluator(**options):
    return make_evaluator(drawn_from={"train": 100, "test": 40}, **options)


class Doubles:
    """A split whose images are float64, for derivatives to many digits."""

    def __init__(self, split):
        self.split, self.images, self.labels = split, split.images, split.labels

    def __len__(self):
        return len(self.split)

    def floats(self, at):
        return self.split.floats(at).double()


def double_evaluator(norm, loss=LOSS, activation="tanh", **options):
    model = solutions.fresh({"arch": "resnet8", "norm": norm, "activation": activation}, (1, 8, 8), 4, seed=3)
    if norm == "batch":
        bn_refresh.refresh_bn(model, make_split(60).batches(60))
    return Evaluator(
        model.double().eval(), Doubles(make_split(60)), Doubles(make_split(30, 1)), loss, **options
    )

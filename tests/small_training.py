"""A small data set, a recipe and a training that several tests share."""

import torch
from valleys.data.split import Split
from valleys.models import solutions
from valleys.training import sgd

SPEC = {"arch": "resnet8", "width": 4, "norm": "batch"}
RECIPE = {
    "epochs": 6,
    "batch_size": 16,
    "lr": 0.1,
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 5e-4,
    "loss": {"name": "cross_entropy"},
    "augment": {"shift": 1, "flip": True, "pad_mode": "zero"},
    "eval_every": 2,
    "swa": {"start": 3, "lr": 0.05, "every": 1},
    "cooldown": {"epochs": None, "lr": None},
    "descent": {"epochs": 3, "lr": 0.01, "momentum": 0.9},
}


def make_split(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (n,), generator=generator)
    images = torch.randint(0, 90, (n, 1, 8, 8), generator=generator)
    images[:, 0, :, 0] += 40 * labels[:, None]  # something to learn
    return Split(images.to(torch.uint8), labels, 4, (0.3,), (0.2,))


def fresh(seed=0):
    return solutions.fresh(SPEC, (1, 8, 8), 4, seed=seed)


def train(state, recipe=RECIPE, **options):
    model = fresh()
    rows = sgd.train(model, (make_split(72), make_split(40, 1)), recipe, seed=0, state_dir=state, **options)
    return model.state_dict(), rows


def cool(state, weights, recipe=RECIPE, **options):
    """The sgd solution of weights that averaging begins with, and its rows."""
    model = fresh()
    model.load_state_dict(weights)
    splits = make_split(72), make_split(40, 1)
    rows = sgd.cool_down(model, splits, recipe, seed=0, state_dir=state, **options)
    return model.state_dict(), rows


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)

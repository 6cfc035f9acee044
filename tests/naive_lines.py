"""Lines measured the plain way, to compare with."""

import copy

import torch
from torch import nn
from valleys.data.split import Split
from valleys.models import losses
from valleys.networks import bn_refresh

LOSS = losses.build({"name": "cross_entropy"})


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

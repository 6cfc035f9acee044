"""Images of a few pixels, a small network along a training on them, and what Snakemake gives a script."""

import torch
import torch.nn.functional as F
from valleys.data.split import Split
from valleys.models import solutions


class Bag(dict):
    """What Snakemake gives a script: names to values, as attributes too."""

    __getattr__ = dict.__getitem__


def split(n, seed):
    """Images of three classes that are told apart by a column, one in four wrongly."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (n,), generator=generator)
    images = torch.randint(0, 150, (n, 1, 4, 4), generator=generator)
    images[torch.arange(n), 0, :, labels] += 60
    wrong = torch.rand(n, generator=generator) < 0.25
    labels[wrong] = torch.randint(0, 3, (int(wrong.sum()),), generator=generator)
    return Split(images.to(torch.uint8), labels, 3, (0.4,), (0.2,))


TRAIN, TEST = split(80, 0), split(41, 1)


def trained(model, seed, steps=(60, 10, 10)):
    """State dicts of one network after so many steps of SGD, and so many more."""
    network = solutions.fresh(model, (1, 4, 4), 3, seed=seed).train()
    sgd, found = torch.optim.SGD(network.parameters(), lr=0.5), []
    ((images, labels),) = TRAIN.batches(len(TRAIN))
    for count in steps:
        for _ in range(count):
            sgd.zero_grad()
            F.cross_entropy(network(images), labels).backward()
            sgd.step()
        found.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
    return found

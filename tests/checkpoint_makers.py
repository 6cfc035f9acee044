"""A network and ways to save it that tests of checkpoints share."""

import torch
from valleys.data.split import Split
from valleys.models import checkpoints, solutions, state_dicts
from valleys.networks import bn_refresh

SPEC = {"arch": "mlp", "hidden": [16], "norm": "batch"}


def network(seed=0, spec=SPEC):
    model = solutions.fresh(spec, (1, 8, 8), 10, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (50, 1, 8, 8), generator=generator).to(torch.uint8)
    split = Split(images, torch.zeros(50, dtype=torch.int64), 10, (0.5,), (0.25,))
    bn_refresh.refresh_bn(model, split.batches(50))  # statistics that are not those of a fresh layer
    return model.eval()


def same(model, state):
    return all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def loaded(path, model):
    return checkpoints.load(model, state_dicts.find(path), str(path))


A, B = (network(seed).state_dict() for seed in (0, 1))


NAME = "features.0.weight"

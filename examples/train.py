"""A training loop that knows nothing of valleys, and leaves checkpoints behind for checkpoints.yaml."""

import sys

import torch
from nets import build
from pictures import stripes
from torch import nn

for seed in map(int, sys.argv[1:] or ["0"]):
    torch.manual_seed(seed)
    (images, labels), _ = stripes(200, 100)
    images = (torch.from_numpy(images).float().unsqueeze(1) / 255 - 0.5) / 0.25
    labels = torch.from_numpy(labels)
    model = build(width=8, blocks=1, num_classes=2, in_chans=1)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(10):
        for at in torch.randperm(200).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[at]), labels[at]).backward()
            optimizer.step()
        if epoch >= 5:
            averaged.update_parameters(model)
    torch.optim.swa_utils.update_bn(images.split(50), averaged)
    torch.save({"epoch": 10, "state_dict": model.state_dict()}, f"last-{seed}.pt")
    torch.save(averaged.state_dict(), f"swa-{seed}.pt")

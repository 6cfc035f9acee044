"""Networks with batch norm, images and doors to statistics that several tests share."""

import torch
from torch import nn
from torch.nn import functional as F
from valleys import Evaluator
from valleys.models import builder
from valleys.networks.batch_norm import batch_norms
from valleys.networks.bn_refresh import refresh_bn, refreshed_logits


def deep_net(seed=0, depth=20):
    torch.manual_seed(seed)
    net = builder.build({"arch": "preresnet", "depth": depth, "width": 4}, in_shape=(3, 8, 8), classes=5)
    for layer in batch_norms(net):  # statistics that are nobody's
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2)
    return net


def one_layer():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU())


def statistics(net):
    return torch.cat([torch.cat([m.running_mean, m.running_var]) for m in batch_norms(net)])


def images(n, seed=1, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    # Later images are brighter, so that batches differ and equal weighting of unequal batches shows.
    x = torch.randn(n, 3, 8, 8, generator=generator)
    return x + shift * torch.linspace(0, 1, n).view(-1, 1, 1, 1)


class Activates(nn.BatchNorm2d):
    """As timm's BatchNormAct2d: calls ``F.batch_norm`` itself."""

    def forward(self, x):
        use = not self.training or self.track_running_stats
        mean, var = (self.running_mean, self.running_var) if use else (None, None)
        x = F.batch_norm(x, mean, var, self.weight, self.bias, self.training, self.momentum, self.eps)
        return F.silu(x)


DOORS = {
    "refresh_bn": lambda net, x: refresh_bn(net, x),
    "streaming": lambda net, x: refresh_bn(net, x, "streaming"),
    "refreshed_logits": lambda net, x: refreshed_logits(net, x),
    "Evaluator": lambda net, x: Evaluator(net, [(p, torch.zeros(len(p)).long()) for p in x]).train_loss(),
}

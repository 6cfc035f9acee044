"""Networks whose loss is a given function of a parameter vector, so that theory says what a search finds."""

import torch
from torch import Tensor, nn
from valleys.landscape.evaluator import Evaluator


class Function(nn.Module):
    """Outputs f(theta) + x @ noise @ theta for each image x, and a second column that moves with theta."""

    def __init__(self, f, theta, noise=None):
        super().__init__()
        self.theta = nn.Parameter(torch.as_tensor(theta, dtype=torch.get_default_dtype()).clone())
        self.f, self.noise = f, noise

    def forward(self, x):
        value = self.f(self.theta) + torch.zeros_like(x[:, 0])
        if self.noise is not None:
            value = value + x @ self.noise @ self.theta
        return torch.stack([value, x[:, 0] + self.theta.sum()], 1)


def first(outputs, _labels):
    """The loss of a `Function`: its first column."""
    return outputs[:, 0]


def images(n=40, width=3, dtype=torch.float32):
    x = torch.randn(n, width, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return [(a, torch.zeros(len(a), dtype=torch.int64)) for a in x.split(16)]


def on_function(f, theta, *, noise=None, dtype=torch.float32, n=40, test=False, **options):
    """An evaluator of a `Function` at theta."""
    net = Function(f, theta, noise).to(dtype)
    more = {"test": images(n, dtype=dtype)} if test else {}
    return Evaluator(net, images(n, dtype=dtype), loss=first, bn="frozen", **more, **options)


def unit(values) -> Tensor:
    vector = torch.as_tensor(values, dtype=torch.float64)
    return vector / vector.norm()


def cubic(axis, flat_rise=0.3, h=1.0):
    """``h |theta|^2 / 2 + t (v . theta)^3 / 6``: at rise 1 along v, the side of -v rises by `flat_rise`."""
    k = (1 - flat_rise) / (1 + flat_rise)  # t R / (3 h), from (1 - k) / (1 + k)
    radius = (2 / (h * (1 + k))) ** 0.5
    t = 3 * h * k / radius

    def f(theta):
        return h * theta.square().sum() / 2 + t * (axis.to(theta) @ theta) ** 3 / 6

    return f


def classifier(norm=False, dtype=torch.float32, seed=0, width=8, labels="learnt", n=60, steps=60):
    """A small network trained on n images (n, 6) in three classes, and a loader of these.

    Labels are those of a linear map (``learnt``) or drawn at random (``noise``).
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=generator, dtype=dtype)
    y = (x @ torch.randn(6, 3, generator=generator, dtype=dtype)).argmax(1)
    if labels == "noise":
        y = torch.randint(0, 3, (n,), generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        norms = [nn.BatchNorm1d(width)] if norm else []
        net = nn.Sequential(nn.Linear(6, width), *norms, nn.Tanh(), nn.Linear(width, 3)).to(dtype)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimiser.step()
    optimiser.zero_grad()
    return net.eval(), list(zip(x.split(25), y.split(25), strict=True))

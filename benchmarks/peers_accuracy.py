"""Where tools differ in what they return: batch norm refreshed, eigenvalues that lie close, points of NaN.

Each row has a number that is known beside those of ours and of the others; `peers.py` writes the table.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import peers_tools as tools
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from valleys.models import solutions
from valleys.networks.bn_refresh import refresh_bn

CLOSE = (10.0, 9.9)


def told(call: Callable[[], Any]) -> str:
    """Return what a call returns as text, or its error."""
    try:
        return str(call())
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:70]}"


def _whole(own: nn.Module, batches: Any) -> None:
    """Take batch norm's statistics in one pass over a single batch, divided by n."""

    def biased(layer: nn.Module, inputs: tuple[Tensor], _: Any) -> None:
        layer.running_var.copy_(inputs[0].var([0, *range(2, inputs[0].dim())], correction=0))

    hooks = []
    for layer in own.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.momentum = 1.0
            hooks.append(layer.register_forward_hook(biased))
    with torch.no_grad():
        own.train()(torch.cat([x for x, _ in batches]))
    for hook in hooks:
        hook.remove()


def _refreshed(model: nn.Module, batches: Any, refresh: Callable[..., Any], kind: torch.dtype) -> str:
    """Return the loss over batches after a refresh over them, in a number format."""
    own = copy.deepcopy(model).to(kind)
    converted = [(x.to(kind), y) for x, y in batches]
    refresh(own, converted)
    return f"{tools.loss_of(own.eval(), converted):.6f}"


def _of_torch(own: nn.Module, batches: Any) -> None:
    update_bn(batches, own)


def batch_norm() -> list[dict[str, str]]:
    """Return rows of the loss after a refresh on 101 images in batches of 50, so that the last has one."""
    rows = []
    for name, spec in (
        ("mlp with batch norm", {"arch": "mlp", "norm": "batch"}),
        ("resnet8", {"arch": "resnet8"}),
    ):
        torch.manual_seed(0)
        model = solutions.fresh(spec, (3, 8, 8), 10, seed=0)
        images, labels = torch.randn(101, 3, 8, 8), torch.randint(0, 10, (101,))
        images[-1] *= 5.0
        batches = list(zip(images.split(50), labels.split(50), strict=True))
        found = [
            told(partial(_refreshed, model, batches, *way))
            for way in ((_whole, torch.float64), (refresh_bn, torch.float32), (_of_torch, torch.float32))
        ]
        rows.append(
            {
                "case": f"{name}: loss after batch norm is refreshed, last batch of one image",
                "known": found[0],
                "ours": found[1],
                "others": f"torch `update_bn`: {found[2]}",
            }
        )
    return rows


class _Squares(nn.Module):
    """A mean of squares whose Hessian is known: eigenvalues `CLOSE`, the others from 1 down."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(60))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


def close_eigenvalues() -> list[dict[str, str]]:
    """Return a row of the angle between the second eigenvector, as each tool returns it, and the true one."""
    random = np.random.default_rng(0)
    turned = np.linalg.qr(random.normal(size=(60, 60)))[0]
    values = np.concatenate([CLOSE, np.linspace(1, 0.01, 58)])
    x = torch.from_numpy(np.sqrt(60 * values / 2)[:, None] * turned.T).float()
    data = [(x, torch.zeros(60))]
    torch.manual_seed(0)

    def angle(vector: np.ndarray) -> str:
        share = abs(vector @ turned[:, 1]) / np.linalg.norm(vector)
        return f"{math.degrees(math.acos(min(share, 1.0))):.2g}°"

    def ours() -> str:
        from valleys import Landscape

        found = Landscape(_Squares(), data, nn.MSELoss(), progress=False).hessian(2)
        return f"{found.values[1]:.4f}, {angle(tools.flat(found.directions[1].values()))}"

    def curvlinops() -> str:
        from curvlinops import HessianLinearOperator
        from scipy.sparse.linalg import eigsh

        model = _Squares()
        matrix = HessianLinearOperator(model, nn.MSELoss(), list(model.parameters()), data).to_scipy()
        found, vectors = eigsh(matrix, k=2, which="LA")
        return f"{found[0]:.4f}, {angle(vectors[:, 0])}"

    def power(make: Callable[[], Any]) -> str:
        with tools.quiet():
            found, vectors = make().eigenvalues(top_n=2)
        return f"{found[1]:.4f}, {angle(tools.flat(vectors[1]))}"

    def pyhessian() -> Any:
        from pyhessian import hessian

        return hessian(_Squares(), nn.MSELoss(), data=data[0], cuda=False)

    def landscaper() -> Any:
        from landscaper.hessian import PyHessian

        return PyHessian(_Squares().eval(), nn.MSELoss(), data, "cpu")

    def eigenthings() -> str:
        from hessian_eigenthings import HessianOperator, lanczos, supervised_loss

        operator = HessianOperator(_Squares(), data, supervised_loss(nn.MSELoss()))
        found = lanczos(operator, k=2, which="LA", seed=0)
        return f"{found.eigenvalues[1]:.4f}, {angle(tools.flat([found.eigenvectors[1]]))}"

    others = {
        "curvlinops": curvlinops,
        "PyHessian": lambda: power(pyhessian),
        "landscaper": lambda: power(landscaper),
        "hessian-eigenthings": eigenthings,
    }
    return [
        {
            "case": "second of two eigenvalues 1 % apart, and the angle to its true eigenvector, by default",
            "known": f"{CLOSE[1]:.4f}, 0°",
            "ours": told(ours),
            "others": "; ".join(f"{name}: {told(call)}" for name, call in others.items()),
        }
    ]


class _Root(nn.Module):
    """Scores that have the root of a weight: not a number where that is below 0."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.0]))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale.sqrt()


def points_of_nan() -> list[dict[str, str]]:
    """Return a row of how many points of a line each tool returns as NaN."""
    torch.manual_seed(0)
    x, y = torch.randn(50, 4), torch.randint(0, 4, (50,))
    problem = tools.Problem(
        _Root().eval(), [(x, y)], {"scale": torch.ones(1)}, {"scale": torch.zeros(1)}, 1.45, 1.45
    )
    known = int(np.isnan(tools.moved(problem, [(t, 0.0) for t in problem.offsets], torch.float64)).sum())

    def count(name: str) -> str:
        return str(int(np.isnan(tools.LINES[name](problem)).sum()))

    def ours() -> str:
        line = tools.landscape(problem).line(problem.u, offsets=problem.offsets)
        return f"{int(np.isnan(line.train_loss).sum())}; verdict: {told(lambda: line.verdict().status)}"

    names = [name for name in tools.LINES if name not in (tools.OURS, tools.PLAIN)]
    return [
        {
            "case": f"points of NaN among {tools.LINE} of a line",
            "known": str(known),
            "ours": told(ours),
            "others": "; ".join(f"{name}: {told(lambda name=name: count(name))}" for name in names),
        }
    ]


def rows() -> list[dict[str, str]]:
    """Return all rows."""
    return [*batch_norm(), *close_eigenvalues(), *points_of_nan()]

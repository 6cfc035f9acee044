"""Convolutions by Winograd's minimal filtering (`valleys.winograd`) beside torch's own, in float32.

    python benchmarks/winograd.py [--rounds 7] [--threads 2]

A row for each shape of layer: how many times as fast, and the error of either against float64. Lines of the
workflow take it where ``taken`` says yes.
"""

from __future__ import annotations

import argparse
from functools import partial
from statistics import median

import torch
import torch.nn.functional as F
from common import document, markdown, rounds, save
from torch import Tensor, nn
from valleys import jobs, winograd

#: Pixels a side, channels in, channels out.
SHAPES = [
    (32, 64, 64),
    (32, 160, 160),
    (16, 32, 32),
    (16, 128, 128),
    (16, 128, 256),
    (16, 320, 320),
    (14, 256, 256),
    (8, 64, 64),
    (8, 128, 256),
    (8, 256, 256),
    (8, 640, 640),
    (7, 512, 512),
    (6, 256, 256),
    (4, 256, 512),
    (4, 512, 512),
]
IMAGES = (60, 250)


def error(found: Tensor, truth: Tensor) -> float:
    """Return the norm of the error, as a share of the truth's."""
    return float((found - truth).norm() / truth.norm())


def main() -> None:
    """Measure, write the table, and put it into docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    jobs.keep_memory()
    rows = []
    for side, channels, outputs in SHAPES:
        for count in IMAGES:
            layer = nn.Conv2d(channels, outputs, 3, padding=1, bias=False)
            layer = layer.to(memory_format=torch.channels_last)
            x = torch.randn(count, channels, side, side).relu().to(memory_format=torch.channels_last)
            own, other = partial(winograd.conv2d, x, layer.weight), partial(layer, x)
            truth = F.conv2d(x.double(), layer.weight.double(), padding=1)
            errors = {"error": error(own(), truth), "torch_error": error(other(), truth)}
            taken = {way: median(t) for way, t in rounds({"own": own, "torch": other}, given.rounds).items()}
            rows.append(
                {
                    "side": side,
                    "channels": channels,
                    "outputs": outputs,
                    "images": count,
                    "used": winograd.pays(layer, x),
                    **taken,
                    **errors,
                    "rounds": given.rounds,
                    "threads": given.threads,
                }
            )
            print(rows[-1], flush=True)
    save("winograd", rows)
    shown = [
        {
            "layer": f"{r['channels']} to {r['outputs']}, {r['side']}x{r['side']}",
            "images": r["images"],
            "times as fast": f"{r['torch'] / r['own']:.2f}",
            "error": f"{r['error']:.0e}",
            "torch's error": f"{r['torch_error']:.0e}",
            "taken": "yes" if r["used"] else "no",
        }
        for r in rows
    ]
    document("winograd", markdown(shown))


if __name__ == "__main__":
    main()

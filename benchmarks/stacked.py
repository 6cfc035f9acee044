"""Eight directions at once, by `torch.func.vmap` over stacked weights, beside one after the other.

    python benchmarks/stacked.py [--rounds 7] [--threads 1]

Forward passes with BN frozen, of small networks: what a probe of many directions could gain by batching them.
"""

from __future__ import annotations

import argparse
from statistics import median

import torch
from common import document, markdown, rounds, save
from torch.func import functional_call, vmap
from valleys.execution import jobs
from valleys.models import solutions

CASES = [
    ("mlp, 32 and 32 wide", {"arch": "mlp", "hidden": [32, 32]}, (1, 8, 8), 800),
    ("resnet8, 4 channels", {"arch": "resnet8", "width": 4}, (1, 8, 8), 800),
    ("resnet8, 16 channels", {"arch": "resnet8", "width": 16}, (1, 8, 8), 800),
    ("preresnet-20", {"arch": "preresnet", "depth": 20}, (3, 32, 32), 100),
]
DIRECTIONS = 8


def main() -> None:
    """Measure, write the table, and put it into their page (`common.PAGES`)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="as a job of the workflow has")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    jobs.keep_memory()
    rows = []
    for name, spec, shape, count in CASES:
        model = solutions.fresh(spec, shape, 10, seed=0).eval().requires_grad_(False)
        images, buffers = torch.randn(count, *shape), dict(model.named_buffers())
        moved = [
            {n: p + 0.01 * torch.randn_like(p) for n, p in model.named_parameters()}
            for _ in range(DIRECTIONS)
        ]
        together = {n: torch.stack([weights[n] for weights in moved]) for n in moved[0]}

        def forward(weights, model=model, buffers=buffers, images=images):
            return functional_call(model, (weights, buffers), (images,))

        def apart(moved=moved, forward=forward):
            return torch.stack([forward(weights) for weights in moved])

        batched = vmap(forward)
        with torch.no_grad():
            torch.testing.assert_close(apart(), batched(together), rtol=1e-4, atol=1e-4)
            arms = {"apart": apart, "stacked": lambda call=batched, weights=together: call(weights)}
            taken = {way: median(times) for way, times in rounds(arms, given.rounds).items()}
        rows.append(
            {"network": name, "images": count, "directions": DIRECTIONS, **taken, "rounds": given.rounds}
        )
        print(rows[-1], flush=True)
    save("stacked", rows)
    shown = [
        {
            "network": r["network"],
            "images": r["images"],
            "stacked, times as fast": f"{r['apart'] / r['stacked']:.2f}",
        }
        for r in rows
    ]
    document("stacked", markdown(shown))


if __name__ == "__main__":
    main()

"""Draw the picture of README, the loss along asymmetric directions, from a run of the default experiment.

    PYTHONPATH=workflow/scripts python docs/img/draw.py results/default

Reads the table `search_curves`: losses on train images that the search did not see, one line a seed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from valleys.figures.style import GREY, STYLE, Look

HERE = Path(__file__).resolve().parent
WHERE = {"dataset": "digits-noisy", "model": "mlp-bn", "recipe": "swa", "probe": "searched"}
BLUE = Look(STYLE).colour("train")
LINES = (("start", GREY, "random direction"), ("found", BLUE, "direction found by the search"))


def main(folder: Path) -> None:
    """Write ``asymmetric-direction.png`` beside this script."""
    curves = pd.read_parquet(folder / "tables" / "search_curves.parquet")
    for column, value in (WHERE | {"images": "judge"}).items():
        curves = curves[curves[column] == value]
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(figsize=(5.6, 2.9), layout="constrained", dpi=200)
    for of, colour, label in LINES:
        for i, (_, curve) in enumerate(curves[curves["of"] == of].groupby("seed")):
            curve = curve.sort_values("offset")
            rise = curve["loss"] - curve.loc[curve["offset"].abs().idxmin(), "loss"]
            style = {"color": colour, "alpha": 0.55, "linewidth": 1.1, "label": None if i else label}
            axes.plot(curve["offset"] / curve["offset"].max(), rise, **style)
    axes.axvline(0, ymax=0.8, color=GREY, linewidth=0.6)
    axes.set(xlim=(-1, 1), ylim=(-0.2, None))
    axes.set(xlabel="offset from the minimum, as a share of R", ylabel="rise in loss [nats]")
    axes.text(-0.95, 0.62, "steep side", color=BLUE)
    axes.text(0.6, -0.13, "flat side", color=BLUE)
    axes.legend(frameon=False, loc="upper center")
    figure.savefig(HERE / "asymmetric-direction.png", metadata={"Software": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]))

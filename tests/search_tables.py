"""Tables of searches with known contents, for tests of what is drawn from them."""

import itertools
import math

import numpy as np
from figure_tables import ONE, fill, through_parquet

PARTS = {"search": 1.2, "choose": 1.1, "judge": 1.0, "test": 0.9}
"""Images, and what c* of the direction found is there, of that on the images judged on."""


def make_searches(
    cells=ONE, seeds=(0, 1, 2), seeks=("asymmetric",), k=1, restarts=2, bias_level=9.0, strengths=None
):
    """Rows of searches: c* is 3 + i / 4 at the i-th seed (or as in `strengths`), half of it at the start.

    The larger rise is 1 at R, the smaller 1 / c*. R is 2 along what was found as asymmetric, 4 along the
    random start, 5 along the most symmetric, 12 along the flattest.
    """
    rows = {"searches": [], "search_curves": []}
    for (dataset, model, recipe), (i, seed), seek, number in itertools.product(
        cells, enumerate(seeds), seeks, range(k)
    ):
        names = {"dataset": dataset, "model": model, "recipe": recipe, "seed": seed, "solution": "sgd"}
        names |= {"probe": f"search-{seek}", "kind": "searched", "group": "all", "k": number}
        strength = {"symmetric": 1.05, "flat": 1.5}.get(
            seek, 3 + i / 4 if strengths is None else strengths[i]
        )
        radius = {"asymmetric": 2.0, "symmetric": 5.0, "flat": 12.0}[seek]
        start = strength / 2 if seek == "asymmetric" else 1.5
        about = {"seek": seek, "rise": 1.0, "floor": 0.1, "bn_policy": "frozen", "precision": "fp32"}
        about |= {"bias_level": bias_level, "end": "steps", "start": "gaussian"}
        about |= {"search_images": 500, "choose_images": 250, "judge_images": 250}
        for restart in range(restarts):
            row = names | about | {"restart": restart, "chosen": restart == 1 % restarts, "found": None}
            judged = {name: None for name in fill("searches") if name.startswith(("judge_", "test_"))}
            row |= {name: one for name, one in judged.items() if name != "judge_images"}
            row |= {"start_status": _status(start), "start_c_star": start}
            row["start_index"] = math.nan if math.isnan(start) else (-1) ** i * math.log(max(start, 1.0))
            shown = ("search", "choose", "judge", "test") if row["chosen"] else ("search", "choose")
            for images in shown:
                c_star = strength * PARTS[images] * (0.9 if not row["chosen"] else 1.0)
                row |= {f"{images}_status": _status(c_star), f"{images}_c_star": c_star}
                row |= {f"{images}_flat_rise": 1 / c_star}
                row |= {f"{images}_index": math.log(c_star) if c_star > 0 else math.nan}
            if row["chosen"]:
                row |= {"judge_radius": radius, "judge_rise_minus": 1.0, "judge_rise_plus": 1 / strength}
                row |= {"judge_zeta": 0.4 * radius, "judge_r": radius, "judge_p": 1.0 / radius}
                if seek == "asymmetric":
                    row["found"] = bool(strength >= 2)
            rows["searches"].append(fill("searches", **row))
        lines = [("found", images, radius, strength * factor) for images, factor in PARTS.items()]
        lines.append(("start", "judge", 4.0, start))
        for (of, images, reach, c), x in itertools.product(lines, np.linspace(-1, 1, 21)):
            steep = x < 0 if of == "found" else (x > 0) == (i % 2 == 1)
            loss = 0.1 + (x * x if steep else x * x / c)
            rows["search_curves"].append(
                fill("search_curves", **names, of=of, images=images, offset=x * reach, loss=loss)
            )
    return rows


def _status(c_star):
    return "not_minimum" if math.isnan(c_star) else "asymmetric" if c_star >= 2 else "symmetric"


def with_searches(folder, **choices):
    return through_parquet(folder, make_searches(**choices))

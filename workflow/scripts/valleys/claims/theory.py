"""Experiments 3 and 4 as simulated: averaged SGD, and the gain of a bias. Rules grid, bound; claims 6, 7.

A row is about all simulated numbers of one shape of valley. Those inside the assumptions of the paper's
theorem, as recalled in docs/theory.md, decide: the theorem says nothing of the others, which stand beside
them under names of their own. So do symmetric valleys, and the bounds that docs/theory.md proves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from valleys.claims.rows import Row, grid_row
from valleys.claims.settings import Settings


def _span(values: pd.Series) -> str:
    return f"{values.min():.2g} to {values.max():.2g}"


def judge_averaging(theory_average: pd.DataFrame | None, settings: Settings) -> Iterator[Row]:
    """Experiment 3: the average of SGD's iterates in simulated valleys, by shape, if simulated."""
    if theory_average is None:
        return
    about: dict[str, Any] = {"experiment": 3, "number": 6, **settings.test}
    for shape, rows in theory_average.groupby("shape", sort=False):
        scope = f"simulation/{shape}"
        uneven, even = rows[rows["c"] > 1], rows[rows["c"] == 1]
        for inside, name, where in (
            (True, "", "inside Theorem 2"),
            (False, "_outside", "outside Theorem 2"),
        ):
            part = uneven[uneven["inside"] == inside]
            if len(part):
                yield grid_row(
                    f"average_on_flat_side{name}",
                    scope,
                    f"in an asymmetric valley the mean of averaged SGD iterates lies on the flat "
                    f"side, {where}",
                    part["mean"],
                    part["mean_se"],
                    measure="mean of the average, flat side positive",
                    unit="x",
                    decides=inside,
                    note=f"{len(part)} of {len(uneven)} rows with c > 1; share of averages on the flat side: "
                    f"{_span(part['flat_share'])}",
                    **about,
                )
        if len(even):
            yield grid_row(
                "symmetric_average_is_centred",
                scope,
                "in a symmetric valley the mean of averaged SGD iterates is 0, within its Monte Carlo error",
                -even["mean"].abs(),
                even["mean_se"],
                measure="less the distance of the mean from 0",
                unit="x",
                bound=True,
                **about,
            )
        bounded = uneven[uneven["bound_applies"]]
        if len(bounded):
            positive = int((bounded["bound"] > 0).sum())
            yield grid_row(
                "average_bound_holds",
                scope,
                "the mean of averaged SGD iterates is not below the bound proved for it",
                bounded["mean"] - bounded["bound"],
                bounded["mean_se"],
                measure="mean of the average - bound",
                unit="x",
                bound=True,
                note=f"the bound applies in {len(bounded)} of {len(uneven)} rows with c > 1, "
                f"positive in {positive}",
                **about,
            )
        for name, part in (("symmetric", even), ("asymmetric", uneven)):
            if len(part):
                ratio, kept = part["average_loss"] / part["iterate_loss"], part["loss_kept"]
                yield grid_row(
                    "averaging_lowers_train_loss",
                    f"{scope}/{name}",
                    "averaging SGD's iterates lowers the training loss",
                    part["loss_change"],
                    part["loss_change_se"],
                    sign=-1,
                    measure="training loss at the average - mean over its iterates",
                    unit="loss",
                    note=f"lowered to {_span(ratio)} of it; at the mean of all averages {_span(kept)} stays",
                    **about,
                )


def judge_gains(theory_gain: pd.DataFrame | None, settings: Settings) -> Iterator[Row]:
    """Experiment 4: the gain of a bias under a random symmetric shift, by shape, if simulated."""
    if theory_gain is None:
        return
    about: dict[str, Any] = {"experiment": 4, "number": 7, "unit": "loss", **settings.test}
    for shape, rows in theory_gain.groupby("shape", sort=False):
        scope = f"simulation/{shape}"
        uneven, even = rows[rows["c"] > 1], rows[rows["c"] == 1]
        near = uneven[uneven["bias"] < uneven["limit"]]
        far = uneven[uneven["bias"] >= uneven["limit"]]
        beyond = (
            f"{len(near)} of {len(uneven)} biases are below the limit; of the others "
            f"{int((far['gain'] < 0).sum())} lose"
        )
        inside = near["inside"].astype(bool)
        if inside.any():
            yield grid_row(
                "bias_to_flat_side_gains",
                scope,
                "under a random symmetric shift a bias to the flat side lowers the expected loss, inside "
                "Theorem 1",
                near["gain"][inside],
                near["gain_se"][inside],
                measure="expected loss at the minimum - at the bias",
                decides=True,
                note=f"{int(inside.sum())} of {len(uneven)} rows with c > 1",
                **about,
            )
        if not inside.all():
            yield grid_row(
                "bias_to_flat_side_gains_outside",
                scope,
                "under a random symmetric shift a bias to the flat side, up to the stated limit, lowers the "
                "expected loss, outside Theorem 1",
                near["gain"][~inside],
                near["gain_se"][~inside],
                measure="expected loss at the minimum - at the bias",
                note=beyond,
                **about,
            )
        if len(even):
            yield grid_row(
                "symmetric_bias_gains_nothing",
                scope,
                "in a symmetric valley no bias lowers the expected loss",
                -even["gain"],
                even["gain_se"],
                measure="expected loss at the bias - at the minimum",
                bound=True,
                **about,
            )
        yield grid_row(
            "gain_bound_holds",
            scope,
            "the expected gain is not below the bound proved for it",
            rows["gain"] - rows["bound"],
            rows["gain_se"],
            measure="gain - bound",
            bound=True,
            note=f"symmetric valleys included; bound positive in {int((rows['bound'] > 0).sum())} rows",
            **about,
        )

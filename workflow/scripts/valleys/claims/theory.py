"""Experiments 3 and 4 as simulated: averaged SGD, and the gain of a bias. Rules grid and bound."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from valleys.claims.rows import Row, grid_row


def _span(values: pd.Series) -> str:
    return f"{values.min():.2g} to {values.max():.2g}"


def judge_averaging(theory_average: pd.DataFrame, level: float) -> Iterator[Row]:
    """Experiment 3: the average of SGD's iterates in simulated valleys, by shape."""
    for shape, rows in theory_average.groupby("shape", sort=False):
        scope = f"simulation/{shape}"
        uneven, even = rows[rows["c"] > 1], rows[rows["c"] == 1]
        if len(uneven):
            yield grid_row(
                "average_on_flat_side",
                3,
                scope,
                "in an asymmetric valley the mean of averaged SGD iterates lies on the flat side",
                uneven["mean"],
                uneven["mean_se"],
                measure="mean of the average, flat side positive",
                unit="x",
                level=level,
                note=f"share of averages on the flat side: {_span(uneven['flat_share'])}",
            )
        bounded = uneven[uneven["bound_applies"]]
        if len(bounded):
            positive = int((bounded["bound"] > 0).sum())
            yield grid_row(
                "average_bound_holds",
                3,
                scope,
                "the mean of averaged SGD iterates is not below the bound proved for it",
                bounded["mean"] - bounded["bound"],
                bounded["mean_se"],
                measure="mean of the average - bound",
                unit="x",
                level=level,
                bound=True,
                note=f"the bound applies in {len(bounded)} of {len(uneven)} rows with c > 1, "
                f"positive in {positive}",
            )
        for name, part in (("symmetric", even), ("asymmetric", uneven)):
            if len(part):
                ratio, kept = part["average_loss"] / part["iterate_loss"], part["loss_kept"]
                yield grid_row(
                    "averaging_lowers_train_loss",
                    3,
                    f"{scope}/{name}",
                    "averaging SGD's iterates lowers the training loss",
                    part["loss_change"],
                    part["loss_change_se"],
                    sign=-1,
                    measure="training loss at the average - mean over its iterates",
                    unit="loss",
                    level=level,
                    note=f"lowered to {_span(ratio)} of it; at the mean of all averages {_span(kept)} stays",
                )


def judge_gains(theory_gain: pd.DataFrame, level: float) -> Iterator[Row]:
    """Experiment 4: the expected gain of a bias under a random symmetric shift, by shape."""
    for shape, rows in theory_gain.groupby("shape", sort=False):
        scope = f"simulation/{shape}"
        uneven = rows[rows["c"] > 1]
        near = uneven[uneven["bias"] < uneven["limit"]]
        if len(near):
            far = uneven[uneven["bias"] >= uneven["limit"]]
            yield grid_row(
                "bias_to_flat_side_gains",
                4,
                scope,
                "under a random symmetric shift a bias to the flat side, up to the stated limit, lowers the "
                "expected loss",
                near["gain"],
                near["gain_se"],
                measure="expected loss at the minimum - at the bias",
                unit="loss",
                level=level,
                note=f"{len(near)} of {len(uneven)} biases are below the limit; of the others "
                f"{int((far['gain'] < 0).sum())} lose",
            )
        yield grid_row(
            "gain_bound_holds",
            4,
            scope,
            "the expected gain is not below the bound proved for it",
            rows["gain"] - rows["bound"],
            rows["gain_se"],
            measure="gain - bound",
            unit="loss",
            level=level,
            bound=True,
            note=f"symmetric valleys included; bound positive in {int((rows['bound'] > 0).sum())} rows",
        )

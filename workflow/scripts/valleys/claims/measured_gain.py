"""Experiment 4 on measured curves: what a bias to the flat side gains.

``bias_gains_on_measured_curves``, ``bias_lowers_test_loss``
    A direction's value is what a bias of R/8 to its flat side gains: of the measured train curve, in
    expectation under a shift uniform on +-R/4 (`results.measured_gain`), or of the measured test loss,
    unshifted. A minimum's is the mean over its asymmetric directions of one probe; minima without any are
    left out. Paired rule against 0. The note has the same of symmetric directions, a control.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from valleys.claims.rows import Row, count_of, paired_row
from valleys.results import measures
from valleys.results.measures import SETTING


def judge(theory_measured: pd.DataFrame, alpha: float, level: float) -> Iterator[Row]:
    """Experiment 4 on measured curves: a bias to the flat side of asymmetric directions, by probe."""
    found = measures.gains(theory_measured)
    found = found[(found["shift"] == "uniform") & (found["bias"] == found["scale"] / 2)]
    for names, rows in found.groupby([*SETTING, "probe"], sort=True):
        at = rows[rows["scale"] == 0.25]
        here, control = (at[at["status"] == status] for status in ("asymmetric", "symmetric"))
        if here.empty:
            continue
        wide = rows[(rows["scale"] == 0.5) & (rows["status"] == "asymmetric")]
        about = f"asymmetric directions: {here['directions'].sum()} of {at['directions'].sum()}"
        for claim, column, statement, measure, others in (
            (
                "bias_gains_on_measured_curves",
                "gain",
                "under a random symmetric shift of the measured train loss a bias to the flat side of an "
                "asymmetric direction gains",
                "expected train loss at the minimum - at a bias of R/8, shift uniform on +-R/4",
                f"; with twice the shift and bias {wide['gain'].mean():.3g}",
            ),
            (
                "bias_lowers_test_loss",
                "test_gain",
                "the measured test loss is lower at a bias to the flat side of an asymmetric direction",
                "test loss at the minimum - at a bias of R/8",
                f"; train loss there {here['train_gain'].mean():.3g}",
            ),
        ):
            values = control[column]
            beside = (
                f"along symmetric ones {values.mean():.3g}, above 0 in {count_of(values > 0, values.notna())}"
            )
            yield paired_row(
                claim,
                "/".join(map(str, names)),
                statement,
                here.set_index("seed")[column],
                sign=1,
                measure=measure,
                unit="nats",
                alpha=alpha,
                level=level,
                note=about + (f"; {beside} minima" if len(control) else "") + others,
                experiment=4,
                at=0.0,
            )

"""Experiment 4 on measured curves: what a bias to the flat side gains (claim 7). Rule mean.

Gains are counted from the curve's own minimum, R' being how far the curve goes on both sides of it
(`results.measured_gain`). A direction's gain is that of a bias of R'/8 to its flat side: of the measured
train curve, in expectation under a shift uniform on +-R'/4, or of the measured test loss, unshifted. A
minimum's is the mean over its directions of one probe that are asymmetric by Definition 1; minima without any
are left out.

``bias_gains_on_found_directions``
    Probes that search for asymmetric directions: the gain in train loss, above 0.
``bias_gains_more_than_on_symmetric``
    The same less the gain along the direction that a search for symmetric ones found at the same minimum,
    whatever its status, above 0. Refused where the rises of the two are more than two-fold apart. Both decide
    claim 7 at the headline rise where the setting may decide (`Settings.may_decide`).
``bias_gains_on_measured_curves``
    Probes of other kinds, beside. The note has the same along their symmetric directions.
``bias_lowers_test_loss``
    The gain in test loss, of every probe, beside.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from valleys.claims.rows import Row, count_of, joined, mean_row, refused_row
from valleys.claims.settings import Settings
from valleys.results import doubts, measures
from valleys.results.measures import SETTING

_FOUND = (
    "bias_gains_on_found_directions",
    "under a random symmetric shift of the measured train loss a bias to the flat side of the asymmetric "
    "direction found gains",
)
_DRAWN = (
    "bias_gains_on_measured_curves",
    "under a random symmetric shift of the measured train loss a bias to the flat side of an asymmetric "
    "direction gains",
)


def judge(theory_measured: pd.DataFrame, settings: Settings) -> Iterator[Row]:
    """Experiment 4 on measured curves: a bias to the flat side of asymmetric directions, by probe."""
    found = measures.gains(theory_measured)
    found = found[(found["shift"] == "uniform") & (found["bias"] == found["scale"] / 2)]
    for names, rows in found.groupby(SETTING, sort=True):
        for probe, of_probe in rows.groupby("probe", sort=True):
            if settings.seek_of(str(probe)) not in ("", "asymmetric"):
                continue  # what the found ones are compared with
            yield from _of_probe(names, str(probe), of_probe, settings)
            if settings.seek_of(str(probe)) == "asymmetric":
                yield from _against_symmetric(names, str(probe), rows, settings)


def _of_probe(names: tuple[Any, ...], probe: str, rows: pd.DataFrame, settings: Settings) -> Iterator[Row]:
    at = rows[rows["scale"] == 0.25]
    here, control = (at[at["status"] == status] for status in ("asymmetric", "symmetric"))
    if here.empty:
        return
    wide = rows[(rows["scale"] == 0.5) & (rows["status"] == "asymmetric")]
    searched = settings.seek_of(probe) == "asymmetric"
    claim, statement = _FOUND if searched else _DRAWN
    about = [
        settings.about_rise(probe),
        f"asymmetric directions: {here['directions'].sum()} of {at['directions'].sum()}",
        doubts.about(here),
    ]
    yield mean_row(
        claim,
        "/".join(map(str, (*names, probe))),
        statement,
        here.set_index("seed")["gain"],
        sign=1,
        measure="expected train loss at the curve's minimum - at a bias of R'/8, shift uniform on +-R'/4",
        unit="nats",
        note=joined(
            *about,
            _along_symmetric(control["gain"]),
            f"with twice the shift and bias {wide['gain'].mean():.3g}" if len(wide) else "",
        ),
        experiment=4,
        number=7,
        decides=searched and _decides(names, probe, settings),
        **settings.test,
    )
    yield mean_row(
        "bias_lowers_test_loss",
        "/".join(map(str, (*names, probe))),
        "the measured test loss is lower at a bias to the flat side of an asymmetric direction",
        here.set_index("seed")["test_gain"],
        sign=1,
        measure="test loss at the train curve's minimum - at a bias of R'/8",
        unit="nats",
        note=joined(
            *about,
            _along_symmetric(control["test_gain"]),
            f"train loss there {here['train_gain'].mean():.3g}",
        ),
        experiment=4,
        number=7,
        **settings.test,
    )


def _against_symmetric(
    names: tuple[Any, ...], probe: str, rows: pd.DataFrame, settings: Settings
) -> Iterator[Row]:
    """Compare a search with those for symmetric directions at the same rise and batch-norm policy."""
    at = rows[rows["scale"] == 0.25]
    first = at[(at["probe"] == probe) & (at["status"] == "asymmetric")].set_index("seed")
    if first.empty:
        return
    for other in sorted(set(at["probe"])):
        if settings.seek_of(other) != "symmetric" or _how(other, settings) != _how(probe, settings):
            continue
        second = _over_statuses(at[at["probe"] == other])
        differences = (first["gain"] - second["gain"]).dropna()
        lost = len(first) - len(differences)
        row = mean_row(
            "bias_gains_more_than_on_symmetric",
            "/".join(map(str, (*names, probe))) + f" against {other}",
            "the bias gains more along the asymmetric direction found than along the most symmetric one",
            differences,
            sign=1,
            measure="gain along the asymmetric direction - along the symmetric one, at the same minimum",
            unit="nats",
            note=joined(
                settings.about_rise(probe),
                f"means: asymmetric {first['gain'].mean():.3g}, symmetric {second['gain'].mean():.3g}",
                f"minima whose symmetric direction has no gain, left out: {lost}" if lost else "",
                doubts.about(first.reset_index()),
            ),
            experiment=4,
            number=7,
            decides=_decides(names, probe, settings),
            **settings.test,
        )
        why = measures.equal_rises(first, second)
        yield refused_row(row, why) if why else row


def _over_statuses(rows: pd.DataFrame) -> pd.DataFrame:
    """Return means over all of a minimum's directions, whatever their status, by seed."""
    weights = rows["directions"]
    sums = rows[["gain", "rise"]].mul(weights, axis=0).groupby(rows["seed"]).sum()
    return sums.div(weights.groupby(rows["seed"]).sum(), axis=0)


def _along_symmetric(values: pd.Series) -> str:
    if values.empty:
        return ""
    above = count_of(values > 0, values.notna())
    return f"along symmetric ones {values.mean():.3g}, above 0 in {above} minima"


def _decides(names: tuple[Any, ...], probe: str, settings: Settings) -> bool:
    return settings.is_headline(probe) and settings.may_decide(names[0], names[2])


def _how(probe: str, settings: Settings) -> tuple[float | None, str]:
    return settings.rise_of(probe), settings.bn_of(probe)

"""Experiments 1 and 8: how many directions at SGD minima are asymmetric. Rule share.

The value of a minimum is the share of its directions, of one probe, that are asymmetric. A direction along
which the loss does not rise as asked for is undecided (`measures.falls_short`).

``random_directions_are_asymmetric``
    All minima of all settings together, those of studies among them, by probe. Claimed: the mean is above
    `Settings.decent`. Kind uniform over all parameters, batch norm refreshed, at the headline rise, decides
    claim 2; other rises and kinds (controls) stand beside.
``random_directions_of_mlps``
    The same over the minima of MLPs, kind uniform: decides claim 3.
``directions_are_asymmetric``, ``rises_are_uneven``
    By setting and probe, beside. The second asks of more than half of the directions whether the rises about
    the curve's own minimum differ by a factor of c. That is less than Definition 1 asks: a curve whose slope
    grows within the window by a factor g has c* at most 1/g of the ratio of its slopes.

Directions of kind sign are experiment 12, searched ones 13.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pandas as pd

from valleys.claims.rows import Row, joined, share_row
from valleys.claims.settings import Settings
from valleys.results import doubts, measures, study_outcomes
from valleys.results.measures import SETTING

_MINIMUM = [*SETTING, "seed"]
_ALL = "all settings"
_OTHERS = ("not_minimum", "flat", "not_finite")


def judge(asymmetry: pd.DataFrame, study: pd.DataFrame | None, settings: Settings) -> Iterator[Row]:
    """Experiment 1: asymmetric directions at SGD minima, over all settings by probe, and by setting."""
    drawn = _drawn_at_sgd(asymmetry)
    everywhere = _with_studies(drawn, study)
    for probe, rows in everywhere.groupby("probe", sort=True):
        yield _together(
            "random_directions_are_asymmetric",
            rows,
            str(probe),
            "a random direction at an SGD minimum is asymmetric with decent probability",
            settings,
            number=2,
        )
    for probe, rows in everywhere[everywhere["kind"] == "uniform"].groupby("probe", sort=True):
        mlps = rows[rows["model"].map(settings.archs) == "mlp"]
        if len(mlps):
            yield _together(
                "random_directions_of_mlps",
                mlps,
                str(probe),
                "a random direction at an SGD minimum of an MLP is asymmetric with decent probability",
                settings,
                number=3,
            )
    yield from by_setting(drawn, settings)


def _drawn_at_sgd(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[(rows["solution"] == "sgd") & ~rows["kind"].isin(["sign", "searched"])]


def _with_studies(drawn: pd.DataFrame, study: pd.DataFrame | None) -> pd.DataFrame:
    """Return the directions of the grid and, once each, those of all studies.

    Of studies: trained minima (`study_outcomes.TRAINED`), without the penalty in the loss, of networks
    trained by cross-entropy, as a rise in another loss is in other units.
    """
    if study is None or study.empty:
        return drawn
    trained = ~(study["train_accuracy"] < study_outcomes.TRAINED) & ~study["penalty"].astype(bool)
    more = _drawn_at_sgd(study[trained & study["levels"].map(_is_cross_entropy)])
    whole = pd.concat([drawn, more], ignore_index=True)
    return whole.drop_duplicates([*_MINIMUM, "probe", "k"])


def _is_cross_entropy(levels: str) -> bool:
    found = json.loads(levels)
    names = [found[key] for key in found if key in ("recipe.loss", "recipe.loss.name")]
    return all((name.get("name") if isinstance(name, dict) else name) == "cross_entropy" for name in names)


def by_setting(
    drawn: pd.DataFrame, settings: Settings, *, experiment: int = 1, within: str = "", about: str = ""
) -> Iterator[Row]:
    """Asymmetric directions and uneven rises by setting and probe: rows that stand beside.

    Parameters
    ----------
    drawn
        Directions at SGD minima, rows as of the table ``asymmetry``.
    settings
        Constants of the rules.
    experiment, within, about
        For studies: their experiment, what their scopes begin with, and a remark for the notes.
    """
    for names, rows in drawn.groupby([*SETTING, "probe"], sort=True):
        scope, probe = within + "/".join(map(str, names)), str(names[-1])
        yield share_row(
            "directions_are_asymmetric",
            scope,
            "a direction at an SGD minimum is asymmetric (Definition 1) with decent probability",
            **_shares(rows, rows["status"] == "asymmetric"),
            at=settings.decent,
            measure="share of a minimum's directions that are asymmetric, mean over minima",
            note=joined(*_notes(rows, probe, settings), about),
            experiment=experiment,
            number=2,
            **settings.test,
        )
        index = rows["asymmetry_index"]
        yield share_row(
            "rises_are_uneven",
            scope,
            f"along most lines through an SGD minimum one side rises {settings.c:g} times as much",
            **_shares(rows, measures.uneven(index, settings.c)),
            at=0.5,
            measure="share of a minimum's directions whose rises about the curve's own minimum differ "
            f"{settings.c:g}-fold or more, mean over minima",
            note=joined(
                f"steeper on the +u side in {(index < 0).sum()} of {len(rows)}",
                settings.about_rise(probe),
                _short(rows, probe, settings),
                doubts.about(rows),
                about,
            ),
            experiment=experiment,
            number=2,
            **settings.test,
        )


def _shares(rows: pd.DataFrame, hit: pd.Series) -> dict[str, pd.Series]:
    """Return each minimum's share of directions that are hits, with `least` and `most` of `share_row`."""
    short = measures.falls_short(rows)
    counted = {"values": hit, "least": hit & ~short, "most": hit | short}
    by = [rows[key] for key in _MINIMUM]
    return {name: hits.groupby(by, sort=True).mean() for name, hits in counted.items()}


def _short(rows: pd.DataFrame, probe: str, settings: Settings) -> str:
    short = rows[measures.falls_short(rows)]
    asymmetric = int((short["status"] == "asymmetric").sum())
    return measures.short_of(len(short), asymmetric, len(rows), settings.rise_of(probe))


def _together(
    claim: str, rows: pd.DataFrame, probe: str, statement: str, settings: Settings, *, number: int
) -> Row:
    """Return the row of one probe over all settings, each minimum a value."""
    drawn = set(zip(rows["kind"], rows["group"], strict=True)) == {("uniform", "all")}
    return share_row(
        claim,
        f"{_ALL}/{probe}",
        statement,
        **_shares(rows, rows["status"] == "asymmetric"),
        at=settings.decent,
        measure="share of a minimum's directions that are asymmetric (Definition 1), mean over minima",
        note=joined(f"settings: {rows.groupby(SETTING).ngroups}", *_notes(rows, probe, settings)),
        experiment=1,
        number=number,
        decides=drawn and settings.is_headline(probe) and settings.bn_of(probe) == "refreshed",
        **settings.test,
    )


def _notes(rows: pd.DataFrame, probe: str, settings: Settings) -> list[str]:
    """Say where the curves end, how many directions there are, and what is neither this nor that."""
    counts = rows["status"].value_counts()
    return [
        settings.about_rise(probe),
        _short(rows, probe, settings),
        f"directions at each minimum: {rows.groupby(_MINIMUM).size().max()}",
        *(f"{counts[s]} {s}" for s in _OTHERS if s in counts),
        doubts.about(rows),
        measures.uncertain(rows),
    ]

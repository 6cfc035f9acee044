"""What claims and figures take from the table ``searches``: first directions, and what is asymmetric."""

from __future__ import annotations

import pandas as pd


def of_first(searches: pd.DataFrame) -> pd.DataFrame:
    """Return all restarts of each minimum's first direction (k = 0) of searches for an asymmetric one."""
    return searches[(searches["seek"] == "asymmetric") & (searches["k"] == 0)]


def are_found(rows: pd.DataFrame) -> pd.Series:
    """Return which rows' directions were found; null counts as not."""
    return rows["found"].eq(True).fillna(False).astype(bool)


def are_asymmetric(rows: pd.DataFrame, images: str) -> pd.Series:
    """Return which rows' directions are asymmetric on some images, the flat side rising by the floor or more.

    Parameters
    ----------
    rows
        Of the table ``searches``.
    images
        ``search``, ``choose``, ``judge``, ``test``; or ``start``: the direction that the ascent began at, on
        the images judged on, of which no rise is asked.
    """
    asymmetric = rows[f"{images}_status"].eq("asymmetric").fillna(False).astype(bool)
    if images == "start":
        return asymmetric
    return asymmetric & (rows[f"{images}_flat_rise"].astype(float) >= rows["floor"])

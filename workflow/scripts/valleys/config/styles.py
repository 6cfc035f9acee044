"""The block ``figures``: what the report's figures look like, and the files of panels for a paper.

With ``format`` there are such files, and ``width``, ``font`` and ``font_size`` are theirs: a report in one
narrow column would be read by nobody, so its figures keep their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from valleys.errors import ValleysError, did_you_mean

STYLE = {"dpi": 150, "width": 7.0, "palette": "petroff10", "font_size": 9}
"""Of the report's figures; width in inches, of one with two panels, font size in points."""
COLUMN = 3.35
"""Inches: the column of a paper that is set in two, and the width of a panel's file where none is given."""
GENERIC = ("serif", "sans-serif")
"""Fonts that come with matplotlib, so that files are the same on every machine."""


def of_report(block: Mapping[str, Any]) -> dict[str, Any]:
    """Return the style of the report's figures, from the block ``figures`` of a config."""
    theirs = ("format", "width", "font", "font_size") if "format" in block else ()
    given = {key: value for key, value in block.items() if key not in theirs}
    return {**STYLE, **given}


def of_panels(block: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the style of files of panels, with their ``format``; None where none are asked for."""
    return {**STYLE, "width": COLUMN, **block} if "format" in block else None


def check_font(where: str, font: str) -> None:
    """Check that a font is one of `GENERIC` or a family that matplotlib finds on this machine.

    Parameters
    ----------
    where
        The key or option that has it, for the error.

    Raises
    ------
    ValleysError
        When it is neither.
    """
    if font in GENERIC:
        return
    from matplotlib.font_manager import fontManager

    known = sorted({entry.name for entry in fontManager.ttflist})
    if font.casefold() not in {name.casefold() for name in known}:
        near = did_you_mean(font, [*GENERIC, *known])
        raise ValleysError(
            f"{where}: {font!r} is no font family of this machine{near}; choose serif, sans-serif, or the "
            "name of an installed family"
        )

"""Figures and their captions, drawn from the tables alone.

`draw` makes a figure by name; `caption` says in words what it plots and what is seen in it, with numbers
taken from the same tables. `KINDS` has the kinds of figures, each in a module of its own with its drawing and
its words. Rows of panels are data set / model / recipe, so a larger grid makes a longer figure and not a
denser one. pyplot is not used: nothing global is changed, and the same tables give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from valleys.errors import ValleysError
from valleys.figures import (
    curves,
    line,
    measured_gain,
    plane,
    prevalence,
    sensitivity,
    shift,
    sign,
    study,
    theory,
    toy,
    training,
)
from valleys.figures.frames import CELL, Data, Spec
from valleys.figures.kind import Kind
from valleys.figures.layout import empty_figure
from valleys.figures.style import STYLE, Look, rc, style_of
from valleys.figures.wording import number
from valleys.results import measures
from valleys.storage import files

__all__ = ["CAPTIONS", "CELL", "KINDS", "STYLE", "Data", "Spec", "caption", "draw", "number", "save", "title"]

KINDS: dict[str, Kind] = {
    "training": training.KIND,
    "prevalence": prevalence.KIND,
    "sensitivity": sensitivity.KIND,
    "curves": curves.KIND,
    "line": line.KIND,
    "plane": plane.KIND,
    "shift": shift.KIND,
    "sign": sign.KIND,
    "toy-surface": toy.SURFACE,
    "toy-curves": toy.CURVES,
    "theory-average": theory.AVERAGE,
    "theory-gain": theory.GAIN,
    "theory-measured": measured_gain.KIND,
    "study": study.KIND,
}
CAPTIONS = {name: kind.caption for name, kind in KINDS.items()}
_MAX_PIXELS = 60_000  # Agg's limit is 2**16 a side


def draw(name: str, data: Data, spec: Spec) -> Figure:
    """Draw a figure; tables without rows give a figure that says so.

    Parameters
    ----------
    name
        As listed by `valleys.config.experiment.Experiment.figures`: "training", "prevalence", "sensitivity",
        "curves-<probe>", "line-<line>", "plane-<plane>", "shift", "sign", "toy-surface", "toy-curves",
        "theory-average", "theory-gain", "theory-measured" or "study-<study>".
    data
        The tables named by `valleys.config.experiment.Experiment.figure_tables`.
    spec
        As returned by `valleys.config.experiment.Experiment.figure`.

    Raises
    ------
    ValleysError
        For a name that is none of these.
    """
    kind, part = _kind(name)
    style = style_of(spec)
    with mpl.rc_context(rc(style)):
        look = Look(style, tuple(spec.get("solutions", ())))
        return kind.draw(part, _minima(kind, data), spec, look) or empty_figure(
            look, kind.nothing.format(part)
        )


def save(figure: Figure, png: str | Path, svg: str | Path, style: Mapping[str, Any]) -> None:
    """Write a figure as PNG and SVG, each atomically and with no dates: same figure, same bytes."""
    style = {**STYLE, **style}
    dpi = min(float(style["dpi"]), _MAX_PIXELS / max(figure.get_size_inches()))
    with mpl.rc_context(rc(style)):
        with files.atomic(png) as temporary:
            figure.savefig(temporary, format="png", dpi=dpi, metadata={"Software": None})
        with files.atomic(svg) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None, "Creator": None})


def caption(name: str, data: Data, spec: Spec) -> str:
    """Return what a figure plots and what is seen in it; parameters as for `draw`."""
    kind, part = _kind(name)
    seen = kind.seen(part, _minima(kind, data), spec)
    return f"{kind.caption}\n{seen}" if seen else kind.nothing.format(part)


def _minima(kind: Kind, data: Data) -> Data:
    """Return what is drawn: figures of one solution have those under a user's own names beside sgd."""
    return measures.with_own_minima(data) if kind in (shift.KIND, sign.KIND, measured_gain.KIND) else data


def title(name: str) -> str:
    """Return a heading for a figure."""
    kind, part = _kind(name)
    return kind.title.format(part)


def _kind(name: str) -> tuple[Kind, str]:
    """Return a figure's kind and its part, "" where the kind has none."""
    if name in KINDS and not KINDS[name].part:
        return KINDS[name], ""
    first, _, part = name.partition("-")
    if part and first in KINDS and KINDS[first].part:
        return KINDS[first], part
    known = ", ".join(f"{name}-<{kind.part}>" if kind.part else name for name, kind in KINDS.items())
    raise ValleysError(f"figure {name!r} is not known; there are {known}")

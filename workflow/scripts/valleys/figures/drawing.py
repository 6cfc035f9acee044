"""A figure by its name: drawn, saved and described; how each kind looks stands in its own module.

`draw` makes a figure by name; `caption` says in words what it plots and what is seen in it, with numbers
taken from the same tables. `KINDS` has the kinds of figures: each is a `Kind` in a module of this package,
which has its drawing and what is seen in it, and an entry in `valleys.config.catalogue`. Rows of panels are
data set, model and recipe: a larger grid makes a longer figure, not a denser one. pyplot is not used:
nothing global is changed, and the same tables give the same bytes.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from valleys.config import captions
from valleys.figures.frames import Data, Spec
from valleys.figures.kind import Kind
from valleys.figures.layout import empty_figure
from valleys.figures.style import STYLE, Look, rc, style_of
from valleys.results import measures
from valleys.storage import files


def _kinds() -> dict[str, Kind]:
    """Return the kinds of figures that the modules of this package have, by name."""
    names = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
    modules = [import_module(f"valleys.figures.{name}") for name in names if name != "drawing"]
    found = [kind for module in modules for kind in vars(module).values() if isinstance(kind, Kind)]
    return {kind.name: kind for kind in found}


KINDS = _kinds()
_MAX_PIXELS = 60_000  # Agg's limit is 2**16 a side


def draw(name: str, data: Data, spec: Spec) -> Figure:
    """Draw a figure; tables without rows give a figure that says so.

    Parameters
    ----------
    name
        As listed by `valleys.config.outputs.figures`: the name of a kind, as "training", or of a kind and a
        part, as "curves-uniform".
    data
        The tables named by `valleys.config.outputs.figure_tables`.
    spec
        As returned by `valleys.config.params.Params.figure`.

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
    return f"{captions.text(kind.name)}\n{seen}" if seen else kind.nothing.format(part)


def nothing(name: str) -> str:
    """Return the caption of a figure for which the tables have no rows."""
    kind, part = _kind(name)
    return kind.nothing.format(part)


def _minima(kind: Kind, data: Data) -> Data:
    """Return what is drawn: figures of one solution have those under a user's own names beside sgd."""
    return measures.with_own_minima(data) if kind.own_minima else data


def title(name: str) -> str:
    """Return a heading for a figure."""
    return captions.title(name)


def _kind(name: str) -> tuple[Kind, str]:
    """Return a figure's kind and its part, "" where the kind has none."""
    kind, part = captions.kind_of(name)
    return KINDS[kind], part

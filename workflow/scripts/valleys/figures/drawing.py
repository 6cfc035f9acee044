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
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from valleys.config import captions
from valleys.figures.frames import Data, Spec
from valleys.figures.kind import Kind
from valleys.figures.layout import empty_figure
from valleys.figures.sheet import Sheet
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
_WITHOUT_DATES: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
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
        figure = kind.draw(part, _minima(kind, data), spec, look)
        if isinstance(figure, Sheet):
            figure.fit()
        return figure or empty_figure(look, kind.nothing.format(part))


def save(figure: Figure, png: str | Path, svg: str | Path, style: Mapping[str, Any]) -> None:
    """Write a figure as PNG and SVG, as `save_as` does."""
    for path in (png, svg):
        save_as(figure, path, style)


def save_as(figure: Figure, path: str | Path, style: Mapping[str, Any]) -> None:
    """Write a figure as PNG, SVG or PDF, as its path ends, atomically and with no dates.

    The same figure gives the same bytes. Text is text, and a PDF has its fonts (of type 42).
    """
    style, kind = {**STYLE, **style}, Path(path).suffix.removeprefix(".")
    dpi = min(float(style["dpi"]), _MAX_PIXELS / max(figure.get_size_inches()))
    with mpl.rc_context(rc(style)), files.atomic(path) as temporary:
        figure.savefig(
            temporary, format=kind, metadata=_WITHOUT_DATES[kind], **({"dpi": dpi} if kind == "png" else {})
        )


def panels(figure: Figure, name: str) -> dict[str, Axes]:
    """Return the panels of a figure by the names that their files have.

    Parameters
    ----------
    figure
        As drawn in a style with a ``format``. One that says that there is nothing to draw has none.
    name
        Of the figure, with which the panels' begin (`Sheet.panels`).
    """
    return figure.panels(name) if isinstance(figure, Sheet) else {}


def save_panel(figure: Sheet, panel: Axes, path: str | Path, style: Mapping[str, Any]) -> None:
    """Write one panel of a figure alone, as `save_as` does; the figure then shows no other."""
    with mpl.rc_context(rc({**STYLE, **style})):
        figure.show_alone(panel)
    save_as(figure, path, style)


def save_panels(figure: Figure, name: str, folder: str | Path, style: Mapping[str, Any]) -> list[Path]:
    """Write each panel of a figure to a file of its own in a folder; return their paths.

    Parameters are those of `panels` and `save_panel`; files end in the style's ``format``.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    paths = {
        Path(folder) / f"{panel}.{style['format']}": axes for panel, axes in panels(figure, name).items()
    }
    for path, axes in paths.items():
        save_panel(figure, axes, path, style)
    return list(paths)


def caption(name: str, data: Data, spec: Spec) -> str:
    """Return what a figure plots and what is seen in it; parameters as for `draw`."""
    kind, part = _kind(name)
    seen = kind.seen(part, _minima(kind, data), spec)
    return f"{captions.text(kind.name)}\n{seen}" if seen else kind.nothing.format(part)


def write(name: str, data: Data, spec: Spec, folder: Path) -> Path:
    """Draw a figure into ``<name>.png`` and ``.svg``, its caption into ``.txt``; return the PNG's path."""
    png, svg, text = (folder / f"{name}.{suffix}" for suffix in ("png", "svg", "txt"))
    save(draw(name, data, spec), png, svg, spec["style"])
    files.write_text(text, caption(name, data, spec) + "\n")
    return png


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

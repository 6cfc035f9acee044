"""Captions of figures, and where they stand in the menu of Snakemake's report (``snakemake --report``).

A caption says what a kind of figure draws and how to read it. It is in ``workflow/report/<kind>.rst``: plain
prose, so that Snakemake's report and our own page (`valleys.figures.caption`) can both show it as it is.

Imported by the Snakefile, so nothing here imports matplotlib.
"""

from __future__ import annotations

import os
from pathlib import Path

from valleys.config.catalogue import FIGURES, TABLES, find_figure
from valleys.errors import ValleysError
from valleys.storage import schemas

NETWORKS, SIMULATIONS = "Networks", "Simulations"


def text(kind: str) -> str:
    """Return the caption of a kind of figure, one line a paragraph."""
    paragraphs = schemas.caption(f"{kind}.rst").read_text(encoding="utf-8").split("\n\n")
    return "\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def path(figure: str) -> Path:
    """Return the file with the caption of a figure by its name, as it is found from where we are."""
    return Path(os.path.relpath(schemas.caption(f"{kind_of(figure)[0]}.rst")))


def category(figure: str) -> str:
    """Return what a figure is about: networks of the config, or simulations."""
    return SIMULATIONS if is_simulated(figure) else NETWORKS


def is_simulated(figure: str) -> bool:
    """Whether a figure is drawn from simulations alone."""
    tables = FIGURES[kind_of(figure)[0]].tables
    return bool(tables) and all(TABLES[table].asked == "simulations" for table in tables)


def subcategory(figure: str) -> str:
    """Return the subject of a figure."""
    return FIGURES[kind_of(figure)[0]].subject


def labels(figure: str) -> dict[str, str]:
    """Return what tells a figure from the others of its subject: its title and file name."""
    return {"figure": title(figure), "file": figure}


def title(figure: str) -> str:
    """Return a heading for a figure."""
    kind, part = kind_of(figure)
    return FIGURES[kind].title.format(part)


def kind_of(figure: str) -> tuple[str, str]:
    """Return the name of a figure's kind and its part, "" where the kind has none."""
    entry, part = find_figure(figure)
    if entry is None:
        known = (f"{kind}-<{one.part}>" if one.part else kind for kind, one in FIGURES.items())
        raise ValleysError(f"figure {figure!r} is not known; there are {', '.join(known)}")
    return entry.name, part

"""What makes a kind of figure: how it is drawn, and what is seen in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from valleys.figures.frames import Data, Spec
from valleys.figures.style import Look


@dataclass(frozen=True)
class Kind:
    """One kind of figure, as `valleys.figures` finds it by name.

    What it is drawn from and when it is made is its entry in `valleys.config.catalogue.FIGURES`. Figures of a
    kind with a part are named ``<name>-<part>``, such as ``curves-uniform``. In `nothing`, ``{}`` stands for
    it; `draw` and `seen` get it first, "" for kinds without. The title is in the catalogue, the caption in
    ``workflow/report/<name>.rst``.
    """

    name: str
    """As in the catalogue."""
    nothing: str
    """What is said where the tables have no rows for it."""
    draw: Callable[[str, Data, Spec, Look], Figure | None]
    """Returns the figure; None where the tables have no rows for it."""
    seen: Callable[[str, Data, Spec], str]
    """Returns what is seen in it, with numbers; "" where the tables have no rows for it."""
    own_minima: bool = False
    """Whether solutions under a user's own names are shown as sgd is, each by itself."""

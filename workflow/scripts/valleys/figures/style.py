"""What a figure looks like: colours of things that have one everywhere, markers, matplotlib's settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.style
from matplotlib.colors import LinearSegmentedColormap

from valleys.config.styles import STYLE
from valleys.errors import ValleysError
from valleys.figures.frames import Spec

MPLSTYLE = Path(__file__).with_name("valleys.mplstyle")
NARROW = 5.0
"""Inches: a narrower figure has no room for two panels in a row."""
_MARKERS = {"sgd": "o", "swa": "s", "descent": "D", "last": "^"}
_OWN_MARKERS = "pPX*hd"  # of solutions under names of the user's own
SHADE = 0.2
GREY, PALE, FAINT, INK = "#5f6368", "#d9dce0", "#e8eaed", "#202124"
PALE_TO_DARK = LinearSegmentedColormap.from_list("pale_to_dark", ["#ffffff", "#c3c7cc", "#6f7680"])
"""Shades of a loss surface, the least loss pale."""
# Which entry of a palette each thing takes: pairs that meet in one panel differ in hue and in lightness.
_ROLES = {
    "petroff10": {
        "train": 0,
        "test": 6,
        "sgd": 6,
        "swa": 4,
        "descent": 5,
        "last": 1,
        "released": 6,
        "converged": 0,
        "fixed": 6,
        "free": 0,
        "symmetric": 2,
        "flat": 4,
    },
    "tableau-colorblind10": {
        "train": 0,
        "test": 5,
        "sgd": 1,
        "swa": 0,
        "descent": 3,
        "last": 6,
        "released": 5,
        "converged": 0,
        "fixed": 5,
        "free": 0,
        "symmetric": 1,
        "flat": 4,
    },
    "Dark2": {
        "train": 0,
        "test": 1,
        "sgd": 1,
        "swa": 2,
        "descent": 3,
        "last": 5,
        "released": 1,
        "converged": 2,
        "fixed": 1,
        "free": 2,
        "symmetric": 3,
        "flat": 2,
    },
}
_APART = {"petroff10": (0, 1, 6, 2, 4, 5, 7, 8, 9, 3), "tableau-colorblind10": (0, 1, 5, 3, 2, 6, 4)}
SPLITS = {"train": "-", "test": "--"}


@dataclass(frozen=True)
class Look:
    """Style of one figure: sizes, and colour and marker of each thing that has them everywhere.

    `own` are the names of the user's own for solutions.
    """

    style: Mapping[str, Any]
    own: tuple[str, ...] = ()

    @property
    def alone(self) -> bool:
        """Whether each panel has to say all that it shows: in files for a paper, and where it is narrow."""
        return "format" in self.style or self.width < NARROW

    @property
    def width(self) -> float:
        """Width in inches: of a figure of two panels in a row, or of any whose panels stand alone."""
        return float(self.style["width"])

    def nth(self, i: int) -> str:
        """Return the palette's i-th colour, in an order in which the first ones are well apart."""
        colours = _colours(self.style["palette"])
        order = _APART.get(self.style["palette"], range(len(colours)))
        return colours[list(order)[i % len(order)]]

    def colour(self, thing: str) -> str:
        """Return the colour of a thing of `_ROLES`; the palette's first for any other."""
        palette = self.style["palette"]
        colours = _colours(palette)
        return colours[_ROLES.get(palette, _ROLES["petroff10"]).get(thing, 0) % len(colours)]

    def of_solution(self, solution: str) -> str:
        """Return a solution's colour: the user's own names take those that the workflow's four leave."""
        if solution not in self.own:
            return self.colour(solution)
        taken = [self.colour(name) for name in _MARKERS]
        free = [colour for colour in _colours(self.style["palette"]) if colour not in taken]
        return free[self.own.index(solution) % len(free)]

    def marker(self, solution: str) -> str:
        """Return a solution's marker."""
        own = _OWN_MARKERS[self.own.index(solution) % len(_OWN_MARKERS)] if solution in self.own else "o"
        return _MARKERS.get(solution, own)


def _colours(palette: str) -> Sequence[Any]:
    if palette in mpl.color_sequences:
        return mpl.color_sequences[palette]
    if palette in matplotlib.style.library:
        return matplotlib.style.library[palette]["axes.prop_cycle"].by_key()["color"]
    raise ValleysError(f"figures.palette: {palette!r} is not a palette of matplotlib {mpl.__version__}")


def style_of(spec: Spec) -> dict[str, Any]:
    """Return the style of a spec, defaults filled in."""
    return {**STYLE, **spec.get("style", {})}


def rc(style: Mapping[str, Any]) -> dict[str, Any]:
    """Return matplotlib's settings for a style: those of ``valleys.mplstyle``, in the sizes of the style."""
    size, font = style["font_size"], style.get("font", "sans-serif")
    # By name, so that a figure measures the same outside of these settings. Further families have the letters
    # that a font lacks, and are what viewers without the font show.
    families = {
        "sans-serif": ["DejaVu Sans", "sans-serif"],
        "serif": ["STIXGeneral", "serif", "DejaVu Serif"],
    }
    return {
        **{key: mpl.rcParamsDefault[key] for key in ("path.simplify", "agg.path.chunksize", "savefig.bbox")},
        **mpl.rc_params_from_file(MPLSTYLE, use_default_template=False),
        "font.family": families.get(font, [font, "sans-serif"]),
        "font.size": size,
        "axes.titlesize": size,
        "axes.labelsize": size,
        "xtick.labelsize": size - 1,
        "ytick.labelsize": size - 1,
        "legend.fontsize": size,
        "figure.constrained_layout.use": False,  # figures say so themselves
        "text.parse_math": False,  # names may hold any character; ticks are written out below
        "text.usetex": False,
        "svg.hashsalt": "valleys",
    }

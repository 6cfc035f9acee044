"""Planes through weight space in 3-D: plotly figures to turn, and HTML files that ask for nothing.

Needs no torch, so that tables of a finished run are drawn at once (`valleys.cli.surface`).
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from valleys.errors import ValleysError
from valleys.storage import files

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Floats = NDArray[np.float64]
Rows = Iterable[Mapping[str, Any]]
SPLITS = ("train", "test")
_INK, _GREY, _PATH = "#202124", "#8a8f94", "#b3261e"
_MARKERS = ("circle", "square", "diamond", "cross", "x")
_COLOURS = ("#ff7f0e", "#d62728", "#9467bd", "#e377c2", "#8c564b")
# The least loss pale, as in the contour figure: marks and lines are seen where they matter.
_SCALES = {
    "train": ((0.0, "#f2ecd8"), (0.25, "#c5d5df"), (0.6, "#7ea0b7"), (1.0, "#274c66")),
    "test": ((0.0, "#f2ecd8"), (0.25, "#cfe0c8"), (0.6, "#8db58b"), (1.0, "#2f5d3a")),
}
_LINES = 12
_ON_PLANE = 1e-3
"""Weights less far out of a plane than this share of its longer side lie on it, as in the contour figure."""


@dataclass(frozen=True)
class Plane:
    """The losses on a plane, and where weights lie on it.

    Attributes
    ----------
    title
        What a menu calls it.
    xs, ys
        Coordinates of the grid, 2-norm of weights, rising.
    losses
        By split (``train``, and ``test`` where that was measured), shape (len(ys), len(xs)). NaN where a loss
        is not finite or was not measured.
    marks
        A dict a mark: ``role``, ``epoch``, ``x``, ``y``, ``distance`` (2-norm of weights, out of the plane).
    """

    title: str
    xs: Floats
    ys: Floats
    losses: Mapping[str, Floats]
    marks: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, points: Rows, marks: Rows, title: str = "") -> Plane:
        """Make one of rows with ``x``, ``y``, ``train_loss`` and ``test_loss``, in any order.

        Raises
        ------
        ValleysError
            When no train loss is finite.
        """
        points = list(points)
        xs, column = np.unique([point["x"] for point in points], return_inverse=True)
        ys, row = np.unique([point["y"] for point in points], return_inverse=True)
        losses = {}
        for split in SPLITS:
            grid = np.full((len(ys), len(xs)), np.nan)
            grid[row, column] = [point[f"{split}_loss"] for point in points]
            grid[~np.isfinite(grid)] = np.nan
            if np.isfinite(grid).any():
                losses[split] = grid
        if "train" not in losses:
            raise ValleysError(f"{title or 'plane'}: none of its {len(points)} train losses is finite")
        return cls(title, xs, ys, losses, list(marks))

    @property
    def side(self) -> float:
        """The longer side, 2-norm of weights."""
        return float(max(np.ptp(self.xs), np.ptp(self.ys))) or 1.0

    def height(self, split: str, x: float, y: float) -> float:
        """Return a loss at a place, linear between the grid's points; NaN beside one without, and outside."""
        grid, weights = self.losses[split], []
        for axis, value in ((self.ys, y), (self.xs, x)):
            if not axis[0] <= value <= axis[-1]:
                return float("nan")
            at = min(max(int(np.searchsorted(axis, value, side="right")) - 1, 0), max(len(axis) - 2, 0))
            share = (value - axis[at]) / (axis[at + 1] - axis[at]) if len(axis) > 1 else 0.0
            weights.append([(at, 1 - share), (at + 1, share)])
        # A corner of no weight has no say: 0 times NaN would be NaN.
        corners = [(i, j, a * b) for i, a in weights[0] for j, b in weights[1] if a * b > 0]
        return float(sum(share * grid[i, j] for i, j, share in corners))


@dataclass(frozen=True)
class _Axis:
    """The axis of the loss: whether it is logarithmic, and its ends in the loss's units."""

    log: bool
    low: float
    high: float
    cut: bool

    @property
    def ends(self) -> Floats:
        """Both ends as plotly wants them: of a logarithmic axis the logarithms."""
        return np.log10([self.low, self.high]) if self.log else np.array([self.low, self.high])

    def above(self, height: float) -> float:
        """Return where a mark is drawn: a little higher, so that it does not sink into the surface."""
        height = min(height, self.high)
        lift = 0.012 * float(np.ptp(self.ends))
        return height * 10**lift if self.log else height + lift

    def ticks(self) -> dict[str, list[Any]]:
        """Return where a logarithmic axis has its numbers, which are few and round, and these."""
        low, high = self.ends
        step = max(1, round((high - low) / 6))
        mantissas = (1, 2, 5) if high - low < 2 else (1,)
        exponents = range(int(np.floor(low)), int(np.ceil(high)) + 1, step)
        values = [m * 10.0**k for k in exponents for m in mantissas if self.low <= m * 10.0**k <= self.high]
        if len(values) < 2:  # none so round on a short axis
            values = list(dict.fromkeys([self.low, self.high]))
        return {"tickvals": values, "ticktext": [f"{value:.4g}" for value in values]}


def figure(planes: Sequence[Plane], log: bool | None = None) -> Figure:
    """Return a plotly figure of one surface at a time, train or test loss, with what lies on it.

    A menu chooses where there are several; each has an axis of its own, as test losses may be a hundred times
    the train losses. Where the highest loss is far above nine in ten of the others, the axis ends where these
    do, and what is higher is drawn at that height: the contour figure does so, and plotly draws no surface
    of which a part is far outside of the box. Under the pointer is the loss itself.

    Parameters
    ----------
    planes
        One or more.
    log
        Whether the axis of the loss is logarithmic; None: where a linear one would show the valley flat.

    Raises
    ------
    ValleysError
        Without plotly, and for a logarithmic axis of losses that are not all above 0.
    """
    graph = _plotly()
    views = [(plane, split) for plane in planes for split in plane.losses]
    axes = [_axis(plane.losses[split], log) for plane, split in views]
    traces = [_traces(graph, *view, axis) for view, axis in zip(views, axes, strict=True)]
    layouts = [_layout(*view, axis) for view, axis in zip(views, axes, strict=True)]

    def visible(number: int) -> list[bool]:
        return [owner == number for owner, made in enumerate(traces) for _ in made]

    drawn = graph.Figure([trace for made in traces for trace in made], layouts[0])
    for trace, shown in zip(drawn.data, visible(0), strict=True):
        trace.visible = shown
    drawn.update_layout(
        template="plotly_white",
        font={"family": "system-ui, sans-serif", "size": 13, "color": _INK},
        margin={"l": 0, "r": 0, "t": 80, "b": 0},
        showlegend=True,
        legend={"x": 0.01, "y": 0.99, "bgcolor": "rgba(255,255,255,0.8)"},
    )
    if len(views) > 1:
        entries = [
            {"label": _name(*view), "method": "update", "args": [{"visible": visible(number)}, changes]}
            for number, (view, changes) in enumerate(zip(views, map(_changes, layouts), strict=True))
        ]
        place = {"x": 0.99, "xanchor": "right", "y": 1.0, "yanchor": "bottom", "pad": {"b": 8}}
        drawn.update_layout(updatemenus=[{"buttons": entries, **place}])
    return drawn


def write(drawn: Figure, path: str | Path, title: str = "Loss on a plane through weight space") -> Path:
    """Write a figure as one HTML file of about 5 MB: plotly.js is in it, and nothing is loaded.

    Raises
    ------
    ValleysError
        When it cannot be written.
    """
    text = drawn.to_html(
        include_plotlyjs=True,
        config={"displaylogo": False, "responsive": True},
        div_id="surface",  # else a random one: the same figure gives the same bytes
        default_height="100vh",
    )
    head = f"<head><title>{html.escape(title)}</title><style>body {{ margin: 0 }}</style>"
    files.write_text(path, text.replace("<html>", '<html lang="en">', 1).replace("<head>", head, 1))
    return Path(path)


def _plotly() -> Any:
    try:
        from plotly import graph_objects
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "plotly":
            raise
        raise ValleysError("a surface in 3-D needs the package plotly: pip install plotly") from None
    return graph_objects


def _changes(layout: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a menu changes of a layout: not the camera, so that surfaces are compared from one side."""
    scene = {f"scene.{key}": value for key, value in layout["scene"].items() if key != "camera"}
    return {"title": layout["title"], **scene}


def _name(plane: Plane, split: str) -> str:
    return f"{html.escape(plane.title)}, {split} loss" if plane.title else f"{split} loss"


def _axis(grid: Floats, log: bool | None) -> _Axis:
    """Return the axis that shows a valley.

    On a bowl nine points in ten stay below 4 times the median height, and all below twice that. More is a
    loss that explodes.
    """
    values = grid[np.isfinite(grid)]
    low, top = float(values.min()), float(values.max())
    middle, most = (float(np.quantile(values, share)) - low for share in (0.5, 0.9))
    if log and low <= 0:
        raise ValleysError(f"log: the least loss is {low:.3g}, and a logarithm is of losses above 0")
    if log or (log is None and low > 0 and most > 50 * middle > 0):
        return _Axis(True, low, top, False)
    cut = most > 0 and top - low > 4 * most
    high = low + most if cut else top
    return _Axis(False, low, high if high > low else low + 1.0, cut)


def _traces(graph: Any, plane: Plane, split: str, axis: _Axis) -> list[Any]:
    """Return the surface, the iterates' path and the marks."""
    grid, name, (low, high) = plane.losses[split], f"{split} loss", axis.ends
    bar: dict[str, Any] = {"title": {"text": name}, "len": 0.6, "thickness": 14, "x": 0.98}
    about: dict[str, Any]
    if axis.log:
        ticks = axis.ticks()
        about = {"surfacecolor": np.log10(grid)}
        bar |= {**ticks, "tickvals": np.log10(ticks["tickvals"])}
    else:  # plotly spaces lines evenly in the loss, which a logarithmic axis would crowd at the top
        every = {"start": low, "end": high, "size": (high - low) / _LINES}
        about = {"contours": {"z": {"show": True, "color": _GREY, "width": 1, **every}}}
    surface = graph.Surface(
        x=plane.xs,
        y=plane.ys,
        z=np.minimum(grid, axis.high) if axis.cut else grid,
        name=name,
        colorscale=_SCALES[split],
        cmin=low,
        cmax=high,
        colorbar=bar,
        hoverinfo="text",
        text=_labels(plane, split),
        lighting={"ambient": 0.55, "diffuse": 0.42, "specular": 0.05},
        **about,
    )
    made = [surface]
    iterates = [mark for mark in plane.marks if mark["role"] == "iterate"]
    if iterates:
        iterates.sort(key=lambda mark: mark["epoch"])
        made.append(
            graph.Scatter3d(
                **_places(plane, split, axis, iterates),
                name="iterates",
                mode="lines+markers",
                line={"color": _PATH, "width": 4},
                marker={"color": _PATH, "size": 3},
            )
        )
    roles = dict.fromkeys(mark["role"] for mark in plane.marks if mark["role"] != "iterate")
    for number, role in enumerate(roles):
        found = [mark for mark in plane.marks if mark["role"] == role]
        off = any(mark["distance"] > _ON_PLANE * plane.side for mark in found)
        made.append(
            graph.Scatter3d(
                **_places(plane, split, axis, found),
                name=html.escape(role) + (" (projected)" if off else ""),
                mode="markers",
                marker={
                    "symbol": _MARKERS[number % len(_MARKERS)],
                    "color": _COLOURS[number % len(_COLOURS)],
                    "size": 7,
                    "line": {"color": _INK, "width": 2},
                },
            )
        )
    return made


def _labels(plane: Plane, split: str) -> NDArray[np.str_]:
    """Return what stands under the pointer at each point, shape (len(ys), len(xs)).

    Written out, as plotly takes the custom data of a surface's points with x and y exchanged; and an array,
    as of lists it makes one string a row.
    """
    rows = zip(plane.ys, plane.losses[split], strict=True)
    return np.array(
        [
            [
                f"x {x:.4g}<br>y {y:.4g}<br>{split} loss {loss:.5g}"
                for x, loss in zip(plane.xs, row, strict=True)
            ]
            for y, row in rows
        ]
    )


def _places(plane: Plane, split: str, axis: _Axis, marks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return coordinates and words of marks; those without a finite loss beneath are left out."""
    placed = [(mark, plane.height(split, mark["x"], mark["y"])) for mark in marks]
    placed = [(mark, height) for mark, height in placed if np.isfinite(height)]
    return {
        "x": [mark["x"] for mark, _ in placed],
        "y": [mark["y"] for mark, _ in placed],
        "z": [axis.above(height) for _, height in placed],
        "customdata": [height for _, height in placed],
        "text": [_words(mark) for mark, _ in placed],
        "hovertemplate": f"%{{text}}<br>x %{{x:.4g}}<br>y %{{y:.4g}}<br>{split} loss %{{customdata:.4g}}"
        "<extra></extra>",
    }


def _words(mark: Mapping[str, Any]) -> str:
    epoch = f" {mark['epoch']:.0f}" if mark["role"] == "iterate" else ""
    return f"{html.escape(mark['role'])}{epoch}, {mark['distance']:.3g} out of the plane"


def _layout(plane: Plane, split: str, axis: _Axis) -> dict[str, Any]:
    """Return title and scene."""
    said = []
    missing = int(np.isnan(plane.losses[split]).sum())
    if axis.cut:
        said.append(f"losses above {axis.high:.3g} are drawn at that height")
    if missing:
        said.append(f"{missing:,} points whose loss is not finite are left out")
    grid = {"gridcolor": "#d9dce0", "zeroline": False, "backgroundcolor": "white", "showbackground": True}
    lengths = {
        name: max(float(np.ptp(values)) / plane.side, 0.2)
        for name, values in (("x", plane.xs), ("y", plane.ys))
    }
    low, high = axis.ends
    room = 0.03 * (high - low) or 0.01
    scene = {
        "xaxis": {"title": {"text": "x [2-norm of weights]"}, "nticks": _ticks(lengths["x"]), **grid},
        "yaxis": {"title": {"text": "y [2-norm of weights]"}, "nticks": _ticks(lengths["y"]), **grid},
        "zaxis": {
            "title": {"text": f"{split} loss"},
            "type": "log" if axis.log else "linear",
            "range": [low - room, high + room],
            **(axis.ticks() if axis.log else {"nticks": 6}),
            **grid,
        },
        # x and y are lengths in one unit; the loss is not.
        "aspectmode": "manual",
        "aspectratio": {**lengths, "z": 0.7},
        "camera": {"eye": {"x": -0.75, "y": -1.6, "z": 1.15}, "center": {"x": 0, "y": 0, "z": -0.12}},
    }
    title = html.escape(plane.title) or "Plane through weight space"
    text = f"{title}<br><sup>{'; '.join(said)}</sup>" if said else title
    return {"title": {"text": text, "x": 0.02, "font": {"size": 16}}, "scene": scene}


def _ticks(length: float) -> int:
    """Return how many numbers there is room for along an axis, whose length is a share of the longest."""
    return max(3, round(8 * length))

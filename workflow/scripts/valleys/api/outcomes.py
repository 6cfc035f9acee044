"""What a `Landscape` measured: small objects with the numbers, a data frame, a picture and a table."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valleys.errors import ValleysError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Rows = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True, repr=False)
class Outcome:
    """Common to all: a row of names, as the workflow's tables have them."""

    names: Mapping[str, Any] = field(default_factory=dict)

    def rows(self) -> Rows:
        """Return the measured values, a dict a row."""
        raise NotImplementedError

    def frame(self) -> pd.DataFrame:
        """Return the measured values as a data frame."""
        import pandas as pd

        return pd.DataFrame(self.rows())

    def summary(self) -> str:
        """Return what was found, in a line."""
        raise NotImplementedError

    def draw(self, axes: Axes) -> None:
        """Draw it into axes."""
        raise NotImplementedError

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw it into axes, by default of a new figure, and return these."""
        if axes is None:
            from matplotlib import pyplot

            axes = pyplot.subplots(figsize=(5, 3.2), layout="constrained")[1]
        self.draw(axes)
        return axes

    def parts(self) -> dict[str, Rows]:
        """Return the rows of each of the workflow's tables that it is saved as."""
        return {}

    def save(self, folder: str | Path) -> list[Path]:
        """Write it as the workflow's tables, ``<folder>/<table>.parquet``, and return their paths.

        Raises
        ------
        ValleysError
            For what the workflow has no table of.
        """
        from valleys.storage import tables

        parts = self.parts()
        if not parts:
            raise ValleysError(f"{type(self).__name__}: the workflow has no table of these; use frame()")
        paths = []
        for name, rows in parts.items():
            paths.append(Path(folder) / f"{name}.parquet")
            paths[-1].parent.mkdir(parents=True, exist_ok=True)
            tables.write(paths[-1], name, rows)
        return paths

    def __repr__(self) -> str:
        """Return what it is and what was found."""
        return f"<{type(self).__name__}: {self.summary()}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the finding, and the first rows."""
        frame = self.frame()
        more = f"<p>{len(frame):,} rows</p>" if len(frame) > 10 else ""
        return f"<p><b>{html.escape(self.summary())}</b></p>{frame.head(10).to_html(index=False)}{more}"

"""``valleys surface``: planes that a run measured, as one page to turn.

A command and no rule: each page has plotly.js in it and is as large as a report, and is made in seconds.
"""

from __future__ import annotations

from pathlib import Path

from valleys.api import surfaces
from valleys.errors import ValleysError, did_you_mean
from valleys.figures.frames import by_cell
from valleys.storage import files, tables


def write(
    given: Path, output: Path | None = None, name: str | None = None, log: bool | None = None
) -> tuple[Path, list[str]]:
    """Write the planes of a table, each cell's at its lowest seed as in the contour figure.

    Parameters
    ----------
    given
        A results folder, another folder with ``planes.parquet`` (`Outcome.save`), or that file.
        ``plane_points.parquet`` must be beside it.
    output
        The page, ``.html``; by default ``planes.html`` beside the table.
    name
        Of the plane; None for all, with a menu.
    log
        As of `valleys.api.surfaces.figure`.

    Returns
    -------
    page, left_out
        Its path, and a line for each plane that has no finite train loss.

    Raises
    ------
    ValleysError
        For a table that is absent, damaged, or without such a plane; when all are left out; and as
        `surfaces.figure`.
    """
    path = _table(given)
    output = output or path.with_suffix(".html")
    if output.suffix != ".html":
        raise ValleysError(f"--output: {output} ends in {output.suffix or 'nothing'!r}; use .html")
    table = tables.read(path, "planes").to_pandas()
    points = tables.read(path.with_name("plane_points.parquet"), "plane_points").to_pandas()
    known = list(table["plane"].unique())
    if not known:
        raise ValleysError(f"{path} has no rows: no plane was measured")
    if name is not None and name not in known:
        raise ValleysError(
            f"--plane: {path} has no plane {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}"
        )
    drawn, left_out = [], []
    for one in known if name is None else [name]:
        for label, _, rows in by_cell(table[table["plane"] == one]):
            cell = rows.loc[[rows["seed"].idxmin()], ["dataset", "model", "recipe", "seed", "plane"]]
            rows, marks = rows[rows["seed"] == cell["seed"].item()], points.merge(cell)
            title = f"{one}: {label} (seed {cell['seed'].item()})"
            try:
                drawn.append(surfaces.Plane.of(rows.to_dict("records"), marks.to_dict("records"), title))
            except ValleysError as error:
                left_out.append(str(error))
    if not drawn:
        raise ValleysError(f"{path}: {left_out[0]}")
    return surfaces.write(surfaces.figure(drawn, log), output), left_out


def _table(given: Path) -> Path:
    if given.is_dir():
        for path in (given / "tables" / "planes.parquet", given / "planes.parquet"):
            if path.exists():
                return path
        raise ValleysError(f"{given} has no tables/planes.parquet; give a results folder or a planes.parquet")
    return files.check_regular(given, "table", "give a results folder or a planes.parquet")

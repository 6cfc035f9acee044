"""``valleys figure``: one figure of a finished run, drawn from its tables for a paper."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valleys import figures
from valleys.config import outputs, styles
from valleys.config.cells import Cells
from valleys.config.params import Params
from valleys.config.schema import check, check_writable, with_defaults
from valleys.errors import ValleysError, did_you_mean
from valleys.storage import tables

if TYPE_CHECKING:
    import pandas as pd

STYLE_KEYS = ("format", "width", "font", "font_size", "palette", "dpi")
"""Keys of the config's block ``figures`` that are options of the command line too."""
_FORMAT = "pdf"


def write(
    folder: Path,
    name: str,
    style: Mapping[str, Any],
    output: Path | None = None,
    panels: Sequence[str] = (),
) -> list[Path]:
    """Write the panels of a figure to files of their own, or a whole figure to one file.

    Parameters
    ----------
    folder
        Of a finished run, as in ``results/default``.
    name
        Of the figure, as of its file in the report's folder ``figures``.
    style
        Those of `STYLE_KEYS` that were given.
    output
        A path that ends in a format is a file: of the whole figure, or of the panel in `panels`. Another one
        is a folder, of a file a panel; by default it has the figure's name.
    panels
        Names of the panels to write, as their files have them; empty for all.

    Returns
    -------
    paths
        Of the files, in reading order.

    Raises
    ------
    ValleysError
        For a folder without the tables, a figure or panel that there is not, and a style that makes no sense;
        the option is named in place of the config's key.
    """
    output = Path(name) if output is None else output
    kind = output.suffix.removeprefix(".")
    if is_file := bool(kind) and not output.is_dir():
        if style.get("format", kind) != kind:
            raise ValleysError(
                f"--format: {style['format']!r}, but --output {output} ends in .{kind}; drop one"
            )
        style = {**style, "format": kind}
    check_writable(output.parent if is_file else output)
    cells = _cells_of(folder, {"format": _FORMAT, **style}, "output" if is_file else "format")
    known = outputs.figure_tables(cells)
    if name not in known:
        raise ValleysError(
            f"{folder} has no figure {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}"
        )
    data = tables.frames(folder / "tables" / f"{table}.parquet" for table in known[name])
    spec = Params(cells).panels(name)
    if is_file and not panels:
        spec["style"]["together"] = True  # as many in a row as there is room for
    if "factors" in spec:
        spec["factors"] = {study: _in_order(of, data["study"]) for study, of in spec["factors"].items()}
    drawn = figures.draw(name, data, spec)
    if is_file and not panels:
        figures.save_as(drawn, output, spec["style"])
        return [output]
    there = figures.panels(drawn, name)
    for panel in panels:
        if panel not in there:
            raise ValleysError(
                f"--panel: {name} has no panel {panel!r}{did_you_mean(panel, there)}; there are "
                f"{', '.join(there) or 'none'}"
            )
    if is_file and len(panels) > 1:
        raise ValleysError(f"--output: {output} is one file, for {len(panels)} panels; give a folder")
    chosen = {panel: axes for panel, axes in there.items() if not panels or panel in panels}
    paths = [output if is_file else output / f"{panel}.{spec['style']['format']}" for panel in chosen]
    for path, axes in zip(paths, chosen.values(), strict=True):
        figures.save_panel(drawn, axes, path, spec["style"])
    return paths


def _cells_of(folder: Path, style: Mapping[str, Any], format_from: str) -> Cells:
    """Return the cells of a finished run, with a style for its figures."""
    path = tables.of_run(folder, "claims", "figure: ")
    tables.read(path, "claims")  # whole, before what it says is used
    config = with_defaults({**(tables.about(path)["config"] or {}), "figures": dict(style)})
    try:
        check(config)
        styles.check_font("config: figures.font", style.get("font", styles.GENERIC[0]))
    except ValleysError as error:
        raise ValleysError(_as_option(str(error), format_from)) from None
    cells = Cells(config)
    cells.expand()
    cells.complete_variants()
    return cells


def _in_order(factors: Mapping[str, Any], table: pd.DataFrame) -> dict[str, Any]:
    """Return a study's factors as its table has them: what a table says of its making has its keys sorted."""
    told = dict.fromkeys(factor for levels in table["levels"].unique() for factor in json.loads(levels))
    return {**{factor: factors[factor] for factor in told if factor in factors}, **factors}


def _as_option(message: str, format_from: str) -> str:
    """Name the option of the command line where a message names a key of the block ``figures``."""
    found = re.match(r"config: figures\.(\w+): ", message)
    if not found:
        return message
    option = format_from if found[1] == "format" else found[1].replace("_", "-")
    return f"--{option}: {message[found.end() :]}"

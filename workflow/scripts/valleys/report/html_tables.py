"""Tables of the report as texts in cells; the template lays them out, `results` has the numbers."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from valleys import figures
from valleys.results import measures
from valleys.results.stats import mean_interval
from valleys.storage.tables import declared

PREVIEW_ROWS = 10
CSV_LIMIT = 100_000
"""Bytes of a table's Parquet file up to which the page carries the table: a page should fit into a mail."""
WHOLE = ("claims", "verdicts")
"""Tables that the page carries as Parquet too: it keeps types, and the config in its metadata."""
Frames = Mapping[str, pd.DataFrame]
Table = dict[str, Any]
DASH = "–"


@dataclass(frozen=True)
class TableCell:
    """A table's cell: what is read, and what it is sorted by where that is another ("" comes last)."""

    text: str
    number: bool = False
    sort: str | None = None


def p_value_cell(p: float | None) -> TableCell:
    """Return the cell of a p-value."""
    if p is None or np.isnan(p):
        return TableCell(DASH, True, "")
    return TableCell("< 0.0001" if p < 1e-4 else f"{p:.2g}", True, repr(float(p)))


def _table(
    title: str, columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[TableCell]], **more: Any
) -> Table:
    """Return a table for the template; a column is its name and what it means, numbers stand to the right."""
    heads = []
    for i, (column, meaning) in enumerate(columns):
        kinds = {row[i].number for row in rows}
        heads.append({"name": column, "meaning": meaning, "number": kinds == {True}})
    return {"title": title, "columns": heads, "rows": rows, **more}


_SHARPNESS = {
    "sharpness_sam": "SAM sharpness [nats]",
    "sharpness_adaptive_sam": "elementwise SAM [nats]",
    "sharpness_adaptive_worst": "elementwise worst case [nats]",
    "sharpness_adaptive_average": "elementwise average [nats]",
    "sharpness_filter_width": "filter-normalised width",
    "hessian_trace": "trace of the Hessian",
    "curvature_eigenvalue": "largest eigenvalue of the Hessian",
    "curvature_trace": "trace of the Hessian, to a tenth",
}


def solutions_table(frame: pd.DataFrame | None, level: float) -> Table:
    """Return mean and t interval over seeds of each solution's measures."""
    measures = [
        ("train loss [nats]", "train_loss", 1.0),
        ("test loss [nats]", "test_loss", 1.0),
        ("train accuracy [%]", "train_accuracy", 100.0),
        ("test accuracy [%]", "test_accuracy", 100.0),
        ("norm of the gradient", "gradient_norm", 1.0),
        ("gain along the gradient [nats]", "gradient_gain", 1.0),
        ("norm of weights", "weight_norm", 1.0),
        ("distance to swa", "distance_to_swa", 1.0),
    ]
    if frame is not None:
        measures += [
            (words, name, 1.0)
            for name, words in _SHARPNESS.items()
            if name in frame and frame[name].notna().any()
        ]
    columns = [(name, "") for name in (*figures.SETTING, "solution", "seeds")]
    columns += [
        (name, f"mean over seeds ± half of the {percent_text(level)} t interval") for name, _, _ in measures
    ]
    rows = []
    if frame is not None:
        for key, part in frame.groupby([*figures.SETTING, "solution"], sort=False):
            row = [value_cell(value) for value in (*key, part["seed"].nunique())]
            row += [_mean(scale * part[column], level) for _, column, scale in measures]
            rows.append(row)
    policies = [] if frame is None else [p for p in frame["bn_policy"].unique() if p != "none"]
    text = f"Each solution: mean over seeds ± half of the {percent_text(level)} t interval."
    text += f" BN statistics {' or '.join(policies)}." if policies else ""
    return _table("Solutions", columns, rows, text=text)


def _mean(values: pd.Series, level: float) -> TableCell:
    mean = float(values[np.isfinite(values)].mean())
    return TableCell(_plus_minus(values, level), True, "" if np.isnan(mean) else repr(mean))


def _plus_minus(values: pd.Series, level: float) -> str:
    values = values.to_numpy(dtype=np.float64)
    good = values[np.isfinite(values)]
    found = mean_interval(good, level)
    if not found.n:
        return DASH
    text = number_text(found.estimate)
    if np.isfinite(found.low):
        half = (found.high - found.low) / 2
        if half > 1e-9 * abs(found.estimate):  # else rounding is all there is
            # As many decimals as show two digits of the half width.
            decimals = min(max(1 - int(np.floor(np.log10(half))), 0), 12)
            text = f"{found.estimate:.{decimals}f} ± {half:.{decimals}f}".replace("-", "−")
        else:
            text += " ± 0"
    lost = len(values) - len(good)
    return f"{text} ({lost} not finite)" if lost else text


def averages_table(frame: pd.DataFrame, level: float) -> Table:
    """Return mean and t interval over seeds of each average's measures, and how many were refused."""
    measures = [
        ("train loss [nats]", "train_loss", 1.0),
        ("test loss, judged [nats]", "judged_loss", 1.0),
        ("test loss [nats]", "test_loss", 1.0),
        ("train accuracy [%]", "train_accuracy", 100.0),
        ("test accuracy [%]", "test_accuracy", 100.0),
        ("barrier between members [nats]", "barrier", 1.0),
        ("barrier to swa [nats]", "barrier_to_swa", 1.0),
        ("distance to swa", "distance_to_swa", 1.0),
    ]
    meanings = {column["name"]: column["meaning"] for column in declared()["averages"]["columns"]}
    columns = [(name, "") for name in (*figures.SETTING, "average", "kind", "seeds")]
    columns += [
        ("iterates", meanings["iterates"]),
        ("refused", "seeds with a barrier between members"),
    ]
    columns += [(name, meanings[column]) for name, column, _ in measures]
    rows = []
    for key, part in frame.groupby([*figures.SETTING, "average", "kind"], sort=False):
        counts = [value_cell(int(n)) for n in sorted({part["iterates"].min(), part["iterates"].max()})]
        row = [value_cell(value) for value in (*key, part["seed"].nunique())]
        row.append(TableCell(" to ".join(dict.fromkeys(cell.text for cell in counts)), True, counts[0].sort))
        row.append(value_cell(int(part["refused"].notna().sum())))
        made = part[part["refused"].isna()]
        for _, column, scale in measures:
            of = part if column == "barrier" else made
            row.append(_mean(scale * of[column].dropna().astype(float), level))
        rows.append(row)
    text = (
        f"Averages of one cell's iterates: mean over seeds ± half of the {percent_text(level)} t interval. "
        "They are compared by the judged test loss, on the half of the test images that chose nothing."
    )
    return _table("Averages", columns, rows, text=text)


def prevalence_table(frame: pd.DataFrame | None, spec: Mapping[str, Any]) -> Table:
    """Return counts of verdicts by cell, probe and solution, and the asymmetric share with its interval."""
    level, c = spec["level"], spec["c"]
    counts = pd.DataFrame() if frame is None or frame.empty else measures.prevalence(frame, level, c)
    cell = [*figures.SETTING, "probe", "solution", "n"]
    verdicts = ["asymmetric", "symmetric", "not_minimum", "flat", "not_finite"]
    columns = [(name, "") for name in cell]
    columns += [
        ("asymmetric [%]", f"share, with its {percent_text(level)} Wilson interval"),
        ("uneven", f"directions whose rises about the own least point differ by a factor of {c:g} or more"),
        ("median c*", "over directions that have one"),
        (
            "median index",
            "asymmetry index: log of the rise on the -u side over that on the +u side, about the curve's own "
            "least point; 0 is symmetric",
        ),
    ]
    columns += [(name.replace("_", " "), "directions") for name in verdicts]
    rows = []
    for row in counts.to_dict("records"):
        share, low, high = (f"{100 * row[f'asymmetric_{key}']:.1f}" for key in ("share", "low", "high"))
        cells = [value_cell(row[name]) for name in cell]
        cells += [
            TableCell(f"{share} ({low} to {high})", True, repr(float(row["asymmetric_share"]))),
            value_cell(row["uneven"]),
            value_cell(row["c_star"]),
            value_cell(row["asymmetry_index"]),
        ]
        rows.append(cells + [value_cell(row[name]) for name in verdicts])
    text = "Verdicts of Definition 1 on every probed direction, seeds together: how many are asymmetric."
    return _table("Directions", columns, rows, text=text)


def preview_table(name: str, frame: pd.DataFrame, experiment: str, kind: str, parquet: bytes | None) -> Table:
    """Return the first rows of a table, with what its columns mean."""
    about = declared().get(kind, {"meaning": "", "columns": []})
    meanings = {
        c["name"]: c["meaning"] + (f" [{c['unit']}]" if "unit" in c else "") for c in about["columns"]
    }
    columns = [(str(column), meanings.get(column, "")) for column in frame.columns]
    head = frame.head(PREVIEW_ROWS)
    rows = [
        [value_cell(value, column) for column, value in zip(frame.columns, row, strict=True)]
        for row in head.to_numpy(dtype=object)
    ]
    return _table(
        name,
        columns,
        rows,
        text=about["meaning"],
        path=f"results/{experiment}/tables/{name}.parquet",
        total=len(frame),
        shown=len(head),
        size=size_text(len(parquet)) if parquet else "",
    )


def carried_tables(name: str, frame: pd.DataFrame, parquet: bytes | None) -> list[dict[str, str]]:
    """Return what of a table can be saved from the page: file name, label, size and ``data:`` URI of each."""
    if not parquet or len(parquet) > CSV_LIMIT:
        return []
    # Numbers as Python's repr has them, which reads back as the same float64.
    csv = gzip.compress(frame.to_csv(index=False).encode("utf-8"), mtime=0)
    found = [(f"{name}.csv.gz", "CSV (gzip)", "application/gzip", csv)]
    if name in WHOLE:
        found.append((f"{name}.parquet", "Parquet", "application/vnd.apache.parquet", parquet))
    return [
        {
            "file": file,
            "label": label,
            "size": size_text(len(data)),
            "uri": f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}",
        }
        for file, label, kind, data in found
    ]


def value_cell(value: Any, column: str = "") -> TableCell:
    """Return a value as a person reads it."""
    if isinstance(value, (bool, np.bool_)):
        return TableCell("yes" if value else "no")
    if isinstance(value, (int, np.integer)):
        return TableCell(str(value).replace("-", "−"), True, str(value))
    if value is None or isinstance(value, (float, np.floating)):
        known = value is not None and not np.isnan(value)
        sort = repr(float(value)).replace("inf", "Infinity") if known else ""
        return TableCell(number_text(value), True, sort)
    text = str(value)
    return TableCell(text[:12] + "…" if column in ("checksum", "by_seed") and len(text) > 12 else text)


def size_text(n: int) -> str:
    """Return a number of bytes as text."""
    return f"{n / 1e6:.1f} MB" if n >= 999_500 else f"{max(n / 1e3, 1):.0f} kB"


def number_text(value: float | None) -> str:
    """Return a number as text: four digits, a true minus sign."""
    if value is None or np.isnan(value):
        return DASH
    if np.isinf(value):
        return "∞" if value > 0 else "−∞"
    return figures.number(float(value))


def percent_text(share: float) -> str:
    """Return a share as per cent."""
    return f"{100 * share:g} %"

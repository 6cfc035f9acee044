"""Two finished experiments side by side: their claims and solutions, with differences (``valleys compare``).

The interval of a difference B - A, at the level of the two experiments' own intervals:

claims
    Of effects that are means over seeds, as of solutions where two seeds or more are in both. Else from the
    intervals of the two effects (`stats.difference`), which takes the experiments for independent, of claims
    judged by the rules share, mean and equivalence; other effects are extremes over many rows, whose
    difference has no interval.
solutions
    Seeds that are in both are pairs: the same initial weights and order of images where the rest is equal.
    With two or more, the t interval of their paired differences; without any, Welch's of the two means.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from valleys.errors import ValleysError
from valleys.report import agreement
from valleys.results import stats
from valleys.storage import files, tables

FORMATS = (".parquet", ".csv", ".html")
MEASURES = {"train_loss": "nats", "test_loss": "nats", "train_accuracy": "share", "test_accuracy": "share"}
_CELL = ["dataset", "model", "recipe", "solution"]
_TESTS_WITH_INTERVALS = ("Hoeffding's inequality", "exact sign-flip", "two one-sided t tests")
_LISTED = 20  # differences of the configs told one by one

Row = dict[str, Any]


@dataclass(frozen=True)
class FinishedRun:
    """What is compared of a finished experiment."""

    folder: Path
    claims: pd.DataFrame
    verdicts: pd.DataFrame
    solutions: pd.DataFrame
    config: Mapping[str, Any]

    @property
    def level(self) -> float:
        """Of its intervals."""
        return float(self.config.get("claims", {}).get("level", nan))


def load(folder: Path) -> FinishedRun:
    """Read the tables of a finished experiment.

    Raises
    ------
    ValleysError
        When the folder has none, or they are damaged.
    """
    paths = {name: tables.of_run(folder, name, "compare: ") for name in ("claims", "verdicts", "solutions")}
    frames = {name: tables.read(path, name).to_pandas() for name, path in paths.items()}
    return FinishedRun(
        folder,
        frames["claims"],
        frames["verdicts"],
        frames["solutions"],
        tables.about(paths["claims"])["config"] or {},
    )


def compare(a: FinishedRun, b: FinishedRun) -> list[Row]:
    """Return the rows of the ``comparison`` table: claims in the order of A, then solutions."""
    return [*_claims(a, b), *_solutions(a, b)]


def _claims(a: FinishedRun, b: FinishedRun) -> Iterator[Row]:
    key = ["claim", "scope", "statement"]
    sides = []
    for one in (a, b):
        # Rows alike in all three are told apart by their order.
        frame = one.claims.assign(again=one.claims.groupby(key).cumcount())
        sides.append({tuple(row[name] for name in (*key, "again")): row for row in frame.to_dict("records")})
    ours, theirs = sides
    for names in [*ours, *(names for names in theirs if names not in ours)]:
        left, right = ours.get(names), theirs.get(names)
        any_row = left or right
        row = _blank("claims", any_row["claim"], any_row["scope"], any_row["statement"], any_row["unit"])
        for side, found in (("a", left), ("b", right)):
            if found:
                row[f"verdict_{side}"] = found["verdict"]
                row |= _estimate(side, _interval(found))
        yield row | _claim_difference(left, right, a.level, b.level)


def _interval(row: Mapping[str, Any]) -> stats.Interval:
    return stats.Interval(row["effect"], row["low"], row["high"], int(row["n"]))


def _claim_difference(
    left: Mapping[str, Any] | None, right: Mapping[str, Any] | None, level_a: float, level_b: float
) -> Row:
    if not (left and right):
        return _only(left is not None)
    found = {"found_in": "both"}
    if left["unit"] != right["unit"]:
        return found | {"method": "none: the units differ", "note": f"unit in B: {right['unit']}"}
    between = stats.difference(_interval(left), _interval(right))
    found["difference"] = between.estimate
    if level_a == level_b and len(pairs := _paired_seeds(left, right)) >= 2:
        paired = stats.mean_interval(pairs, level_a)
        method = f"paired over {paired.n} seeds in both; t interval"
        return found | {
            "difference": paired.estimate, "low": paired.low, "high": paired.high, "method": method
        }  # fmt: skip
    if not any(all(word in row["test"] for row in (left, right)) for word in _TESTS_WITH_INTERVALS):
        return found | {"method": "none: the effect is an extreme over rows"}
    if level_a != level_b:
        return found | {"method": f"none: levels {level_a:g} and {level_b:g} differ"}
    if not (isfinite(between.low) and isfinite(between.high)):
        return found | {"method": "none: an effect has no interval"}
    return found | {"low": between.low, "high": between.high, "method": "recovered from the two intervals"}


def _paired_seeds(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[float]:
    """Return B - A by seed of two effects that are means over seeds, of the seeds in both."""
    ours, theirs = (json.loads(row["by_seed"] or "{}") for row in (left, right))
    return [theirs[seed] - value for seed, value in ours.items() if seed in theirs]


def _solutions(a: FinishedRun, b: FinishedRun) -> Iterator[Row]:
    ours, theirs = (dict(iter(one.solutions.groupby(_CELL))) for one in (a, b))
    level = a.level if a.level == b.level else 0.95
    for names in [*ours, *(names for names in theirs if names not in ours)]:
        left, right = ours.get(names), theirs.get(names)
        for measure, unit in MEASURES.items():
            row = _blank("solutions", measure, "/".join(map(str, names)), "", unit)
            notes = []
            for side, part in (("a", left), ("b", right)):
                if part is not None:
                    values, lost = _finite(part[measure])
                    row |= _estimate(side, _within(stats.mean_interval(values, level), unit))
                    notes += [f"{lost} of {len(part)} seeds in {side.upper()} not finite"] if lost else []
            if left is None or right is None:
                row |= _only(left is not None)
            else:
                row |= {"found_in": "both"} | _solution_difference(left, right, measure, level)
                notes += _other_images(left, right, measure)
            yield row | {"note": "; ".join(notes)}


def _within(interval: stats.Interval, unit: str) -> stats.Interval:
    """Cut an interval off at the values that a share can have."""
    if unit != "share":
        return interval
    low, high = np.clip([interval.low, interval.high], 0, 1)
    return stats.Interval(interval.estimate, float(low), float(high), interval.n)


def _finite(values: pd.Series) -> tuple[np.ndarray, int]:
    array = values.to_numpy(dtype=float)
    return array[np.isfinite(array)], int((~np.isfinite(array)).sum())


def _solution_difference(left: pd.DataFrame, right: pd.DataFrame, measure: str, level: float) -> Row:
    pairs = left.merge(right, on="seed", suffixes=("_a", "_b"))
    differences, _ = _finite(pairs[f"{measure}_b"] - pairs[f"{measure}_a"])
    if len(differences):
        found = stats.mean_interval(differences, level)
        method = f"paired over {found.n} seed{'s' if found.n > 1 else ''} in both"
    else:
        found = stats.welch(_finite(left[measure])[0], _finite(right[measure])[0], level)
        method = "two means: no seed in both"
    row: Row = {"difference": found.estimate, "method": f"{method}; no interval of one value"}
    if found.n >= 2:
        row |= {"low": found.low, "high": found.high, "method": f"{method}; t interval"}
    return row


def _other_images(left: pd.DataFrame, right: pd.DataFrame, measure: str) -> list[str]:
    column = f"n_{measure.partition('_')[0]}"
    counts = [sorted(set(part[column])) for part in (left, right)]
    if counts[0] == counts[1]:
        return []
    ours, theirs = (", ".join(map(str, some)) for some in counts)
    return [f"other images: {ours} in A, {theirs} in B"]


def _only(in_a: bool) -> Row:
    return {"found_in": "a" if in_a else "b", "method": f"none: only in {'A' if in_a else 'B'}"}


def _blank(table: str, name: str, scope: str, statement: str, unit: str) -> Row:
    row: Row = dict.fromkeys(column["name"] for column in tables.declared()["comparison"]["columns"])
    return row | {
        "table": table,
        "name": name,
        "scope": scope,
        "statement": statement,
        "unit": unit,
        "note": "",
    }


def _estimate(side: str, interval: stats.Interval) -> Row:
    values = (interval.estimate, interval.low, interval.high, interval.n)
    return dict(zip((side, f"{side}_low", f"{side}_high", f"{side}_n"), values, strict=True))


# --- on the terminal --------------------------------------------------------------------------------------


def config_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return ``(dotted key, value in A, value in B)`` where two configs differ; None where there is none."""

    def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, Mapping) and value:
            for key, below in value.items():
                yield from leaves(below, f"{path}.{key}" if path else str(key))
        else:
            yield path, value

    ours, theirs = dict(leaves(a, "")), dict(leaves(b, ""))
    keys = [*ours, *(key for key in theirs if key not in ours)]
    return [(key, ours.get(key), theirs.get(key)) for key in keys if ours.get(key) != theirs.get(key)]


def as_text(a: FinishedRun, b: FinishedRun, rows: list[Row]) -> str:
    """Return the comparison as tables for the terminal."""
    from tabulate import tabulate

    parts = [f"A: {a.folder}", f"B: {b.folder}"]
    changed = config_differences(a.config, b.config)
    if changed:
        parts.append("The configs differ in:")
        parts += [f"  {key}: {_value(left)} | {_value(right)}" for key, left, right in changed[:_LISTED]]
        more = len(changed) - _LISTED
        parts += [f"  and {more} keys more"] if more > 0 else []
    parts = ["\n".join(parts)]
    for some, heads in (
        (_rows_of("claims", rows), ["claim", "scope", "verdict A", "verdict B", "A", "B", "B - A", "unit"]),
        (_rows_of("solutions", rows), ["measure", "scope", "A", "B", "B - A", "unit"]),
    ):
        parts.append(tabulate([_line(row) for row in some], heads, disable_numparse=True))
    return "\n\n".join([*parts, " ".join(_summary(a, b, rows))])


def _rows_of(table: str, rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["table"] == table]


def _summary(a: FinishedRun, b: FinishedRun, rows: list[Row]) -> tuple[str, str]:
    """Return what the claims come to, and how to read the intervals."""
    claims = _rows_of("claims", rows)
    agree = sum(row["verdict_a"] == row["verdict_b"] for row in claims if row["found_in"] == "both")
    both = sum(row["found_in"] == "both" for row in claims)
    only = [sum(row["found_in"] == side for row in claims) for side in "ab"]
    level = f"{a.level:.0%}" if a.level == b.level else "A's and B's own level"
    return (
        f"{both} claims in both, {agree} with the same verdict; {only[0]} in A only, {only[1]} in B only.",
        f"Intervals: {level}; *: the interval of the difference leaves out 0. Solutions, and claims' effects "
        "that are means over seeds, are paired by the seeds in both; other differences take the experiments "
        "for independent.",
    )


def _line(row: Row) -> list[str]:
    cells = [row["name"], row["scope"]]
    if row["table"] == "claims":
        verdicts = [row["verdict_a"] or "-", row["verdict_b"] or "-"]
        cells += verdicts
    for side in ("a", "b"):
        cells.append(_with_interval(row[side], row[f"{side}_low"], row[f"{side}_high"], row[f"{side}_n"]))
    between = _with_interval(row["difference"], row["low"], row["high"], signed=True)
    return [*cells, between + (" *" if _is_clear(row) else ""), row["unit"]]


def _is_clear(row: Row) -> bool:
    """Whether the interval of a difference leaves out 0."""
    return row["low"] is not None and (row["low"] > 0 or row["high"] < 0)


def _with_interval(
    value: float | None, low: float | None, high: float | None, n: int | None = None, signed: bool = False
) -> str:
    if value is None:
        return "-"
    form = "+.3g" if signed else ".3g"
    text = f"{value:{form}}"
    if low is not None and high is not None and isfinite(low) and isfinite(high):
        text += f" ({low:{form}} to {high:{form}})"
    return text if n is None else f"{text}, n {n}"


def _value(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def check_output(path: Path) -> None:
    """Check, before anything is read, that a file of this name can be written.

    Raises
    ------
    ValleysError
        For a suffix that is none of `FORMATS`.
    """
    if path.suffix not in FORMATS:
        raise ValleysError(f"--output: {path} ends in {path.suffix or 'nothing'!r}; use {', '.join(FORMATS)}")


def write(path: Path, a: FinishedRun, b: FinishedRun, rows: list[Row]) -> None:
    """Write the rows as the format that the file's name says, whole or not at all."""
    check_output(path)
    if path.suffix == ".parquet":
        config = {"a": {"folder": a.folder.name, **a.config}, "b": {"folder": b.folder.name, **b.config}}
        tables.write(path, "comparison", rows, config)
    elif path.suffix == ".csv":
        files.write_text(path, pd.DataFrame(rows).convert_dtypes().to_csv(index=False))
    else:
        files.write_text(path, as_page(a, b, rows))


# --- the page ---------------------------------------------------------------------------------------------

_STYLE = """
:root { color-scheme: light dark; --ink: light-dark(#202124, #e8eaed); --soft: light-dark(#5f6368, #a8adb4);
  --page: light-dark(#ffffff, #17181a); --line: light-dark(#dadce0, #3c4043);
  --mark: light-dark(#eef4fd, #1d2a3d); }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem 1rem 4rem; overflow-wrap: anywhere;
  background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0.5rem 0 1rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 0.5rem; }
p { margin: 0 0 0.75rem; max-width: 46rem; }
table { border-collapse: collapse; width: 100%; font-size: 0.88rem; line-height: 1.4; }
th, td { text-align: left; vertical-align: top; padding: 0.4rem 0.9rem 0.4rem 0.4rem;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; }
tr.differs td { background: var(--mark); }
td.what { width: 34%; }
.soft, .scope { color: var(--soft); } td .soft { white-space: nowrap; }
.scope { display: block; font-size: 0.92em; }
.value { font-variant-numeric: tabular-nums; } tr.clear .between .value { font-weight: 700; }
.badge { display: inline-block; padding: 0 0.5rem; border-radius: 999px; font-size: 0.82rem; font-weight: 600;
  border: 1px solid var(--line); white-space: nowrap; margin-right: 0.3rem; }
.supported { color: light-dark(#14692b, #8fe3a5); background: light-dark(#dff3e4, #143a20); }
.refuted { color: light-dark(#a31515, #ffb3ab); background: light-dark(#fbe3e1, #4a1915); }
.inconclusive { color: light-dark(#5b4a00, #f3d77a); background: light-dark(#fbf0cd, #40360f); }
@media screen and (max-width: 44rem) {
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  table, tbody, tr { display: block; } tr { border-bottom: 1px solid var(--line); padding: 0.4rem 0; }
  td, td.what { display: block; border: 0; padding: 0.1rem 0.4rem; width: auto; }
  td[data-label]::before { content: attr(data-label) " "; color: var(--soft); }
}
@media print { body { max-width: none; font-size: 9pt; } tr { break-inside: avoid; } }
"""


def as_page(a: FinishedRun, b: FinishedRun, rows: list[Row]) -> str:
    """Return the comparison as one HTML page that asks for no other.

    What differs comes first, what is in one experiment only last.
    """
    summary, how = _summary(a, b, rows)
    changed = [
        f"<tr><td class='what'>{html.escape(key)}</td><td data-label='A'>{html.escape(_value(left))}</td>"
        f"<td data-label='B'>{html.escape(_value(right))}</td></tr>"
        for key, left, right in config_differences(a.config, b.config)
    ]
    names = [html.escape(one.folder.resolve().name) for one in (a, b)]
    parts = [
        f"<h1>{names[0]} and {names[1]}</h1>",
        f"<p>A: {html.escape(str(a.folder))}<br>B: {html.escape(str(b.folder))}</p>",
        f"<p>{html.escape(summary)} Below, what differs comes first, marked: another verdict, or an interval "
        f"of B − A that leaves out 0 (*).</p><p class='soft'>{html.escape(how)}</p>",
        *_agreement(agreement.agree(a.verdicts, b.verdicts)),
        *_table("Claims", "claim", _rows_of("claims", rows)),
        *_table("Solutions", "measure, mean over seeds", _rows_of("solutions", rows)),
        *(["<h2>Config</h2>", _head("key", "A", "B"), *changed, "</tbody></table>"] if changed else []),
    ]
    head = f"<meta charset='utf-8'><meta name='viewport' content='width=device-width'><style>{_STYLE}</style>"
    title = f"<title>{names[0]} and {names[1]}</title>"
    body = "\n".join(parts)
    return f"<!doctype html>\n<html lang='en'><head>{head}{title}</head><body>\n{body}\n</body></html>\n"


def _head(*columns: str) -> str:
    cells = "".join(f"<th scope='col'>{column}</th>" for column in columns)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>"


def _table(title: str, what: str, rows: list[Row]) -> Iterator[str]:
    yield f"<h2>{title}</h2>"
    if not rows:
        yield "<p>None.</p>"
        return
    yield _head(what, "A", "B", "B − A")
    for row in sorted(rows, key=lambda row: (not _differs(row), row["found_in"] != "both")):
        marks = [name for name, held in (("differs", _differs(row)), ("clear", _is_clear(row))) if held]
        text = row["statement"][:1].upper() + row["statement"][1:] or row["name"].replace("_", " ")
        sides = [
            _badge(row[f"verdict_{side}"])
            + _estimated(row[side], row[f"{side}_low"], row[f"{side}_high"], row["unit"], row[f"{side}_n"])
            for side in "ab"
        ]
        between = _estimated(row["difference"], row["low"], row["high"], row["unit"], signed=True)
        note = f"{row['method']}{'; ' + row['note'] if row['note'] else ''}"
        yield (
            f"<tr class='{' '.join(marks)}'><td class='what' title='{html.escape(row['name'])}'>"
            f"{html.escape(text)}<span class='scope'>{html.escape(row['scope'])}</span></td>"
            f"<td data-label='A'>{sides[0]}</td><td data-label='B'>{sides[1]}</td>"
            f"<td class='between' data-label='B − A' title='{html.escape(note)}'>{between}"
            f"{' *' if _is_clear(row) else ''}</td></tr>"
        )
    yield "</tbody></table>"


def _agreement(found: agreement.Agreement) -> Iterator[str]:
    """Yield the twelve verdicts of both runs side by side."""
    yield "<h2>The twelve claims</h2>"
    yield f"<p>{html.escape(found.summary())}</p>"
    yield _head("claim", "A", "B", "agreement")
    for row in found.rows:
        mark = " class='differs'" if row["agreement"] == "contradicts" else ""
        sides = [
            f"<td data-label='{side.upper()}'>{_badge(row[f'verdict_{side}'])}"
            f"<span class='scope'>{html.escape(row[f'effect_{side}'])}</span></td>"
            for side in "ab"
        ]
        yield (
            f"<tr{mark}><td class='what'>{row['number']}. {html.escape(row['statement'])}</td>"
            f"{''.join(sides)}<td data-label='agreement'>{row['agreement']}</td></tr>"
        )
    yield "</tbody></table>"


def _differs(row: Row) -> bool:
    return _is_clear(row) or (row["found_in"] == "both" and row["verdict_a"] != row["verdict_b"])


def _badge(verdict: str | None) -> str:
    return f"<span class='badge {html.escape(verdict)}'>{html.escape(verdict)}</span>" if verdict else ""


def _estimated(
    value: float | None,
    low: float | None,
    high: float | None,
    unit: str,
    n: int | None = None,
    signed: bool = False,
) -> str:
    """Return an estimate with its unit and, after it in a softer colour, its interval and n."""
    if value is None or not isfinite(value):
        return "<span class='soft'>–</span>"
    first, _, rest = _with_interval(value, low, high, n, signed).partition(" ")
    first, comma, count = first.partition(",")
    rest = (comma + count + " " + rest if comma else rest).lstrip(", ")
    return (
        f"<span class='value'>{first.replace('-', '−')}</span> {html.escape(unit)} "
        f"<span class='soft'>{rest.replace('-', '−')}</span>"
    )

"""What the report says of each claim: its verdict, rows and figures, those of networks before simulations."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from valleys import figures
from valleys.config import captions, catalogue
from valleys.report import pictures
from valleys.report.html_tables import DASH, Frames, number_text, p_value_cell, size_text, value_cell
from valleys.results import measures

VERDICTS = ("supported", "refuted", "inconclusive", "not decidable")
MARKS = {"supported": "✓", "refuted": "✗", "inconclusive": "?", "not decidable": "–"}
MIXED = "≠"
"""Mark of a claim whose rows at one network say different things."""
FIRST = {
    2: ("prevalence",),
    3: ("toy-angles", "search"),
    6: ("theory-average", "line-swa-descent"),
    7: ("theory-measured", "theory-gain"),
    8: ("line-swa-descent",),
}
"""The one figure of a claim, the first of these that there is; of other claims, the first of their own."""
OF_ALL = ("training",)
"""Figures that tell of the networks whatever is claimed: they come first."""
_TEXTS = ("measure", "test", "rule", "note")
_SIMULATED = ("one neuron/", "simulation/")  # how scopes of their rows begin


def sections(
    claims: pd.DataFrame,
    twelve: pd.DataFrame,
    svgs: Mapping[str, str],
    pngs: Mapping[str, bytes],
    tables: Frames,
    spec: Mapping[str, Any],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the figures of `OF_ALL`, and a section for each claim; number 0 is for what is of none.

    A section has its row of the table of verdicts, ``groups`` of rows and ``figures`` of networks, the same
    of simulations under ``simulated``, and ``main``: the one figure that the claim leads to, or None.
    Figures are numbered in the order of the page: `OF_ALL`, those of networks, those of simulations.
    """
    rows = {row["number"]: row for row in twelve.to_dict("records")}
    groups = _groups(claims)
    drawn = [
        _picture(name, svg, pngs.get(name), tables, spec) | {"of": _claim_of(name, claims, tables)}
        for name, svg in svgs.items()
    ]
    numbers = sorted(
        {*rows, *(group["number"] for group in groups), *(figure["of"] for figure in drawn)} - {0}
    )
    found = []
    for number in [*numbers, 0]:
        own = [figure for figure in drawn if figure["of"] == number]
        judged = [group for group in groups if group["number"] == number]
        if own or judged or number in rows:
            found.append(_section(number, rows.get(number), judged, own, drawn))
    counter = itertools.count(1)
    for group in (group for section in found for group in _groups_of(section)):
        group["id"] = f"rows-{next(counter)}"
    first = [figure for figure in drawn if figure["name"] in OF_ALL and figure["drawn"]]
    shown = [*first, *(figure for section in found for figure in section["figures"])]
    shown += [figure for section in found for figure in section["simulated"]["figures"]]
    for number, figure in enumerate((figure for figure in shown if figure["drawn"]), 1):
        figure["number"] = number
    return first, found


def _section(
    number: int,
    row: Mapping[str, Any] | None,
    judged: Sequence[Mapping[str, Any]],
    own: Sequence[Mapping[str, Any]],
    drawn: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return one section: the claim's figure first, then the others, networks and simulations apart."""
    by_name = {figure["name"]: figure for figure in drawn if figure["drawn"]}
    wanted = [by_name[name] for name in FIRST.get(number, ()) if name in by_name]
    main = next(iter([*wanted, *(figure for figure in own if figure["drawn"])]), None) if number else None
    shown = [figure for figure in own if figure["name"] not in OF_ALL or not figure["drawn"]]
    shown.sort(key=lambda figure: figure is not main)
    apart = {
        simulated: {
            "groups": [group for group in judged if group["simulated"] == simulated],
            "figures": [figure for figure in shown if figure["simulated"] == simulated],
        }
        for simulated in (False, True)
    }
    apart[True]["any"] = any(apart[True].values())
    title = f"{number}. {row['statement'] if row else 'Claim'}" if number else "Of no claim"
    return {
        "number": number,
        "id": f"claim-{number}" if number else "other",
        "title": title,
        "verdict": _verdict(row) if row else None,
        "main": main,
        **apart[False],
        "simulated": apart[True],
    }


def _groups_of(section: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield from section["groups"]
    yield from section["simulated"]["groups"]


def _verdict(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of the table of verdicts as the page shows it."""
    return {
        **row,
        "look": look(row["verdict"]),
        "p": p_value_cell(row["p_adjusted"]),
        # Without the name of the row, which stands in the claim's section; with true minus signs.
        "short": re.sub(r"-(?=\d)", "−", row["effect"].rpartition(" (")[0] or row["effect"]),
        "left_out": measures.LEFT_OUT in row["note"],
    }


def tally(sections: Iterable[Mapping[str, Any]]) -> list[tuple[str, str, int]]:
    """Return how many of the claims have each verdict, with the look of its badge."""
    verdicts = [section["verdict"]["verdict"] for section in sections if section["verdict"]]
    return [(v, look(v), verdicts.count(v)) for v in dict.fromkeys([*VERDICTS, *verdicts]) if v in verdicts]


def all_rows(sections: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of all claims, in the order of the sections."""
    return [
        row | {key: group[key] for key in ("claim", "number", "statement")} | {"link": group["id"]}
        for section in sections
        for group in _groups_of(section)
        for row in group["rows"]
    ]


def networks(
    claims: pd.DataFrame, solutions: pd.DataFrame | None, sections: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return each network of the grid with a mark for every claim that has rows about it alone.

    A mark is what the rows that decide say, or all rows where none decides, and `MIXED` where they differ.
    """
    if solutions is None or solutions.empty or claims.empty:
        return []
    titles = {section["number"]: section["title"] for section in sections}
    rows, found = claims[claims["number"] > 0], []
    for setting in dict.fromkeys(map("/".join, solutions[measures.SETTING].astype(str).to_numpy())):
        here = rows[(rows["scope"] == setting) | rows["scope"].str.startswith(f"{setting}/")]
        here = here[~here["scope"].str.startswith(_SIMULATED)]
        marks = []
        for number, part in here.groupby("number"):
            told = part[part["decides"]] if part["decides"].any() else part
            verdicts = list(dict.fromkeys(told["verdict"]))
            one = verdicts[0] if len(verdicts) == 1 else "rows differ"
            marks.append(
                {
                    "number": int(number),
                    "mark": MARKS.get(one, MIXED),
                    "look": look(one),
                    "words": f"{titles[int(number)]}: {one}",
                    "link": f"claim-{number}",
                }
            )
        if marks:
            found.append({"setting": setting.replace("/", " / "), "marks": marks})
    return found


def look(verdict: str) -> str:
    """Return the class of a verdict's badge, empty where it is none that we know."""
    return verdict.replace(" ", "-") if verdict in VERDICTS else ""


# Rows -----------------------------------------------------------------------------------------------


def _groups(claims: pd.DataFrame) -> list[dict[str, Any]]:
    """Gather rows of one claim and kind: texts that all of them share are said once, others with their row.

    In order of the twelve; those with rows that decide come first, and in each the rows that decide.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in claims.to_dict("records"):
        simulated = row["scope"].startswith(_SIMULATED)
        groups.setdefault((row["number"], row["claim"], row["statement"], simulated), []).append(row)
    order = list(dict.fromkeys(key[:2] for key in groups))
    decides = {key: any(row["decides"] for row in rows) for key, rows in groups.items()}
    found = []
    for key in sorted(groups, key=lambda key: (key[0], not decides[key], order.index(key[:2]))):
        rows = sorted(groups[key], key=lambda row: not row["decides"])
        texts = {text: list(dict.fromkeys(row[text] for row in rows)) for text in _TEXTS}
        shared = {text: values[0] for text, values in texts.items() if len(values) == 1 and values[0]}
        own = [text for text, values in texts.items() if len(values) > 1]
        number, claim, statement, simulated = key
        found.append(
            {
                "claim": claim,
                "number": number,
                "experiment": rows[0]["experiment"],
                "statement": statement[:1].upper() + statement[1:],
                "simulated": simulated,
                "decides": any(row["decides"] for row in rows),
                "shared": shared,
                "rows": [_claim(row, own) for row in rows],
            }
        )
    return found


def _claim(row: Mapping[str, Any], own: Sequence[str]) -> dict[str, Any]:
    interval = f"{number_text(row['low'])} to {number_text(row['high'])}"
    return {
        "verdict": row["verdict"],
        "look": look(row["verdict"]),
        "decides": bool(row["decides"]),
        "scope": row["scope"],
        "effect": value_cell(row["effect"]),
        "low": value_cell(row["low"]),
        "unit": row["unit"],
        "interval": DASH if np.isnan([row["low"], row["high"]]).all() else interval,
        "n": row["n"],
        "p": p_value_cell(row["p_value"]),
        "more": [(text, row[text]) for text in own if row[text]],
    }


# Figures --------------------------------------------------------------------------------------------


def _claim_of(figure: str, claims: pd.DataFrame, tables: Frames) -> int:
    """Return the number of the claim that a figure belongs to, 0 for those of none.

    A line belongs to claim 9 when it leaves its cell or has trained bends, to claim 10 when it joins SGD and
    SWA, else to claim 8; a study to the claim that its rows decide, or to that of most of them.
    """
    entry, part = catalogue.find_figure(figure)
    if entry is None or entry.claim is not None:
        return entry.claim or 0 if entry else 0
    if entry.part == "line":
        lines = tables.get("interpolation", pd.DataFrame({"line": []}))
        rows = lines[lines["line"] == part]
        if len(rows) and not (measures.kind_of_line(rows) == "cell").all():
            return 9
        return 10 if {"sgd", "swa"} == set(part.split("-")) else 8
    if entry.part == "study" and len(claims):
        rows = claims[(claims["scope"].str.split("/").str[0] == part) & (claims["number"] > 0)]
        rows = rows[rows["decides"]] if rows["decides"].any() else rows
        return int(rows["number"].mode().iloc[0]) if len(rows) else 0
    return 0


def _picture(
    name: str, svg: str, png: bytes | None, tables: Frames, spec: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a figure with its words; without a PNG the SVG is what is shown."""
    width, height = pictures.size(svg)
    caption = figures.caption(name, tables, spec)
    saved, n_bytes = pictures.saved(svg)
    return {
        "name": name,
        "title": figures.title(name),
        "caption": caption,
        "drawn": caption != figures.nothing(name),
        "simulated": captions.is_simulated(name),
        "src": pictures.shown(png) if png else pictures.drawn(pictures.in_font_of_page(svg)),
        "saved": saved,
        "bytes": size_text(n_bytes),
        "width": width,
        "height": height,
    }

"""The report: one HTML file that holds claims, figures and tables, made of the tables alone."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import numpy as np
import pandas as pd
import yaml

from valleys import figures
from valleys.config import catalogue
from valleys.errors import shown
from valleys.report import rulegraph, rulegraph_layout
from valleys.report.html_tables import (
    CSV_LIMIT,
    DASH,
    PARQUET_LIMIT,
    Frames,
    averages_table,
    carried_tables,
    number_text,
    p_value_cell,
    percent_text,
    prevalence_table,
    preview_table,
    size_text,
    solutions_table,
    value_cell,
)
from valleys.results import measures
from valleys.storage.tables import stack

TEMPLATE = Path(__file__).parents[3] / "report" / "report.html.j2"
STYLE = TEMPLATE.with_name("report.css")
SCRIPT = TEMPLATE.with_name("report.js")
FIRST_CLAIMS = 30
"""Rows of the claims table that are seen before more are asked for."""
VERDICTS = ("supported", "refuted", "inconclusive", "not decidable")
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif"
"""Of the page (report.css), and so of the text in its figures; a font that the config chose stays."""
_OF_FIGURES = re.compile(r"font-family: 'DejaVu Sans'[^;\"]*")
_TEXTS = ("measure", "test", "rule", "note")


def render(
    tables: Frames,
    pictures: Mapping[str, str],
    config: Mapping[str, Any],
    versions: Mapping[str, str],
    kinds: Mapping[str, str] | None = None,
    parquet: Mapping[str, bytes] | None = None,
    graph: rulegraph.RuleGraph | None = None,
) -> str:
    """Return the report as one HTML document.

    Parameters
    ----------
    tables
        The experiment's tables by name, as data frames.
    pictures
        SVG text by figure name, in the order they are shown.
    config
        The experiment's config without style and execution (`valleys.config.params.Params.results`).
    versions
        Package versions by name.
    kinds
        The name under which a table's columns are declared, where it is not the table's own.
    parquet
        The tables' files by name. Those up to `PARQUET_LIMIT` can be saved from the page, up to
        `CSV_LIMIT` as CSV too; others are named.
    graph
        The rules that made all this; None draws nothing and says so.
    """
    kinds, parquet = kinds or {}, parquet or {}
    stacked = stack((name, kinds.get(name, name), frame) for name, frame in tables.items())
    spec = figure_spec(config)
    template = _environment().get_template(TEMPLATE.name)
    claims = tables.get("claims", pd.DataFrame())
    level = spec["level"]
    twelve = tables.get("verdicts", pd.DataFrame())
    sections = _sections(claims, twelve, pictures, stacked, spec)
    style, script = (path.read_text(encoding="utf-8") for path in (STYLE, SCRIPT))
    found = [
        *VERDICTS,
        *(v for v in claims.get("verdict", pd.Series(dtype=str)).unique() if v not in VERDICTS),
    ]
    return template.render(
        policy=_policy(style, script),
        style=markupsafe.Markup(style),
        script=markupsafe.Markup(script),
        name=config["name"],
        level=percent_text(level),
        c=f"{spec['c']:g}",
        scope=_scope(tables.get("solutions"), config),
        sections=sections,
        tally=[
            (verdict, _look(verdict), int((claims["verdict"] == verdict).sum()) if len(claims) else 0)
            for verdict in found
        ],
        twelve=_twelve(twelve, sections),
        claims=_all_rows(sections),
        first=FIRST_CLAIMS,
        n_claims=len(claims),
        alpha=config.get("claims", {}).get("alpha"),
        summaries=[
            solutions_table(tables.get("solutions"), level),
            *([averages_table(tables["averages"], level)] if "averages" in tables else []),
            prevalence_table(tables.get("asymmetry"), spec),
        ],
        previews=[
            preview_table(name, frame, config["name"], kinds.get(name, name), parquet.get(name))
            for name, frame in tables.items()
        ],
        carried={"claims": [], "verdicts": []}
        | {n: carried_tables(n, frame, parquet.get(n)) for n, frame in tables.items()},
        limits={"parquet": size_text(PARQUET_LIMIT), "csv": size_text(CSV_LIMIT)},
        graph=_graph(graph),
        config=yaml.safe_dump(
            json.loads(json.dumps(config, default=str)),
            sort_keys=False,
            default_flow_style=None,
            allow_unicode=True,
        ),
        versions=dict(versions),
    )


def _policy(style: str, script: str) -> str:
    """Return the page's Content Security Policy: its own style, script and pictures, and no more."""
    own = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in (style, script)
    ]
    return (
        f"default-src 'none'; style-src {own[0]}; script-src {own[1]}; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def figure_spec(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what captions need of `valleys.config.params.Params.figure`, from the config itself."""
    return {
        "style": {},
        "swa_start": {name: recipe["swa"]["start"] for name, recipe in config.get("recipes", {}).items()},
        "c": config.get("asymmetry", {}).get("c", 2.0),
        "level": config.get("claims", {}).get("level", 0.95),
        "factors": {name: study["factors"] for name, study in config.get("studies", {}).items()},
    }


def _sections(
    claims: pd.DataFrame,
    twelve: pd.DataFrame,
    pictures: Mapping[str, str],
    tables: Frames,
    spec: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Return a section for each of the twelve claims, and one for rows and figures of none."""
    titles = dict(zip(twelve["number"], twelve["statement"], strict=True)) if len(twelve) else {}
    groups = _groups(claims)
    of = {name: _claim_of(name, claims, tables) for name in pictures}
    numbers = sorted({*titles, *(g["number"] for g in groups if g["number"]), *filter(None, of.values())})
    sections, counter = [], itertools.count(1)
    for number in [*numbers, 0]:
        own = [group for group in groups if group["number"] == number]
        drawn = [_picture(name, svg, tables, spec) for name, svg in pictures.items() if of[name] == number]
        if own or drawn or number in titles:
            verdicts = [row["verdict"] for group in own for row in group["rows"]]
            for group in own:
                group["id"] = f"rows-{next(counter)}"
            sections.append(
                {
                    "number": number,
                    "id": f"claim-{number}" if number else "other",
                    "title": f"{number}. {titles.get(number, 'Claim')}" if number else "Of no claim",
                    "groups": own,
                    "figures": drawn,
                    "tally": [(v, verdicts.count(v)) for v in VERDICTS if v in verdicts],
                }
            )
    count = 0
    for section in sections:
        for figure in section["figures"]:
            figure["number"] = count = count + 1
    return sections


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


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        finalize=lambda value: shown(value) if type(value) is str else value,  # markup is our own
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


# Claims ---------------------------------------------------------------------------------------------


def _groups(claims: pd.DataFrame) -> list[dict[str, Any]]:
    """Gather rows of one claim: texts that all of them share are said once, others with their row.

    In order of the twelve; those with rows that decide come first, and in each the rows that decide.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in claims.to_dict("records"):
        groups.setdefault((row["number"], row["claim"], row["statement"]), []).append(row)
    order = list(dict.fromkeys(key[:2] for key in groups))
    decides = {key: any(row["decides"] for row in rows) for key, rows in groups.items()}
    found = []
    for key in sorted(groups, key=lambda key: (key[0], not decides[key], order.index(key[:2]))):
        rows = sorted(groups[key], key=lambda row: not row["decides"])
        texts = {text: list(dict.fromkeys(row[text] for row in rows)) for text in _TEXTS}
        shared = {text: values[0] for text, values in texts.items() if len(values) == 1 and values[0]}
        own = [text for text, values in texts.items() if len(values) > 1]
        number, claim, statement = key
        found.append(
            {
                "claim": claim,
                "number": number,
                "experiment": rows[0]["experiment"],
                "statement": statement[:1].upper() + statement[1:],
                "tally": [(v, n) for v in VERDICTS if (n := sum(row["verdict"] == v for row in rows))],
                "shared": shared,
                "rows": [_claim(row, own) for row in rows],
            }
        )
    return found


def _claim(row: Mapping[str, Any], own: Sequence[str]) -> dict[str, Any]:
    interval = f"{number_text(row['low'])} to {number_text(row['high'])}"
    return {
        "verdict": row["verdict"],
        "look": _look(row["verdict"]),
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


def _look(verdict: str) -> str:
    """Return the class of a verdict's badge, empty where it is none that we know."""
    return verdict.replace(" ", "-") if verdict in VERDICTS else ""


def _twelve(verdicts: pd.DataFrame, sections: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of the table of verdicts, each with the section that has its rows."""
    ids = {section["number"]: section["id"] for section in sections}
    return [
        row
        | {
            "look": _look(row["verdict"]),
            "link": ids[row["number"]],
            "p": p_value_cell(row["p_adjusted"]),
        }
        for row in verdicts.to_dict("records")
    ]


def _all_rows(sections: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of all claims, in the order of the sections."""
    return [
        row | {key: group[key] for key in ("claim", "number", "statement")} | {"link": group["id"]}
        for section in sections
        for group in section["groups"]
        for row in group["rows"]
    ]


# Figures --------------------------------------------------------------------------------------------


def _picture(name: str, svg: str, tables: Frames, spec: Mapping[str, Any]) -> dict[str, Any]:
    svg = _OF_FIGURES.sub(f"font-family: {FONTS}", svg)
    data = base64.b64encode(svg.encode("utf-8")).decode("ascii")
    width, height = _size(svg)
    return {
        "name": name,
        "title": figures.title(name),
        "caption": figures.caption(name, tables, spec),
        "src": f"data:image/svg+xml;base64,{data}",
        "bytes": size_text(len(svg.encode("utf-8"))),
        "width": width,
        "height": height,
    }


def _size(svg: str) -> tuple[int | None, int | None]:
    """Return the size in CSS pixels that an SVG written by Matplotlib declares in points."""
    tag = re.search(r"<svg\b[^>]*>", svg)
    sizes = [re.search(rf'\b{key}="([\d.]+)pt"', tag[0]) if tag else None for key in ("width", "height")]
    width, height = (round(float(size[1]) * 4 / 3) if size else None for size in sizes)
    return width, height


# Tables ---------------------------------------------------------------------------------------------


def _scope(solutions: pd.DataFrame | None, config: Mapping[str, Any]) -> dict[str, Any] | None:
    if solutions is None or solutions.empty:
        return None
    scope = {key: list(dict.fromkeys(solutions[key])) for key in ("dataset", "model", "recipe")}
    names = list(dict.fromkeys(solutions["solution"]))
    blocks = config.get("datasets", {})
    data = [_data_text(name, rows, blocks.get(name) or {}) for name, rows in solutions.groupby("dataset")]
    return scope | {
        "data": data,
        "known": [name for name in names if name in catalogue.SOLUTIONS],
        "own": [name for name in names if name not in catalogue.SOLUTIONS],
        "seeds": int(solutions["seed"].nunique()),
        "cells": solutions.groupby(figures.SETTING).ngroups,
    }


def _data_text(name: str, rows: pd.DataFrame, block: Mapping[str, Any]) -> str:
    """Return a sentence on a data set: images, classes, how it was split, and labels made wrong."""

    def count(column: str) -> str:
        found = rows[column].dropna().astype(int) if column in rows else pd.Series(dtype=int)
        return " to ".join(f"{value:,}" for value in sorted({found.min(), found.max()})) if len(found) else ""

    text = f"{name}: {count('n_train')} train and {count('n_test')} test images"
    text += f", {count('classes')} classes" if count("classes") else ""
    by_seed = block.get("split") == "by_seed"
    text += ", cut into the two anew for each seed" if by_seed else ", the same split for all seeds"
    if not count("wrong_labels"):
        return f"{text}, no label made wrong."
    share = percent_text(round((rows["wrong_labels"] / rows["n_train"]).mean(), 6))
    return f"{text}, {count('wrong_labels')} train labels of each seed made wrong ({share})."


# Rules ----------------------------------------------------------------------------------------------


def _graph(graph: rulegraph.RuleGraph | None) -> dict[str, Any] | None:
    if graph is None or not graph.jobs:
        return None
    drawing = rulegraph_layout.lay_out(graph)
    needs: dict[str, list[str]] = {}
    for rule, reader in graph.edges:
        needs.setdefault(reader, []).append(rule)
    words = [f"{box.rule} reads {', '.join(needs[box.rule])}" for box in drawing.boxes if box.rule in needs]
    return {
        "width": round(drawing.width),
        "height": round(drawing.height),
        "box_width": rulegraph_layout.WIDTH,
        "box_height": rulegraph_layout.HEIGHT,
        "boxes": drawing.boxes,
        "lines": drawing.lines,
        "cyclic": any(back for _, back in drawing.lines),
        "words": "; ".join(words) or ", ".join(graph.jobs),
    }

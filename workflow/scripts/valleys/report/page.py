"""The report: one HTML file that holds claims, figures and tables, made of the tables alone."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import pandas as pd
import yaml

from valleys import figures
from valleys.config import catalogue
from valleys.errors import shown
from valleys.report import looks, rulegraph, rulegraph_layout, sections
from valleys.report.html_tables import (
    CSV_LIMIT,
    Frames,
    averages_table,
    carried_tables,
    percent_text,
    prevalence_table,
    preview_table,
    size_text,
    solutions_table,
)
from valleys.storage.tables import stack

TEMPLATE = Path(__file__).parents[3] / "report" / "report.html.j2"
STYLE = TEMPLATE.with_name("report.css")
SCRIPT = TEMPLATE.with_name("report.js")
FIRST_CLAIMS = 30
"""Rows of the claims table that are seen before more are asked for."""


def render(
    tables: Frames,
    pictures: Mapping[str, str],
    config: Mapping[str, Any],
    versions: Mapping[str, str],
    kinds: Mapping[str, str] | None = None,
    parquet: Mapping[str, bytes] | None = None,
    graph: rulegraph.RuleGraph | None = None,
    pngs: Mapping[str, bytes] | None = None,
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
        The tables' files by name. Those up to `CSV_LIMIT` can be saved from the page as CSV, claims and
        verdicts as they are too; others are named.
    graph
        The rules that made all this; None draws nothing and says so.
    pngs
        PNG files by figure name, which are what the page shows; of a figure without one it shows the SVG.
    """
    kinds, parquet = kinds or {}, parquet or {}
    stacked = stack((name, kinds.get(name, name), frame) for name, frame in tables.items())
    spec = figure_spec(config)
    template = _environment().get_template(TEMPLATE.name)
    claims = tables.get("claims", pd.DataFrame())
    level = spec["level"]
    twelve = tables.get("verdicts", pd.DataFrame())
    of_all, found = sections.sections(claims, twelve, pictures, pngs or {}, stacked, spec)
    style, script = (path.read_text(encoding="utf-8") for path in (STYLE, SCRIPT))
    said = claims["verdict"].unique() if len(claims) else ()
    return template.render(
        policy=_policy(style, script),
        style=markupsafe.Markup(style),
        script=markupsafe.Markup(script),
        name=config["name"],
        level=percent_text(level),
        c=f"{spec['c']:g}",
        scope=_scope(tables.get("solutions"), config),
        sections=found,
        figures_of_all=of_all,
        tally=sections.tally(found),
        looks=looks.path_of(tables.get("looks")),
        networks=sections.networks(claims, tables.get("solutions"), found),
        marks=[*sections.MARKS.items(), ("rows differ", sections.MIXED)],
        simulations=config.get("simulations", True),
        claims=sections.all_rows(found),
        verdicts=[
            (verdict, sections.look(verdict))
            for verdict in dict.fromkeys([*sections.VERDICTS, *said])
            if verdict in said
        ],
        first=FIRST_CLAIMS,
        n_claims=len(claims),
        alpha=config.get("claims", {}).get("alpha"),
        solutions=[
            solutions_table(tables.get("solutions"), level),
            *([averages_table(tables["averages"], level)] if "averages" in tables else []),
        ],
        directions=prevalence_table(tables.get("asymmetry"), spec),
        previews=[
            preview_table(name, frame, config["name"], kinds.get(name, name), parquet.get(name))
            for name, frame in tables.items()
        ],
        carried={"claims": [], "verdicts": []}
        | {n: carried_tables(n, frame, parquet.get(n)) for n, frame in tables.items()},
        limit=size_text(CSV_LIMIT),
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


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        finalize=lambda value: shown(value) if type(value) is str else value,  # markup is our own
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


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
    if count("wrong_labels") in ("", "0"):
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

"""Entries of the catalogue against what they name: drawing modules, columns, claims, sections."""

import ast
import inspect
import pkgutil
from importlib import import_module

import pytest
import valleys.claims
from config_changes import experiment
from valleys import figures
from valleys.claims import judging
from valleys.config import outputs
from valleys.config.catalogue import CELL_TABLES, FIGURES, TABLES, TARGETS, find_figure
from valleys.storage import tables

MADE = {**TABLES, "claims": None, "verdicts": None}


def test_each_kind_of_figure_is_drawn_and_in_the_catalogue():
    drawn, listed = set(figures.KINDS), set(FIGURES)
    assert not drawn - listed, f"drawn by a module of figures/, but not in FIGURES: {drawn - listed}"
    assert not listed - drawn, f"in FIGURES, but no module of figures/ has such a Kind: {listed - drawn}"


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_of_tables_a_target_and_a_section_that_there_are(name):
    figure = FIGURES[name]
    assert figure.tables or figure.part == "study"
    assert set(figure.tables) <= set(TABLES)
    assert figure.target in TARGETS or figure.part == "study"
    assert figure.claim in range(1, 13) or figure.part in ("line", "plane", "study")
    assert ("{}" in figure.title) == bool(figure.part)
    assert figure.subject


def test_no_figure_is_left_out():
    """A config with a probe of each kind that a figure is of has them all, each by its name."""
    probes = {name: {"kind": name} for name in {"uniform", *(one.probes for one in FIGURES.values())} - {""}}
    study = {"dataset": "digits", "model": "mlp", "recipe": "quick"}
    found = experiment(("probes", probes), ("planes", {"p": {"pca": True}}), ("studies", {"s": study}))
    made = outputs.figures(found)
    assert {find_figure(name)[0].name for name in made} == set(FIGURES)
    of_targets = [name for target in (*TARGETS, "s") for name in outputs.of_target(found, target)[1]]
    assert sorted(of_targets) == sorted(made)


def test_tables_are_those_whose_columns_are_declared():
    assert set(MADE) == set(tables.declared()) - {"study", "comparison"}


def test_tables_of_cells_have_the_columns_that_name_one():
    for name in CELL_TABLES:
        assert tables.schema(name).names[:4] == ["dataset", "model", "recipe", "seed"], name


def test_claims_are_judged_from_the_tables_that_say_so():
    asked = {name for judge in judging.JUDGES for name in judging.asked_of(judge)} - {"settings", "study"}
    said = {name for name, table in TABLES.items() if table.claims}
    assert not asked - said, f"claims are judged from {asked - said}; say claims=True in TABLES"
    assert not said - asked, f"no claim is judged from {said - asked}; drop claims=True in TABLES"


def test_every_module_of_claims_is_asked():
    """Those whose ``judge`` is not in JUDGES are called by `claims.studies`."""
    text = inspect.getsource(import_module("valleys.claims.studies"))
    called = {node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)}
    named = {ast.unparse(func) for func in called}
    asked = {judge.__module__ + "." + judge.__name__ for judge in judging.JUDGES}
    modules = {module.name for module in pkgutil.iter_modules(valleys.claims.__path__)} - {
        "judging",
        "verdicts",
    }
    for module in modules:
        for name, value in vars(import_module(f"valleys.claims.{module}")).items():
            if name.startswith("judge") and value.__module__ == f"valleys.claims.{module}":
                is_asked = f"valleys.claims.{module}.{name}" in asked or f"{module}.{name}" in named
                assert is_asked, f"claims/{module}.py: nobody calls {name}"

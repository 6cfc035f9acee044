"""Every table, figure, target and section of the report, one entry each; what a config makes is in `outputs`.

A new figure is a module in `valleys.figures` and an entry here; a new table is an entry here and its columns
in ``workflow/schemas/tables.yaml``. Tests compare the entries with the modules, the columns and the claims.
"""

from __future__ import annotations

from dataclasses import dataclass

SOLUTIONS = ("sgd", "swa", "descent", "last")
"""The workflow's own, in the order they are shown; other names are those that the user gave weights."""
DEFAULT_SOLUTIONS = ("sgd", "swa", "descent")
"""Made of a cell that does not say which."""
LINES = "_lines"
"""What the name of a study's table of lines ends with."""


@dataclass(frozen=True)
class Table:
    """A table of an experiment.

    Attributes
    ----------
    name
        As in ``workflow/schemas/tables.yaml`` and in ``tables/<name>.parquet``.
    per
        What one file of a cell has the rows of, where the table stacks such files: a ``cell``, a ``phase`` of
        training, a ``bundle`` of probes, a ``search`` (a probe of kind searched), a ``line``, a ``plane``,
        the ``averages`` of a cell that has some, a ``pair`` of seeds. "" for a table that is made whole.
    blocks
        Blocks of the config that decide its content, beside those of the grid.
    claims
        Whether claims are judged from it.
    asked
        Key of the config, of an entry of its grid, or of its seeds, without which (or with which false) there
        is no such table; "" where there is one of every config.
    """

    name: str
    per: str = ""
    blocks: tuple[str, ...] = ()
    claims: bool = False
    asked: str = ""


@dataclass(frozen=True)
class Figure:
    """A kind of figure.

    Attributes
    ----------
    name
        Of its `valleys.figures.kind.Kind`.
    tables
        It is drawn from. A kind of ``part`` line or study is drawn from tables of studies too.
    target
        By whose name it is made; see `TARGETS`.
    claim
        Number of the claim of the twelve in whose section of the report it stands, 0 for none; None where the
        tables decide.
    part
        What there is one figure each of, named ``<name>-<part>``: ``probe``, ``line``, ``plane``, ``study``.
    title
        Heading in the report; ``{}`` stands for the part.
    subject
        What it is about: figures of one subject stand together in the menu of Snakemake's report.
    probes
        Kind of probes that it shows: there is none without such a probe, and no figure of each such probe.
    """

    name: str
    tables: tuple[str, ...]
    target: str
    claim: int | None
    title: str
    subject: str
    part: str = ""
    probes: str = ""


TOY_TABLES = ("toy_2d", "toy_2d_curves", "toy_2d_surface")
_PROBED = ("bn_refresh", "probes")
_JUDGED = (*_PROBED, "asymmetry")

TABLES = {
    table.name: table
    for table in (
        Table("training", per="phase", blocks=("bn_refresh",), claims=True),
        Table("solutions", per="cell", blocks=("bn_refresh",), claims=True),
        Table("averages", per="averages", blocks=("bn_refresh", "averages"), claims=True, asked="averages"),
        Table("directions", per="bundle", blocks=_PROBED, claims=True),
        Table("curves", per="bundle", blocks=_PROBED),
        Table("searches", per="search", blocks=_JUDGED, claims=True),
        Table("search_curves", per="search", blocks=_JUDGED),
        Table("asymmetry", per="cell", blocks=_JUDGED, claims=True),
        Table("theory_measured", per="cell", blocks=_JUDGED, claims=True),
        Table("shift", per="cell", blocks=_PROBED, claims=True),
        Table("interpolation", per="line", blocks=("bn_refresh", "lines"), claims=True),
        Table("alignment", per="pair", blocks=("bn_refresh",), claims=True, asked="alignment"),
        Table("planes", per="plane", blocks=("bn_refresh",)),
        Table("plane_points", per="plane"),
        Table("sensitivity", blocks=_JUDGED),
        Table("toy_2d", claims=True, asked="simulations"),
        Table("toy_2d_curves", asked="simulations"),
        Table("toy_2d_surface", asked="simulations"),
        Table("toy_2d_angles", asked="simulations"),
        Table("toy_2d_scans", claims=True, asked="simulations"),
        Table("theory_average", claims=True, asked="simulations"),
        Table("theory_gain", claims=True, asked="simulations"),
        Table("looks", blocks=("claims",), asked="until"),
    )
}
"""By name, in the order of the report; those of studies come after them, ``claims`` and ``verdicts`` last."""

FIGURES = {
    figure.name: figure
    for figure in (
        Figure(
            "training",
            ("training",),
            target="swa",
            claim=8,
            title="Training",
            subject="Training",
        ),
        Figure(
            "prevalence",
            ("asymmetry",),
            target="prevalence",
            claim=2,
            title="Prevalence of asymmetric directions",
            subject="Random directions",
        ),
        Figure(
            "sensitivity",
            ("sensitivity",),
            target="prevalence",
            claim=2,
            title="Prevalence against the constants of Definition 1",
            subject="Random directions",
        ),
        Figure(
            "curves",
            ("curves", "directions", "asymmetry"),
            target="prevalence",
            claim=2,
            part="probe",
            title="Loss along directions: {}",
            subject="Random directions",
        ),
        Figure(
            "line",
            ("interpolation",),
            target="swa",
            claim=None,
            part="line",
            title="Line between solutions: {}",
            subject="Lines between solutions",
        ),
        Figure(
            "plane",
            ("planes", "plane_points"),
            target="planes",
            claim=None,
            part="plane",
            title="Plane through weight space: {}",
            subject="Planes",
        ),
        Figure(
            "shift",
            ("shift", "asymmetry"),
            target="shift",
            claim=7,
            title="Shift between train and test loss",
            subject="Shift and gain",
        ),
        Figure(
            "sign",
            ("asymmetry", "directions"),
            target="sign",
            claim=12,
            probes="sign",
            title="Asymmetry and agreement in sign with the weights",
            subject="Signs",
        ),
        Figure(
            "search",
            ("searches", "search_curves"),
            target="search",
            claim=1,
            probes="searched",
            title="Search for an asymmetric direction",
            subject="Search",
        ),
        Figure(
            "toy-surface",
            TOY_TABLES,
            target="toy",
            claim=3,
            title="One neuron: loss surface",
            subject="One neuron",
        ),
        Figure(
            "toy-curves",
            ("toy_2d", "toy_2d_curves"),
            target="toy",
            claim=3,
            title="One neuron: loss along a direction, all draws",
            subject="One neuron",
        ),
        Figure(
            "toy-angles",
            ("toy_2d_angles", "toy_2d_scans"),
            target="toy",
            claim=3,
            title="One neuron: all directions",
            subject="One neuron",
        ),
        Figure(
            "theory-average",
            ("theory_average",),
            target="theory",
            claim=6,
            title="Averaged SGD in simulated valleys",
            subject="Theorems",
        ),
        Figure(
            "theory-gain",
            ("theory_gain",),
            target="theory",
            claim=7,
            title="Gain of a bias to the flat side under a random shift",
            subject="Theorems",
        ),
        Figure(
            "theory-measured",
            ("theory_measured",),
            target="gain",
            claim=7,
            title="Gain of a bias to the flat side on measured curves",
            subject="Shift and gain",
        ),
        Figure(
            "study",
            (),
            target="",
            claim=None,
            part="study",
            title="Study: {}",
            subject="Studies",
        ),
    )
}
"""By name, in the order of the report."""

TARGETS: dict[str, tuple[str, ...]] = {
    "prevalence": ("solutions",),
    "swa": ("solutions",),
    "basin": (),
    "shift": ("curves",),
    "sign": (),
    "search": (),
    "planes": (),
    "toy": (),
    "theory": (),
    "gain": ("curves", "asymmetry"),
}
"""Targets, each with the tables it makes beside those that its figures are drawn from.

``basin`` has the lines that ``swa`` has not, and a study of that name (`outputs.of_target`).
"""

CELL_TABLES = tuple(table.name for table in TABLES.values() if table.per)
"""Tables that stack those of cells (rule ``aggregate``)."""


def find_figure(name: str) -> tuple[Figure | None, str]:
    """Return the kind of a figure by the figure's name, None if there is none such, and its part, or ""."""
    if name in FIGURES and not FIGURES[name].part:
        return FIGURES[name], ""
    kind, _, part = name.partition("-")
    return (FIGURES[kind], part) if part and kind in FIGURES and FIGURES[kind].part else (None, "")

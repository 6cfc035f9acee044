"""Where the schemas are: in the workflow's folder, or inside the package where that is installed."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def schema(name: str) -> Path:
    """Return the path of a schema by its file name.

    The workflow keeps its schemas beside its scripts, as Snakemake's layout has it; an installed package has
    a copy in its own folder (``pyproject.toml``).
    """
    in_workflow = _PACKAGE.parents[1] / "schemas" / name
    return in_workflow if in_workflow.is_file() else _PACKAGE / "schemas" / name

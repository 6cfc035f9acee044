"""Where schemas and captions are: in the workflow's folder, or inside the package where it is installed."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def schema(name: str) -> Path:
    """Return the path of a schema by its file name.

    The workflow keeps its schemas beside its scripts, as Snakemake's layout has it; an installed package has
    a copy in its own folder (``pyproject.toml``).
    """
    return _find("schemas", "schemas", name)


def caption(name: str) -> Path:
    """Return the path of a caption by its file name; captions are kept as schemas are."""
    return _find("report", "captions", name)


def _find(in_workflow: str, in_package: str, name: str) -> Path:
    path = _PACKAGE.parents[1] / in_workflow / name
    return path if path.is_file() else _PACKAGE / in_package / name

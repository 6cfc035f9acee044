"""Public names of a package that are imported when they are first used: the Snakefile loads no torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def names_of(
    package: str, homes: Mapping[str, tuple[str, ...]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return a package's ``__getattr__``, ``__dir__`` and ``__all__`` for names that stand in its modules.

    Parameters
    ----------
    package
        Its ``__name__``.
    homes
        The public names by the module that has them, as it is named within the package. A name that is the
        module's own stands for the module.
    """
    where = {name: module for module, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(f"{package}.{where[name]}")
        return module if where[name].rpartition(".")[2] == name else getattr(module, name)

    def known() -> list[str]:
        return sorted({*vars(importlib.import_module(package)), *where})

    return get, known, sorted(where)

"""One cell of a config, and what is wanted of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


def kept(method: Callable[..., T]) -> Callable[..., T]:
    """Have a method's answers kept, by its arguments: each job of a cell asks for them again.

    Whoever asks must not change an answer.
    """
    name = method.__name__

    @functools.wraps(method)
    def ask(self: Any, *given: Any) -> T:
        answers = self.__dict__.setdefault("_answers", {})
        if (name, *given) not in answers:
            answers[name, *given] = method(self, *given)
        found: T = answers[name, *given]
        return found

    return ask


@dataclass(frozen=True, order=True)
class Cell:
    """One trained network: data set x model x recipe x seed (all but the seed by name)."""

    dataset: str
    model: str
    recipe: str
    seed: int

    @property
    def path(self) -> str:
        """The cell's folder below ``results/<name>/cells``."""
        return f"{self.dataset}/{self.model}/{self.recipe}/seed-{self.seed}"

    @property
    def setting(self) -> tuple[str, str, str]:
        """All but the seed, which repeats it."""
        return self.dataset, self.model, self.recipe

    def columns(self) -> dict[str, Any]:
        """Return the columns that name the cell in every table."""
        return {"dataset": self.dataset, "model": self.model, "recipe": self.recipe, "seed": self.seed}


@dataclass
class Wanted:
    """What is to be made of a cell: names of solutions, probes, lines and averages; whether it is aligned."""

    solutions: set[str] = field(default_factory=set)
    probes: set[str] = field(default_factory=set)
    lines: set[str] = field(default_factory=set)
    averages: set[str] = field(default_factory=set)
    alignment: bool = False

    def add(
        self,
        solutions: Iterable[str],
        probes: Iterable[str],
        lines: Iterable[str],
        averages: Iterable[str],
        *,
        alignment: bool,
    ) -> None:
        """Want these as well."""
        self.solutions.update(solutions)
        self.probes.update(probes)
        self.lines.update(lines)
        self.averages.update(averages)
        self.alignment = self.alignment or alignment

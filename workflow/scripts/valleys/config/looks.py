"""Seeds that are added until the claims are decided: the looks at the data, all fixed before any are seen.

``seeds: {until: decided, most: 24}`` in a config. The first look is at ``first`` seeds, each further one at
twice as many, the last at ``most``. With K looks, each has its tests at ``claims.alpha / K`` and its
intervals at ``1 - (1 - claims.level) / K``. By Bonferroni's inequality the probability of a false verdict at
any of the looks is then ``claims.alpha`` at most, whatever the dependence between looks. A later look has all
data of an earlier one, and the tests are exact: boundaries that were made for sums of normal increments
(Pocock 1977, O'Brien and Fleming 1979) would not hold. `valleys.claims.looks` says when sampling stops.

An experiment at a look is an ordinary one, with a list of seeds and the levels of a look (`Looks.config_at`).

Imported by the Snakefile, so nothing here imports numpy or torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from valleys.errors import ValleysError
from valleys.landscape.kinds import KINDS

LARGEST = 2**53 - 1
"""The greatest seed, as the schema has it."""


@dataclass(frozen=True)
class Looks:
    """The looks of a config.

    Attributes
    ----------
    start : int
        The least seed; the others follow it without a gap.
    counts : tuple of int
        Seeds at each look, increasing; the last is ``most``.
    """

    start: int
    counts: tuple[int, ...]

    @property
    def most(self) -> int:
        """Seeds at the last look."""
        return self.counts[-1]

    def seeds(self, count: int) -> list[int]:
        """Return the first so many seeds."""
        return list(range(self.start, self.start + count))

    def sentence(self) -> str:
        """Say what the looks are."""
        counts = ", ".join(map(str, self.counts))
        return f"Seeds are added until the claims are decided, with looks at {counts} seeds."

    def config_at(self, config: Mapping[str, Any], count: int) -> dict[str, Any]:
        """Return a config with the first so many seeds as a list, and the levels of one look.

        Parameters
        ----------
        config
            With defaults filled in.
        count
            1 to ``most``.
        """
        claims, looks = config["claims"], len(self.counts)
        levels = {"alpha": claims["alpha"] / looks, "level": 1 - (1 - claims["level"]) / looks}
        return {**config, "seeds": self.seeds(count), "claims": {**claims, **levels}}


def looks_of(config: Mapping[str, Any]) -> Looks | None:
    """Return the looks of a config with defaults; None where ``seeds`` is a list.

    Raises
    ------
    ValleysError
        When the looks contradict each other or the rest of the config, or the first can decide nothing.
    """
    seeds = config["seeds"]
    if not isinstance(seeds, Mapping):
        return None
    start, first, most = (seeds[key] for key in ("start", "first", "most"))
    if most < first:
        raise ValleysError(
            f"config: seeds.most: {most} is less than the seeds of the first look, {first} (seeds.first); "
            f"make it {first} or more"
        )
    if start + most - 1 > LARGEST:
        raise ValleysError(
            f"config: seeds.start: {start} leaves no {most} seeds up to {LARGEST}, the greatest there may "
            f"be; make it {LARGEST - most + 1} or less"
        )
    _check_first(first, most, config["claims"]["alpha"])
    found = Looks(start, doubled(first, most))
    _check_use(config, found)
    return found


def doubled(first: int, most: int) -> tuple[int, ...]:
    """Return the seeds at each look: `first`, twice as many at each next one, and `most`."""
    counts = [first]
    while 2 * counts[-1] < most:
        counts.append(2 * counts[-1])
    return (*counts, most) if most > first else (first,)


def least_first(looks: int, alpha: float) -> int:
    """Return the least seeds at which an exact test of a mean can decide, at the level of one of so many
    looks.

    With n values its one-sided p-value is 2^-n at least (`valleys.results.inference.least_n_sign_flip`).
    """
    return math.ceil(math.log2(2 * looks / alpha) - 1e-12)


def _check_first(first: int, most: int, alpha: float) -> None:
    """Check that the tests can reach a look's level with the seeds of the first look."""
    counts = doubled(first, most)
    if first >= least_first(len(counts), alpha):
        return
    right = next((n for n in range(first + 1, most) if n >= least_first(len(doubled(n, most)), alpha)), None)
    if right is None:
        right = least_first(1, alpha)
        if most < right:
            raise ValleysError(
                f"config: seeds.most: {most} seeds can decide nothing about a mean over seeds at a level of "
                f"{alpha:g} (claims.alpha); make it {right} or more"
            )
        right = most
    raise ValleysError(
        f"config: seeds.first: {first} seeds can decide nothing about a mean over seeds: looks at "
        f"{', '.join(map(str, counts))} seeds have a level of {alpha / len(counts):.3g} each, which no exact "
        f"test of {first} values reaches; make it {right} or more"
    )


def _check_use(config: Mapping[str, Any], looks: Looks) -> None:
    """Check that something takes these seeds, and that no direction leads from the first look beyond it."""
    entries = [*config["grid"], *(s for s in config["studies"].values() if s["design"] != "sample")]
    if all("seeds" in entry for entry in entries):
        raise ValleysError(
            "config: seeds: seeds are added until the claims are decided, but each entry of grid and studies "
            "has seeds of its own; leave them out of one, or write a list here"
        )
    for name, probe in config["probes"].items():
        if KINDS[probe["kind"]].seeds and probe["n"] >= looks.counts[0]:
            raise ValleysError(
                f"config: probes.{name}.n: {probe['n']} directions to other seeds, but the first look has "
                f"{looks.counts[0]} seeds (seeds.first); make it {looks.counts[0] - 1} or less"
            )

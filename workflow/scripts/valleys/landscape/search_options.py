"""Options of a search for a direction (`searching.find_asymmetric`), checked before anything is measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from valleys.asymmetry.definition import detect
from valleys.errors import ValleysError, did_you_mean
from valleys.landscape.directions import drawn_kinds
from valleys.landscape.kinds import SEEKS
from valleys.landscape.lines import line_offsets

CONSTANTS = ("c", "zeta_max", "min_span", "minimum_within", "noise")
LEAST_POINTS = 5  # that `detect` takes


@dataclass(frozen=True)
class Options:
    """What `searching.find_asymmetric` was asked for, which see."""

    rise: float
    group: str
    seek: str
    restarts: int
    steps: int
    floor: float
    points: int
    seed: str
    start: str | Sequence[Mapping[str, Tensor]]
    constants: Mapping[str, float]

    def named(self) -> str:
        """Return all options in a line, to tell one search from another; of directions given only that."""
        start = self.start if isinstance(self.start, str) else f"{len(self.start)} given"
        return str({**vars(self), "start": start})

    def check(self) -> None:
        """Raise unless every option is in its range.

        Raises
        ------
        ValleysError
            In one line: the option, its value, and what would be right.
        """
        for name in ("restarts", "steps", "points"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValleysError(f"find_asymmetric: {name}: {value!r} is not a whole number of 1 or more")
        if self.points < LEAST_POINTS or self.points % 2 != 1:
            raise ValleysError(
                f"find_asymmetric: points: {self.points} is not an odd number of {LEAST_POINTS} or more"
            )
        for name in ("rise", "floor"):
            value = getattr(self, name)
            real = isinstance(value, int | float) and not isinstance(value, bool)
            if not real or not (math.isfinite(value) and value > 0):
                raise ValleysError(f"find_asymmetric: {name}: {value!r} is not a finite number above 0")
        if not self.floor < self.rise:
            raise ValleysError(
                f"find_asymmetric: floor: {self.floor:g} is not below rise, {self.rise:g}: the flat side "
                "rises less than the steep one"
            )
        _check_name("seek", self.seek, SEEKS)
        if isinstance(self.start, str):
            _check_name("start", self.start, drawn_kinds())
        elif not isinstance(self.start, Sequence) or not len(self.start):
            raise ValleysError("find_asymmetric: start: give a kind's name, or a list of directions")
        for name in self.constants:
            _check_name("constants", name, CONSTANTS)
        # On a parabola, so that constants that leave no window on the grid are found before a search is done.
        offsets = line_offsets(1.0, self.points)
        detect(offsets, [x * x for x in offsets], **self.constants)


def _check_name(option: str, value: object, names: Sequence[str]) -> None:
    if value not in names:
        near = did_you_mean(value, names) if isinstance(value, str) else ""
        raise ValleysError(f"find_asymmetric: {option}: {value!r} is none; choose {', '.join(names)}{near}")

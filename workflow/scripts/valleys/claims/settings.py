"""What a run's config says to the rules: constants, probes and their rises, controls; no data here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from valleys.results import study_outcomes


@dataclass(frozen=True)
class Settings:
    """Constants of the rules (``claims`` in the config; `valleys.claims.rules`), and what decides.

    Attributes
    ----------
    c : float
        Level from which a direction counts as asymmetric.
    alpha, level : float
        Two-sided level of each test, and of the intervals.
    barrier : float
        Train-loss barriers below this count as none, nats.
    rise : float
        Headline rise, nats: probes whose R is found for it decide claims.
    found, decent : float
        Shares that claims 1 and 2 ask for.
    margin : float
        A change by less than this share of the mean is little.
    controls : sequence of str
        Data sets whose cells decide no claim about SWA or signs.
    factors : mapping, optional
        Study to factor to its levels, in the order of the config.
    probes : mapping
        Probe to its ``kind``, ``bn`` and ``rise``: the one that its R is found for, None where R is set; to
        ``seek`` where it is searched, and ``orthogonal`` where its directions are at right angles to w.
    archs : mapping
        Model to its architecture; "" for a user's own.
    checkpoints : sequence of str
        Recipes that stand for a user's own weights: whoever trained them, their cells decide no claim about
        SWA or signs.
    simulations : bool
        Whether the simulations were run, which some claims rest on.
    """

    c: float = 2.0
    alpha: float = 0.05
    level: float = 0.95
    barrier: float = 0.1
    rise: float = 2.0
    found: float = 0.75
    decent: float = 0.25
    margin: float = 0.25
    controls: Sequence[str] = ()
    factors: study_outcomes.Order | None = None
    probes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    archs: Mapping[str, str] = field(default_factory=dict)
    checkpoints: Sequence[str] = ()
    simulations: bool = True

    @property
    def test(self) -> dict[str, float]:
        """Levels that each row's test takes."""
        return {"alpha": self.alpha, "level": self.level}

    def rise_of(self, probe: str) -> float | None:
        """Return the rise that a probe's R is found for, in nats; None where R is set or nothing is known."""
        return self.probes.get(probe, {}).get("rise")

    def is_headline(self, probe: str) -> bool:
        """Whether a probe's curves end at the headline rise."""
        return self.rise_of(probe) == self.rise

    def bn_of(self, probe: str) -> str:
        """Return the batch-norm policy of a probe's curves; "" where nothing is known."""
        return self.probes.get(probe, {}).get("bn", "")

    def seek_of(self, probe: str) -> str:
        """Return what a probe's search is for, ``asymmetric`` or ``symmetric``; "" where nothing is known."""
        return self.probes.get(probe, {}).get("seek", "")

    def is_orthogonal(self, probe: str) -> bool:
        """Whether a probe's directions are made orthogonal to w."""
        return bool(self.probes.get(probe, {}).get("orthogonal"))

    def is_control(self, dataset: str) -> bool:
        """Whether the cells of a data set stand beside the others and decide nothing about SWA or signs."""
        return dataset in self.controls

    def may_decide(self, dataset: str, recipe: str) -> bool:
        """Whether the cells of a setting decide about SWA or signs: no control, and trained in this run."""
        own = any(recipe == name or recipe.startswith(f"{name} at ") for name in self.checkpoints)
        return not self.is_control(dataset) and not own

    def about_rise(self, probe: str) -> str:
        """Say for a note where a probe's curves end."""
        rise = self.rise_of(probe)
        return "" if rise is None else f"at a rise of {rise:g} nats"

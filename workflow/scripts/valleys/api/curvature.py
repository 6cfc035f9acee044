"""What is measured at the weights and along no curve: gradient, Hessian, sharpness."""

from __future__ import annotations

import functools
import math
from typing import Any

from valleys.api import measures
from valleys.api.base import KEPT_BYTES, Base
from valleys.errors import ValleysError
from valleys.landscape import ascent, stationarity
from valleys.landscape.gradients import check_gradient, loss_and_gradient
from valleys.networks.tensors import movable


class Curvature(Base):
    """The part of `Landscape` that takes derivatives at the weights."""

    def gradient(self) -> measures.Gradient:
        """Return the gradient of the train loss with its norm, batch norm held; 0 at a minimum.

        Raises
        ------
        ValleysError
            When torch cannot differentiate the network, or gives another gradient than that of the losses.
        """
        held = self._held()
        names = [name for name, parameter in held.parameters.items() if movable(parameter)]
        norm, gain = stationarity.gradient_at_start(held)
        if math.isnan(norm):
            check_gradient(held, names)  # which says why
        vectors = ascent.Vectors(held.parameters, names)
        _, flat = loss_and_gradient(held, list(vectors.own))
        found = vectors.direction(flat / norm) if norm > 0 else {}
        return measures.Gradient(norm, gain, found, names=self.names)

    def hessian(
        self,
        k: int = 1,
        *,
        group: str = "all",
        tolerance: float | None = None,
        until: float | None = None,
        within: float = 0.1,
        budget: int | None = None,
        seed: int = 0,
    ) -> measures.Eigenpairs:
        """Return the `k` largest eigenvalues of the Hessian of the train loss, batch norm held.

        Parameters
        ----------
        k
            How many.
        group
            The parameters to differentiate by.
        tolerance
            Relative, of the residuals; None: to rounding. 1e-2 or 1e-3 takes a fraction of the products.
        until
            A confidence, such as 0.95: examples are added at random until the largest eigenvalue is known at
            it. For k = 1, without `tolerance`.
        within
            With `until`: how far it may be off, as a share of it.
        budget, seed
            With `until`: examples at most, and the seed of their order.

        Raises
        ------
        ValleysError
            For `until` with another k, or with a tolerance; as `line` for a confidence or a budget.
        """
        if until is not None:
            if k != 1 or tolerance is not None:
                what = f"k: {k}" if k != 1 else f"tolerance: {tolerance}"
                raise ValleysError(f"hessian: {what} does not go with until, which is for one eigenvalue")
            from valleys.landscape.sequential_hessian import eigenvalue_until

            self._know_counts()
            options = self._sequential(until, within, budget, seed)
            found, hessian = eigenvalue_until(self.evaluator, self.group(group), **options)
            pair = [found.residual], [hessian.direction(found.vector)]
            return measures.Eigenpairs(
                [found.value], *pair, (found.low, found.high), found.settled, names=self.names
            )
        with self._hessian(group) as hessian:
            found, values, residuals = hessian.top(k, tolerance)
        return measures.Eigenpairs(values, residuals, found, names=self.names)

    def trace(
        self,
        *,
        probes: int = 30,
        tolerance: float | None = None,
        group: str = "all",
        seed: int = 0,
        until: float | None = None,
        within: float = 0.1,
        budget: int | None = None,
    ) -> measures.TraceEstimate:
        """Return the trace of that Hessian with its interval, by Hutchinson's estimator.

        Parameters
        ----------
        probes
            Random vectors.
        tolerance
            Or the relative standard error to stop at: 0.01 for 1 %. The trace on what the largest eigenvalues
            act on is then computed apart (Hutch++), which takes a fraction of the products.
        group, seed
            The parameters to differentiate by, and the seed of the vectors and of the order of examples.
        until, within
            A confidence, such as 0.95: examples are added at random until the trace is known at it, to this
            share of its value. Without `tolerance`; `probes` does not count.
        budget
            With `until`: examples at most.

        Raises
        ------
        ValleysError
            For `until` with a tolerance; as `line` for a confidence or a budget.
        """
        if until is not None:
            if tolerance is not None:
                raise ValleysError(
                    f"trace: tolerance: {tolerance} does not go with until; give within instead"
                )
            from valleys.landscape.sequential_hessian import trace_until

            self._know_counts()
            options = self._sequential(until, within, budget, seed)
            near = trace_until(self.evaluator, self.group(group), **options)
            return measures.TraceEstimate(
                near.value, near.error, near.low, near.high, near.samples, near.settled, names=self.names
            )
        from valleys.landscape import spectrum

        bar = functools.partial(self._bar, unit="probe")
        with self._hessian(group) as hessian:
            if tolerance is None:
                found = spectrum.trace(hessian, probes, seed, bar)
            else:
                found = spectrum.trace_within(hessian, tolerance, seed, bar)
        values = found.value, found.error, found.low, found.high, found.samples
        return measures.TraceEstimate(*values, names=self.names)

    def density(
        self,
        *,
        probes: int = 8,
        steps: int = 40,
        width: float | None = None,
        group: str = "all",
        seed: int = 0,
    ) -> measures.DensityEstimate:
        """Return the spectral density of that Hessian by stochastic Lanczos quadrature.

        Parameters
        ----------
        probes, steps
            Random vectors, and products for each.
        width
            Of the Gaussian that it is smoothed by; None: a hundredth of the spectrum's range.
        """
        from valleys.landscape import spectrum

        bar = functools.partial(self._bar, unit="probe")
        with self._hessian(group) as hessian:
            found = spectrum.density(hessian, probes, steps, seed, bar)
        width = float(found.nodes.max() - found.nodes.min()) / 100 if width is None else width
        return measures.DensityEstimate(found, width, names=self.names)

    def sharpness(self, *names: str, group: str = "all", **options: Any) -> measures.SharpnessOf:
        """Return sharpness as it is published, batch norm held: SAM's, elementwise, width along filters.

        Parameters
        ----------
        names
            ``sam``, ``adaptive_sam``, ``adaptive_worst``, ``adaptive_average``, ``filter_width``; none: all.
        group
            The parameters that move.
        options
            Of the measures (`valleys.landscape.sharpness`): ``rho``, ``n``, ``seed``, ``steps``, ``rise``.
            One that several measures have goes to all of them that are asked for.

        Raises
        ------
        ValleysError
            For a measure or an option that there is not.
        """
        from valleys.landscape import sharpness

        each = sharpness.measure(self._held(), self.group(group), names, **options)
        found = [one.asdict() for one in self._bar(each, "measure")]
        return measures.SharpnessOf(found, names=self.names)

    def _sequential(self, until: float, within: float, budget: int | None, seed: int) -> dict[str, Any]:
        return {"confidence": until, "within": within, "budget": budget, "seed": seed, "keep": KEPT_BYTES}

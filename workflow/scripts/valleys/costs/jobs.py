"""What each job of an experiment will cost: time, memory and disk, before anything runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from valleys.costs.amounts import Amounts
from valleys.costs.rules import ON_GPU, RULES
from valleys.costs.work import Cost


class Costs(Amounts):
    """Estimates for the jobs of one experiment.

    Parameters
    ----------
    experiment
        The checked config. Files of data sets are looked at for their size: the prepared ones when there are
        any, and again when `prepare_dataset` has made them anew, so that what is asked for follows the data
        within one run.
    local
        Whether jobs run on this machine, where they are forked (``execution.fork_server``) unless they use a
        GPU; on a cluster each starts anew.
    originals
        Whether to trust a count of the originals more than files that were prepared before this process
        started, of which the originals may have changed since. A job's own process need not.
    """

    def __call__(self, rule: str, wildcards: Mapping[str, Any]) -> Cost:
        """Return what a job costs.

        Parameters
        ----------
        rule
            Name of a rule that makes something.
        wildcards
            Of the job; a seed makes no difference but for which probes and planes apply.
        """
        if rule not in RULES:
            raise KeyError(f"no cost model of rule {rule}")
        wildcards = dict(wildcards.items())  # in Snakemake's, `in` looks at values
        seeded = rule in ("train_sgd", "probe")
        key = tuple((k, v) for k, v in sorted(wildcards.items()) if k != "seed" or seeded)
        # What is known of the data, and of a network that may have been a guess, is part of the question.
        here = self.looking_once()
        state = here.datasets.state(wildcards["dataset"]) if "dataset" in wildcards else None
        net = here.net(wildcards["dataset"], wildcards["model"]) if state and "model" in wildcards else None
        return self.once((rule, key, state, net), lambda: RULES[rule](here, wildcards))

    def runtime(self, rule: str, wildcards: Mapping[str, Any], attempt: int = 1) -> int:
        """Return the minutes to ask for: twice the estimate and 10 more, times the attempt, limited."""
        wanted = attempt * (10 + math.ceil(2 * self(rule, wildcards).seconds / 60))
        return min(wanted, self.config["execution"]["max_runtime"] or wanted)

    def mem_mb(self, rule: str, wildcards: Mapping[str, Any], attempt: int = 1) -> int:
        """Return the MB to ask for: half as much again as the estimate and 500 more, times the attempt."""
        return attempt * (500 + math.ceil(1.5 * self(rule, wildcards).memory_mb))

    def gpus(self, rule: str) -> int:
        """Return the GPUs to ask for: one, for rules that use it, where ``execution.device`` is ``cuda``."""
        return int(self.on_gpu and rule in ON_GPU)

    def decoders(self, dataset: str) -> int:
        """Return the threads that decode a data set when it is prepared."""
        return self.datasets.decoders(dataset)

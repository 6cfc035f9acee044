"""What would keep a run from its end, told before its first job: absent data, too little memory."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from valleys.config.experiment import Experiment
from valleys.costs.jobs import Costs
from valleys.costs.machine import MB, memory_mb
from valleys.costs.rules import RULES
from valleys.data import presence

Jobs = Iterable[tuple[str, Mapping[str, str]]]

#: What makes a job of a rule smaller, in the order of the config's keys.
ADVICE = {
    "prepare_dataset": "set max_train of the data set",
    "train_sgd": "lower the recipe's batch_size, or execution.resident_mb",
    "average": "take a smaller network",
    "compare_averages": "raise swa.every of the recipe, or take fewer averages",
    "directions": "lower n of the probe, or of kind pca raise swa.every of the recipe",
    "search_directions": "lower the probe's train_images, or freeze its batch norm (bn: frozen)",
    "plane": "leave out planes with pca, or raise swa.every of the recipe",
}
ADVICE |= dict.fromkeys(("cooldown", "descend", "connect"), ADVICE["train_sgd"])
RAISE = "; or raise the limit (mem_mb in the profile's resources: MEMORY in profiles/slurm)"
ELSE = "lower bn_refresh.batch_size (with method: streaming) or execution.resident_mb"


def lacking_data(
    experiment: Experiment, jobs: Jobs, fetch: str, is_made: Callable[[str], bool] = lambda path: False
) -> list[str]:
    """Return a line for each original that a job to run is to read and that is not there.

    Parameters
    ----------
    jobs
        Rule and wildcards of those to run.
    fetch, is_made
        As of `presence.absent`.
    """
    names = {wildcards.get("dataset", "") for rule, wildcards in jobs if rule == "prepare_dataset"}
    return [
        line
        for name in sorted(names & experiment.datasets.keys())
        for line in presence.absent(name, experiment.datasets[name], fetch, is_made)
    ]  # fmt: skip


def seeds_to_come(experiment: Experiment, to_run: int, seeded: Iterable[Mapping[str, str]]) -> str:
    """Return what a dry run says of seeds that are added until claims are decided: its jobs are the least.

    Parameters
    ----------
    to_run
        How many jobs are planned to run.
    seeded
        Wildcards of all jobs of a seed in the plan, of those that need not run too.
    """
    looks = experiment.looks
    assert looks is not None, "the seeds of this config are a list"
    settings = {cell.setting for cell in experiment.added_cells()}
    counts = Counter(
        int(w["seed"]) for w in seeded if (w.get("dataset"), w.get("model"), w.get("recipe")) in settings
    )
    there = [seed for seed in looks.seeds(looks.most) if seed in counts]
    text = f"{looks.sentence()} With {len(there)} seeds this dry run has {to_run} jobs"
    if len(there) == looks.most or not there:
        return f"{text}."
    # Not of the greatest: it has no line to a next one.
    each, more = counts[there[-2:][0]], looks.most - len(there)
    return (
        f"{text}, which is the least. With all {looks.most} it would be about {to_run + more * each} at "
        f"most, as each seed more has {each}; to see them: snakemake -n all most_seeds."
    )


def beyond_memory(costs: Costs, jobs: Jobs, limit_mb: float | None, remedy: str = "") -> str | None:
    """Return a line on the largest job to run, if by its estimate it takes more memory than there is.

    Parameters
    ----------
    jobs
        Rule and wildcards of those to run.
    limit_mb
        What a job may take; None is what this machine has.
    remedy
        Ends the line: how to allow more.
    """
    most, whose = (memory_mb(), "this machine has") if limit_mb is None else (limit_mb, "a job may have")
    # Seeds cost the same, but for the few rules that `Costs` tells apart.
    once = {(rule, *sorted((k, v) for k, v in w.items() if k != "seed")): (rule, w) for rule, w in jobs}
    priced = []
    for rule, w in once.values():
        with contextlib.suppress(KeyError):  # a rule of our name in a workflow that ours is a module of
            priced += [(costs(rule, w).memory_mb, rule, w)] if rule in RULES else []
    needed, rule, wildcards = max(priced, key=lambda row: row[0], default=(0.0, "", {}))
    if needed <= most:
        return None
    others = len({rule for mb, rule, _ in priced if mb > most}) - 1
    more = f" (and jobs of {others} more rule{'s' * (others > 1)})" if others else ""
    return (
        f"a job of rule {rule} ({'/'.join(wildcards.values())}) takes {needed * MB / 1e9:.3g} GB of memory "
        f"by estimate, more than the {most * MB / 1e9:.3g} GB that {whose}{more}; "
        f"{ADVICE.get(rule, ELSE)}{remedy}"
    )

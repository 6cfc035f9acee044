"""A plan as text: the table of rules, of at most `WIDTH` columns, and what is to be said below it."""

from __future__ import annotations

import textwrap

from valleys.costs.machine import MB
from valleys.costs.plan import Plan, Row

WIDTH = 100
HEAD = ["rule", "to do", "done", "core time", "GPU time", "longest", "memory", "disk", "files", "time is"]


def as_text(plan: Plan, cores: int | None = None) -> str:
    """Return the table and the lines below it.

    Parameters
    ----------
    cores
        Cores to divide the work by.
    """
    lines = [_line(row) for row in (*plan.rows, plan.total)]
    lines[-1][-1] = ""
    widths = [max(len(line[i]) for line in (HEAD, *lines)) for i in range(len(HEAD))]

    def aligned(line: list[str]) -> str:
        middle = [text.rjust(width) for text, width in zip(line[1:-1], widths[1:-1], strict=True)]
        return "  ".join([line[0].ljust(widths[0]), *middle, line[-1]]).rstrip()

    rule = "  ".join("-" * width for width in widths)
    body = [aligned(line) for line in lines]
    below = [
        textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)
        for text in _below(plan, cores)
    ]
    told = [f"Missing: {line}" for line in plan.missing]
    told += [f"Too large: {plan.too_large}"] if plan.too_large else []
    return "\n".join([aligned(HEAD), rule, *body[:-1], rule, body[-1], "", *below, *told])


def _line(row: Row) -> list[str]:
    """Return the words of a row."""
    return [
        row.rule,
        str(row.todo),
        str(row.done),
        hours(row.core_hours),
        hours(row.gpu_hours),
        hours(row.longest),
        size(row.memory_mb * MB) if row.todo else "-",
        size(row.disk) if row.todo else "-",
        count(row.files) if row.todo else "-",
        "mixed" if len(row.origins) > 1 else "".join(row.origins) or "-",
    ]


def _below(plan: Plan, cores: int | None) -> list[str]:
    """Return the sentences below the table, a paragraph each."""
    total = plan.total
    text = [f"Longest path: {hours(plan.longest)}, with a core (and a GPU) for every job."]
    if cores and total.gpu_hours == 0:
        least = max(plan.longest, total.core_hours / cores)
        text.append(f"With {cores} core{'s' * (cores > 1)}: at least {hours(least)}.")
    by_keep = ", ".join(f"{size(kept)} with {keep}" for keep, kept in plan.iterates.items())
    text += [
        "Times are cores (GPUs) held times hours; GPU jobs hold a core too. Longest and memory: of one job, "
        "the largest.",
        "Disk and files are what the jobs to do leave there, with logs, benchmarks, folders and Snakemake's "
        f"records. Iterates of all cells, by execution.keep, which is {plan.keep}: {by_keep}.",
    ]
    if plan.measurements:
        text.append(
            "measured: mean of finished jobs that differ in the seed only; scaled: estimated, times what "
            "finished jobs of the rule took over their estimates; mixed: some of each. "
            f"Finished jobs read: {plan.measurements}. Disk and files are always estimated."
        )
    else:
        text.append("All figures are estimates of the cost model: no job has finished yet.")
    if plan.assumed:
        text.append(
            f"Not counted yet, so assumed: the size of data set {', '.join(plan.assumed)} "
            "(known once prepare_dataset has run)."
        )
    if plan.guessed:
        text.append(
            f"Not measured yet, so taken for a PreResNet-20: network {', '.join(plan.guessed)} (known "
            "once a job has built it; --measure builds it now, which runs its code)."
        )
    return text


def hours(number: float) -> str:
    """Return hours in the unit that suits them."""
    for unit, seconds in (("h", 3600), ("min", 60)):
        if number * 3600 >= seconds:
            value = number * 3600 / seconds
            return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return f"{number * 3600:.2g} s" if number else "-"


def count(number: int) -> str:
    """Return a number of at most seven characters."""
    if number < 100_000:
        return f"{number:,}"
    return f"{number / 1e3:.3g} k" if number < 999_500 else f"{number / 1e6:.3g} M"


def size(number: float) -> str:
    """Return bytes in the unit that suits them."""
    for unit, step in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= step:
            return f"{number / step:.3g} {unit}"
    return f"{number / 1e3:.3g} kB"

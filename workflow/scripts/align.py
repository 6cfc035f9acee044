"""Align the sgd solution of another seed to a cell's by weight matching: the barrier before and after.

In: ``train``, ``test``, ``start``, ``stop`` (of the other seed). Out: ``table`` (alignment).
"""

from valleys.execution.jobs import compiles, job, pick_device, read_splits

with job(snakemake) as log:
    from valleys.config.experiment import Cell
    from valleys.landscape import alignment
    from valleys.landscape.evaluator import evaluator_for
    from valleys.models import solutions
    from valleys.storage import tables

    spec, w, device = snakemake.params.spec, snakemake.wildcards, pick_device(snakemake.config)
    cell, splits = Cell(w.dataset, w.model, w.recipe, int(w.seed)), read_splits(snakemake, device)
    (start, _), (stop, _) = (solutions.load(snakemake.input[end], device) for end in ("start", "stop"))
    block = {"train_images": None, "test_images": None, "bn": "refreshed"}
    evaluator = evaluator_for(start, splits, block, spec, compiles(snakemake.config))
    row = alignment.compare(evaluator, stop, cell.seed)
    about = {**cell.columns(), "other_seed": spec["other_seed"], "solution": spec["solution"]}
    tables.write(snakemake.output.table, "alignment", [{**about, **row}], spec)
    log.info(
        "train-loss barrier %.4g before, %.4g after", row["train_barrier_before"], row["train_barrier_after"]
    )

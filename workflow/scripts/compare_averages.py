"""Compare averages of one cell's iterates with SWA, which is the equal average of them.

In: ``iterates``, ``swa``, ``train``, ``test``. Out: ``table`` (averages), ``weights`` (folder: a file an
average that was not refused, BN refreshed).
"""

from valleys.execution.jobs import job, pick_device, read_splits

with job(snakemake) as log:
    from pathlib import Path

    from valleys.config.experiment import Cell, Experiment
    from valleys.landscape import averages
    from valleys.models import solutions
    from valleys.storage import tables
    from valleys.storage.weights import load_weights
    from valleys.training.iterates import iterate_files
    from valleys.training.schedule import kept_epochs

    spec, w, given = snakemake.params.spec, snakemake.wildcards, snakemake.input
    device, folder = pick_device(snakemake.config), Path(snakemake.output.weights)
    cell, splits = Cell(w.dataset, w.model, w.recipe, int(w.seed)), read_splits(snakemake, device)
    swa, about = solutions.load(given.swa, device)
    epochs = kept_epochs(Experiment(snakemake.config).recipe(cell.recipe))
    loaded = [load_weights(path, ours=True) for path in iterate_files(given.iterates, spec["window"], epochs)]
    iterates = {header["epoch"]: state for state, header in loaded}
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for row, state in averages.compare(swa, iterates, splits, spec, cell.seed):
        rows.append({**cell.columns(), **row})
        if row["refused"]:
            log.warning("%s is refused: %s", row["average"], row["refused"])
            continue
        losses = row["train_loss"], row["test_loss"]
        log.info("%s: train loss %.6f, test loss %.6f", row["average"], *losses)
        if state is not None:
            more = {"solution": row["average"], "iterates": row["iterates"], "bn_policy": row["bn_policy"]}
            solutions.save(folder / f"{row['average']}.safetensors", state, about, **more)
    tables.write(snakemake.output.table, "averages", rows, spec)

"""Let the rate fall to nothing from the weights that averaging begins with: the sgd solution.

In: ``start``, ``train``, ``test``. Out: ``weights`` (BN not yet refreshed), ``table`` (training,
``cooldown``). Killed, a rerun goes on.
"""

from valleys.execution.jobs import arithmetic, compiles, data_checksums, job, pick_device, read_splits

with job(snakemake) as log:
    import shutil
    from pathlib import Path

    from valleys.config.experiment import Cell
    from valleys.models import solutions
    from valleys.storage import tables
    from valleys.training import sgd
    from valleys.training.trainer import state_folder

    spec, w, config = snakemake.params.spec, snakemake.wildcards, snakemake.config
    device, compiled = pick_device(config), compiles(config)
    cell, splits = Cell(w.dataset, w.model, w.recipe, int(w.seed)), read_splits(snakemake, device)
    model, about = solutions.load(snakemake.input.start, device)
    key = solutions.state_key(spec, [about], data_checksums(snakemake), arithmetic(device, compiled))
    state = state_folder(Path(snakemake.output.table).parent, "cooldown", key)
    rows = sgd.cool_down(
        model,
        splits,
        spec["recipe"],
        seed=cell.seed,
        state_dir=state,
        checkpoint_every=config["execution"]["checkpoint_every"],
        compiled=compiled,
    )
    solutions.save(snakemake.output.weights, model.state_dict(), about, solution="sgd", iterates=0)
    tables.write(snakemake.output.table, "training", [{**cell.columns(), **row} for row in rows], spec)
    shutil.rmtree(state, ignore_errors=True)

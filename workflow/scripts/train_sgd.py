"""Train one cell from its seed, keeping the iterates of the averaging phase.

In: ``train``, ``test``, ``start`` (of recipes that start from another). Out: ``last``, ``start`` (where
averaging begins), ``iterates`` (folder), ``table`` (training). Killed, a rerun goes on.
"""

from valleys.execution.jobs import arithmetic, compiles, data_checksums, job, pick_device, read_splits

with job(snakemake) as log:
    from pathlib import Path

    from valleys.config.experiment import Cell, Experiment
    from valleys.costs import sizes
    from valleys.models import solutions
    from valleys.storage import tables
    from valleys.storage.weights import load_weights
    from valleys.training import sgd
    from valleys.training.iterates import publish_iterates
    from valleys.training.trainer import state_folder

    spec, w, config = snakemake.params.spec, snakemake.wildcards, snakemake.config
    device, compiled, start = pick_device(config), compiles(config), snakemake.input.get("start")
    cell, splits = Cell(w.dataset, w.model, w.recipe, int(w.seed)), read_splits(snakemake, device)
    model, begun = solutions.to_train(start, spec["model"], splits[0], seed=cell.seed, device=device)
    sizes.note(model, spec["model"], *splits[0].kind, Path("results") / config["name"])
    key = solutions.state_key(spec, begun, data_checksums(snakemake), arithmetic(device, compiled))
    state = state_folder(Path(snakemake.output.table).parent, "train", key)
    # What is kept has no part in the weights, hence none in the params.
    kept = None if config["execution"]["keep"] == "all" else Experiment(config).written_iterates(cell)
    every = config["execution"]["checkpoint_every"]
    options = {"seed": cell.seed, "checkpoint_every": every, "keep_last": kept, "compiled": compiled}
    rows = sgd.train(model, splits, spec["recipe"], state_dir=state, **options)
    about = solutions.describe(spec, splits[0], cell.path)
    ends = {"last": model.state_dict(), "start": load_weights(state / sgd.START, ours=True)[0]}
    for name, weights in ends.items():
        solutions.save(snakemake.output[name], weights, about, solution=name, iterates=0)
    tables.write(snakemake.output.table, "training", [{**cell.columns(), **row} for row in rows], spec)
    publish_iterates(state, Path(snakemake.output.iterates), spec["recipe"])

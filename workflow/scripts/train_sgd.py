"""Train one cell from its seed, keeping the iterates of the averaging phase.

In: ``train``, ``test`` and, for recipes that start from another, ``start``. Out: ``weights`` (the sgd
solution, BN as training left it), ``iterates`` (folder of safetensors, one an epoch of the averaging phase,
or of the last ones only: ``execution.keep``), ``table`` (training). Killed at any moment, a rerun goes on
from the last checkpoint.
"""

from valleys.execution.jobs import arithmetic, compiles, job, pick_device, read_split

with job(snakemake) as log:
    import shutil
    from pathlib import Path

    from valleys.config.experiment import Cell, Experiment
    from valleys.costs import sizes
    from valleys.data.cache import read_metadata
    from valleys.models import solutions
    from valleys.networks.batch_norm import check_bn
    from valleys.storage import files, tables
    from valleys.training import sgd
    from valleys.training.iterates import note_dropped
    from valleys.training.trainer import state_folder

    spec, w = snakemake.params.spec, snakemake.wildcards
    device = pick_device(snakemake.config)
    cell = Cell(w.dataset, w.model, w.recipe, int(w.seed))
    train, test = (read_split(snakemake, part, device) for part in ("train", "test"))
    start, begun = snakemake.input.get("start"), None
    if start:
        model, begun = solutions.load(start, device)
        log.info("starting from %s of %s", begun["solution"], begun["cell"])
    else:
        model = solutions.fresh(spec["model"], train.in_shape, train.classes, seed=cell.seed, device=device)
    check_bn(model)  # the statistics of what it makes will be refreshed
    root = Path("results") / snakemake.config["name"]
    sizes.note(model, spec["model"], train.in_shape, train.classes, root)
    log.info("%s on %s: %d parameters", cell.path, device, sum(p.numel() for p in model.parameters()))

    data = [read_metadata(path)["checksum"] for path in (snakemake.input.train, snakemake.input.test)]
    key = solutions.state_key(
        spec, [begun] if begun else [], data, arithmetic(device, compiles(snakemake.config))
    )
    state = state_folder(Path(snakemake.output.table).parent, "train", key)
    execution, last = snakemake.config["execution"], None
    if execution["keep"] != "all":  # has no part in the weights, hence none in the params
        last = Experiment(snakemake.config).written_iterates(cell)
    rows = sgd.train(
        model,
        (train, test),
        spec["recipe"],
        seed=cell.seed,
        state_dir=state,
        checkpoint_every=execution["checkpoint_every"],
        keep_last=last,
        compiled=compiles(snakemake.config),
    )
    about = {"model": spec["model"], "in_shape": train.in_shape, "classes": train.classes, "cell": cell.path}
    about |= {"code": spec["code"]} if "code" in spec else {}
    solutions.save(snakemake.output.weights, model.state_dict(), about, solution="sgd", iterates=0)
    tables.write(snakemake.output.table, "training", [{**cell.columns(), **row} for row in rows], spec)
    note_dropped(state / "iterates", spec["recipe"])
    # First the checkpoint: one without the iterates that it has behind it must not be resumed from.
    (state / "checkpoint.pt").unlink(missing_ok=True)
    files.publish_folder(state / "iterates", Path(snakemake.output.iterates))
    shutil.rmtree(state)

"""Continue SGD from the SWA solution at a constant low rate.

In: ``swa``, ``train``, ``test``. Out: ``weights`` (BN not yet refreshed), ``table`` (training, ``descent``).
"""

from valleys.execution.jobs import arithmetic, compiles, data_checksums, job, pick_device, read_splits

with job(snakemake) as log:
    import shutil
    from pathlib import Path

    from valleys.config.experiment import Cell
    from valleys.models import solutions
    from valleys.networks.bn_refresh import refresh_bn
    from valleys.storage import tables
    from valleys.training import sgd
    from valleys.training.trainer import state_folder

    spec, w, config = snakemake.params.spec, snakemake.wildcards, snakemake.config
    settings, device = spec["bn_refresh"], pick_device(config)
    cell, splits = Cell(w.dataset, w.model, w.recipe, int(w.seed)), read_splits(snakemake, device)
    model, about = solutions.load(snakemake.input.swa, device)
    on = arithmetic(device, compiles(config))
    key = solutions.state_key(spec, [about], data_checksums(snakemake), on)
    state = state_folder(Path(snakemake.output.table).parent, "descent", key)
    rows = sgd.descend(
        model,
        splits,
        spec["recipe"],
        seed=cell.seed,
        refresh=lambda net: refresh_bn(net, splits[0].batches(settings["batch_size"]), settings["method"]),
        state_dir=state,
        checkpoint_every=config["execution"]["checkpoint_every"],
        batch_size=settings["batch_size"],
        compiled=compiles(config),
    )
    solutions.save(snakemake.output.weights, model.state_dict(), about, solution="descent", iterates=0)
    tables.write(snakemake.output.table, "training", [{**cell.columns(), **row} for row in rows], spec)
    shutil.rmtree(state, ignore_errors=True)

"""Continue SGD from the SWA solution at a constant low rate.

In: ``swa``, ``train``, ``test``. Out: ``weights`` (descent, BN not yet refreshed), ``table`` (training rows
of phase ``descent``).
"""

from valleys.execution.jobs import arithmetic, compiles, job, pick_device, read_split

with job(snakemake) as log:
    import shutil
    from pathlib import Path

    from valleys.config.experiment import Cell
    from valleys.data.cache import read_metadata
    from valleys.models import solutions
    from valleys.networks.bn_refresh import refresh_bn
    from valleys.storage import tables
    from valleys.training import sgd
    from valleys.training.trainer import state_folder

    spec, w = snakemake.params.spec, snakemake.wildcards
    settings = spec["bn_refresh"]
    device = pick_device(snakemake.config)
    cell = Cell(w.dataset, w.model, w.recipe, int(w.seed))
    train, test = (read_split(snakemake, part, device) for part in ("train", "test"))
    model, about = solutions.load(snakemake.input.swa, device)

    data = [read_metadata(path)["checksum"] for path in (snakemake.input.train, snakemake.input.test)]
    key = solutions.state_key(spec, [about], data, arithmetic(device, compiles(snakemake.config)))
    state = state_folder(Path(snakemake.output.table).parent, "descent", key)
    rows = sgd.descend(
        model,
        (train, test),
        spec["recipe"],
        seed=cell.seed,
        refresh=lambda net: refresh_bn(net, train.batches(settings["batch_size"]), settings["method"]),
        state_dir=state,
        checkpoint_every=snakemake.config["execution"]["checkpoint_every"],
        batch_size=settings["batch_size"],
        compiled=compiles(snakemake.config),
    )
    solutions.save(snakemake.output.weights, model.state_dict(), about, solution="descent", iterates=0)
    tables.write(snakemake.output.table, "training", [{**cell.columns(), **row} for row in rows], spec)
    shutil.rmtree(state, ignore_errors=True)

"""Take a solution's weights from a file that was made elsewhere.

In: ``checkpoint`` (safetensors or torch.save) and, where that is an index, its ``shards``; ``train``. Out:
``weights``, the solution as the rest of the workflow reads it, with the batch-norm statistics it came with or
refreshed ones.
"""

from valleys.execution.jobs import job, pick_device, read_split

with job(snakemake) as log:
    from pathlib import Path

    from valleys.config.experiment import Cell
    from valleys.costs import sizes
    from valleys.models import checkpoints, solutions, state_dicts
    from valleys.networks.batch_norm import batch_norms
    from valleys.networks.bn_refresh import refresh_bn

    spec, w = snakemake.params.spec, snakemake.wildcards
    cell = Cell(w.dataset, w.model, w.recipe, int(w.seed))
    device = pick_device(snakemake.config)
    train = read_split(snakemake, "train", device)
    path = snakemake.input.checkpoint + spec.get("choice", "")
    model = solutions.fresh(spec["model"], *train.kind, seed=cell.seed, device=device)
    sizes.note(model, spec["model"], *train.kind, Path("results") / snakemake.config["name"])
    taken = checkpoints.load(model, state_dicts.find(path), path)
    policy, settings = "none", spec["bn_refresh"]
    if batch_norms(model):
        policy = "refreshed" if settings else "stored"
        if settings:
            refresh_bn(model, train.batches(settings["batch_size"]), settings["method"])
    log.info("%s of %s from %s, batch-norm statistics: %s", w.solution, cell.path, path, policy)
    log.info("of the file were read: %s", taken)
    about = solutions.describe(spec, train, cell.path)
    more = {"solution": w.solution, "iterates": 0, "bn_policy": policy}
    solutions.save(snakemake.output.weights, model.state_dict(), about, **more)

"""Recompute the batch-norm statistics of a solution over the whole, un-augmented train set.

In: ``weights``, ``train``. Out: ``weights`` (the same but for running statistics; a copy where the model has
no batch norm).
"""

from valleys.execution.jobs import job, pick_device, read_split

with job(snakemake) as log:
    from valleys.storage.weights import relabel

    weights, settings = snakemake.output.weights, snakemake.params.spec["bn_refresh"]
    if settings is None:  # known from the config: nothing to refresh, and no need of the images
        relabel(snakemake.input.weights, weights, bn_policy="none")
        log.info("no batch norm")
    else:
        from valleys.models import solutions
        from valleys.networks.batch_norm import batch_norms
        from valleys.networks.bn_refresh import refresh_bn

        device = pick_device(snakemake.config)
        train = read_split(snakemake, "train", device)
        model, about = solutions.load(snakemake.input.weights, device)
        layers = batch_norms(model)
        if layers:
            refresh_bn(model, train.batches(settings["batch_size"]), settings["method"])
        log.info("%d batch-norm layers refreshed over %d images", len(layers), len(train))
        policy = "refreshed" if layers else "none"
        solutions.save(weights, model.state_dict(), about, bn_policy=policy)

"""Recompute the batch-norm statistics of a solution over the whole, un-augmented train set.

In: ``weights``, ``train``. Out: ``weights`` (the same but for running statistics).
"""

from valleys.jobs import job, pick_device

with job(snakemake) as log:
    from valleys import solutions
    from valleys.averaging import batch_norms, refresh_bn
    from valleys.data import load_split

    settings = snakemake.params.spec["bn_refresh"]
    device = pick_device(snakemake.config)
    train = load_split(snakemake.input.train).to(device)
    model, about = solutions.load(snakemake.input.weights, device)
    layers = batch_norms(model)
    if layers:
        refresh_bn(model, train.batches(settings["batch_size"]), settings["method"])
    log.info("%d batch-norm layers refreshed over %d images", len(layers), len(train))
    policy = "refreshed" if layers else "none"
    solutions.save(snakemake.output.weights, model.state_dict(), about, bn_policy=policy)

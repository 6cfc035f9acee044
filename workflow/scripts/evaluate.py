"""Evaluate the solutions of one cell on train and test, BN as stored: losses, distances, gradients.

In: ``train``, ``test``, ``solutions`` (those that are wanted). Out: ``table`` (solutions).
"""

from valleys.execution.jobs import job, kernels, pick_device, read_splits

with job(snakemake) as log:
    from valleys.config.catalogue import SOLUTIONS
    from valleys.config.experiment import Cell
    from valleys.data.cache import read_metadata
    from valleys.data.loaders import SplitBatches
    from valleys.landscape import sharpness
    from valleys.landscape.directions import weights_of
    from valleys.landscape.evaluator import Evaluator
    from valleys.landscape.stationarity import BATCH, STEP_IMAGES, gradient_at_start
    from valleys.models import losses, solutions
    from valleys.storage import tables
    from valleys.training.evaluation import solution_row

    spec, w = snakemake.params.spec, snakemake.wildcards
    device, cell = pick_device(snakemake.config), Cell(w.dataset, w.model, w.recipe, int(w.seed))
    splits = read_splits(snakemake, device)
    loss = losses.build(spec["loss"], splits[0].task)
    networks, abouts = solutions.load_all(snakemake.input.solutions, device)
    others = {name: weights_of(networks[name]) if name in networks else None for name in SOLUTIONS}
    noisy = read_metadata(snakemake.input.train).get("wrong_labels")
    fixed = {"classes": splits[0].classes, "wrong_labels": noisy and int(noisy), "kernels": kernels(device)}
    # One for all, which keeps one set of images; a graph of many images would not fit where training does.
    frozen = Evaluator(next(iter(networks.values())), splits[0], loss=loss, bn="frozen", batch_size=BATCH)
    few, rows = SplitBatches(splits[0].subset(STEP_IMAGES), BATCH), []
    for name, network in networks.items():
        row = {**cell.columns(), "solution": name, **fixed, **solution_row(network, splits, loss, others)}
        frozen.load(network.state_dict())
        row |= dict(zip(("gradient_norm", "gradient_gain"), gradient_at_start(frozen, few), strict=True))
        row |= sharpness.columns(frozen, spec.get("sharpness", []))
        rows.append(row | {key: abouts[name][key] for key in ("bn_policy", "iterates", "checksum")})
        log.info("%s: train loss %.6f, test loss %.6f", name, row["train_loss"], row["test_loss"])
    tables.write(snakemake.output.table, "solutions", rows, spec)

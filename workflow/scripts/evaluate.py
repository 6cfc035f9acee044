"""Evaluate the solutions of one cell on train and test, BN as stored (refreshed), and their distances.

In: ``train``, ``test``, ``solutions`` (those that are wanted). Out: ``table`` (solutions).
"""

from valleys.execution.jobs import job, pick_device, read_split

with job(snakemake) as log:
    from valleys.config.catalogue import SOLUTIONS
    from valleys.config.experiment import Cell
    from valleys.landscape.directions import difference
    from valleys.models import losses, solutions
    from valleys.networks import tensors
    from valleys.storage import tables
    from valleys.training.evaluation import evaluate

    spec, w = snakemake.params.spec, snakemake.wildcards
    device = pick_device(snakemake.config)
    cell = Cell(w.dataset, w.model, w.recipe, int(w.seed))
    train, test = (read_split(snakemake, part, device) for part in ("train", "test"))
    loss = losses.build(spec["loss"])
    files = solutions.by_name(snakemake.input.solutions)
    loaded = {name: solutions.load(path, device) for name, path in files.items()}
    weights = {name: {n: p.detach() for n, p in net.named_parameters()} for name, (net, _) in loaded.items()}
    rows = []
    for name, (model, about) in loaded.items():
        row = {**cell.columns(), "solution": name}
        row["train_loss"], row["train_accuracy"] = evaluate(model, train, loss)
        row["test_loss"], row["test_accuracy"] = evaluate(model, test, loss)
        row["weight_norm"] = tensors.vector_norm(weights[name])
        for other in SOLUTIONS:
            row[f"distance_to_{other}"] = (
                tensors.vector_norm(difference(weights[name], weights[other], list(weights[name])))
                if other in weights
                else None
            )
        row["parameters"] = sum(p.numel() for p in model.parameters())
        row |= {"bn_policy": about["bn_policy"], "n_train": len(train), "n_test": len(test)}
        row |= {"iterates": about["iterates"], "checksum": about["checksum"]}
        rows.append(row)
        log.info("%s: train loss %.6f, test loss %.6f", name, row["train_loss"], row["test_loss"])
    tables.write(snakemake.output.table, "solutions", rows, spec)

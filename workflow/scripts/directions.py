"""Compute and store the directions of a probe whose kind is not drawn from a seed.

In: ``train``, ``solutions`` (those needed); for kind ``pca``, ``iterates``; for kind ``to_seed``,
``<solution>_of_seed_<seed>``. Out: ``weights``: safetensors, tensors named ``<solution>/<k>/<parameter>``,
not normalised; ``columns`` in the header has what the ``directions`` table says of each besides. Random kinds
need no file: seed and number remake them.
"""

from valleys.execution.jobs import job, pick_device, read_split

with job(snakemake) as log:
    from valleys.config.experiment import Experiment
    from valleys.landscape import computed, directions
    from valleys.models import losses, solutions
    from valleys.storage.weights import load_weights, save_weights
    from valleys.training.iterates import iterate_files
    from valleys.training.schedule import kept_epochs

    spec = snakemake.params.spec
    kind, n = spec["probe"]["kind"], spec["probe"]["n"]
    device = pick_device(snakemake.config)
    train = read_split(snakemake, "train", device).subset(spec["probe"]["train_images"])
    loss = losses.build(spec["loss"])
    named = solutions.by_name(snakemake.input.solutions)
    loaded = {name: solutions.load(path, device)[0] for name, path in named.items()}
    weights = {name: {m: p.detach() for m, p in net.named_parameters()} for name, net in loaded.items()}
    stored, columns = {}, {}
    for name in snakemake.params.solutions:
        names = directions.parameter_group(loaded[name], spec["probe"]["group"])
        if kind == "gradient":
            found = [directions.restrict(computed.gradient(loaded[name], train, loss), names)]
        elif kind == "hessian":
            from valleys.landscape import hessian  # imports curvlinops, which no other kind needs

            found, values = hessian.hessian_eigenvectors(loaded[name], train, loss, names, n)
            columns[name] = [{"eigenvalue": value} for value in values]
        elif kind == "pca":
            epochs = kept_epochs(Experiment(snakemake.config).recipe(snakemake.wildcards.recipe))
            paths = iterate_files(snakemake.input.iterates, epochs=epochs)
            found = computed.principal_components((load_weights(p, ours=True)[0] for p in paths), names, n)
        elif kind == "to_seed":
            own = {m: weights[name][m].cpu() for m in names}
            paths = [snakemake.input[f"{name}_of_seed_{seed}"] for seed in snakemake.params.seeds]
            found = [
                directions.towards(
                    own,
                    load_weights(path, ours=True)[0],
                    names,
                    f"{name} of seed {snakemake.wildcards.seed} and of seed {seed}",
                )
                for path, seed in zip(paths, snakemake.params.seeds, strict=True)
            ]
            columns[name] = [{"to_seed": seed} for seed in snakemake.params.seeds]
        elif kind == "sgd_to_swa":
            found = [directions.towards(weights["sgd"], weights["swa"], names, "sgd and swa")]
        else:
            found = [directions.towards(weights["swa"], weights["descent"], names, "swa and descent")]
        log.info("%s: %d %s direction(s) over %d tensors", name, len(found), kind, len(names))
        for k, direction in enumerate(found):
            stored |= {f"{name}/{k}/{parameter}": tensor for parameter, tensor in direction.items()}
    save_weights(snakemake.output.weights, stored, {"kind": kind, "columns": columns})

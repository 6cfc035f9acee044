"""Compute and store the directions of a probe whose kind is not drawn from a seed.

In: ``train``, ``solutions`` (those needed); for kind ``pca``, ``iterates``; for kind ``to_seed``,
``<solution>_of_seed_<seed>``. Out: ``weights``: safetensors, tensors named ``<solution>/<k>/<parameter>``,
not normalised; ``columns`` in the header has what the ``directions`` table says of each besides.
"""

from valleys.execution.jobs import job, pick_device, read_split

with job(snakemake) as log:
    from valleys.config.experiment import Experiment
    from valleys.landscape import computed
    from valleys.models import losses, solutions
    from valleys.storage.weights import save_weights
    from valleys.training.iterates import read_iterates

    inputs, params, seed = snakemake.input, snakemake.params, snakemake.wildcards.seed
    probe, device = params.spec["probe"], pick_device(snakemake.config)
    recipe = Experiment(snakemake.config).recipe(snakemake.wildcards.recipe)
    train = read_split(snakemake, "train", device).subset(probe["train_images"])
    sources = computed.Sources(
        solutions.load_all(inputs.solutions, device)[0],
        train,
        losses.build(params.spec["loss"], train.task),
        group=probe["group"],
        n=probe["n"],
        iterates=lambda: (weights for _, weights in read_iterates(inputs.iterates, recipe)),
        others={s: {k: inputs[f"{s}_of_seed_{k}"] for k in params.seeds} for s in params.solutions},
        seed=seed,
    )
    stored, columns = computed.tensors_to_store(probe["kind"], sources, params.solutions)
    save_weights(snakemake.output.weights, stored, {"kind": probe["kind"], "columns": columns})

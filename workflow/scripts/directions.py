"""Compute and store the directions of a probe whose kind is not drawn from a seed.

In: ``train``, the solutions needed, ``iterates``. Out: ``weights``: safetensors, tensors named
``<solution>/<k>/<parameter>``, not normalised. Random kinds need no file: seed and number remake them.
"""

from valleys.jobs import job, pick_device

with job(snakemake) as log:
    from pathlib import Path

    from valleys import directions, files, losses, solutions
    from valleys.data import load_split

    spec = snakemake.params.spec
    kind, n = spec["probe"]["kind"], spec["probe"]["n"]
    device = pick_device(snakemake.config)
    train = load_split(snakemake.input.train).to(device).subset(spec["probe"]["train_images"])
    loss = losses.build(spec["loss"])
    loaded = {
        name: solutions.load(path, device)[0]
        for name, path in snakemake.input.items()
        if name not in ("train", "iterates")
    }
    weights = {name: {m: p.detach() for m, p in net.named_parameters()} for name, net in loaded.items()}
    stored = {}
    for name in snakemake.params.solutions:
        names = directions.parameter_group(loaded[name], spec["probe"]["group"])
        if kind == "gradient":
            found = [directions.restrict(directions.gradient(loaded[name], train, loss), names)]
        elif kind == "pca":
            paths = sorted(Path(snakemake.input.iterates).glob("epoch-*.safetensors"))
            found = directions.principal_components((files.load_weights(p)[0] for p in paths), names, n)
        elif kind == "sgd_to_swa":
            found = [directions.difference(weights["sgd"], weights["swa"], names)]
        else:
            found = [directions.difference(weights["swa"], weights["descent"], names)]
        log.info("%s: %d %s direction(s) over %d tensors", name, len(found), kind, len(names))
        for k, direction in enumerate(found):
            stored |= {f"{name}/{k}/{parameter}": tensor for parameter, tensor in direction.items()}
    files.save_weights(snakemake.output.weights, stored, {"kind": kind})

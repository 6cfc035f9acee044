"""Loss and accuracy on a plane through the weights of one cell, and what lies on it.

In: ``train``, ``test``, ``solutions`` (all of the cell); for pca ``iterates``; for a span of
computed directions ``directions_x``, ``directions_y``. Out: ``planes``, ``plane_points`` (tables). Finished
rows of the grid are kept beside the outputs: a killed job goes on where it was.
"""

from valleys.execution.jobs import arithmetic, compiles, job, pick_device, read_split

with job(snakemake) as log:
    import shutil
    from pathlib import Path

    from valleys.config.experiment import Cell, Experiment
    from valleys.data.cache import read_metadata
    from valleys.landscape import directions, planes
    from valleys.landscape.evaluator import evaluator_for
    from valleys.landscape.probing import stored_directions
    from valleys.models import solutions
    from valleys.networks import tensors
    from valleys.storage import tables
    from valleys.storage.weights import load_weights
    from valleys.training.iterates import iterate_files
    from valleys.training.schedule import kept_epochs
    from valleys.training.trainer import state_folder

    spec, w = snakemake.params.spec, snakemake.wildcards
    block = spec["plane"]
    device = pick_device(snakemake.config)
    cell = Cell(w.dataset, w.model, w.recipe, int(w.seed))
    data = (snakemake.input.train, snakemake.input.test)
    splits = [read_split(snakemake, part, device) for part in ("train", "test")]
    named = solutions.by_name(snakemake.input.solutions)
    loaded = {name: solutions.load(path, device) for name, path in named.items()}
    nets = {name: net for name, (net, _) in loaded.items()}
    weights = {name: {m: p.detach() for m, p in net.named_parameters()} for name, net in nets.items()}

    def read():
        """Yield epoch and state dict of each iterate."""
        epochs = kept_epochs(Experiment(snakemake.config).recipe(cell.recipe))
        for path in iterate_files(snakemake.input.iterates, epochs=epochs):
            state, header = load_weights(path, ours=True)
            yield header["epoch"], state

    iterates, where = (), block["at"]
    if "through" in block:
        plane = planes.through(*(weights[name] for name in block["through"]))
    elif "pca" in block:
        plane = planes.principal(lambda: (state for _, state in read()), list(weights["swa"])).to(device)
        iterates = read()
    else:
        pair = []
        for axis, chosen in zip("xy", block["span"], strict=True):
            names = directions.parameter_group(nets[where], chosen["group"])
            group = directions.restrict(weights[where], names)
            path = snakemake.input.get(f"directions_{axis}")
            if path:
                stored, _ = load_weights(path, ours=True)
                found = directions.restrict(stored_directions(stored, where)[chosen["k"]], names)
            else:
                key = f"{cell.path}/{chosen['group']}"
                found, _ = directions.random_direction(
                    chosen["kind"], group, key=key, k=chosen["k"], share=chosen["share"]
                )
            pair.append(found)
        plane = planes.spanned(weights[where], *pair)

    points = planes.describe(plane, weights, iterates)
    xs, ys = planes.sides(block, points, tensors.vector_norm(weights[where]))
    evaluator = evaluator_for(nets[where], splits, block, spec, compiles(snakemake.config))
    foreign = any(about["bn_policy"] == "stored" for _, about in loaded.values())
    whole = block["train_images"] is None and not foreign
    held = planes.check_solutions(evaluator, plane, nets, check_stored_bn=whole)
    log.info("%s on the plane: %s", w.plane, ", ".join(held) or "no solution")
    key = solutions.state_key(
        spec,
        (about for _, about in loaded.values()),
        (read_metadata(path)["checksum"] for path in data),
        arithmetic(device, compiles(snakemake.config)),
        plane=plane.checksum(),
        sides=[list(map(float, side)) for side in (xs, ys)],
    )
    state = state_folder(Path(snakemake.output.planes).parents[2], f"plane-{w.plane}", key)
    rows = planes.surface(evaluator, plane, xs, ys, state=state / "rows.pt")
    label = {**cell.columns(), "plane": w.plane}
    about = {**label, "bn_policy": evaluator.bn}
    tables.write(snakemake.output.planes, "planes", [{**about, **row} for row in rows], spec)
    tables.write(snakemake.output.plane_points, "plane_points", [{**label, **row} for row in points], spec)
    shutil.rmtree(state, ignore_errors=True)

"""Loss and accuracy on the line through two solutions, or on a path with trained bends between them.

In: ``train``, ``test``, ``start``, ``stop`` (of the same cell or another) and, for a trained path, ``bends``.
Out: ``table`` (interpolation).
"""

from valleys.execution.jobs import compiles, job, pick_device, read_splits

with job(snakemake) as log:
    from valleys.config.experiment import Cell
    from valleys.landscape.directions import weights_of
    from valleys.landscape.evaluator import evaluator_for
    from valleys.landscape.probing import line_between
    from valleys.models import solutions
    from valleys.storage import tables
    from valleys.training import paths

    spec, w, inputs = snakemake.params.spec, snakemake.wildcards, snakemake.input
    line, device, bends = spec["line"], pick_device(snakemake.config), inputs.get("bends")
    (start, first), (stop, last) = (solutions.load(inputs[end], device) for end in ("start", "stop"))
    ends, path = [weights_of(start), weights_of(stop)], None
    if bends:
        names = {"path": line["path"], "start": first["checksum"], "stop": last["checksum"]}
        path = paths.load_path(bends, *ends, names)
    splits = read_splits(snakemake, device)
    evaluator = evaluator_for(start, splits, line, spec, compiles(snakemake.config))
    whole = line["train_images"] is None and "stored" not in (first["bn_policy"], last["bn_policy"])
    points = line_between(evaluator, stop, line, whole, path and path.at)
    path = path or paths.WeightPath("linear", ends)
    lengths = path.lengths([point["t"] for point in points])
    keys = ("path", "start", "stop", "stop_recipe", "stop_seed")
    about = Cell(w.dataset, w.model, w.recipe, int(w.seed)).columns() | {"line": w.line}
    about |= {"bn_policy": evaluator.bn, **{key: line[key] for key in keys}}
    rows = [{**about, **p, "offset": offset} for p, offset in zip(points, lengths, strict=True)]
    tables.write(snakemake.output.table, "interpolation", rows, spec)

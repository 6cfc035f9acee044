"""Loss and accuracy on the line through two solutions, or on a path with trained bends between them.

In: ``train``, ``test``, ``start``, ``stop`` (of the same cell or another) and, for a trained path, ``bends``.
Out: ``table`` (interpolation).
"""

from valleys.execution.jobs import compiles, job, pick_device, read_split

with job(snakemake) as log:
    from valleys.config.experiment import Cell
    from valleys.landscape.evaluator import evaluator_for
    from valleys.landscape.probing import line_between
    from valleys.models import solutions
    from valleys.storage import tables
    from valleys.training import paths

    spec, w = snakemake.params.spec, snakemake.wildcards
    line = spec["line"]
    device = pick_device(snakemake.config)
    cell = Cell(w.dataset, w.model, w.recipe, int(w.seed))
    splits = [read_split(snakemake, part, device) for part in ("train", "test")]
    (start, first), (stop, last) = (solutions.load(snakemake.input[end], device) for end in ("start", "stop"))
    weights = [{n: p.detach() for n, p in net.named_parameters()} for net in (start, stop)]
    bends = snakemake.input.get("bends")
    path = paths.WeightPath("linear", weights)
    if bends:
        ends = {"path": line["path"], "start": first["checksum"], "stop": last["checksum"]}
        path = paths.load_path(bends, *weights, ends)
    evaluator = evaluator_for(start, splits, line, spec, compiles(snakemake.config))
    whole = line["train_images"] is None and "stored" not in (first["bn_policy"], last["bn_policy"])
    points = line_between(evaluator, stop, line, whole, path.at if bends else None)
    keys = ("path", "start", "stop", "stop_recipe", "stop_seed")
    about = {"line": w.line, "bn_policy": evaluator.bn, **{key: line[key] for key in keys}}
    lengths = path.lengths([point["t"] for point in points])
    tables.write(
        snakemake.output.table,
        "interpolation",
        [
            {**cell.columns(), **about, **point, "offset": length}
            for point, length in zip(points, lengths, strict=True)
        ],
        spec,
    )

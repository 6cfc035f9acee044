"""Loss and accuracy on the line through two solutions of one cell.

In: ``train``, ``test``, ``start``, ``stop``. Out: ``table`` (interpolation).
"""

from valleys.jobs import job, pick_device

with job(snakemake) as log:
    from valleys import losses, probe, sgd, solutions, tables
    from valleys.config import Cell
    from valleys.data import load_split
    from valleys.directions import difference

    spec, w = snakemake.params.spec, snakemake.wildcards
    line, settings = spec["line"], spec["bn_refresh"]
    device = pick_device(snakemake.config)
    cell = Cell(w.dataset, w.model, w.recipe, int(w.seed))
    train = load_split(snakemake.input.train).to(device).subset(line["train_images"])
    test = load_split(snakemake.input.test).to(device).subset(line["test_images"])
    start, _ = solutions.load(snakemake.input.start, device)
    stop, _ = solutions.load(snakemake.input.stop, device)
    evaluator = probe.Evaluator(
        start,
        train,
        test,
        losses.build(spec["loss"]),
        bn=line["bn"],
        method=settings["method"],
        batch_size=settings["batch_size"],
    )
    whole = line["train_images"] is None
    points = probe.line_between(evaluator, stop, line, whole)
    weights = [{n: p.detach() for n, p in net.named_parameters()} for net in (start, stop)]
    length = sgd.vector_norm(difference(*weights, list(weights[0])))
    about = {"line": w.line, "start": line["start"], "stop": line["stop"], "bn_policy": evaluator.bn}
    tables.write(
        snakemake.output.table,
        "interpolation",
        [{**cell.columns(), **about, **point, "offset": point["t"] * length} for point in points],
        spec,
    )

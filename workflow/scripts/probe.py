"""Probe the directions of one probe at the solutions of one cell.

In: ``train``, ``test``, ``solutions`` and, for computed kinds, ``directions``. Out: ``curves``,
``directions`` (tables). Finished directions are kept beside the outputs: a killed job goes on where it was,
and asking for more directions later probes only the new ones.
"""

from valleys.jobs import job, pick_device

with job(snakemake) as log:
    from pathlib import Path

    from valleys import files, losses, probe, sgd, solutions, tables
    from valleys.config import Cell
    from valleys.data import load_split, read_metadata

    spec, w = snakemake.params.spec, snakemake.wildcards
    block, settings = spec["probe"], spec["bn_refresh"]
    device = pick_device(snakemake.config)
    cell = Cell(w.dataset, w.model, w.recipe, int(w.seed))
    train = load_split(snakemake.input.train).to(device).subset(block["train_images"])
    test = load_split(snakemake.input.test).to(device).subset(block["test_images"])
    path = snakemake.input.get("directions")
    stored, header = files.load_weights(path) if path else ({}, {})
    whole = block["train_images"] is None
    inputs = [files.checksum(stored), str(device)]
    inputs += [read_metadata(path)["checksum"] for path in (snakemake.input.train, snakemake.input.test)]

    curves, rows = [], []
    for name in block["solutions"]:
        model, about = solutions.load(snakemake.input[name], device)
        evaluator = probe.Evaluator(
            model,
            train,
            test,
            losses.build(spec["loss"]),
            bn=block["bn"],
            method=settings["method"],
            batch_size=settings["batch_size"],
        )
        key = [{k: v for k, v in block.items() if k not in ("n", "solutions")}, spec["loss"], settings]
        key += [spec["version"], about["checksum"], *inputs]
        state = sgd.state_folder(Path(snakemake.output.curves).parents[2], f"probe-{w.probe}-{name}", key)
        for curve, row in probe.probe_solution(
            evaluator,
            block,
            key=f"{cell.path}/{block['group']}",
            stored=probe.stored_directions(stored, name),
            check_stored_bn=whole,
            state=state / "curves.pt",
        ):
            label = {**cell.columns(), "solution": name, "probe": w.probe}
            label |= {"kind": block["kind"], "group": block["group"], "k": row["k"]}
            curves += [{**label, "bn_policy": evaluator.bn, **point} for point in curve]
            row |= probe.stored_columns(header, name, row["k"])
            rows.append({**label, **row, "bn_policy": evaluator.bn, "checksum": about["checksum"]})
    tables.write(snakemake.output.curves, "curves", curves, spec)
    tables.write(snakemake.output.directions, "directions", rows, spec)

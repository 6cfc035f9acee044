"""Loss and accuracy on a plane through the weights of one cell, and what lies on it.

In: ``train``, ``test``, ``solutions``; of pca ``iterates``; of computed kinds ``directions_x``,
``directions_y``. Out: ``planes``, ``plane_points`` (tables). Killed, a rerun goes on from the last row.
"""

from valleys.execution.jobs import arithmetic, compiles, data_checksums, job, pick_device, read_splits

with job(snakemake) as log:
    import shutil
    from pathlib import Path

    from valleys.config.experiment import Cell, Experiment
    from valleys.landscape import planes, probing
    from valleys.landscape.evaluator import evaluator_for
    from valleys.models import solutions
    from valleys.storage import tables
    from valleys.training.iterates import read_iterates
    from valleys.training.trainer import state_folder

    spec, w, inputs = snakemake.params.spec, snakemake.wildcards, snakemake.input
    block, device, compiled = spec["plane"], pick_device(snakemake.config), compiles(snakemake.config)
    cell, splits = Cell(w.dataset, w.model, w.recipe, int(w.seed)), read_splits(snakemake, device)
    networks, abouts = solutions.load_all(inputs.solutions, device)
    stored = {axis: probing.read_directions(inputs.get(f"directions_{axis}"), block["at"]) for axis in "xy"}
    recipe = Experiment(snakemake.config).recipe(cell.recipe)
    grid = planes.grid(block, networks, cell.path, lambda: read_iterates(inputs.iterates, recipe), stored)
    evaluator = evaluator_for(networks[block["at"]], splits, block, spec, compiled)
    whole = block["train_images"] is None and all(about["bn_policy"] != "stored" for about in abouts.values())
    planes.check_solutions(evaluator, grid.plane, networks, check_stored_bn=whole)
    data, on = data_checksums(snakemake), arithmetic(device, compiled)
    key = solutions.state_key(spec, abouts.values(), data, on, **grid.key())
    state = state_folder(Path(snakemake.output.planes).parents[2], f"plane-{w.plane}", key)
    label = {**cell.columns(), "plane": w.plane}
    rows = planes.surface(evaluator, grid.plane, grid.xs, grid.ys, state=state / "rows.pt")
    found = {"planes": [{**row, "bn_policy": evaluator.bn} for row in rows], "plane_points": grid.points}
    for table, rows in found.items():
        tables.write(snakemake.output[table], table, [{**label, **row} for row in rows], spec)
    shutil.rmtree(state, ignore_errors=True)

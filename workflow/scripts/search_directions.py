"""Search for directions at one or more solutions of one cell: those of a probe of kind searched.

In: ``train``, ``test``, ``solutions`` (those probed). Out: ``weights`` (safetensors, tensors named
``<solution>/<k>/<parameter>``), ``searches``, ``search_curves`` (tables). Killed, a rerun goes on.
"""

from valleys.execution.jobs import arithmetic, compiles, data_checksums, job, pick_device, read_splits

with job(snakemake) as log:
    from pathlib import Path

    from valleys.config.experiment import Cell
    from valleys.landscape import probing, searching
    from valleys.models import solutions
    from valleys.storage import tables
    from valleys.storage.weights import save_weights
    from valleys.training.trainer import state_folder

    spec, w, out = snakemake.params.spec, snakemake.wildcards, snakemake.output
    device, compiled, block = pick_device(snakemake.config), compiles(snakemake.config), spec["probe"]
    splits, named = read_splits(snakemake, device), solutions.by_name(snakemake.input.solutions)
    cell, inputs = Cell(w.dataset, w.model, w.recipe, int(w.seed)), data_checksums(snakemake)
    label = {**cell.columns(), "probe": w.probe, "kind": block["kind"], "group": block["group"]}
    found = probing.Searched()
    for name in block["solutions"]:
        at, about = probing.evaluator_at(named[name], device, splits, block, spec, compiled)
        key = probing.search_key(spec, about, inputs, arithmetic(device, compiled))
        state = state_folder(Path(out.weights).parents[2], f"search-{w.probe}-{name}", key)
        log.info("search %s at %s", w.probe, name)
        options = probing.search_options(block, cell.path, spec["asymmetry"], state)
        found.add(searching.searches(at, block["n"], **options), label | {"solution": name})
    save_weights(out.weights, found.directions, {"kind": block["kind"], "columns": {}})
    tables.write(out.searches, "searches", found.searches, spec)
    tables.write(out.search_curves, "search_curves", found.search_curves, spec)

"""Probe the directions of one or more probes at the solutions of one cell.

In: ``train``, ``test``, ``solutions``, ``swa``, ``directions`` (of probes of a computed kind, in order).
Out: ``curves``, ``directions`` (tables). Finished directions are kept beside these: a killed job goes on.
"""

from valleys.execution.jobs import arithmetic, compiles, data_checksums, job, pick_device, read_splits

with job(snakemake) as log:
    from pathlib import Path

    from valleys.config.experiment import Cell
    from valleys.landscape import probing
    from valleys.landscape.kinds import COMPUTED
    from valleys.models import solutions
    from valleys.storage import tables
    from valleys.storage.weights import load_weights
    from valleys.training.trainer import state_folder

    spec, w, device = snakemake.params.spec, snakemake.wildcards, pick_device(snakemake.config)
    cell, compiled = Cell(w.dataset, w.model, w.recipe, int(w.seed)), compiles(snakemake.config)
    splits, named = read_splits(snakemake, device), solutions.by_name(snakemake.input.solutions)
    inputs, found = (data_checksums(snakemake), arithmetic(device, compiled)), probing.Rows()
    files, swa = iter(snakemake.input.get("directions", [])), snakemake.input.get("swa")
    for probe, block in spec["probes"].items():
        stored, header = load_weights(next(files), ours=True) if block["kind"] in COMPUTED else ({}, {})
        for name in block["solutions"]:
            at, about = probing.evaluator_at(named[name], device, splits, block, spec, compiled)
            log.info("probe %s at %s", probe, name)
            key = probing.state_key(block, spec, at.precision, about, *inputs, stored)
            kept = state_folder(Path(snakemake.output.curves).parents[2], f"probe-{probe}-{name}", key)
            options = {"stored": probing.stored_directions(stored, name), "constants": spec.get("asymmetry")}
            options |= {"state": kept / "curves.pt", "swa": probing.swa_beside(swa, block, name)}
            options["check_stored_bn"] = block["train_images"] is None and about["bn_policy"] != "stored"
            curves = probing.probe_solution(at, block, cell.path, **options)
            label = {**cell.columns(), "solution": name, "probe": probe, "checksum": about["checksum"]}
            found.add(curves, label, block, at.bn, header.get("columns", {}).get(name, []))
    tables.write(snakemake.output.curves, "curves", found.curves, spec)
    tables.write(snakemake.output.directions, "directions", found.directions, spec)

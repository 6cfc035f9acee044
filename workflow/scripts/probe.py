"""Probe the directions of one or more probes at the solutions of one cell.

In: ``train``, ``test``, ``solutions`` and ``directions`` (files, one for each probe of a computed kind,
in the order of the probes). Out: ``curves``, ``directions`` (tables). Finished directions are kept beside the
outputs: a killed job goes on where it was, and asking for more directions, or for another probe in the same
job, probes only the new ones.
"""

from valleys.execution.jobs import arithmetic, compiles, job, pick_device, read_split

with job(snakemake) as log:
    from pathlib import Path

    from valleys.config.experiment import Cell
    from valleys.data.cache import read_metadata
    from valleys.landscape.evaluator import evaluator_for
    from valleys.landscape.kinds import COMPUTED
    from valleys.landscape.probing import probe_solution, stored_columns, stored_directions
    from valleys.models import solutions
    from valleys.storage import tables
    from valleys.storage.weights import checksum, load_weights
    from valleys.training.trainer import state_folder

    spec, w = snakemake.params.spec, snakemake.wildcards
    device = pick_device(snakemake.config)
    cell = Cell(w.dataset, w.model, w.recipe, int(w.seed))
    folder = Path(snakemake.output.curves).parents[2]
    data = [snakemake.input.train, snakemake.input.test]
    splits = [read_split(snakemake, part, device) for part in ("train", "test")]
    inputs = [read_metadata(path)["checksum"] for path in data]
    named = solutions.by_name(snakemake.input.solutions)
    computed = iter(snakemake.input.get("directions", []))

    curves, rows = [], []
    for probe_name, block in spec["probes"].items():
        stored, header = load_weights(next(computed), ours=True) if block["kind"] in COMPUTED else ({}, {})
        for name in block["solutions"]:
            model, about = solutions.load(named[name], device)
            evaluator = evaluator_for(model, splits, block, spec, compiles(snakemake.config))
            del model  # the evaluator has a copy
            log.info("probe %s at %s", probe_name, name)
            judged = evaluator.precision != "fp32" or block.get("adaptive")
            shared = ("loss", "bn_refresh", "version", *(["asymmetry"] if judged else []))
            key = solutions.state_key(
                [{k: v for k, v in block.items() if k not in ("n", "solutions")}, *map(spec.get, shared)],
                [about],
                inputs,
                arithmetic(device, compiles(snakemake.config)),
                stored=checksum(stored),
            )
            state = state_folder(folder, f"probe-{probe_name}-{name}", key)
            for curve, row in probe_solution(
                evaluator,
                block,
                key=f"{cell.path}/{block['group']}",
                stored=stored_directions(stored, name),
                check_stored_bn=block["train_images"] is None and about["bn_policy"] != "stored",
                state=state / "curves.pt",
                constants=spec.get("asymmetry"),
            ):
                label = {**cell.columns(), "solution": name, "probe": probe_name}
                label |= {"kind": block["kind"], "group": block["group"], "k": row["k"]}
                curves += [{**label, "bn_policy": evaluator.bn, **point} for point in curve]
                row |= stored_columns(header, name, row["k"])
                rows.append({**label, **row, "bn_policy": evaluator.bn, "checksum": about["checksum"]})
    tables.write(snakemake.output.curves, "curves", curves, spec)
    tables.write(snakemake.output.directions, "directions", rows, spec)

"""Train the bends of a path between two solutions, each held where it is.

In: ``train``, ``start``, ``stop``. Out: ``bends`` (safetensors). Killed at any moment, a rerun goes on from
the last checkpoint.
"""

from valleys.execution.jobs import arithmetic, data_checksums, job, pick_device, read_split

with job(snakemake) as log:
    import shutil
    from pathlib import Path

    from valleys.models import solutions
    from valleys.training import paths
    from valleys.training.trainer import state_folder

    spec, device = snakemake.params.spec, pick_device(snakemake.config)
    train = read_split(snakemake, "train", device)
    (start, first), (stop, last) = (solutions.load(snakemake.input[end], device) for end in ("start", "stop"))

    ends = {"path": spec["line"]["path"], "start": first["checksum"], "stop": last["checksum"]}
    key = solutions.state_key(spec, [first, last], data_checksums(snakemake), arithmetic(device))
    cell = Path(snakemake.output.bends).parents[1]
    state = state_folder(cell, f"connect-{snakemake.wildcards.line}", key)
    bends = paths.connect(
        start,
        stop,
        train,
        spec["recipe"],
        spec["line"],
        seed=spec["seed"],
        state=state / "checkpoint.pt",
        checkpoint_every=snakemake.config["execution"]["checkpoint_every"],
    )
    paths.save_bends(snakemake.output.bends, bends, ends)
    shutil.rmtree(state, ignore_errors=True)

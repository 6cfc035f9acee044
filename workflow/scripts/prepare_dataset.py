"""Read a data set once: decode its images, a few at a time, and write them in order.

In: the originals, where they are files. Out: ``train``, ``test``: safetensors of uint8 images (N, C, H, W)
and int64 labels (N,), with statistics. Beside a file that is not to be held in memory, that it was checked.
"""

from valleys.execution.jobs import job

with job(snakemake) as log:
    from pathlib import Path

    from valleys.data.cache import load_split
    from valleys.data.sources.load import write_source

    execution, paths = snakemake.config["execution"], (snakemake.output.train, snakemake.output.test)
    limit = execution["max_data_gb"] * 1e9
    write_source(
        snakemake.params.spec["source"], snakemake.wildcards.dataset, paths, limit, snakemake.threads
    )
    for path in paths:
        if Path(path).stat().st_size > execution["resident_mb"] * 1e6:
            load_split(path, resident_mb=0)  # checks it, for later jobs too

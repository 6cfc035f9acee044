"""Read a data set once: decode its images, a few at a time, and write them in order.

In: the originals, where they are files. Out: ``train``, ``test``: safetensors of uint8 images (N, C, H, W)
and int64 labels (N,), with statistics. Beside a file that is not to be held in memory, that it was checked.
Networks of the user's own that do not fit the data are told before these are written.
"""

from valleys.execution.jobs import job

with job(snakemake) as log:
    from functools import partial
    from pathlib import Path

    from valleys.config.experiment import Experiment
    from valleys.data.cache import load_split
    from valleys.data.sources.load import write_source
    from valleys.models.builder import check_outputs

    execution, paths = snakemake.config["execution"], (snakemake.output.train, snakemake.output.test)
    limit, name = execution["max_data_gb"] * 1e9, snakemake.wildcards.dataset
    fits = partial(check_outputs, Experiment(snakemake.config).own_networks(name))
    write_source(snakemake.params.spec["source"], name, paths, limit, snakemake.threads, accept=fits)
    for path in paths:
        if Path(path).stat().st_size > execution["resident_mb"] * 1e6:
            load_split(path, resident_mb=0)  # checks it, for later jobs too

"""Make the data of one seed: train and test images cut anew, or some train labels made wrong, or both.

In: ``train``, ``test`` (what all seeds have in common). Out: ``train``, ``test``, files as
``prepare_dataset`` writes them; the train file keeps ``clean_labels`` beside labels of which some are wrong.
"""

from valleys.execution.jobs import job, read_splits

with job(snakemake) as log:
    from pathlib import Path

    from valleys.data.by_seed import write_seed
    from valleys.data.cache import load_split

    spec, paths = snakemake.params.spec, (snakemake.output.train, snakemake.output.test)
    write_seed(read_splits(snakemake, "cpu"), spec["source"], spec["seed"], paths)
    for path in paths:
        if Path(path).stat().st_size > snakemake.config["execution"]["resident_mb"] * 1e6:
            load_split(path, resident_mb=0)  # checks it, for later jobs too

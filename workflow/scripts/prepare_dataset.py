"""Read a data set once into resident form.

Out: ``train``, ``test``: safetensors of uint8 images (N, C, H, W) and int64 labels (N,), with statistics.
"""

from valleys.jobs import job

with job(snakemake) as log:
    from valleys.data import save_split
    from valleys.data_sources import load_source

    limit = snakemake.config["execution"]["max_data_gb"]
    train, test = load_source(snakemake.params.spec["source"], snakemake.wildcards.dataset, limit * 1e9)
    for path, split in ((snakemake.output.train, train), (snakemake.output.test, test)):
        save_split(path, split)
        log.info("%s: %d images of shape %s, %d classes", path, len(split), split.in_shape, split.classes)

"""Judge the directions of a study's cells, with the levels of its factors beside each.

In: ``curves``, ``directions``, ``solutions`` (of all its cells). Out: ``table`` (study).
"""

from valleys.execution.jobs import job

with job(snakemake) as log:
    from valleys.results import detection
    from valleys.storage import tables

    inputs = snakemake.input
    rows = detection.study(
        *(tables.concat(inputs[name], name) for name in ("curves", "directions", "solutions")),
        snakemake.params.spec,
    )
    log.info("%d directions of %d cells", len(rows), len(snakemake.params.spec["cells"]))
    tables.write(snakemake.output.table, "study", rows, snakemake.params.config)

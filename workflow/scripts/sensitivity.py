"""Judge all curves at a grid of constants of Definition 1. In: ``curves``. Out: ``table`` (sensitivity)."""

from valleys.execution.jobs import job

with job(snakemake) as log:
    from valleys.results import sensitivity
    from valleys.storage import tables

    spec = snakemake.params.spec
    curves = tables.read(snakemake.input.curves, "curves")
    rows = sensitivity.rows(curves, spec["asymmetry"], spec["level"])
    tables.write(snakemake.output.table, "sensitivity", rows, snakemake.params.config)
    log.info("%d rows", len(rows))

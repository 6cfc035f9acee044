"""Stack the tables of all cells into one. In: ``parts``. Out: ``table``."""

from valleys.jobs import job

with job(snakemake) as log:
    from valleys import tables

    table = snakemake.wildcards.table
    rows = tables.concat(snakemake.input.parts, table)
    tables.write(snakemake.output.table, table, rows, snakemake.params.config)
    log.info("%s: %d rows from %d files", table, len(rows), len(snakemake.input.parts))

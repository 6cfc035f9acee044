"""Stack the tables of all cells into one. In: ``parts``. Out: ``table``."""

from valleys.execution.jobs import job

with job(snakemake) as log:
    from valleys.storage import tables

    table = snakemake.wildcards.table
    schema = "interpolation" if table.endswith("_lines") else table  # lines of a study's cells
    rows = tables.concat(snakemake.input.parts, schema)
    tables.write(snakemake.output.table, schema, rows, snakemake.params.config)
    log.info("%s: %d rows from %d files", table, len(rows), len(snakemake.input.parts))

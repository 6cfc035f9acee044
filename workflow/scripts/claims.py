"""Judge each claim from the tables. In: the tables by name. Out: ``table`` (claims)."""

from valleys.execution.jobs import job

with job(snakemake) as log:
    from valleys import claims
    from valleys.storage import tables

    spec = snakemake.params.spec
    data = tables.frames(snakemake.input)
    rows = claims.judge(data, **spec["claims"])
    tables.write(snakemake.output.table, "claims", rows, snakemake.params.config)
    log.info("%d claims", len(rows))

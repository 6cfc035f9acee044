"""Judge each claim from the tables. In: the tables by name. Out: ``table`` (claims), ``verdicts``."""

from valleys.execution.jobs import job

with job(snakemake) as log:
    from valleys import claims
    from valleys.storage import tables

    spec = snakemake.params.spec
    settings = claims.Settings(**spec["claims"])
    data = tables.frames(snakemake.input)
    rows = claims.judge(data, settings)
    tables.write(snakemake.output.table, "claims", rows, snakemake.params.config)
    twelve = claims.judge_twelve(rows, settings.alpha, settings.simulations)
    tables.write(snakemake.output.verdicts, "verdicts", twelve, snakemake.params.config)
    log.info("%d rows; %s", len(rows), ", ".join(f"{row['claim']}: {row['verdict']}" for row in twelve))

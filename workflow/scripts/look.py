"""Judge the claims from the seeds of one look, and whether more are added. Out: ``table`` (looks).

In: by the name of a table the files of cells that have its rows, by ``<study>/<table>`` those of a study.
"""

from valleys.execution.jobs import job

with job(snakemake) as log:
    from valleys import claims
    from valleys.claims import looks
    from valleys.results import parts
    from valleys.storage import tables

    spec = snakemake.params.spec
    settings = claims.Settings(**spec["claims"]["claims"])
    data = parts.frames(dict(snakemake.input.items()), spec["studies"])
    rows = claims.judge(data, settings)
    fewer = claims.judge(looks.without(data, spec["added"]), settings)
    twelve = claims.judge_twelve(rows, settings.alpha, settings.simulations)
    path = looks.path(twelve, rows, fewer, alpha=settings.alpha, **spec["look"])
    tables.write(snakemake.output.table, "looks", path, snakemake.params.config)
    log.info("%d seeds; %s", spec["look"]["seeds"], ", ".join(f"{p['claim']}: {p['state']}" for p in path))

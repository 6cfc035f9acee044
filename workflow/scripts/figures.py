"""Draw one figure. In: the tables it is drawn from. Out: ``png``, ``svg``."""

from valleys.execution.jobs import job

with job(snakemake) as log:
    from valleys import figures
    from valleys.storage import tables

    data = tables.frames(snakemake.input)
    figure = figures.draw(snakemake.wildcards.figure, data, snakemake.params.spec)
    figures.save(figure, snakemake.output.png, snakemake.output.svg, snakemake.params.spec["style"])
    log.info("%s from %s", snakemake.wildcards.figure, ", ".join(data))

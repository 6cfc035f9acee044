"""Draw the panels of one figure for a paper. In: the tables it is drawn from. Out: a folder of files."""

from valleys.execution.jobs import job

with job(snakemake) as log:
    from valleys import figures
    from valleys.storage import tables

    name, spec = snakemake.wildcards.figure, snakemake.params.spec
    data = tables.frames(snakemake.input)
    written = figures.save_panels(figures.draw(name, data, spec), name, snakemake.output[0], spec["style"])
    log.info("%s: %d panels from %s", name, len(written), ", ".join(data))

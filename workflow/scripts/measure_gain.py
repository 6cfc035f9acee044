"""What a bias to the flat side gains under random shifts of one cell's measured curves (Theorem 1).

In: ``curves`` (of all probes), ``asymmetry`` (table). Out: ``table`` (theory_measured).
"""

from valleys.execution.jobs import job

with job(snakemake) as log:
    from valleys.results import measured_gain
    from valleys.storage import tables

    spec, curves = snakemake.params.spec, tables.concat(snakemake.input.curves, "curves")
    asymmetry = tables.read(snakemake.input.asymmetry, "asymmetry")
    rows = measured_gain.rows(curves, asymmetry, spec["asymmetry"])
    tables.write(snakemake.output.table, "theory_measured", rows, spec)
    log.info("%d rows", len(rows))

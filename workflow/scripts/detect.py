"""Judge every probed direction of one cell by Definition 1, and measure the shift of its test curve.

In: ``curves`` (of all probes), ``directions``, ``solutions`` (table). Out: ``table`` (asymmetry) and
``shift`` (the shift curves). Fails when a curve was measured from other weights than those stored.
"""

from valleys.execution.jobs import job

with job(snakemake) as log:
    from valleys.results import detection
    from valleys.storage import tables

    curves = tables.concat(snakemake.input.curves, "curves")
    rows = detection.judge(
        curves,
        tables.concat(snakemake.input.directions, "directions"),
        tables.read(snakemake.input.solutions, "solutions"),
        snakemake.params.spec["asymmetry"],
    )
    log.info("%d directions, %d asymmetric", len(rows), sum(row["status"] == "asymmetric" for row in rows))
    tables.write(snakemake.output.table, "asymmetry", rows, snakemake.params.spec)
    tables.write(snakemake.output.shift, "shift", detection.shift_curves(curves), snakemake.params.spec)

"""The paper's two theorems in one dimension: the mean of averaged SGD, the gain of a bias under a shift.

Out: ``theory_average``, ``theory_gain`` (tables).
"""

from valleys.execution.jobs import job

with job(snakemake) as log:
    import pyarrow as pa
    from valleys.simulations import theory
    from valleys.storage import tables

    spec = snakemake.params.spec
    for name, columns in theory.run(spec["theory"]).items():
        tables.write(snakemake.output[name], name, pa.table(columns), spec)
        log.info("%s: %d rows", name, len(next(iter(columns.values()))))

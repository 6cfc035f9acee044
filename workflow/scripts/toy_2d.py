"""The 2-D MLP: one sigmoid neuron on two 1-D Gaussians; surface, lines, Definition 1 at all angles.

Out: ``toy_2d``, ``toy_2d_curves``, ``toy_2d_surface``, ``toy_2d_angles``, ``toy_2d_scans`` (tables).
"""

from valleys.execution.jobs import job

with job(snakemake) as log:
    import pyarrow as pa
    from valleys.simulations import toy
    from valleys.storage import tables

    spec = snakemake.params.spec
    for name, columns in toy.run(spec["toy_2d"]).items():
        tables.write(snakemake.output[name], name, pa.table(columns), spec)
        log.info("%s: %d rows", name, len(next(iter(columns.values()))))

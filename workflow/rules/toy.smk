# The 2-D MLP: needs no data set and no torch.
rule toy_2d:
    output:
        toy_2d=ROOT + "/tables/toy_2d.parquet",
        toy_2d_curves=ROOT + "/tables/toy_2d_curves.parquet",
        toy_2d_surface=ROOT + "/tables/toy_2d_surface.parquet",
    params:
        spec=lambda w: experiment.toy_2d(),
    log:
        ROOT + "/logs/toy_2d.log",
    benchmark:
        ROOT + "/benchmarks/toy_2d.tsv"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    conda:
        "../envs/valleys.yaml"
    script:
        "../scripts/toy_2d.py"

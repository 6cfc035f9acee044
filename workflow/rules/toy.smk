# The 2-D MLP and the simulations of the theorems: no data set and no torch.
rule toy_2d:
    output:
        toy_2d=f"{ROOT}/tables/toy_2d.parquet",
        toy_2d_curves=f"{ROOT}/tables/toy_2d_curves.parquet",
        toy_2d_surface=f"{ROOT}/tables/toy_2d_surface.parquet",
        toy_2d_angles=f"{ROOT}/tables/toy_2d_angles.parquet",
        toy_2d_scans=f"{ROOT}/tables/toy_2d_scans.parquet",
    log:
        f"{ROOT}/logs/toy_2d.log",
    benchmark:
        f"{ROOT}/benchmarks/toy_2d.tsv"
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.mem_mb("toy_2d", w, attempt),
        runtime=lambda w, attempt: costs.runtime("toy_2d", w, attempt),
    params:
        spec=lambda w: params_of.toy_2d(),
    script:
        "../scripts/toy_2d.py"


rule simulate_theory:
    output:
        theory_average=f"{ROOT}/tables/theory_average.parquet",
        theory_gain=f"{ROOT}/tables/theory_gain.parquet",
    log:
        f"{ROOT}/logs/simulate_theory.log",
    benchmark:
        f"{ROOT}/benchmarks/simulate_theory.tsv"
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.mem_mb("simulate_theory", w, attempt),
        runtime=lambda w, attempt: costs.runtime("simulate_theory", w, attempt),
    params:
        spec=lambda w: params_of.simulate_theory(),
    script:
        "../scripts/simulate_theory.py"

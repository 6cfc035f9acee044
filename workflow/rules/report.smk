# Tables of the whole experiment, figures, claims, and the report.
rule aggregate:
    input:
        parts=lambda w: table_parts(w.table),
    output:
        table=ROOT + "/tables/{table}.parquet",
    params:
        config=lambda w: experiment.provenance(w.table),
    log:
        ROOT + "/logs/aggregate-{table}.log",
    benchmark:
        ROOT + "/benchmarks/aggregate-{table}.tsv"
    wildcard_constraints:
        table="|".join(valleys_config.CELL_TABLES),
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    conda:
        "../envs/valleys.yaml"
    script:
        "../scripts/aggregate.py"


rule claims:
    input:
        **{name: f"{ROOT}/tables/{name}.parquet" for name in experiment.claim_tables()},
    output:
        table=ROOT + "/tables/claims.parquet",
    params:
        spec=experiment.claims(),
        config=experiment.results(),
    log:
        ROOT + "/logs/claims.log",
    benchmark:
        ROOT + "/benchmarks/claims.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    conda:
        "../envs/valleys.yaml"
    script:
        "../scripts/claims.py"


rule figures:
    input:
        lambda w: [f"{ROOT}/tables/{name}.parquet" for name in experiment.figure_tables(w.figure)],
    output:
        png=ROOT + "/figures/{figure}.png",
        svg=ROOT + "/figures/{figure}.svg",
    params:
        spec=lambda w: experiment.figure(w.figure),
    log:
        ROOT + "/logs/figure-{figure}.log",
    benchmark:
        ROOT + "/benchmarks/figure-{figure}.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    conda:
        "../envs/valleys.yaml"
    script:
        "../scripts/figures.py"


rule report:
    input:
        tables=all_tables(),
        figures=all_figures(),
    output:
        ROOT + "/report.html",
    params:
        spec=experiment.report(),
        config=experiment.results(),
    log:
        ROOT + "/logs/report.log",
    benchmark:
        ROOT + "/benchmarks/report.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    conda:
        "../envs/valleys.yaml"
    script:
        "../scripts/report.py"

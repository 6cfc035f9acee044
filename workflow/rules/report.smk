# Tables of the whole experiment, figures, claims, and the report. What is marked with report(...) is in
# Snakemake's own report too (snakemake --report out.html).
rule aggregate:
    input:
        parts=lambda w: table_parts(w.table),
    output:
        table=f"{ROOT}/tables/{{table}}.parquet",
    log:
        f"{ROOT}/logs/aggregate-{{table}}.log",
    benchmark:
        f"{ROOT}/benchmarks/aggregate-{{table}}.tsv"
    wildcard_constraints:
        table="|".join([*CELL_TABLES, "looks", r"[a-z0-9_]+_lines"]),
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.mem_mb("aggregate", w, attempt),
        runtime=lambda w, attempt: costs.runtime("aggregate", w, attempt),
    params:
        config=lambda w: params_reached().provenance(w.table),
    script:
        "../scripts/aggregate.py"


rule study:
    input:
        curves=lambda w: table_parts("curves", study=w.study),
        directions=lambda w: table_parts("directions", study=w.study),
        solutions=lambda w: table_parts("solutions", study=w.study),
    output:
        table=f"{ROOT}/tables/{{study}}.parquet",
    log:
        f"{ROOT}/logs/study-{{study}}.log",
    benchmark:
        f"{ROOT}/benchmarks/study-{{study}}.tsv"
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.mem_mb("study", w, attempt),
        runtime=lambda w, attempt: costs.runtime("study", w, attempt),
    params:
        spec=lambda w: params_reached().study(w.study),
        config=lambda w: params_reached().provenance(w.study),
    script:
        "../scripts/study.py"


rule sensitivity:
    input:
        curves=lambda w: once_reached(f"{ROOT}/tables/curves.parquet"),
    output:
        table=f"{ROOT}/tables/sensitivity.parquet",
    log:
        f"{ROOT}/logs/sensitivity.log",
    benchmark:
        f"{ROOT}/benchmarks/sensitivity.tsv"
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.mem_mb("sensitivity", w, attempt),
        runtime=lambda w, attempt: costs.runtime("sensitivity", w, attempt),
    params:
        spec=params_of.sensitivity(),
        config=lambda w: params_reached().provenance("sensitivity"),
    script:
        "../scripts/sensitivity.py"


rule claims:
    input:
        # Without names, which a study's could be: some, like items, are methods of Snakemake's lists.
        lambda w: once_reached([f"{ROOT}/tables/{name}.parquet" for name in outputs.claim_tables(experiment)]),
    output:
        table=report(
            f"{ROOT}/tables/claims.parquet",
            caption="../report/claims.rst",
            category="Claims",
            labels={"result": "All rows that were judged", "file": "claims.parquet"},
        ),
        verdicts=report(
            f"{ROOT}/tables/verdicts.parquet",
            caption="../report/verdicts.rst",
            category="Claims",
            labels={"result": "Verdicts on the twelve claims", "file": "verdicts.parquet"},
        ),
    log:
        f"{ROOT}/logs/claims.log",
    benchmark:
        f"{ROOT}/benchmarks/claims.tsv"
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.mem_mb("claims", w, attempt),
        runtime=lambda w, attempt: costs.runtime("claims", w, attempt),
    params:
        spec=params_of.claims(),
        config=lambda w: params_reached().results(),
    script:
        "../scripts/claims.py"


rule figures:
    input:
        lambda w: [f"{ROOT}/tables/{name}.parquet" for name in outputs.figure_tables(experiment)[w.figure]],
    output:
        png=f"{ROOT}/figures/{{figure}}.png",
        svg=report(
            f"{ROOT}/figures/{{figure}}.svg",
            caption="../report/figure.rst",
            category=lambda w: captions.category(w.figure),
            subcategory=lambda w: captions.subcategory(w.figure),
            labels=lambda w: captions.labels(w.figure),
        ),
    log:
        f"{ROOT}/logs/figure-{{figure}}.log",
    benchmark:
        f"{ROOT}/benchmarks/figure-{{figure}}.tsv"
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.mem_mb("figures", w, attempt),
        runtime=lambda w, attempt: costs.runtime("figures", w, attempt),
    params:
        spec=lambda w: params_of.figure(w.figure),
        # For Snakemake's report, whose captions know no wildcard (figure.rst reads this file). As it names the
        # output, Snakemake takes it to follow from that: it is no reason to draw a figure again.
        caption=lambda w, output: captions.path(w.figure),
    script:
        "../scripts/figures.py"


rule panels:
    input:
        lambda w: [f"{ROOT}/tables/{name}.parquet" for name in outputs.figure_tables(experiment)[w.figure]],
    output:
        # How many panels a figure has, and their names, its tables decide.
        directory(f"{ROOT}/panels/{{figure}}"),
    log:
        f"{ROOT}/logs/panels-{{figure}}.log",
    benchmark:
        f"{ROOT}/benchmarks/panels-{{figure}}.tsv"
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.mem_mb("panels", w, attempt),
        runtime=lambda w, attempt: costs.runtime("panels", w, attempt),
    params:
        spec=lambda w: params_of.panels(w.figure),
    script:
        "../scripts/panels.py"


rule report:
    input:
        tables=lambda w: once_reached(all_tables()),
        figures=all_figures(),
    output:
        report(
            f"{ROOT}/report.html",
            caption="../report/report.rst",
            category="Claims",
            labels={"result": "All on one page", "file": "report.html"},
        ),
    log:
        f"{ROOT}/logs/report.log",
    benchmark:
        f"{ROOT}/benchmarks/report.tsv"
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.mem_mb("report", w, attempt),
        runtime=lambda w, attempt: costs.runtime("report", w, attempt),
    params:
        spec=params_of.report(),
        config=lambda w: params_reached().results(),
    script:
        "../scripts/report.py"

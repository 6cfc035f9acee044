# Lines through the solutions, and what they say about the valley.
rule directions:
    input:
        unpack(solution_files),
        iterates=rules.train_sgd.output.iterates,
        train=rules.prepare_dataset.output.train,
    output:
        weights=CELL + "/probes/{probe}/directions.safetensors",
    params:
        spec=lambda w: experiment.directions(w.recipe, w.probe),
        solutions=lambda w: experiment.config["probes"][w.probe]["solutions"],
    log:
        LOGS + "/directions-{probe}.log",
    benchmark:
        BENCHMARKS + "/directions-{probe}.tsv"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
        gpu=GPU,
    conda:
        "../envs/valleys.yaml"
    script:
        "../scripts/directions.py"


rule probe:
    input:
        unpack(probed_files),
        train=rules.prepare_dataset.output.train,
        test=rules.prepare_dataset.output.test,
    output:
        curves=CELL + "/probes/{probe}/curves.parquet",
        directions=CELL + "/probes/{probe}/directions.parquet",
    params:
        spec=lambda w: experiment.probe(w.recipe, w.probe),
    log:
        LOGS + "/probe-{probe}.log",
    benchmark:
        BENCHMARKS + "/probe-{probe}.tsv"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=240,
        gpu=GPU,
    conda:
        "../envs/valleys.yaml"
    script:
        "../scripts/probe.py"


rule interpolate:
    input:
        start=lambda w: CELL + f"/{config['lines'][w.line]['start']}.safetensors",
        stop=lambda w: CELL + f"/{config['lines'][w.line]['stop']}.safetensors",
        train=rules.prepare_dataset.output.train,
        test=rules.prepare_dataset.output.test,
    output:
        table=CELL + "/lines/{line}.parquet",
    params:
        spec=lambda w: experiment.interpolate(w.recipe, w.line),
    log:
        LOGS + "/interpolate-{line}.log",
    benchmark:
        BENCHMARKS + "/interpolate-{line}.tsv"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=240,
        gpu=GPU,
    conda:
        "../envs/valleys.yaml"
    script:
        "../scripts/interpolate.py"


rule detect:
    input:
        curves=lambda w: probe_tables(w, "curves"),
        directions=lambda w: probe_tables(w, "directions"),
        solutions=rules.evaluate.output.table,
    output:
        table=CELL + "/asymmetry.parquet",
    params:
        spec=lambda w: experiment.detect(),
    log:
        LOGS + "/detect.log",
    benchmark:
        BENCHMARKS + "/detect.tsv"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    conda:
        "../envs/valleys.yaml"
    script:
        "../scripts/detect.py"

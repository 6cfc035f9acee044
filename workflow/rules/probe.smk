# Lines through the solutions, and what they say about the valley.
rule directions:
    input:
        unpack(direction_files),
        iterates=rules.train_sgd.output.iterates,
        train=rules.prepare_dataset.output.train,
    output:
        weights=f"{CELL}/probes/{{probe}}/directions.safetensors",
    log:
        f"{LOGS}/directions-{{probe}}.log",
    benchmark:
        f"{BENCHMARKS}/directions-{{probe}}.tsv"
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=240,
        gpu=GPU,
    params:
        spec=lambda w: experiment.directions(w.recipe, w.probe),
        solutions=lambda w: experiment.config["probes"][w.probe]["solutions"],
        seeds=lambda w: target_seeds(w),
    script:
        "../scripts/directions.py"


rule probe:
    input:
        unpack(probed_files),
        train=rules.prepare_dataset.output.train,
        test=rules.prepare_dataset.output.test,
    output:
        curves=f"{CELL}/probes/{{probe}}/curves.parquet",
        directions=f"{CELL}/probes/{{probe}}/directions.parquet",
    log:
        f"{LOGS}/probe-{{probe}}.log",
    benchmark:
        f"{BENCHMARKS}/probe-{{probe}}.tsv"
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=240,
        gpu=GPU,
    params:
        spec=lambda w: experiment.probe(w.recipe, w.probe),
    script:
        "../scripts/probe.py"


rule interpolate:
    input:
        start=lambda w: f"{CELL}/{config['lines'][w.line]['start']}.safetensors",
        stop=lambda w: f"{CELL}/{config['lines'][w.line]['stop']}.safetensors",
        train=rules.prepare_dataset.output.train,
        test=rules.prepare_dataset.output.test,
    output:
        table=f"{CELL}/lines/{{line}}.parquet",
    log:
        f"{LOGS}/interpolate-{{line}}.log",
    benchmark:
        f"{BENCHMARKS}/interpolate-{{line}}.tsv"
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=240,
        gpu=GPU,
    params:
        spec=lambda w: experiment.interpolate(w.recipe, w.line),
    script:
        "../scripts/interpolate.py"


rule detect:
    input:
        curves=lambda w: probe_tables(w, "curves"),
        directions=lambda w: probe_tables(w, "directions"),
        solutions=rules.evaluate.output.table,
    output:
        table=f"{CELL}/asymmetry.parquet",
        shift=f"{CELL}/shift.parquet",
    log:
        f"{LOGS}/detect.log",
    benchmark:
        f"{BENCHMARKS}/detect.tsv"
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        spec=lambda w: experiment.detect(),
    script:
        "../scripts/detect.py"


rule measure_gain:
    input:
        curves=lambda w: probe_tables(w, "curves"),
        asymmetry=rules.detect.output.table,
    output:
        table=f"{CELL}/theory_measured.parquet",
    log:
        f"{LOGS}/measure_gain.log",
    benchmark:
        f"{BENCHMARKS}/measure_gain.tsv"
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        spec=experiment.measure_gain(),
    script:
        "../scripts/measure_gain.py"

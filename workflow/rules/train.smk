# From a seed to three solutions: sgd, swa (average, BN refreshed) and descent, and their losses.
rule train_sgd:
    input:
        train=rules.prepare_dataset.output.train,
        test=rules.prepare_dataset.output.test,
    output:
        weights=CELL + "/raw/sgd.safetensors",
        iterates=directory(CELL + "/iterates"),
        table=CELL + "/training.parquet",
    params:
        spec=lambda w: experiment.train_sgd(w.model, w.recipe, w.seed),
    log:
        LOGS + "/train_sgd.log",
    benchmark:
        BENCHMARKS + "/train_sgd.tsv"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=240,
        gpu=GPU,
    conda:
        "../envs/valleys.yaml"
    script:
        "../scripts/train_sgd.py"


rule average:
    input:
        iterates=rules.train_sgd.output.iterates,
        sgd=rules.train_sgd.output.weights,
    output:
        weights=CELL + "/raw/swa.safetensors",
    params:
        spec=lambda w: experiment.average(w.recipe),
    log:
        LOGS + "/average.log",
    benchmark:
        BENCHMARKS + "/average.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    conda:
        "../envs/valleys.yaml"
    script:
        "../scripts/average.py"


rule refresh_bn:
    input:
        weights=CELL + "/raw/{solution}.safetensors",
        train=rules.prepare_dataset.output.train,
    output:
        weights=CELL + "/{solution}.safetensors",
    params:
        spec=lambda w: experiment.refresh_bn(),
    log:
        LOGS + "/refresh_bn-{solution}.log",
    benchmark:
        BENCHMARKS + "/refresh_bn-{solution}.tsv"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
        gpu=GPU,
    conda:
        "../envs/valleys.yaml"
    script:
        "../scripts/refresh_bn.py"


rule descend:
    input:
        train=rules.prepare_dataset.output.train,
        test=rules.prepare_dataset.output.test,
        swa=CELL + "/swa.safetensors",
    output:
        weights=CELL + "/raw/descent.safetensors",
        table=CELL + "/descent.parquet",
    params:
        spec=lambda w: experiment.descend(w.recipe, w.seed),
    log:
        LOGS + "/descend.log",
    benchmark:
        BENCHMARKS + "/descend.tsv"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
        gpu=GPU,
    conda:
        "../envs/valleys.yaml"
    script:
        "../scripts/descend.py"


rule evaluate:
    input:
        unpack(solution_files),
        train=rules.prepare_dataset.output.train,
        test=rules.prepare_dataset.output.test,
    output:
        table=CELL + "/solutions.parquet",
    params:
        spec=lambda w: experiment.evaluate(w.recipe),
    log:
        LOGS + "/evaluate.log",
    benchmark:
        BENCHMARKS + "/evaluate.tsv"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
        gpu=GPU,
    conda:
        "../envs/valleys.yaml"
    script:
        "../scripts/evaluate.py"

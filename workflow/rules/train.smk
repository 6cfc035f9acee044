# From a seed to the solutions sgd (rate cooled down), swa (average) and descent, BN refreshed, and their losses.
# Priorities rise along a cell's chain: cells are finished one after the other, and Snakemake, which looks at the
# inputs of all ready jobs whenever one ends, has fewer of them.
rule train_sgd:
    input:
        unpack(start_files),
        train=train_file,
        test=test_file,
    output:
        last=f"{CELL}/raw/last.safetensors",
        start=f"{CELL}/raw/start.safetensors",
        iterates=iterates_folder(f"{CELL}/iterates"),
        table=f"{CELL}/training.parquet",
    log:
        f"{LOGS}/train_sgd.log",
    benchmark:
        f"{BENCHMARKS}/train_sgd.tsv"
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.mem_mb("train_sgd", w, attempt),
        runtime=lambda w, attempt: costs.runtime("train_sgd", w, attempt),
        gpu=costs.gpus("train_sgd"),
    params:
        spec=lambda w: params_of.train_sgd(w.model, w.recipe, w.seed),
    script:
        "../scripts/train_sgd.py"


rule cooldown:
    input:
        start=rules.train_sgd.output.start,
        train=train_file,
        test=test_file,
    output:
        weights=f"{CELL}/raw/sgd.safetensors",
        table=f"{CELL}/cooldown.parquet",
    log:
        f"{LOGS}/cooldown.log",
    benchmark:
        f"{BENCHMARKS}/cooldown.tsv"
    priority: 10
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.mem_mb("cooldown", w, attempt),
        runtime=lambda w, attempt: costs.runtime("cooldown", w, attempt),
        gpu=costs.gpus("cooldown"),
    params:
        spec=lambda w: params_of.cooldown(w.recipe, w.seed),
    script:
        "../scripts/cooldown.py"


rule average:
    input:
        iterates=rules.train_sgd.output.iterates,
        last=rules.train_sgd.output.last,
    output:
        weights=f"{CELL}/raw/swa.safetensors",
    log:
        f"{LOGS}/average.log",
    benchmark:
        f"{BENCHMARKS}/average.tsv"
    priority: 10
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.mem_mb("average", w, attempt),
        runtime=lambda w, attempt: costs.runtime("average", w, attempt),
    params:
        spec=lambda w: params_of.average(w.recipe),
    script:
        "../scripts/average.py"


rule refresh_bn:
    input:
        weights=f"{CELL}/raw/{{solution}}.safetensors",
        train=train_file,
    output:
        weights=f"{CELL}/{{solution}}.safetensors",
    log:
        f"{LOGS}/refresh_bn-{{solution}}.log",
    benchmark:
        f"{BENCHMARKS}/refresh_bn-{{solution}}.tsv"
    wildcard_constraints:
        # Not of given weights, or one that is missing would be blamed on this rule's input.
        recipe=none_of(experiment.checkpoints),
    priority: 10
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.mem_mb("refresh_bn", w, attempt),
        runtime=lambda w, attempt: costs.runtime("refresh_bn", w, attempt),
        gpu=costs.gpus("refresh_bn"),
    params:
        spec=lambda w: params_of.refresh_bn(w.model),
    script:
        "../scripts/refresh_bn.py"


# Weights that were trained elsewhere, in place of a training's: refresh_bn could make the same file.
rule import_solution:
    input:
        checkpoint=given_weights,
        shards=lambda w: [
            schema.input_path(path) for path in originals.shards(experiment, cell_of(w), w.solution)
        ],
        train=train_file,
    output:
        weights=f"{CELL}/{{solution}}.safetensors",
    log:
        f"{LOGS}/import_solution-{{solution}}.log",
    benchmark:
        f"{BENCHMARKS}/import_solution-{{solution}}.tsv"
    wildcard_constraints:
        recipe=any_of(experiment.checkpoints),
    priority: 10
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.mem_mb("import_solution", w, attempt),
        runtime=lambda w, attempt: costs.runtime("import_solution", w, attempt),
        gpu=costs.gpus("import_solution"),
    params:
        spec=import_spec,
    script:
        "../scripts/import_solution.py"


rule descend:
    input:
        train=train_file,
        test=test_file,
        swa=f"{CELL}/swa.safetensors",
    output:
        weights=f"{CELL}/raw/descent.safetensors",
        table=f"{CELL}/descent.parquet",
    log:
        f"{LOGS}/descend.log",
    benchmark:
        f"{BENCHMARKS}/descend.tsv"
    priority: 20
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.mem_mb("descend", w, attempt),
        runtime=lambda w, attempt: costs.runtime("descend", w, attempt),
        gpu=costs.gpus("descend"),
    params:
        spec=lambda w: params_of.descend(w.recipe, w.seed),
    script:
        "../scripts/descend.py"


rule evaluate:
    input:
        solutions=solution_files,
        train=train_file,
        test=test_file,
    output:
        table=f"{CELL}/solutions.parquet",
    log:
        f"{LOGS}/evaluate.log",
    benchmark:
        f"{BENCHMARKS}/evaluate.tsv"
    priority: 30
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.mem_mb("evaluate", w, attempt),
        runtime=lambda w, attempt: costs.runtime("evaluate", w, attempt),
        gpu=costs.gpus("evaluate"),
    params:
        spec=lambda w: params_of.evaluate(w.recipe),
    script:
        "../scripts/evaluate.py"


# Other averages of the same iterates, where a config asks for some.
rule compare_averages:
    input:
        iterates=rules.train_sgd.output.iterates,
        swa=f"{CELL}/swa.safetensors",
        train=train_file,
        test=test_file,
    output:
        table=f"{CELL}/averages.parquet",
        weights=directory(f"{CELL}/averages"),
    log:
        f"{LOGS}/compare_averages.log",
    benchmark:
        f"{BENCHMARKS}/compare_averages.tsv"
    priority: 30
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.mem_mb("compare_averages", w, attempt),
        runtime=lambda w, attempt: costs.runtime("compare_averages", w, attempt),
        gpu=costs.gpus("compare_averages"),
    params:
        spec=lambda w: params_of.compare_averages(cell_of(w)),
    script:
        "../scripts/compare_averages.py"

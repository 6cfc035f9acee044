# Decode each data set once.
rule prepare_dataset:
    input:
        # Originals that are files: replacing one makes the data set anew. An absent one is reported by the job.
        lambda w: [schema.input_path(path) for path in originals.source_files(experiment, w.dataset)],
    output:
        train=f"{ROOT}/data/{{dataset}}/train.safetensors",
        test=f"{ROOT}/data/{{dataset}}/test.safetensors",
    log:
        f"{ROOT}/logs/{{dataset}}/prepare_dataset.log",
    benchmark:
        f"{ROOT}/benchmarks/{{dataset}}/prepare_dataset.tsv"
    conda:
        "../envs/valleys.yaml"
    threads: lambda w: costs.decoders(w.dataset)
    resources:
        mem_mb=lambda w, attempt: costs.mem_mb("prepare_dataset", w, attempt),
        runtime=lambda w, attempt: costs.runtime("prepare_dataset", w, attempt),
    params:
        spec=lambda w: params_of.prepare_dataset(w.dataset),
    script:
        "../scripts/prepare_dataset.py"


# The data of one seed, of a data set that is cut anew for each, or has labels made wrong.
rule split_dataset:
    input:
        train=rules.prepare_dataset.output.train,
        test=rules.prepare_dataset.output.test,
    output:
        train=f"{ROOT}/data/{{dataset}}/seed-{{seed}}/train.safetensors",
        test=f"{ROOT}/data/{{dataset}}/seed-{{seed}}/test.safetensors",
    log:
        f"{ROOT}/logs/{{dataset}}/split_dataset-{{seed}}.log",
    benchmark:
        f"{ROOT}/benchmarks/{{dataset}}/split_dataset-{{seed}}.tsv"
    wildcard_constraints:
        dataset=any_of(filter(experiment.differs_by_seed, experiment.datasets)),
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.mem_mb("split_dataset", w, attempt),
        runtime=lambda w, attempt: costs.runtime("split_dataset", w, attempt),
    params:
        spec=lambda w: params_of.split_dataset(w.dataset, w.seed),
    script:
        "../scripts/split_dataset.py"

# Read each data set once into resident form.
rule prepare_dataset:
    input:
        # Originals that are files: replacing one makes the data set anew. An absent one is reported by the job.
        lambda w: experiment.source_files(w.dataset),
    output:
        train=ROOT + "/data/{dataset}/train.safetensors",
        test=ROOT + "/data/{dataset}/test.safetensors",
    params:
        spec=lambda w: experiment.prepare_dataset(w.dataset),
    log:
        ROOT + "/logs/{dataset}/prepare_dataset.log",
    benchmark:
        ROOT + "/benchmarks/{dataset}/prepare_dataset.tsv"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    conda:
        "../envs/valleys.yaml"
    script:
        "../scripts/prepare_dataset.py"

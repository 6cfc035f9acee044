# Seeds that are added until claims are decided (seeds: {until: decided}). Included by such configs alone: where there
# is a checkpoint, each job on a cluster looks at the rules of all others before it starts.
checkpoint look:
    input:
        unpack(look_files),
    output:
        table=f"{ROOT}/looks/{{look}}.parquet",
    log:
        f"{ROOT}/logs/look-{{look}}.log",
    benchmark:
        f"{ROOT}/benchmarks/look-{{look}}.tsv"
    wildcard_constraints:
        look=any_of(map(str, experiment.looks.counts)),
    # As soon as it can be made: what it says may make other jobs needless, or show which are needed.
    priority: 40
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.mem_mb("look", w, attempt),
        runtime=lambda w, attempt: costs.runtime("look", w, attempt),
    params:
        spec=lambda w: params_at(w.look).look(),
        config=lambda w: params_at(w.look).provenance("looks"),
    script:
        "../scripts/look.py"

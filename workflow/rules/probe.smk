# Lines through the solutions, and what they say about the valley.
rule directions:
    input:
        unpack(direction_files),
        train=train_file,
    output:
        weights=f"{CELL}/probes/{{probe}}/directions.safetensors",
    log:
        f"{LOGS}/directions-{{probe}}.log",
    benchmark:
        f"{BENCHMARKS}/directions-{{probe}}.tsv"
    wildcard_constraints:
        probe=none_of(filter(experiment.is_searched, config["probes"])),
    priority: 30
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.mem_mb("directions", w, attempt),
        runtime=lambda w, attempt: costs.runtime("directions", w, attempt),
        gpu=costs.gpus("directions"),
    params:
        spec=lambda w: params_of.directions(w.recipe, w.probe),
        solutions=lambda w: experiment.probed_solutions(cell_of(w), w.probe),
        seeds=lambda w: target_seeds(w),
    script:
        "../scripts/directions.py"


rule search_directions:
    input:
        unpack(direction_files),
        train=train_file,
        test=test_file,
    output:
        weights=f"{CELL}/probes/{{probe}}/directions.safetensors",
        searches=f"{CELL}/probes/{{probe}}/searches.parquet",
        search_curves=f"{CELL}/probes/{{probe}}/search_curves.parquet",
    log:
        f"{LOGS}/search-{{probe}}.log",
    benchmark:
        f"{BENCHMARKS}/search-{{probe}}.tsv"
    wildcard_constraints:
        probe=any_of(filter(experiment.is_searched, config["probes"])),
    priority: 30
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.mem_mb("search_directions", w, attempt),
        runtime=lambda w, attempt: costs.runtime("search_directions", w, attempt),
        gpu=costs.gpus("search_directions"),
    params:
        spec=lambda w: params_of.search_directions(cell_of(w), w.probe),
    script:
        "../scripts/search_directions.py"


rule probe:
    input:
        unpack(probed_files),
        train=train_file,
        test=test_file,
    output:
        curves=f"{CELL}/probes/{{bundle}}/curves.parquet",
        directions=f"{CELL}/probes/{{bundle}}/directions.parquet",
    log:
        f"{LOGS}/probe-{{bundle}}.log",
    benchmark:
        f"{BENCHMARKS}/probe-{{bundle}}.tsv"
    priority: 40
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.mem_mb("probe", w, attempt),
        runtime=lambda w, attempt: costs.runtime("probe", w, attempt),
        gpu=costs.gpus("probe"),
    params:
        spec=lambda w: params_of.probe(cell_of(w), w.bundle),
    script:
        "../scripts/probe.py"


rule connect:
    input:
        unpack(line_ends),
        train=train_file,
    output:
        bends=f"{CELL}/lines/{{line}}-bends.safetensors",
    log:
        f"{LOGS}/connect-{{line}}.log",
    benchmark:
        f"{BENCHMARKS}/connect-{{line}}.tsv"
    priority: 30
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.mem_mb("connect", w, attempt),
        runtime=lambda w, attempt: costs.runtime("connect", w, attempt),
        gpu=costs.gpus("connect"),
    params:
        spec=lambda w: params_of.connect(cell_of(w), w.line),
    script:
        "../scripts/connect.py"


rule interpolate:
    input:
        unpack(line_files),
        train=train_file,
        test=test_file,
    output:
        table=f"{CELL}/lines/{{line}}.parquet",
    log:
        f"{LOGS}/interpolate-{{line}}.log",
    benchmark:
        f"{BENCHMARKS}/interpolate-{{line}}.tsv"
    priority: 40
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.mem_mb("interpolate", w, attempt),
        runtime=lambda w, attempt: costs.runtime("interpolate", w, attempt),
        gpu=costs.gpus("interpolate"),
    params:
        spec=lambda w: params_of.interpolate(cell_of(w), w.line),
    script:
        "../scripts/interpolate.py"


# Solutions of two seeds up to the order of their units, where a config asks for it.
rule align:
    input:
        unpack(aligned_solutions),
        train=train_file,
        test=test_file,
    output:
        table=f"{CELL}/alignment.parquet",
    log:
        f"{LOGS}/align.log",
    benchmark:
        f"{BENCHMARKS}/align.tsv"
    priority: 40
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.mem_mb("align", w, attempt),
        runtime=lambda w, attempt: costs.runtime("align", w, attempt),
        gpu=costs.gpus("align"),
    params:
        spec=lambda w: params_of.align(cell_of(w)),
    script:
        "../scripts/align.py"


rule plane:
    input:
        unpack(plane_files),
        solutions=solution_files,
        train=train_file,
        test=test_file,
    output:
        planes=f"{CELL}/planes/{{plane}}/planes.parquet",
        plane_points=f"{CELL}/planes/{{plane}}/plane_points.parquet",
    log:
        f"{LOGS}/plane-{{plane}}.log",
    benchmark:
        f"{BENCHMARKS}/plane-{{plane}}.tsv"
    priority: 40
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.mem_mb("plane", w, attempt),
        runtime=lambda w, attempt: costs.runtime("plane", w, attempt),
        gpu=costs.gpus("plane"),
    params:
        spec=lambda w: params_of.plane(w.recipe, w.plane),
    script:
        "../scripts/plane.py"


rule detect:
    input:
        curves=lambda w: cell_parts(w, "curves"),
        directions=lambda w: cell_parts(w, "directions"),
        solutions=rules.evaluate.output.table,
    output:
        table=f"{CELL}/asymmetry.parquet",
        shift=f"{CELL}/shift.parquet",
    log:
        f"{LOGS}/detect.log",
    benchmark:
        f"{BENCHMARKS}/detect.tsv"
    priority: 50
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.mem_mb("detect", w, attempt),
        runtime=lambda w, attempt: costs.runtime("detect", w, attempt),
    params:
        spec=lambda w: params_of.detect(),
    script:
        "../scripts/detect.py"


rule measure_gain:
    input:
        curves=lambda w: cell_parts(w, "curves"),
        asymmetry=rules.detect.output.table,
    output:
        table=f"{CELL}/theory_measured.parquet",
    log:
        f"{LOGS}/measure_gain.log",
    benchmark:
        f"{BENCHMARKS}/measure_gain.tsv"
    priority: 50
    conda:
        "../envs/valleys.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.mem_mb("measure_gain", w, attempt),
        runtime=lambda w, attempt: costs.runtime("measure_gain", w, attempt),
    params:
        spec=params_of.measure_gain(),
    script:
        "../scripts/measure_gain.py"

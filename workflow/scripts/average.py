"""Average the cached iterates of one cell (SWA); BN statistics are refreshed by the next rule.

In: ``iterates``, ``sgd`` (for its header). Out: ``weights``.
"""

from valleys.jobs import job

with job(snakemake) as log:
    from pathlib import Path

    from valleys import files, solutions
    from valleys.averaging import average

    window = snakemake.params.spec["window"]
    paths = sorted(Path(snakemake.input.iterates).glob("epoch-*.safetensors"))
    paths = paths[-window:] if window else paths
    log.info("averaging %d iterates, %s to %s", len(paths), paths[0].stem, paths[-1].stem)
    state = average(files.load_weights(path)[0] for path in paths)
    _, about = files.load_weights(snakemake.input.sgd)
    solutions.save(snakemake.output.weights, state, about, solution="swa", iterates=len(paths))

"""Average the cached iterates of one cell (SWA); BN statistics are refreshed by the next rule.

In: ``iterates``, ``last`` (for its network). Out: ``weights``.
"""

from valleys.execution.jobs import job

with job(snakemake) as log:
    from valleys.config.experiment import Experiment
    from valleys.models import solutions
    from valleys.storage.weights import load_weights
    from valleys.training.averaging import average
    from valleys.training.iterates import iterate_files
    from valleys.training.schedule import kept_epochs

    epochs = kept_epochs(Experiment(snakemake.config).recipe(snakemake.wildcards.recipe))
    paths = iterate_files(snakemake.input.iterates, snakemake.params.spec["window"], epochs)
    log.info("averaging %d iterates, %s to %s", len(paths), paths[0].stem, paths[-1].stem)
    model, about = solutions.load(snakemake.input.last)  # knows which tensors are parameters
    state = average((load_weights(path, ours=True)[0] for path in paths), model)
    solutions.save(snakemake.output.weights, state, about, solution="swa", iterates=len(paths))

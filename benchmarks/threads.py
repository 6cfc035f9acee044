"""How far results with one and two threads are apart, beside how far two seeds are.

``python benchmarks/threads.py``: the batch-norm network and recipe of the default run, in a process for each
thread count, twice each. With one thread count all bits must be the same. Sums in another order differ in the
last bits, and training makes that larger from epoch to epoch.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import Any

import common
import yaml

EPOCHS = (1, 5, 20)
SEEDS = (0, 1, 2)


def measure(threads: int) -> dict[str, Any]:
    """Return the mean train loss (nats) after training by seed and epochs, with the weights' checksums."""
    import torch
    from valleys import config, data_sources, files, losses, sgd, solutions

    torch.set_num_threads(threads)
    raw = yaml.safe_load((common.ROOT / "config.yaml").read_text(encoding="utf-8"))
    from snakemake.utils import validate

    config.check(raw)
    validate(raw, os.fspath(config.SCHEMA_FILE))
    experiment = config.Experiment(raw)
    train, _ = data_sources.load_source(experiment.datasets["digits"])
    recipe, loss = experiment.recipe("swa"), losses.build({"name": "cross_entropy"})
    found: dict[str, Any] = {}
    for seed in SEEDS:
        spec = experiment.models["resnet8-bn"]
        model = solutions.fresh(spec, train.in_shape, train.classes, seed=seed)
        first, _ = sgd.evaluate(model, train, loss)
        found[f"{seed} 0"] = [first, files.checksum(model.state_dict())]
        trainer = sgd.Trainer(model, train, recipe, seed=seed)
        for epochs in EPOCHS:
            trainer.run(epochs, lambda epoch: sgd.learning_rate(epoch, recipe), lambda epoch, row: None)
            after, _ = sgd.evaluate(model, train, loss)
            found[f"{seed} {epochs}"] = [after, files.checksum(model.state_dict())]
    return found


def main() -> None:
    """Measure in processes of their own, write rows and table; fail where equal threads give other bits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", type=int, metavar="THREADS")
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return
    results = {}
    for threads in (1, 2):
        twice = []
        for _ in range(2):
            words = [sys.executable, __file__, "--measure", str(threads)]
            environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
            done = subprocess.run(words, env=environment, check=True, capture_output=True, text=True)
            twice.append(json.loads(done.stdout.splitlines()[-1]))
        if twice[0] != twice[1]:
            raise SystemExit(f"two runs with {threads} thread(s) differ")
        results[threads] = twice[0]
    rows, shown = [], []
    for epochs in (0, *EPOCHS):
        one, two = ([results[t][f"{seed} {epochs}"][0] for seed in SEEDS] for t in (1, 2))
        apart = max(abs(a - b) for a, b in zip(one, two, strict=True))
        rows += [
            {"epochs": epochs, "seed": seed, "one_thread": a, "two_threads": b}
            for seed, a, b in zip(SEEDS, one, two, strict=True)
        ]
        shown.append(
            {
                "epochs": epochs,
                "mean train loss [nats]": f"{sum(one) / len(one):.4f}",
                "1 and 2 threads, most apart": f"{apart:.1g}",
                "seeds, most apart": f"{max(one) - min(one):.1g}",
            }
        )
    common.save("threads", rows)
    common.document("threads", common.markdown(shown), common.ROOT / "docs" / "reliability.md")
    print(common.markdown(shown))


if __name__ == "__main__":
    main()

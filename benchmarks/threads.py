"""How far results with one and two threads, and of two versions of torch, are apart, beside two seeds.

    python benchmarks/threads.py [--other PYTHON]

The batch-norm network and recipe of the default run, in a process for each thread count, twice each. With one
thread count all bits must be the same. Sums in another order differ in the last bits, and training makes that
larger from epoch to epoch. PYTHON is an interpreter that has another version of torch (and the other packages
of requirements.txt); it trains with one thread.
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
    from valleys.config.experiment import Experiment
    from valleys.config.schema import SCHEMA_FILE, check
    from valleys.data.sources import load
    from valleys.models import losses, solutions
    from valleys.storage.weights import checksum
    from valleys.training.evaluation import evaluate
    from valleys.training.schedule import learning_rate
    from valleys.training.trainer import Trainer

    torch.set_num_threads(threads)
    raw = yaml.safe_load((common.ROOT / "config.yaml").read_text(encoding="utf-8"))
    from snakemake.utils import validate

    check(raw)
    validate(raw, os.fspath(SCHEMA_FILE))
    experiment = Experiment(raw)
    train, _ = load.load_source(experiment.datasets["digits"], seed=0)
    recipe, loss = experiment.recipe("swa"), losses.build({"name": "cross_entropy"})
    found: dict[str, Any] = {"torch": torch.__version__.split("+")[0]}
    for seed in SEEDS:
        spec = experiment.models["resnet8"]
        model = solutions.fresh(spec, train.in_shape, train.classes, seed=seed)
        first, _ = evaluate(model, train, loss)
        found[f"{seed} 0"] = [first, checksum(model.state_dict())]
        trainer = Trainer(model, train, recipe, seed=seed)
        for epochs in EPOCHS:
            trainer.run(epochs, lambda epoch: learning_rate(epoch, recipe), lambda epoch, row: None)
            after, _ = evaluate(model, train, loss)
            found[f"{seed} {epochs}"] = [after, checksum(model.state_dict())]
    return found


def twice(python: str, threads: int) -> dict[str, Any]:
    """Return what two processes of an interpreter find alike; exit where they differ."""
    found = []
    for _ in range(2):
        words = [python, __file__, "--measure", str(threads)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(words, env=environment, check=True, capture_output=True, text=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    if found[0] != found[1]:
        raise SystemExit(f"two runs of {python} with {threads} thread(s) differ")
    return found[0]


def main() -> None:
    """Measure in processes of their own, write rows and table; fail where equal settings give other bits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", type=int, metavar="THREADS", help=argparse.SUPPRESS)
    parser.add_argument("--other", metavar="PYTHON", help="an interpreter that has another version of torch")
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return
    found = {"1 thread": twice(sys.executable, 1), "2 threads": twice(sys.executable, 2)}
    if arguments.other:
        other = twice(arguments.other, 1)
        found[f"torch {other['torch']}"] = other
    rows, shown = [], []
    for epochs in (0, *EPOCHS):
        means = {name: [of[f"{seed} {epochs}"][0] for seed in SEEDS] for name, of in found.items()}
        one = means["1 thread"]
        for name, values in means.items():
            about = {"epochs": epochs, "way": name, "torch": found[name]["torch"]}
            rows += [{**about, "seed": seed, "train_loss": x} for seed, x in zip(SEEDS, values, strict=True)]
        line = {"epochs": epochs, "mean train loss [nats]": f"{sum(one) / len(one):.4f}"}
        for name, values in means.items():
            if name != "1 thread":
                apart = max(abs(a - b) for a, b in zip(one, values, strict=True))
                line[f"{name}, most apart"] = f"{apart:.1g}"
        shown.append({**line, "seeds, most apart": f"{max(one) - min(one):.1g}"})
    text = common.markdown(shown)
    common.save("threads", rows)
    common.document("threads", text, common.ROOT / "docs" / "reliability.md")
    print(text)


if __name__ == "__main__":
    main()

"""Cost models of shipped and made-up configs that several tests share."""

from pathlib import Path

from conftest import fill_defaults, load_config
from valleys.config.experiment import Experiment
from valleys.costs.jobs import Costs
from workflow_runs import changed

ROOT = Path(__file__).parents[1]


SMOKE = load_config("config/smoke.yaml")


PAPER = load_config("config/paper.yaml")


CELL = {"dataset": "digits", "model": "mlp", "recipe": "quick", "seed": "0"}


def of(raw=SMOKE, **paths):
    return Costs(Experiment(fill_defaults(changed(raw, **paths))))


FOLDER = {"source": "image_folder", "train": "a", "test": "b", "size": 224, "classes": 10}


def with_data(spec, **more):
    """The smoke run, with its data from elsewhere."""
    return of(datasets={"digits": spec}, studies={}, **more)


def prepared(train, test, shape=(3, 8, 8), classes=2):
    import torch
    from valleys.data.cache import save_split
    from valleys.data.split import Split

    folder = Path("results/smoke/data/digits")
    folder.mkdir(parents=True, exist_ok=True)
    for part, n in (("train", train), ("test", test)):
        channels = ((0.0,) * shape[0], (1.0,) * shape[0])
        split = Split(
            torch.zeros(n, *shape, dtype=torch.uint8), torch.arange(n) % classes, classes, *channels
        )
        save_split(folder / f"{part}.safetensors", split)

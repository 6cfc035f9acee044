"""Rule evaluate's own script: the columns on how far each solution is from a minimum."""

import pandas as pd
import pytest
import torch
from conftest import ROOT, fill_defaults, load_config
from small_iterates import Bag
from valleys.config.experiment import Experiment
from valleys.config.params import Params
from valleys.data.cache import save_split
from valleys.data.loaders import SplitBatches
from valleys.data.split import Split
from valleys.landscape import sharpness, spectrum
from valleys.landscape.evaluator import Evaluator
from valleys.landscape.hessian import Hessian
from valleys.landscape.stationarity import gradient_at_start
from valleys.models import solutions
from valleys.storage import tables


@pytest.mark.usefixtures("one_core")
@pytest.mark.parametrize(
    ("made", "measures"),
    [
        (("sgd", "swa", "descent"), []),
        (("sgd", "last"), []),
        (("sgd",), ["sam", "adaptive_average", "filter_width", "trace", "curvature"]),
        (("sgd",), ["curvature"]),
    ],
)
def test_each_solution_has_its_gradient_its_distances_and_its_sharpness(tmp_path, made, measures):
    config = fill_defaults(load_config("config/smoke.yaml") | {"sharpness": measures})
    experiment = Experiment(config)
    cell, model = experiment.cells[0], experiment.models["mlp"]
    generator = torch.Generator().manual_seed(0)
    splits = {}
    for part in ("train", "test"):
        images = torch.randint(0, 256, (30, 1, 4, 4), dtype=torch.uint8, generator=generator)
        splits[part] = Split(images, torch.arange(30) % 3, 3, (0.5,), (0.3,))
        save_split(tmp_path / f"{part}.safetensors", splits[part])
    about = {"model": model, "in_shape": (1, 4, 4), "classes": 3, "cell": cell.path, "bn_policy": "refreshed"}
    networks = {}
    for seed, name in enumerate(made):
        networks[name] = solutions.fresh(model, (1, 4, 4), 3, seed=seed).eval()
        weights = networks[name].state_dict()
        solutions.save(tmp_path / f"{name}.safetensors", weights, about | {"solution": name, "iterates": 0})
    given = Bag({part: str(tmp_path / f"{part}.safetensors") for part in splits})
    given["solutions"] = [str(tmp_path / f"{name}.safetensors") for name in made]
    fake = Bag(
        input=given, params=Bag(spec=Params(experiment).evaluate("quick")), config=config, threads=1,
        rule="evaluate", output=Bag(table=str(tmp_path / "solutions.parquet")), log=[tmp_path / "log"],
        wildcards=Bag(cell.columns()),
    )  # fmt: skip
    script = ROOT / "workflow" / "scripts" / "evaluate.py"
    exec(compile(script.read_text(), str(script), "exec"), {"snakemake": fake})
    rows = tables.read(tmp_path / "solutions.parquet", "solutions").to_pandas().set_index("solution")
    assert set(rows.index) == set(made)
    for name in made:
        row, evaluator = rows.loc[name], Evaluator(networks[name], splits["train"], bn="frozen")
        norm, gain = gradient_at_start(evaluator)
        assert (row["gradient_norm"], row["gradient_gain"]) == pytest.approx((norm, gain), rel=1e-6)
        assert norm > 0
        assert 0 < gain < row["train_loss"]
        for other in ("sgd", "swa", "descent", "last"):
            distance = row[f"distance_to_{other}"]
            assert (distance == 0) if other == name else ((distance > 0) == (other in made))
        columns = [name for name in rows.columns if name.startswith(("sharpness_", "hessian_"))]
        known = [name for name in columns if rows[name].notna().any()]
        if "sam" not in measures:  # none, or none but those of the Hessian
            assert known == []
            assert rows.columns.str.startswith("curvature_").any()
            assert pd.notna(row["curvature_trace"]) == ("curvature" in measures)
            continue
        assert known == [
            "sharpness_sam",
            "sharpness_adaptive_average",
            "sharpness_adaptive_average_error",
            "sharpness_filter_width",
            "sharpness_filter_width_error",
            "hessian_trace",
            "hessian_trace_error",
        ]
        sam = sharpness.sam(evaluator, list(evaluator.parameters)).value
        assert row["sharpness_sam"] == pytest.approx(sam)
        batches = SplitBatches(splits["train"], 30)
        hessian = Hessian(networks[name], batches, evaluator.loss, list(evaluator.parameters))
        value, *_ = hessian.top(1)[1]
        assert row["curvature_eigenvalue"] == pytest.approx(value, rel=1e-3)
        assert row["curvature_trace"] == pytest.approx(row["hessian_trace"], rel=0.4)
        assert row["curvature_trace_images"] == 30
        assert row["hessian_trace"] == pytest.approx(spectrum.trace(hessian).value, rel=1e-4)

"""Each rule's cost: that there is one, and what it follows."""

import inspect
import re

import pytest
from conftest import load_config
from priced import CELL, FOLDER, PAPER, ROOT, of
from valleys.config.versions import VERSIONS
from valleys.costs import machine
from valleys.costs.machine import BF16_AGAIN, BF16_GAIN, CPU, GPU
from valleys.costs.rules import (
    DIRECTION_BATCH,
    EVALUATED,
    GRADIENT_BATCH,
    ON_GPU,
    RULES,
    SEARCH_CHECK,
    SEARCH_GRADIENT,
    SEARCH_STEP,
    STEP_IMAGES,
)
from valleys.landscape import ascent, computed, hessian, objectives, searching, stationarity
from valleys.training import evaluation
from workflow_runs import changed


def test_every_rule_that_makes_something_has_a_model():
    rules = [
        name
        for path in (ROOT / "workflow" / "rules").glob("*.smk")
        for name in re.findall(r"^(?:rule|checkpoint) (\w+):", path.read_text(), re.M)
    ]
    assert set(rules) == set(RULES) == set(VERSIONS)
    with pytest.raises(KeyError, match="no cost model of rule brew"):
        of()("brew", {})


def test_rules_ask_by_the_model_of_their_own_name():
    """A copied line would ask for another rule's resources."""
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        for name, body in re.findall(
            r"^(?:rule|checkpoint) (\w+):\n(.*?)(?=^(?:rule|checkpoint) |\Z)", path.read_text(), re.M | re.S
        ):
            asked = re.findall(r'costs\.(\w+)\("(\w+)"', body)
            assert {rule for _, rule in asked} <= {name}
            assert name not in RULES or {"runtime", "mem_mb"} <= {what for what, _ in asked}
            assert ("gpus" in {what for what, _ in asked}) == (name in ON_GPU)


def test_training_time_is_that_measured_before_the_start():
    """Within a factor of 2 of rates measured on 2 cores: 662 and 106 images/s."""
    for model, rate in (({"arch": "preresnet", "depth": 20}, 331), ({"arch": "vgg16"}, 53)):
        found = of(PAPER, models__preresnet110=model, execution__device="cpu")
        cell = {"dataset": "cifar10", "model": "preresnet110", "recipe": "preresnet", "seed": "0"}
        seconds = found("train_sgd", cell).seconds
        assert rate / 2 < 225 * 50_000 / seconds < rate * 2


@pytest.mark.parametrize(
    ("rule", "path", "value", "wildcards", "factor"),
    [
        ("train_sgd", "recipes__preresnet__epochs", 450, {}, 2),
        ("descend", "recipes__preresnet__descent", {"epochs": 100, "lr": 0.001}, {}, 2),
        ("train_sgd", "datasets__cifar10__max_train", 25_000, {}, 0.5),
        ("probe", "probes__gaussian__n", 20, {"bundle": "gaussian"}, 2),
        ("probe", "probes__gaussian__train_images", 20_000, {"bundle": "gaussian"}, 1.8),
        ("probe", "probes__gaussian__solutions", ["sgd"], {"bundle": "gaussian"}, 0.5),
        ("probe", "bn_refresh__method", "exact", {"bundle": "gaussian"}, 0.6),
        ("probe", "probes__uniform-far__adaptive", True, {"bundle": "uniform-far"}, 11 / 31),
        ("probe", "probes__uniform-far__points", 15, {"bundle": "uniform-far"}, 15 / 31),
        ("interpolate", "lines__swa-descent__divisions", 80, {"line": "swa-descent"}, 2),
        ("plane", "planes__solutions__points", 42, {"plane": "solutions"}, 4),
        ("directions", "probes__hessian__n", 4, {"probe": "hessian"}, 1.5),
        ("connect", "lines__seeds-bezier__epochs", 200, {"line": "seeds-bezier"}, 2),
    ],
)
def test_time_follows_the_config(rule, path, value, wildcards, factor):
    cell = {"dataset": "cifar10", "model": "vgg16", "recipe": "preresnet", "seed": "0"} | wildcards
    raw = changed(PAPER, grid=[{**PAPER["grid"][0], "model": "vgg16"}])
    before, after = (found(rule, cell).seconds - GPU.start_s for found in (of(raw), of(raw, **{path: value})))
    assert after / before == pytest.approx(factor, rel=0.12)


def machine_with(monkeypatch, gain):
    monkeypatch.setattr(machine, "bf16_gain", lambda: gain)


@pytest.mark.slow
@pytest.mark.parametrize("model", [{"arch": "preresnet", "depth": 20}, {"arch": "vgg16"}])
def test_bf16_gains_on_wide_networks_what_was_measured(monkeypatch, model):
    """docs/performance.md: 1.4 and 1.8 times the images a second in training, 1.7 along lines."""
    machine_with(monkeypatch, BF16_GAIN)
    cell = {"dataset": "cifar10", "model": "preresnet110", "recipe": "preresnet", "seed": "0"}
    raw = changed(PAPER, models__preresnet110=model, execution__device="cpu")
    seconds = [
        of(raw, recipes__preresnet__precision=precision)("train_sgd", cell).seconds
        for precision in ("fp32", "bf16")
    ]
    assert 1.4 <= seconds[0] / seconds[1] <= 1.9
    seconds = [
        of(raw, probes__gaussian__precision=precision)("probe", cell | {"bundle": "gaussian"}).seconds
        for precision in ("fp32", "bf16")
    ]
    # Less than 1.7: curves are checked at five points in fp32, and some measured again.
    assert 1.15 <= seconds[0] / seconds[1] <= 1.6


def test_bf16_gains_nothing_on_small_networks_without_instructions_or_on_a_gpu(monkeypatch):
    half = {"recipes__quick__precision": "bf16", "probes__uniform__precision": "bf16"}
    cell = CELL | {"bundle": "uniform"}
    for gain, more in ((BF16_GAIN, {}), (1.0, {}), (BF16_GAIN, {"execution__device": "cuda"})):
        machine_with(monkeypatch, gain)
        for rule in ("train_sgd", "probe"):
            fp32, bf16 = (of(**more, **paths)(rule, cell).seconds for paths in ({}, half))
            assert bf16 > fp32, (rule, gain, more)


def test_a_curve_in_bf16_costs_its_points_three_in_fp32_and_its_share_of_repeats(monkeypatch):
    machine_with(monkeypatch, 1.0)
    monkeypatch.setattr(machine, "BF16_CASTS", 0.0)  # so that a point costs the same in both
    # Of frozen BN, without a search for the radius and without drawing directions, which cost the same.
    block = {"kind": "uniform", "n": 100, "points": 41, "radius": 1.0, "bn": "frozen"}
    seconds = {
        (n, precision): of(
            probes={"uniform": {**block, "n": n, "precision": precision}}, planes={}, studies={}
        )("probe", CELL | {"bundle": "uniform"}).seconds
        for n in (100, 200)
        for precision in ("fp32", "bf16")
    }
    each = {p: (seconds[200, p] - seconds[100, p]) / 300 for p in ("fp32", "bf16")}  # three solutions
    drawn = 20 * 4 * 1210 / CPU.traffic + 10 * 6 * CPU.layer_s
    ratio = (each["bf16"] - drawn) / (each["fp32"] - drawn)
    assert ratio == pytest.approx((41 + 3 + BF16_AGAIN["frozen"] * 38) / 41, rel=0.02)


def test_a_plane_is_priced_in_its_precision(monkeypatch):
    cell = {"dataset": "cifar10", "model": "vgg16", "recipe": "preresnet", "seed": "0", "plane": "solutions"}
    raw = changed(PAPER, grid=[{**PAPER["grid"][0], "model": "vgg16"}], execution__device="cpu")
    machine_with(monkeypatch, BF16_GAIN)
    fp32, bf16 = (of(raw, planes__solutions__precision=p)("plane", cell).seconds for p in ("fp32", "bf16"))
    assert 1.5 < fp32 / bf16 < 1.9


@pytest.mark.slow
def test_memory_follows_the_bn_method_and_the_batch():
    cell = {"dataset": "cifar10", "model": "preresnet110", "recipe": "preresnet", "seed": "0"}
    cpu = changed(PAPER, execution={"device": "cpu"})
    streaming, exact = (
        of(cpu, bn_refresh__method=method)("refresh_bn", cell).memory_mb for method in ("streaming", "exact")
    )
    assert streaming < 3_000
    assert exact > 50_000 * 64 * 32 * 32 * 4 / 1e6  # all images at the widest layer
    small, large = (
        of(cpu, recipes__preresnet__batch_size=size)("train_sgd", cell).memory_mb for size in (128, 512)
    )
    assert large > 2 * small


@pytest.mark.slow
def test_images_that_stay_in_their_file_take_no_memory():
    """Ten thousand images at 224x224 are 1.5 GB."""
    cell = {"dataset": "cifar10", "model": "preresnet110", "recipe": "preresnet", "seed": "0"}
    block = {"kind": "uniform", "n": 1, "train_images": 3_000, "test_images": 100}
    data = FOLDER | {"max_train": 10_000, "max_test": 100}
    grid = [{"dataset": "cifar10", "model": "preresnet110", "recipe": "preresnet"}]
    raw = changed(
        PAPER, datasets={"cifar10": data}, grid=grid, probes={"some": block}, studies={}, planes={}, lines={}
    )
    held, stored = of(raw), of(raw, execution__resident_mb=1_000)
    size, pixels = 10_000 * (3 * 224 * 224 + 8) / 1e6, 3 * 224 * 224 / 1e6
    for rule in ("train_sgd", "refresh_bn", "evaluate"):
        less = held(rule, cell).memory_mb - stored(rule, cell).memory_mb
        assert less == pytest.approx(2 * size, rel=0.01)
    probe = {**cell, "bundle": "some"}
    less = held("probe", probe).memory_mb - stored("probe", probe).memory_mb
    assert less == pytest.approx(2 * (size - 3_000 * pixels), rel=0.01)  # the subset is held
    smaller = of(raw, execution__resident_mb=3_000 * pixels - 1)("probe", probe).memory_mb
    assert stored("probe", probe).memory_mb - smaller == pytest.approx(2 * 3_000 * pixels, rel=0.01)


def test_the_whole_of_imagenet_fits_ordinary_nodes():
    found = of(load_config("config/imagenet.yaml"))
    cell = {"dataset": "imagenet", "model": "resnet50", "recipe": "goyal", "seed": "0"}
    assert found.data("imagenet").train == 1_281_167
    for rule, more in (
        ("prepare_dataset", {}), ("train_sgd", {}), ("refresh_bn", {}), ("evaluate", {}), ("descend", {}),
        ("probe", {"bundle": "uniform"}), ("interpolate", {"line": "seeds"}),
        ("plane", {"plane": "solutions"}),
    ):  # fmt: skip
        assert found.mem_mb(rule, cell | more) < 64_000


def test_speeds_scale_time_and_a_gpu_is_asked_for_with_cuda_only():
    slow, fast = of(), of(execution__cpu_speed=2)
    assert slow("train_sgd", CELL).seconds == pytest.approx(2 * fast("train_sgd", CELL).seconds)
    assert slow("claims", {}).seconds == pytest.approx(2 * fast("claims", {}).seconds)
    assert [slow.gpus(rule) for rule in ("train_sgd", "detect")] == [0, 0]
    assert of(execution__device="auto").gpus("train_sgd") == 0
    cuda, faster = of(execution__device="cuda"), of(execution__device="cuda", execution__gpu_speed=4)
    assert [cuda.gpus(rule) for rule in ("train_sgd", "detect")] == [1, 0]
    assert cuda("train_sgd", CELL).gpu
    assert not cuda("detect", CELL).gpu
    assert cuda("evaluate", CELL).seconds == pytest.approx(4 * faster("evaluate", CELL).seconds)


def test_an_evaluation_holds_the_graph_of_a_few_images():
    """One of a thousand would take more than training does: 1.3 times what its layers put out."""
    assert (stationarity.BATCH, stationarity.STEP_IMAGES) == (GRADIENT_BATCH, STEP_IMAGES)
    cell = {"dataset": "cifar10", "model": "preresnet110", "recipe": "preresnet", "seed": "0"}
    found = of(PAPER, execution__device="cpu")
    graph = GRADIENT_BATCH * found.net("cifar10", "preresnet110").elements * 4 * 1.3 / 1e6
    floats = 50_000 * 3 * 32 * 32 * 4 / 1e6
    memory = found("evaluate", cell).memory_mb
    assert graph + floats < memory < 1.6 * found("train_sgd", cell).memory_mb
    assert memory < graph + floats + 1_500


def test_no_job_asks_for_more_images_at_a_time_than_there_are():
    """A plan of 200 images of 224 x 224 said 130 GB, for the graph of a thousand."""
    functions = (computed.gradient, hessian.hessian_eigenvectors, evaluation.evaluate)
    batches = [inspect.signature(one).parameters["batch_size"].default for one in functions]
    assert batches == [DIRECTION_BATCH["gradient"], DIRECTION_BATCH["hessian"], EVALUATED]
    probes = {kind: {"kind": kind, "points": 21, "solutions": ["sgd"]} for kind in ("gradient", "hessian")}
    models = {"mlp": {"arch": "preresnet", "depth": 20}}
    few, many = (
        of(
            datasets={"digits": {"source": "digits", "train_size": n, "max_test": n}},
            models=models,
            probes=probes,
            studies={},
            planes={},
        )
        for n in (40, 700)
    )
    each = few.net("digits", "mlp").elements * 4 / 1e6
    for kind, times in (("gradient", 1.3), ("hessian", 3)):
        job = CELL | {"probe": kind}
        held = [found("directions", job).memory_mb for found in (few, many)]
        assert held[0] < CPU.memory_mb + 150 + 40 * times * each
        assert held[1] - held[0] == pytest.approx(times * each * (DIRECTION_BATCH[kind] - 40), rel=0.1)
    assert few("evaluate", CELL).memory_mb < CPU.memory_mb + 50 + 40 * 1.3 * each


SOUGHT = {"kind": "searched", "points": 21, "search": {"restarts": 2, "steps": 100}}


@pytest.mark.parametrize(
    ("path", "value", "factor"),
    [
        ("n", 3, 3),
        ("solutions", ["sgd"], 0.5),
        ("search", {"restarts": 4, "steps": 100}, 1.96),  # the curve that is judged stays
        ("train_images", 25_000, 0.536),  # looks are at all images, steps at 256
        ("train_images", 512, 0.063),
        ("test_images", 1, 0.967),
        ("search", {"restarts": 2, "steps": 200}, 1.58),
    ],
)
def test_the_time_of_a_search_follows_its_steps_restarts_and_images(path, value, factor):
    cell = {"dataset": "cifar10", "model": "vgg16", "recipe": "preresnet", "seed": "0", "probe": "s"}
    grid = [{**PAPER["grid"][0], "model": "vgg16"}]
    before, after = (
        of(changed(PAPER, grid=grid, probes__s=SOUGHT | more))("search_directions", cell).seconds
        - GPU.start_s
        for more in ({}, {path: value})
    )
    assert after / before == pytest.approx(factor, rel=0.03)


def test_a_search_is_priced_as_it_goes():
    assert (ascent.STEP_IMAGES, len(objectives.OFFSETS)) == SEARCH_STEP
    assert SEARCH_CHECK == (searching.CHECK_EVERY, searching.CHECK_POINTS)
    assert SEARCH_GRADIENT == searching.GRADIENT_IMAGES


def test_a_search_holds_one_graph_of_all_images_searched_on_where_bn_is_refreshed():
    cell, more = CELL | {"probe": "s"}, {"studies": {}, "planes": {}, "bn_refresh": {"batch_size": 100}}
    more |= {"datasets": {"digits": {"source": "digits", "train_size": 1700}}}
    refreshed, frozen = (
        of(models={"mlp": {"arch": "resnet8"}}, probes={"s": SOUGHT | {"bn": bn}}, **more)
        for bn in ("refreshed", "frozen")
    )
    graph = refreshed.net("digits", "mlp").elements * 4 * 1.3 / 1e6
    least = refreshed("search_directions", cell).memory_mb - frozen("search_directions", cell).memory_mb
    assert least == pytest.approx((850 - 100) * graph, rel=0.01)


def test_a_search_of_a_large_network_takes_copies_of_its_weights_and_stores_what_it_found():
    more = {"studies": {}, "planes": {}, "datasets": {"digits": {"source": "digits", "train_size": 20}}}
    wide = of(probes={"s": SOUGHT}, models={"mlp": {"arch": "mlp", "hidden": [90_000]}}, **more)
    found, weights = wide("search_directions", CELL | {"probe": "s"}), wide.net("digits", "mlp").bytes / 1e6
    assert (found.memory_mb - CPU.memory_mb) / weights == pytest.approx(16, rel=0.1)  # and two directions
    assert found.disk / 1e6 / weights == pytest.approx(2, rel=0.1)


def test_averages_are_priced_by_their_iterates_and_a_soup_by_its_pairs():
    cell = {"dataset": "cifar10", "model": "vgg16", "recipe": "preresnet", "seed": "0"}

    def seconds(window, **averages):
        raw = changed(PAPER, grid=[{**PAPER["grid"][0], "model": "vgg16"}], planes={}, averages=averages)
        found = of(raw, recipes__preresnet__swa__window=window)("compare_averages", cell)
        return found.seconds - GPU.start_s

    ema, soup = {"kind": "ema"}, {"kind": "greedy"}
    assert seconds(40, a=ema) / seconds(20, a=ema) == pytest.approx(2, rel=0.15)
    assert seconds(40, a=ema, b=ema | {"decay": 0.5}) < 1.2 * seconds(40, a=ema)  # barriers are measured once
    assert 3 < seconds(40, a=soup) / seconds(20, a=soup) < 4
    assert seconds(40, a=soup) > 3 * seconds(40, a=ema)


def test_an_alignment_costs_two_lines():
    cell = {"dataset": "cifar10", "model": "vgg16", "recipe": "preresnet", "seed": "0"}
    line = {"start": "sgd", "stop": "sgd", "stop_seed": "next", "first": 0, "last": 1, "divisions": 18}
    raw = changed(
        PAPER, grid=[{**PAPER["grid"][0], "model": "vgg16", "lines": ["l"]}], lines={"l": line}, studies={}
    )
    found = of(raw)
    aligned, straight = (
        found(rule, cell | more).seconds - GPU.start_s
        for rule, more in (("align", {}), ("interpolate", {"line": "l"}))
    )
    assert aligned / straight == pytest.approx(2, rel=0.05)  # 21 points, two of which a line measures twice

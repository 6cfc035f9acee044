"""What a job of each rule costs: one function a rule, of what `amounts` counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from valleys.config import outputs
from valleys.config.averages import averaged, averages_of
from valleys.config.experiment import Cell
from valleys.costs.amounts import BACKWARD, ON_DISK_BYTES, READY_BYTES, SMALL_FILE, Amounts
from valleys.costs.machine import BF16_AGAIN, BF16_CHECKED, CPU, MB
from valleys.costs.sizes import Size
from valleys.costs.work import Cost, Data, Work
from valleys.landscape.kinds import COMPUTED, SEARCH

GRADIENT_PASSES = 3, 21  # the gradient at a solution, and passes along it of few images: `stationarity`
STEP_IMAGES = 5000  # so many of them
GRADIENT_BATCH = 128  # images at a time in these
DIRECTION_BATCH = {"gradient": 500, "hessian": 128}  # images at a time in directions of these kinds
EVALUATED = 1000  # images at a time whose losses are taken
OPTIMIZER = (1.2, 75)  # seconds and MB that torch takes the first time an optimizer is made
CURVLINOPS = (2.0, 30)  # the same for the import of curvlinops
UNTIL = 4  # times the passes over all images, at most: all looks, the last of all images, and groups
RADIUS_PASSES = 8  # passes over the train images until a radius is found, in the mean: `lines.find_radius`
SLOPE_PASSES = 3  # an exact slope: a pass with tangents
HESSIAN_PRODUCTS = (60, 30)  # Lanczos: products with the Hessian, and more for each eigenvector
HESSIAN_PASSES = 6  # one product: backward twice
SEARCH_STEP = (256, 6)  # images a step of a search, and offsets that it takes the gradient at: `ascent`
SEARCH_CHECK = (10, 21)  # steps from one look at the images chosen on to the next, its points: `searching`
SEARCH_GRADIENT = 4096  # images of the gradient at the solution, at most: `searching`
SEARCH_COPIES = 14  # of the weights: directions, gradients and averages of the ascent
SEARCH_ROW = 250  # bytes of a row of the table of searches, compressed
AVERAGE_POINTS = 5  # of a line between two iterates: `averages`
ALIGNED_POINTS, ALIGNED_ROUNDS = 21, 10  # of each line, and of weight matching: `alignment`
CURVE_BYTES = 40  # a row of a table of curves, compressed
WHOLE: Mapping[str, Any] = {"bn": "refreshed", "train_images": None, "test_images": None}

Wildcards = Mapping[str, Any]
#: The cost of a job of each rule, in the order of their work.
RULES: dict[str, Callable[[Amounts, Wildcards], Cost]] = {}
#: Rules that run a network, so that their jobs use a GPU where there is one.
ON_GPU: set[str] = set()


def cost_of(
    *rules: str, gpu: bool = False
) -> Callable[[Callable[[Amounts, Wildcards], Cost]], Callable[[Amounts, Wildcards], Cost]]:
    """Enter a function as the cost of these rules; `gpu`: of rules that run a network."""

    def enter(function: Callable[[Amounts, Wildcards], Cost]) -> Callable[[Amounts, Wildcards], Cost]:
        RULES.update(dict.fromkeys(rules, function))
        ON_GPU.update(rules if gpu else ())
        return function

    return enter


@cost_of("prepare_dataset")
def _prepare_dataset(costs: Amounts, w: Wildcards) -> Cost:
    data, threads = costs.datasets.to_prepare(w["dataset"]), costs.datasets.decoders(w["dataset"])
    images = data.train + data.test
    seconds = costs.datasets.decoding(w["dataset"]) / threads + images * (1e-6 + 4e-9 * data.each)
    memory = 2 * data.bytes  # what torchvision and numpy read comes as arrays
    if costs.datasets.encoded(w["dataset"]):
        # 64 images a piece, two pieces a thread and part; names of files.
        memory = 64 * data.pixels * (8 * threads + 12) + 400 * images
    speed = CPU.flops / costs.cpu.flops
    return Cost(speed * (CPU.start_s + seconds), CPU.memory_mb + memory / MB, data.bytes)


@cost_of("split_dataset")
def _split_dataset(costs: Amounts, w: Wildcards) -> Cost:
    whole, data = costs.datasets.before_seeds(w["dataset"]), costs.data(w["dataset"])
    work = Work(bytes=20 * whole.bytes + 20 * data.bytes)  # and their checksums
    memory, limit = 0.0, costs.config["execution"]["resident_mb"] * MB
    for images in (whole.train, whole.test):
        held = images * whole.each <= limit
        memory += 2 * images * (whole.each + 8) if held else ON_DISK_BYTES * images
    disk = data.bytes + 8 * data.train  # their right labels
    return Cost(costs.cpu.start_s + work.seconds(costs.cpu), CPU.memory_mb + memory / MB, disk)


@cost_of("train_sgd", gpu=True)
def _train_sgd(costs: Amounts, w: Wildcards) -> Cost:
    recipe, data = costs.experiment.recipe(w["recipe"]), costs.data(w["dataset"])
    net = costs.net(w["dataset"], w["model"])
    work = recipe["epochs"] * costs.training(net, data.train, recipe)
    work += math.ceil(recipe["epochs"] / recipe["eval_every"]) * costs.forward(net, data.test, EVALUATED)
    cell = Cell(w["dataset"], w["model"], w["recipe"], int(w["seed"]))
    written = costs.experiment.written_iterates(cell)
    work += Work(bytes=20 * written * net.bytes)  # and their checksums
    memory = costs.resident(w["dataset"], net, 6, _in_training(net, data, recipe))
    disk = 2 * net.bytes + costs.iterates(cell) + SMALL_FILE
    found = costs.network_job(work, memory, disk, OPTIMIZER)
    return replace(found, files=costs.experiment.iterates_of(cell))


@cost_of("cooldown", gpu=True)
def _cooldown(costs: Amounts, w: Wildcards) -> Cost:
    recipe, data = costs.experiment.recipe(w["recipe"]), costs.data(w["dataset"])
    net, epochs = costs.net(w["dataset"], w["model"]), costs.experiment.cooldown_epochs(w["recipe"])
    work = epochs * costs.training(net, data.train, recipe)
    work += math.ceil(epochs / recipe["eval_every"]) * costs.forward(net, data.test, EVALUATED)
    memory = costs.resident(w["dataset"], net, 6, _in_training(net, data, recipe))
    return costs.network_job(work, memory, net.bytes + SMALL_FILE, OPTIMIZER)


@cost_of("average")
def _average(costs: Amounts, w: Wildcards) -> Cost:
    net = costs.net(w["dataset"], w["model"])
    kept = costs.experiment.recipe(w["recipe"])["swa"]["window"] or costs.experiment.all_iterates(w["recipe"])
    work = Work(bytes=20 * kept * net.bytes)
    start = costs.cpu.start_s if costs.forked else 0.7 * costs.cpu.start_s
    return Cost(start + work.seconds(costs.cpu), 220 + 6 * net.bytes / MB, net.bytes)


@cost_of("refresh_bn", gpu=True)
def _refresh_bn(costs: Amounts, w: Wildcards) -> Cost:
    net = costs.net(w["dataset"], w["model"])
    if not costs.experiment.may_have_batch_norm(w["model"]):
        seconds = costs.cpu.start_s + Work(bytes=20 * net.bytes).seconds(costs.cpu)  # a copy
        return Cost(seconds, CPU.memory_mb + 2 * net.bytes / MB, net.bytes)
    data, block = costs.data(w["dataset"]), WHOLE
    memory = costs.resident(w["dataset"], net, 3, costs.in_passes(w, [block]))
    return costs.network_job(costs.forward(net, data.train), memory, net.bytes)


@cost_of("import_solution", gpu=True)
def _import_solution(costs: Amounts, w: Wildcards) -> Cost:
    net, data = costs.net(w["dataset"], w["model"]), costs.data(w["dataset"])
    memory = costs.resident(w["dataset"], net, 4, costs.in_passes(w, [WHOLE]))
    refreshed = costs.experiment.checkpoints[w["recipe"]]["bn"] == "refreshed"
    work = costs.forward(net, data.train) if refreshed else Work(bytes=20 * net.bytes)
    return costs.network_job(work, memory, net.bytes)


@cost_of("descend", gpu=True)
def _descend(costs: Amounts, w: Wildcards) -> Cost:
    recipe, data = costs.experiment.recipe(w["recipe"]), costs.data(w["dataset"])
    net, epochs = costs.net(w["dataset"], w["model"]), recipe["descent"]["epochs"]
    refreshes = costs.refreshes(w, WHOLE)
    measured = costs.forward(net, data.train * (2 if refreshes else 1) + data.test)
    work = epochs * costs.training(net, data.train, recipe) + (epochs + 1) * measured
    activations = max(_in_training(net, data, recipe), costs.in_passes(w, [WHOLE]))
    memory = costs.resident(w["dataset"], net, 6, activations)
    return costs.network_job(work, memory, net.bytes + SMALL_FILE, OPTIMIZER)


#: Passes over the train images that measures of sharpness take, a gradient as three.
SHARPNESS_PASSES = {
    "sam": 4,
    "adaptive_sam": 4,
    "adaptive_worst": 83,
    "adaptive_average": 30,
    "filter_width": 200,
    "trace": 200,
    "curvature": 400,  # where all images are needed
}


@cost_of("evaluate", gpu=True)
def _evaluate(costs: Amounts, w: Wildcards) -> Cost:
    data, net = costs.data(w["dataset"]), costs.net(w["dataset"], w["model"])
    batch = min(GRADIENT_BATCH, data.train)
    work = costs.forward(net, data.train + data.test, EVALUATED)
    measures = sum(SHARPNESS_PASSES[name] for name in costs.config["sharpness"])
    gradient, along = GRADIENT_PASSES
    work += (gradient + measures) * costs.forward(net, data.train, batch)
    work = 3 * (work + along * costs.forward(net, min(STEP_IMAGES, data.train), batch))
    passes = costs.in_passes(w, [{**WHOLE, "bn": "frozen"}])  # with the train images as floats
    at_once = min(EVALUATED, max(data.train, data.test))
    activations = max(at_once * net.widest * 4 * 3, passes + batch * net.elements * 4 * 1.3)
    memory = costs.resident(w["dataset"], net, 11, activations)
    return costs.network_job(work, memory, SMALL_FILE)


@cost_of("compare_averages", gpu=True)
def _compare_averages(costs: Amounts, w: Wildcards) -> Cost:
    cell = Cell(w["dataset"], w["model"], w["recipe"], int(w["seed"]))
    net, count = costs.net(cell.dataset, cell.model), averaged(costs.experiment, cell.recipe)
    names = averages_of(costs.experiment, cell)
    kinds = [costs.config["averages"][name]["kind"] for name in names]
    # Each iterate and the next; each and the members that a soup has by then, half of those before it; swa.
    lines = count + ("greedy" in kinds) * count * count // 4 + len(names)
    once = costs.point(w, WHOLE)
    work = lines * AVERAGE_POINTS * costs.point(w, WHOLE, test=False)
    work += (count + kinds.count("greedy") * count + 4 * len(names) + 2) * once
    work += Work(bytes=20 * count * (1 + len(names)) * net.bytes)
    memory = costs.resident(cell.dataset, net, 8 + 2 * count, costs.in_passes(w, [WHOLE]))
    found = costs.network_job(work, memory, len(names) * net.bytes + SMALL_FILE)
    return replace(found, files=len(names))


@cost_of("directions", gpu=True)
def _directions(costs: Amounts, w: Wildcards) -> Cost:
    spec, net = costs.config["probes"][w["probe"]], costs.net(w["dataset"], w["model"])
    train, n = costs.images(w["dataset"], {"test_images": 1, **spec})[0], costs.directions(w["probe"])
    passes, copies, activations, iterates = 0.0, 3.0 + 2 * n, 0.0, 0
    batch = min(train, DIRECTION_BATCH.get(spec["kind"], train))  # no more than there are
    if spec["kind"] == "gradient":
        passes, activations = BACKWARD, batch * net.elements * 4 * 1.3
    elif spec["kind"] == "hessian":
        passes = (HESSIAN_PRODUCTS[0] + HESSIAN_PRODUCTS[1] * n) * HESSIAN_PASSES
        copies += 2 * max(2 * n + 1, 20)  # Lanczos vectors, float64
        activations = batch * net.elements * 4 * BACKWARD
    elif spec["kind"] == "pca":
        iterates = costs.experiment.all_iterates(w["recipe"])
    cell = Cell(w["dataset"], w["model"], w["recipe"], int(w["seed"]))
    solutions = costs.solutions(cell, w["probe"])
    work = solutions * passes * costs.forward(net, train, batch if spec["kind"] == "hessian" else None)
    work += Work(bytes=10 * (copies + 3 * iterates) * net.bytes)
    blocks = [{"test_images": 1, **spec}]
    memory = costs.resident(w["dataset"], net, copies, activations, blocks) + costs.components(net, iterates)
    more = CURVLINOPS if spec["kind"] == "hessian" else (0, 0)
    return costs.network_job(work, memory, solutions * n * 4 * net.parameters, more)


@cost_of("search_directions", gpu=True)
def _search_directions(costs: Amounts, w: Wildcards) -> Cost:
    spec, net = costs.config["probes"][w["probe"]], costs.net(w["dataset"], w["model"])
    search, train = SEARCH | spec.get("search", {}), costs.images(w["dataset"], spec)[0]
    half, batch = math.ceil(train / 2), costs.config["bn_refresh"]["batch_size"]
    images, passes = max(1, min(SEARCH_STEP[0], half // 2)), 1 + SEARCH_STEP[1] * BACKWARD
    step = passes * costs.forward(net, images, precision=spec["precision"])
    step += Work(bytes=10 * SEARCH_COPIES * net.parameters, layers=10 * net.tensors)

    def look(share: float, points: int, test: bool = False) -> Work:
        part = {**spec, "train_images": math.ceil(share * train), "precision": "fp32"}
        return (points + RADIUS_PASSES) * costs.point(w, part, test=test)

    checks = 2 + search["steps"] // SEARCH_CHECK[0]
    work = search["steps"] * step + look(1 / 2, 0) + checks * look(1 / 4, SEARCH_CHECK[1])
    work += look(1 / 2, spec["points"]) + look(1 / 4, spec["points"]) + look(1 / 4, spec["points"], test=True)
    work = search["restarts"] * work + look(1 / 4, spec["points"], test=True)
    work += BACKWARD * costs.forward(net, half)  # the gradient at the solution
    cell = Cell(w["dataset"], w["model"], w["recipe"], int(w["seed"]))
    times = costs.directions(w["probe"]) * costs.solutions(cell, w["probe"])
    # Refreshed statistics hang on all images that a gradient is of: these are in one graph.
    at_once = min(half, SEARCH_GRADIENT) if costs.refreshes(w, spec) else min(batch, half)
    activations = max(at_once * net.elements * 4 * 1.3, costs.in_passes(w, [spec]))
    memory = costs.resident(w["dataset"], net, SEARCH_COPIES + times, activations, [spec])
    rows = SEARCH_ROW * search["restarts"] + CURVE_BYTES * 5 * spec["points"]
    return costs.network_job(times * work, memory, times * (4 * net.parameters + rows) + SMALL_FILE)


@cost_of("probe", gpu=True)
def _probe(costs: Amounts, w: Wildcards) -> Cost:
    cell = Cell(w["dataset"], w["model"], w["recipe"], int(w["seed"]))
    if costs.config["execution"]["probe_jobs"] == "together":
        names = costs.experiment.bundles_of(cell)[w["bundle"]]
    else:
        names = [w["bundle"]]
    net, work, rows, copies = costs.net(w["dataset"], w["model"]), Work(), 0, 4.0
    for name in names:
        block = costs.config["probes"][name]
        exact_point = costs.point(w, {**block, "precision": "fp32"})
        line = (costs.points(name) - 1) * costs.point(w, block)  # lines share offset 0
        if block["precision"] == "bf16":
            again = BF16_AGAIN[block["bn"] if net.buffers else "none"]
            line += (BF16_CHECKED + again * (costs.points(name) - 1 - BF16_CHECKED)) * exact_point
        if costs.refreshes(w, block) and costs.is_subset(w["dataset"], block):
            line += costs.points(name) * costs.point(w, block)  # groups of the images: `errors_by_group`
        if block.get("until") and costs.refreshes(w, block):
            line = UNTIL * line
        if block["radius"] is None and block["relative"] is None:
            line += RADIUS_PASSES * costs.point(w, block, test=False)
        if block["slopes"] == "exact":
            images = costs.images(w["dataset"], block)[0]
            line += costs.points(name) * SLOPE_PASSES * costs.forward(net, images)
        times = costs.directions(name) * costs.solutions(cell, name)
        drawn = Work(bytes=20 * 4 * net.parameters, layers=10 * net.tensors)
        work += times * (line + drawn) + 3 * costs.solutions(cell, name) * exact_point
        rows += times * costs.points(name)
        if block["kind"] in COMPUTED:
            copies = max(copies, 4.0 + costs.directions(name) * costs.solutions(cell, name))
    blocks = [costs.config["probes"][name] for name in names]
    exact = any(block["slopes"] == "exact" for block in blocks)
    passes = costs.in_passes(w, blocks) * (2 if exact else 1)
    memory = costs.resident(w["dataset"], net, copies, passes, blocks)
    return costs.network_job(work, memory, rows * CURVE_BYTES + SMALL_FILE)


@cost_of("connect", gpu=True)
def _connect(costs: Amounts, w: Wildcards) -> Cost:
    line, recipe = costs.config["lines"][w["line"]], costs.experiment.recipe(w["recipe"])
    net, data = costs.net(w["dataset"], w["model"]), costs.data(w["dataset"])
    steps = math.ceil(data.train / recipe["batch_size"])
    ends = Work(bytes=8 * (line["bends"] + 2) * net.parameters, layers=3 * net.tensors)
    work = line["epochs"] * (costs.training(net, data.train, recipe) + steps * ends)
    activations = _in_training(net, data, recipe)
    memory = costs.resident(w["dataset"], net, 6 + 4 * line["bends"], activations)
    return costs.network_job(work, memory, line["bends"] * 4 * net.parameters, OPTIMIZER)


@cost_of("interpolate", gpu=True)
def _interpolate(costs: Amounts, w: Wildcards) -> Cost:
    line, net = costs.config["lines"][w["line"]], costs.net(w["dataset"], w["model"])
    trained = line["path"] != "linear"
    first, last = (
        end if line[key] is None else line[key]
        for key, end in (("first", 0 if trained else -2), ("last", 1 if trained else 3))
    )
    points = round(last * line["divisions"]) - round(first * line["divisions"]) + 1
    work = (points + 2) * costs.point(w, line)
    if line.get("until") and costs.refreshes(w, line):
        work = UNTIL * work
    passes, copies = costs.in_passes(w, [line]), 6 + line["bends"] * trained
    memory = costs.resident(w["dataset"], net, copies, passes, [line])
    return costs.network_job(work, memory, points * CURVE_BYTES + SMALL_FILE)


@cost_of("align", gpu=True)
def _align(costs: Amounts, w: Wildcards) -> Cost:
    net = costs.net(w["dataset"], w["model"])
    work = 2 * ALIGNED_POINTS * costs.point(w, WHOLE)
    work += ALIGNED_ROUNDS * Work(bytes=20 * net.bytes, layers=20 * net.tensors)
    memory = costs.resident(w["dataset"], net, 10, costs.in_passes(w, [WHOLE]))
    return costs.network_job(work, memory, SMALL_FILE)


@cost_of("plane", gpu=True)
def _plane(costs: Amounts, w: Wildcards) -> Cost:
    plane, net = costs.config["planes"][w["plane"]], costs.net(w["dataset"], w["model"])
    points = plane["points"] ** 2
    work = points * (costs.point(w, plane) + Work(bytes=48 * net.parameters))
    work += 6 * costs.point(w, plane, test=False)
    iterates = costs.experiment.all_iterates(w["recipe"]) if plane["pca"] else 0
    passes = costs.in_passes(w, [plane])
    memory = costs.resident(w["dataset"], net, 15, passes, [plane]) + costs.components(net, iterates)
    return costs.network_job(work, memory, points * CURVE_BYTES + SMALL_FILE)


@cost_of("detect")
def _detect(costs: Amounts, w: Wildcards) -> Cost:
    rows = costs.rows(w)
    return costs.small(1.5, rows, rows * CURVE_BYTES, times=20)


@cost_of("measure_gain")
def _measure_gain(costs: Amounts, w: Wildcards) -> Cost:
    rows = costs.rows(w)
    return costs.small(1.5, rows, rows * 20, times=20)


@cost_of("aggregate")
def _aggregate(costs: Amounts, w: Wildcards) -> Cost:
    rows = costs.all_rows() if w["table"] in ("curves", "shift") else costs.all_rows() / 20
    return costs.small(1.2, rows, rows * CURVE_BYTES + SMALL_FILE)


@cost_of("study")
def _study(costs: Amounts, w: Wildcards) -> Cost:
    """Return the cost of a job that reads the tables of the whole experiment."""
    return costs.small(2.5, costs.all_rows(), 300e3, times=2, memory=320)


@cost_of("sensitivity")
def _sensitivity(costs: Amounts, w: Wildcards) -> Cost:
    return costs.small(2.0, costs.all_rows(), SMALL_FILE, times=10)


cost_of("claims", "figures", "panels")(_study)


@cost_of("look")
def _look(costs: Amounts, w: Wildcards) -> Cost:
    """Return the cost of a job that makes the tables of studies and judges the claims twice."""
    return costs.small(4.0, costs.all_rows(), SMALL_FILE, times=4, memory=320)


@cost_of("report")
def _report(costs: Amounts, w: Wildcards) -> Cost:
    return costs.small(2.5, costs.all_rows(), 200e3 * len(outputs.figures(costs.experiment)), memory=320)


@cost_of("toy_2d")
def _toy_2d(costs: Amounts, w: Wildcards) -> Cost:
    toy = costs.config["toy_2d"]
    lines = 2 * toy["n_draws"] * toy["angles"] * len(toy["rises"])
    seconds = 1.0 + 1.8e-6 * lines * toy["points"]
    return costs.small(seconds, toy["n_draws"], 1e5 + 60 * lines, times=500)


@cost_of("simulate_theory")
def _simulate_theory(costs: Amounts, w: Wildcards) -> Cost:
    theory = costs.config["theory"]
    valleys = len(theory["shapes"]) * len(theory["ratios"])
    runs = valleys * len(theory["rates"]) * len(theory["noises"]) * len(theory["levels"])
    steps = runs * theory["chains"] * (theory["burn_in"] + theory["iterates"])
    shifts = valleys * len(theory["shifts"]) * len(theory["scales"]) * len(theory["biases"])
    seconds = 1.0 + 1.1e-8 * steps + 3e-8 * shifts * theory["draws"]
    return costs.small(seconds, 0, SMALL_FILE)


def _in_training(net: Size, data: Data, recipe: Mapping[str, Any]) -> float:
    """Return bytes of activations that a step of SGD holds, or an evaluation of a thousand images.

    And of the train images as floats, where they are kept.
    """
    batch, floats = min(recipe["batch_size"], data.train), data.train * data.pixels * 4
    is_ready = floats <= READY_BYTES and not (recipe["augment"]["shift"] or recipe["augment"]["flip"])
    passes = max(batch * net.elements * 4 * 1.3, min(EVALUATED, data.test) * net.widest * 4 * 3)
    return passes + (floats if is_ready else 0)

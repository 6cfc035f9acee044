"""A first look at given weights: one probe, without a config (``python -m valleys probe``).

The workflow's own functions on one solution: its tables have the same columns, and for weights that the
workflow trained, probed on the data it prepared, the same numbers.
"""

from __future__ import annotations

import json
import math
import re
import statistics
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from valleys.config.experiment import Cell, Experiment, with_algorithms
from valleys.config.schema import check, read_yaml, with_defaults
from valleys.config.versions import VERSIONS
from valleys.data.options import MAX_SEED
from valleys.errors import ValleysError
from valleys.landscape.kinds import COMPUTED, RANDOM, SINGLE
from valleys.storage import files
from valleys.storage.weights import checksum, load_weights

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor, nn

    from valleys.data.split import Split

#: Kinds that need no more than the solution and the train set.
KINDS = {
    kind: text for kind, text in {**RANDOM, **COMPUTED}.items() if kind in (*RANDOM, "gradient", "hessian")
}
#: Keys of a probe's block that are options of the command by the same name.
PROBE_KEYS = (
    *("n", "group", "share", "points", "adaptive", "radius", "relative", "relative_to", "rise"),
    *("bn", "precision", "slopes", "train_images", "test_images"),
)
_OPTIONS = {"kind": "direction", "method": "bn-method"}
_NAME = re.compile(r"[^A-Za-z0-9_.-]+")
_HEADER = {"model": dict, "in_shape": list, "classes": int, "solution": str, "cell": str}
_HEADER |= {"iterates": int, "bn_policy": str}  # what a weights file says of itself
_MAX_BYTES = 16e9  # of images: what execution.max_data_gb is by default
_CONFIG_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # as the schema has it


# --- what is asked for ------------------------------------------------------------------------------------


def parse_block(text: str, key: str, option: str) -> dict[str, Any]:
    """Return a config block written on the command line.

    Parameters
    ----------
    text
        ``name``, ``name:option=value,option=value``, a YAML or JSON mapping, or a YAML or JSON file of one.
        Values are YAML: ``preresnet:depth=20``, ``mlp:hidden=[16,8]``.
    key
        The block's key that the name stands for: ``arch``, ``source`` or ``name``.
    option
        Of the command line, for messages.

    Raises
    ------
    ValleysError
        When the text is none of these.
    """
    path = files.expand(text)
    try:
        if path.suffix in (".yaml", ".yml", ".json") and path.exists():
            files.check_regular(path, f"--{option}:")
            block = read_yaml(path.read_text(encoding="utf-8"), f"--{option}: {text}")
        elif text.lstrip().startswith("{"):
            block = read_yaml(text, f"--{option}: {text}")
        else:
            name, _, rest = text.partition(":")
            block = {key: name, **_pairs(rest)}
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        own = "; a network of your own is '{factory: \"module:attribute\"}'" if key == "arch" else ""
        raise ValleysError(
            f"--{option}: {text!r} is no name:option=value,... nor a mapping ({reason}){own}"
        ) from error
    if not isinstance(block, dict):
        raise ValleysError(f"--{option}: {text!r} holds {type(block).__name__}; it must be a mapping")
    return block


def _pairs(text: str) -> dict[str, Any]:
    pairs = {}
    for item in re.split(r",(?![^\[{]*[\]}])", text) if text else []:
        name, equals, value = item.partition("=")
        if not (name.strip() and equals):
            raise ValueError(f"{item!r} is no option=value")
        if name.strip() in pairs:
            raise ValueError(f"{name.strip()!r} is there twice")
        pairs[name.strip()] = read_yaml(value, repr(item))
    return pairs


@dataclass(frozen=True)
class Request:
    """Checked settings of a look.

    Attributes
    ----------
    block
        Of the probe, as in a config, with its defaults.
    loss, bn_refresh, asymmetry
        The config's blocks of that name, with their defaults.
    figure
        Spec of the figure (`valleys.config.experiment.Experiment.figure`).
    """

    block: dict[str, Any]
    loss: dict[str, Any]
    bn_refresh: dict[str, Any]
    asymmetry: dict[str, Any]
    figure: dict[str, Any]


def request(
    kind: str,
    given: Mapping[str, Any],
    loss: Mapping[str, Any],
    bn_refresh: Mapping[str, Any],
    asymmetry: Mapping[str, Any],
) -> Request:
    """Check what was asked for by the rules of the config, and fill in its defaults.

    Parameters
    ----------
    kind
        Of the directions: one of `KINDS`.
    given
        Those of `PROBE_KEYS` that were given.
    loss, bn_refresh, asymmetry
        What was given of these blocks.

    Raises
    ------
    ValleysError
        With the option's name in place of the config's key.
    """
    if kind in COMPUTED and kind not in KINDS:
        raise ValleysError(
            f"--direction: {kind!r} needs other solutions or iterates, which a run of the workflow has; "
            f"here there are {', '.join(KINDS)}"
        )
    # One cell of an experiment that trains nothing: only the blocks that a look has are read.
    config: dict[str, Any] = {
        "name": "look",
        "seeds": [0],
        "datasets": {"data": {"source": "digits"}},
        "models": {"model": {"arch": "mlp"}},
        "recipes": {"given": {"epochs": 2, "swa": {"start": 1, "lr": 0.1}, "lr": 0.1, "loss": dict(loss)}},
        "grid": [{"dataset": "data", "model": "model", "recipe": "given"}],
        "probes": {"look": {"kind": kind, "solutions": ["sgd"], **given}},
        "bn_refresh": dict(bn_refresh),
        "asymmetry": dict(asymmetry),
    }
    try:
        check(config)
        experiment = Experiment(with_defaults(config))
    except ValleysError as error:
        raise ValleysError(_as_option(str(error))) from None
    block = with_algorithms(config["probes"]["look"])
    del block["solutions"]
    if kind in SINGLE:
        block["n"] = 1
    if kind != "sign":
        block["share"] = 0.0
    blocks = (config[key] for key in ("bn_refresh", "asymmetry"))
    return Request(block, config["recipes"]["given"]["loss"], *blocks, experiment.figure("curves-look"))


def _as_option(message: str) -> str:
    """Name the option of the command line where a message names a key of the config."""
    found = re.match(
        r"config: (probes\.look|bn_refresh|asymmetry|recipes\.given\.loss)(?:\.(\w+))?: ", message
    )
    if not found:
        return message
    key = found[2] or ""
    option = "loss" if "loss" in found[1] else _OPTIONS.get(key, key.replace("_", "-"))
    detail = f"{key}: " if "loss" in found[1] and key else ""
    return f"--{option}: {detail}{message[found.end() :]}" if option else message[found.end() :]


# --- what it is done with ---------------------------------------------------------------------------------


def read_data(text: str) -> tuple[tuple[Split, Split], str, dict[str, Any]]:
    """Return train and test images, the data set's name, and what made them.

    Parameters
    ----------
    text
        A data source as `parse_block` takes it, or a folder with ``train.safetensors`` and
        ``test.safetensors``, as the workflow prepares them below ``results/<name>/data``.

    Raises
    ------
    ValleysError
        When the source or its files are not right.
    """
    from valleys.data.cache import RESIDENT_MB, load_split, read_metadata
    from valleys.data.sources import load

    folder = files.expand(text)
    paths = [folder / f"{part}.safetensors" for part in ("train", "test")]
    if folder.is_dir() and not all(path.is_file() for path in paths):
        raise ValleysError(
            f"--data: folder {folder} lacks train.safetensors or test.safetensors; give one that the "
            "workflow prepared, or a source, as in digits:train_size=800"
        )
    if folder.is_dir():
        checksums = [read_metadata(path)["checksum"] for path in paths]
        train, test = (load_split(path, resident_mb=RESIDENT_MB) for path in paths)
        return (train, test), _name(folder.resolve().name), {"prepared": checksums}
    block = parse_block(text, "source", "data")
    name = _name(str(block.get("source", "data")))
    return load.load_source(block, name, _MAX_BYTES), name, block


def read_model(
    weights: Path, spec: Mapping[str, Any] | None, train: Split, device: Any
) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network with its weights, in eval mode, and what the file says about them.

    Parameters
    ----------
    weights
        A solution of the workflow, which knows its own model, or a state dict as `checkpoints.read` takes it.
        ``#`` and a key at the end choose one of several.
    spec
        The model's config block; None takes the file's.
    train
        Gives shape of the images and number of classes.

    Raises
    ------
    ValleysError
        When the file cannot be read, no model is known, or it fits neither the weights nor the images.
    """
    from valleys import factories
    from valleys.models import checkpoints, solutions, state_dicts

    found, path, about = state_dicts.find(weights), files.split_choice(weights)[0], {}
    if path.suffix == ".safetensors" and not zipfile.is_zipfile(path):
        about = load_weights(path)[1]  # with its checksum, if it has one
        wrong = [key for key, kind in _HEADER.items() if key in about and not isinstance(about[key], kind)]
        if wrong or ("in_shape" in about) != ("classes" in about):
            raise ValleysError(
                f"{weights}: its header has no sound {wrong[0] if wrong else 'in_shape and classes'}; it is "
                "none of the workflow's"
            )
    if spec is None and "model" not in about:
        raise ValleysError(
            f"--model: {weights} does not say which model it is of; name one, as in preresnet:depth=20"
        )
    if spec is None and "factory" in about["model"]:  # the file may be a stranger's
        raise ValleysError(
            f"--model: {weights} names the factory {about['model']['factory']!r}, code that would be run; if "
            f"you trust it, give it yourself: --model '{json.dumps(about['model'])}'"
        )
    if "in_shape" in about:
        theirs, ours = (tuple(about["in_shape"]), about["classes"]), (train.in_shape, train.classes)
        if theirs != ours:
            raise ValleysError(
                f"--data: its images have shape {ours[0]} and {ours[1]} classes; {weights} is of a "
                f"network for images {theirs[0]} and {theirs[1]} classes"
            )
    spec = about["model"] if spec is None else spec
    net = solutions.fresh(spec, train.in_shape, train.classes, device=device)
    told = checkpoints.load(net, found, str(weights))
    now = {"model": spec, "in_shape": train.in_shape, "classes": train.classes}
    now["code"] = factories.version(spec["factory"]) if "factory" in spec else None  # that which was built
    known = {"solution": "given", "iterates": 0, **about, **now, "read": f"{weights}: {told}"}
    if not _CONFIG_NAME.fullmatch(str(known["solution"])):  # names files
        known["solution"] = "given"
    return net.eval(), known | {"checksum": checksum(net.state_dict())}


def _name(text: str) -> str:
    return _NAME.sub("-", text).strip("-.") or "given"


def _cell(about: Mapping[str, Any], dataset: str, model: str, seed: int) -> Cell:
    """Return the cell that the tables name: the workflow's own where the weights came from it."""
    name = f"({_CONFIG_NAME.pattern})"
    found = re.fullmatch(rf"{name}/{name}/{name}/seed-([0-9]{{1,19}})", str(about.get("cell", "")))
    return Cell(*found.groups()[:3], int(found[4])) if found else Cell(dataset, _name(model), "given", seed)


# --- the look ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """A finished look: its tables as data frames, where everything was written, which weights were read."""

    tables: dict[str, pd.DataFrame]
    request: Request
    folder: Path
    figure: Path
    read: str


def probe(
    weights: Path,
    data: str,
    model: str | None,
    wanted: Request,
    folder: Path,
    *,
    seed: int = 0,
    device: str = "auto",
    progress: Any = iter,
) -> Look:
    """Probe, judge, write tables and figure.

    Parameters
    ----------
    weights, data, model
        As `read_model`, `read_data` and `parse_block` take them.
    folder
        Gets ``tables``, ``figures`` and ``state`` (directions that are done: a stopped look goes on there,
        and one with more directions keeps them).
    seed
        Of the directions, for weights that the workflow did not make; those have their cell's.
    device
        ``auto``, ``cpu`` or ``cuda``.
    progress
        Wraps the iterator over directions.

    Returns
    -------
    Look

    Raises
    ------
    ValleysError
        As `read_data` and `read_model`, or when the probe does not fit the network.
    """
    from valleys import detection, figures, jobs
    from valleys.landscape.evaluator import evaluator_for
    from valleys.landscape.probing import probe_solution
    from valleys.models import losses, solutions
    from valleys.storage import tables
    from valleys.training.trainer import state_folder

    if not 0 <= seed <= MAX_SEED:
        raise ValleysError(f"--seed: {seed} is out of range; it must be 0 to {MAX_SEED}")
    jobs.keep_memory()
    where = jobs.pick_device({"execution": {"device": device}})
    splits, dataset, source = read_data(data)
    contents = source.get("prepared") or [split.checksum() for split in splits]
    splits = tuple(split.to(where) for split in splits)
    spec = None if model is None else parse_block(model, "arch", "model")
    net, about = read_model(weights, spec, splits[0], where)
    named = about["model"]
    cell = _cell(about, dataset, str(named.get("arch", named.get("factory", "model"))), seed)
    block, loss = wanted.block, losses.build(wanted.loss)
    settings = {"loss": wanted.loss, "bn_refresh": wanted.bn_refresh}
    evaluator = evaluator_for(net, splits, block, settings)
    stored, columns = _computed(net, splits[0].subset(block["train_images"]), loss, block)
    name, solution = block["kind"], _name(str(about["solution"]))
    judged = evaluator.precision != "fp32" or block.get("adaptive")
    key = solutions.state_key(
        [block | {"n": None}, settings, VERSIONS["probe"], cell.path, wanted.asymmetry if judged else None],
        [about],
        contents,
        jobs.arithmetic(where),
        stored=checksum({f"{k}/{n}": t for k, u in enumerate(stored) for n, t in u.items()}),
    )
    found = probe_solution(
        evaluator,
        block,
        key=f"{cell.path}/{block['group']}",
        stored=stored,
        check_stored_bn=False,  # the network may have got its statistics anywhere
        state=state_folder(folder, f"probe-{name}-{solution}", key) / "curves.pt",
        constants=wanted.asymmetry,
    )
    curves, rows = [], []
    for curve, row in progress(found):
        label = {**cell.columns(), "solution": solution, "probe": name}
        label |= {"kind": block["kind"], "group": block["group"], "k": row["k"]}
        curves += [{**label, "bn_policy": evaluator.bn, **point} for point in curve]
        row |= {"eigenvalue": None, "to_seed": None} | (columns[row["k"]] if columns else {})
        rows.append({**label, **row, "bn_policy": evaluator.bn, "checksum": about["checksum"]})
    own = _solution_row(net, about, splits, loss, evaluator.bn) | {**cell.columns(), "solution": solution}
    made = {"curves": curves, "directions": rows, "solutions": [own]}
    config = {"probes": {name: block}, **settings, "asymmetry": wanted.asymmetry}
    config |= {"data": source, "weights": about["checksum"], "model": named}
    written = {}
    for table, content in made.items():
        written[table] = folder / "tables" / f"{table}.parquet"
        tables.write(written[table], table, content, config)
    read = {table: tables.read(path, table) for table, path in written.items()}
    judged = detection.judge(read["curves"], read["directions"], read["solutions"], wanted.asymmetry)
    for table, content in (("asymmetry", judged), ("shift", detection.shift_curves(read["curves"]))):
        written[table] = folder / "tables" / f"{table}.parquet"
        tables.write(written[table], table, content, config)
    frames = tables.frames(written.values())
    picture = f"curves-{name}"
    png, svg = (folder / "figures" / f"{picture}.{suffix}" for suffix in ("png", "svg"))
    figures.save(figures.draw(picture, frames, wanted.figure), png, svg, wanted.figure["style"])
    files.write_text(
        folder / "figures" / f"{picture}.txt", figures.caption(picture, frames, wanted.figure) + "\n"
    )
    return Look(frames, wanted, folder, png, about["read"])


def _computed(
    net: nn.Module, train: Split, loss: Any, block: Mapping[str, Any]
) -> tuple[list[dict[str, Tensor]], list[dict[str, Any]]]:
    """Return directions that are not drawn from a seed, and the columns that belong to them."""
    from valleys.landscape import computed, directions

    if block["kind"] in RANDOM:
        return [], []
    names = directions.parameter_group(net, block["group"])
    if block["kind"] == "gradient":
        return [directions.restrict(computed.gradient(net, train, loss), names)], []
    from valleys.landscape import hessian

    found, values = hessian.hessian_eigenvectors(net, train, loss, names, block["n"])
    return found, [{"eigenvalue": value} for value in values]


def _solution_row(
    net: nn.Module, about: Mapping[str, Any], splits: tuple[Split, Split], loss: Any, bn: str
) -> dict[str, Any]:
    """Return the solution's row of the ``solutions`` table, without its names: as its weights are stored."""
    from valleys.networks import tensors
    from valleys.training.evaluation import evaluate

    row: dict[str, Any] = {}
    for part, split in zip(("train", "test"), splits, strict=True):
        row[f"{part}_loss"], row[f"{part}_accuracy"] = evaluate(net, split, loss)
        row[f"n_{part}"] = len(split)
    row["weight_norm"] = tensors.vector_norm(dict(net.named_parameters()))
    row |= dict.fromkeys(("distance_to_sgd", "distance_to_swa", "distance_to_descent"))
    row["parameters"] = sum(p.numel() for p in net.parameters())
    policy = about.get("bn_policy", "none" if bn == "none" else "stored")
    return row | {"bn_policy": policy, "iterates": about["iterates"], "checksum": about["checksum"]}


def _errors(look: Look) -> list[str]:
    """Return what the choice of a subset of train images leaves uncertain, and how many images 5 % takes."""
    from valleys import measures

    (own,), curves = look.tables["solutions"].to_dict("records"), look.tables["curves"]
    known = curves[curves["train_error"].notna()]
    if known.empty:
        return []
    n, whole = look.request.block["train_images"], own["n_train"]
    relative = []
    for _, curve in known.groupby("k"):
        rise = curve["train_loss"] - curve.loc[curve["offset"] == 0, "train_loss"].item()
        error = curve["train_error"][rise.idxmax()] / rise.max() if rise.max() > 0 else 0.0
        relative += [float(error)] if math.isfinite(error) and error > 0 else []
    uncertain = measures.uncertain(look.tables["asymmetry"])
    lines = [f"  {n:,} of {whole:,} train images" + (f": {uncertain}" if uncertain else "")]
    if relative:
        error = statistics.median(relative)
        lines.append(
            f"  the greatest rise of a curve is known to {error:.1%} (median); "
            f"5% takes {images_for(0.05, error, n, whole):,} images"
        )
    return lines


def images_for(wanted: float, error: float, n: int, whole: int) -> int:
    """Return how many of `whole` images give a standard error of `wanted`, when n of them give `error`.

    Both in the same unit. The error of a mean of n images out of N is ``s sqrt(1/n - 1/N)``.
    """
    variance = error**2 / (1 / n - 1 / whole)
    return math.ceil(1 / (wanted**2 / variance + 1 / whole) - 1e-9)


def verdict(look: Look, level: float = 0.95) -> str:
    """Return what was found, in a few lines for the terminal."""
    from valleys import claims, figures, stats

    data, block = look.tables, look.request.block
    (own,), judged, about = data["solutions"].to_dict("records"), data["asymmetry"], data["directions"]
    lines = [
        f"{own['dataset']} / {own['model']}, solution {own['solution']}: {own['parameters']:,} parameters, "
        f"train loss {own['train_loss']:.4g} ({own['train_accuracy']:.1%} right), "
        f"test loss {own['test_loss']:.4g} ({own['test_accuracy']:.1%}) as stored"
    ]
    radius, capped = about["radius"], int(about["radius_status"].isin(["capped", "jump"]).sum())
    reach = f"R {radius.min():.4g}" + (f" to {radius.max():.4g}" if radius.max() > radius.min() else "")
    reach += f", {capped} of them without a rise of {block['rise']:g} nats" if capped else ""
    policy = ", ".join(about["bn_policy"].unique())
    lines.append(
        f"{len(judged)} direction(s) of kind {block['kind']}, group {block['group']}; {reach}; "
        f"batch norm {policy}"
    )
    for status, count in judged["status"].value_counts().items():
        share = stats.wilson(int(count), len(judged), level)
        lines.append(f"  {status:12} {count:4} of {len(judged)}  ({share.low:.0%} to {share.high:.0%})")
    middle = {key: judged[key].median() for key in ("c_star", "rise_minus", "rise_plus")}
    told = {key: figures.number(value) for key, value in middle.items()}
    uneven = figures.number(math.exp(judged["asymmetry_index"].abs().median()))
    lines.append(
        f"  medians: c* {told['c_star']}, rise {told['rise_minus']} at -R and {told['rise_plus']} at +R "
        f"[nats], the larger over the smaller {uneven}"
    )
    if block.get("adaptive"):
        lines.append(
            f"  {about['points'].mean():.1f} of {block['points']} points a curve, "
            f"all in {int((about['points'] == block['points']).sum())} of {len(about)}"
        )
    lines += _errors(look)
    hits = stats.wilson(int((judged["status"] == "asymmetric").sum()), len(judged), level)
    words = {
        claims.SUPPORTED: "most directions of this kind are asymmetric",
        claims.REFUTED: "most directions of this kind are not asymmetric",
        claims.INCONCLUSIVE: "whether most directions of this kind are asymmetric is open; try a greater --n",
    }[claims.share_verdict(hits)]
    c = look.request.asymmetry["c"]
    lines.append(f"By Definition 1 at c = {c:g}, {words} (share {hits.low:.0%} to {hits.high:.0%}).")
    return "\n".join(lines)

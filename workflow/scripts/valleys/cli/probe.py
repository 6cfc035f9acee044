"""A first look at given weights: one probe, without a config (``python -m valleys probe``)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valleys.config.versions import VERSIONS
from valleys.data.options import MAX_SEED
from valleys.errors import ValleysError
from valleys.landscape.kinds import RANDOM
from valleys.storage import files
from valleys.storage.weights import checksum

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor, nn

    from valleys.data.split import Split
from valleys.cli.given import cell_of, name_of, read_data, read_model
from valleys.cli.requests import Request, parse_block

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
    from valleys import figures
    from valleys.execution import jobs
    from valleys.landscape.evaluator import evaluator_for
    from valleys.landscape.probing import probe_solution
    from valleys.models import losses, solutions
    from valleys.results import detection
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
    cell = cell_of(about, dataset, str(named.get("arch", named.get("factory", "model"))), seed)
    block, loss = wanted.block, losses.build(wanted.loss)
    settings = {"loss": wanted.loss, "bn_refresh": wanted.bn_refresh}
    evaluator = evaluator_for(net, splits, block, settings)
    stored, columns = _computed(net, splits[0].subset(block["train_images"]), loss, block)
    name, solution = block["kind"], name_of(str(about["solution"]))
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
    from valleys.results import measures

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
    from valleys import claims, figures
    from valleys.results import stats

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

"""A first look at given weights: one probe, without a config (``python -m valleys probe``)."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valleys.cli.given import Given, name_of, read
from valleys.cli.requests import Request
from valleys.config.catalogue import SOLUTIONS
from valleys.config.versions import VERSIONS
from valleys.data.options import MAX_SEED
from valleys.errors import ValleysError
from valleys.landscape.kinds import COMPUTED, KINDS
from valleys.storage.weights import checksum

if TYPE_CHECKING:
    import pandas as pd

    from valleys.config.experiment import Cell
    from valleys.landscape.computed import Found
    from valleys.landscape.evaluator import Evaluator
    from valleys.landscape.probing import Searched
    from valleys.models.losses import Loss

#: Statuses of directions that Definition 1 says nothing of: what each means, and what would help.
_UNJUDGED = {
    "not_minimum": "the loss is lower further out, or one side does not rise, so the weights are no minimum "
    "along it; train on, or end with a cooldown, in which the learning rate falls to 0",
    "flat": "neither side rises; give a greater --rise, or --radius",
    "not_finite": "a loss on the curve is not finite; give a smaller --rise, or --radius",
}


@dataclass(frozen=True)
class Probed:
    """A finished probe: its tables as data frames, where everything was written, which weights were read.

    ``apart``: the train loss at the weights with stored and with refreshed batch norm (`losses_apart`).
    """

    tables: dict[str, pd.DataFrame]
    request: Request
    folder: Path
    figure: Path
    read: str
    apart: tuple[float, float] | None = None


def probe(
    weights: Path,
    data: str,
    model: str | None,
    wanted: Request,
    folder: Path,
    *,
    seed: int = 0,
    device: str = "auto",
    curvature: bool = False,
    progress: Any = iter,
    search_progress: Any = iter,
) -> Probed:
    """Probe, judge, write tables and figure.

    Parameters
    ----------
    weights, data, model, device
        As `read` takes them.
    folder
        Gets ``tables``, ``figures`` and ``state`` (directions that are done: a stopped probe goes on there,
        and one with more directions keeps them).
    seed
        Of the directions, for weights that the workflow did not make; those have their cell's.
    curvature
        Whether to take the Hessian's largest eigenvalue and trace as well, on the train images probed on.
    progress, search_progress
        Wrap the iterators over directions and, of kind searched, over the steps of a search.

    Returns
    -------
    Probed

    Raises
    ------
    ValleysError
        As `read`, or when the probe does not fit the network.
    """
    from valleys import figures
    from valleys.landscape.evaluator import evaluator_for
    from valleys.models import losses
    from valleys.results import detection
    from valleys.storage import tables

    if not 0 <= seed <= MAX_SEED:
        raise ValleysError(f"--seed: {seed} is out of range; it must be 0 to {MAX_SEED}")
    given = read(weights, data, model, device)
    settings = {"loss": wanted.loss, "bn_refresh": wanted.bn_refresh}
    evaluator = evaluator_for(given.net, given.splits, wanted.block, settings)
    loss = losses.build(wanted.loss, given.splits[0].task)
    look = _Look(given, given.cell(given.about, seed), wanted, settings, evaluator, loss, folder)
    made = look.curves(*look.directions(search_progress), progress)
    made["solutions"] = [look.solution(curvature)]
    config = {"probes": {wanted.block["kind"]: wanted.block}, **settings, "asymmetry": wanted.asymmetry}
    config |= {"data": given.source, "weights": given.about["checksum"], "model": given.about["model"]}
    written = {table: folder / "tables" / f"{table}.parquet" for table in (*made, "asymmetry", "shift")}
    for table, rows in made.items():
        tables.write(written[table], table, rows, config)
    read_back = (tables.read(written[table], table) for table in ("curves", "directions", "solutions"))
    curves, *others = read_back
    judged = detection.judge(curves, *others, wanted.asymmetry)
    for table, rows in (("asymmetry", judged), ("shift", detection.shift_curves(curves))):
        tables.write(written[table], table, rows, config)
    frames = tables.frames(written.values())
    picture = "search" if "searches" in made else f"curves-{wanted.block['kind']}"
    png = figures.write(picture, frames, wanted.figure, folder / "figures")
    return Probed(frames, wanted, folder, png, given.about["read"], look.apart())


@dataclass(frozen=True)
class _Look:
    """A probe under way: what was read, the cell that tables name, and what moves the weights."""

    given: Given
    cell: Cell
    wanted: Request
    settings: dict[str, Any]
    evaluator: Evaluator
    loss: Loss
    folder: Path

    @property
    def label(self) -> dict[str, Any]:
        """Columns that name the solution."""
        return {**self.cell.columns(), "solution": name_of(str(self.given.about["solution"]))}

    def directions(self, progress: Any) -> tuple[Found, Searched]:
        """Return the directions that have to be computed, with their columns, and what a search saw."""
        from valleys.landscape import searching
        from valleys.landscape.computed import Found, Sources, compute
        from valleys.landscape.probing import Searched, search_options, stored_directions

        block, at, searched = self.wanted.block, self.label["solution"], Searched()
        if KINDS[block["kind"]].searched:
            options = search_options(block, self.cell.path, self.wanted.asymmetry, self._state("search"))
            found = searching.searches(self.evaluator, block["n"], progress=progress, **options)
            about = {"probe": block["kind"], "kind": block["kind"], "group": block["group"]}
            searched.add(found, self.label | about)
            return Found(stored_directions(searched.directions, at)), searched
        if block["kind"] in COMPUTED:
            train = self.given.splits[0].subset(block["train_images"])
            sources = Sources({at: self.given.net}, train, self.loss, group=block["group"], n=block["n"])
            return compute(block["kind"], sources, at), searched
        return Found([]), searched

    def curves(self, computed: Found, searched: Searched, progress: Any) -> dict[str, list[dict[str, Any]]]:
        """Return the rows of the curves and of their directions, and of a search, by table."""
        from valleys.landscape.probing import Rows, probe_solution

        (stored, columns), block = computed, self.wanted.block
        found = probe_solution(
            self.evaluator,
            block,
            self.cell.path,
            stored=list(stored),
            check_stored_bn=False,  # the network may have got its statistics anywhere
            state=self._state("probe", stored) / "curves.pt",
            constants=self.wanted.asymmetry,
        )
        rows, about = Rows(), {"probe": block["kind"], "checksum": self.given.about["checksum"]}
        rows.add(progress(found), self.label | about, block, self.evaluator.bn, columns)
        made = {"curves": rows.curves, "directions": rows.directions}
        if searched.searches:
            made |= {"searches": searched.searches, "search_curves": searched.search_curves}
        return made

    def _state(self, stage: str, stored: Any = None) -> Path:
        """Return the folder of what is done, by all that its results hang on."""
        from valleys.execution import jobs
        from valleys.models import solutions
        from valleys.training.trainer import state_folder

        block, constants, more = self.wanted.block, self.wanted.asymmetry, {}
        if stage == "search":
            version, name = VERSIONS["search_directions"], f"search-{self.label['solution']}"
        else:
            version, name = VERSIONS["probe"], f"probe-{block['kind']}-{self.label['solution']}"
            judged = self.evaluator.precision != "fp32" or block.get("adaptive") or block.get("until")
            constants = constants if judged else None
            more["stored"] = checksum({f"{k}/{n}": t for k, u in enumerate(stored) for n, t in u.items()})
        decisive = [block | {"n": None}, self.settings, version, self.cell.path, constants]
        arithmetic = jobs.arithmetic(self.given.device)
        key = solutions.state_key(decisive, [self.given.about], self.given.contents, arithmetic, **more)
        return state_folder(self.folder, name, key)

    def solution(self, curvature: bool) -> dict[str, Any]:
        """Return the row of the solution."""
        from valleys.landscape import sharpness
        from valleys.landscape.evaluator import Evaluator
        from valleys.landscape.stationarity import BATCH, gradient_at_start
        from valleys.training.evaluation import solution_row

        given, train, policy = self.given, self.given.splits[0], self.evaluator.bn
        own = self.label | solution_row(given.net, given.splits, self.loss, dict.fromkeys(SOLUTIONS))
        images = train.subset(
            self.wanted.block["train_images"]
        )  # not all: it takes as many passes as a curve
        frozen = Evaluator(given.net, images, loss=self.loss, bn="frozen", batch_size=BATCH)
        own |= dict(zip(("gradient_norm", "gradient_gain"), gradient_at_start(frozen), strict=True))
        if curvature:
            own |= sharpness.columns(frozen, ["curvature"])
        own["bn_policy"] = given.about.get("bn_policy", "none" if policy == "none" else "stored")
        return own | {key: given.about[key] for key in ("iterates", "checksum")}

    def apart(self) -> tuple[float, float] | None:
        """Return what `losses_apart` does, on more images than a probe of a few of them has."""
        from valleys.data.loaders import SplitBatches
        from valleys.landscape.statistics import SOME, losses_apart

        images = self.given.splits[0].subset(SOME)  # first, as batches keep all images that they have
        return losses_apart(self.evaluator.on(SplitBatches(images, self.evaluator.batch_size)))


def _errors(probed: Probed) -> list[str]:
    """Return what the choice of a subset of train images leaves uncertain, and how many images 5 % takes."""
    from valleys.results import measures

    (own,), curves = probed.tables["solutions"].to_dict("records"), probed.tables["curves"]
    if "until" in probed.request.block:
        return _settled(probed.tables["directions"], probed.request.block["until"], own["n_train"])
    known = curves[curves["train_error"].notna()]
    if known.empty:
        return []
    n, whole = probed.request.block["train_images"], own["n_train"]
    relative = []
    for _, curve in known.groupby("k"):
        rise = curve["train_loss"] - curve.loc[curve["offset"] == 0, "train_loss"].item()
        error = curve["train_error"][rise.idxmax()] / rise.max() if rise.max() > 0 else 0.0
        relative += [float(error)] if math.isfinite(error) and error > 0 else []
    uncertain = measures.uncertain(probed.tables["asymmetry"])
    lines = [f"  {n:,} of {whole:,} train images" + (f": {uncertain}" if uncertain else "")]
    if relative:
        error = statistics.median(relative)
        lines.append(
            f"  the greatest rise of a curve is known to {error:.1%} (median); "
            f"5% takes {images_for(0.05, error, n, whole):,} images"
        )
    return lines


def _settled(about: pd.DataFrame, confidence: float, whole: int) -> list[str]:
    """Return how many verdicts are settled, and on how many images."""
    done = about.loc[about["settled"].astype(bool), "images"]
    lines = [f"  settled at {confidence:.0%}: {len(done)} of {len(about)} verdicts"]
    if len(done):
        lines[0] += f", on {done.median():,.0f} of {whole:,} train images (median; {done.max():,} at most)"
    if len(done) < len(about):
        images = about.loc[~about["settled"].astype(bool), "images"].max()
        lines.append(f"  not settled on {images:,} images: more --train-images, or fewer --points, may do")
    return lines


def images_for(wanted: float, error: float, n: int, whole: int) -> int:
    """Return how many of `whole` images give a standard error of `wanted`, when n of them give `error`.

    Both in the same unit. The error of a mean of n images out of N is ``s sqrt(1/n - 1/N)``.
    """
    variance = error**2 / (1 / n - 1 / whole)
    return math.ceil(1 / (wanted**2 / variance + 1 / whole) - 1e-9)


def _searches(probed: Probed) -> list[str]:
    """Return what each search came to, five lines each; nothing of other kinds."""
    from valleys.figures import number

    if "searches" not in probed.tables:
        return []
    lines, rows = [], probed.tables["searches"]
    for k, restarts in rows.groupby("k"):
        row = restarts[restarts["chosen"]].iloc[0]
        told = {key: number(row[key]) for key in row.index if isinstance(row[key], float)}
        verdict = {True: "found", False: "not found"}.get(row["found"], "measured")
        rise = f"{row['rise']:g} nat{'' if row['rise'] == 1 else 's'}"
        lines += [
            f"direction {k}, as {row['seek']} as can be at a rise of {rise}: {verdict}",
            f"  on {row['judge_images']:,} train images not searched on: {row['judge_status']}, "
            f"c* {told['judge_c_star']} ({told['judge_c_low']} to {told['judge_c_high']}), rise "
            f"{told['judge_rise_minus']} at -R and {told['judge_rise_plus']} at +R, R {told['judge_radius']}",
            f"  on the {row['search_images']:,} searched on c* {told['search_c_star']}; on test images "
            f"c* {told.get('test_c_star', 'none')}, flat side {told.get('test_flat_rise', 'none')} nats",
            f"  a random direction at the same rise (where it began): {row['start_status']}, "
            f"c* {told['start_c_star']}",
            f"  {len(restarts)} restarts, {restarts['passes'].sum():,} passes over the images searched on; "
            f"batch norm {row['bn_policy']}; found means c* of {probed.request.asymmetry['c']:g} or more and "
            f"{row['floor']:g} nats on the flat side, not searched on",
        ]
    return lines


_CURVATURE = {"eigenvalue": "largest eigenvalue", "trace": "trace"}


def _curvature(own: dict[str, Any], name: str, words: str) -> str:
    """Return what was found of the Hessian, with its interval, and on how many images."""
    value, low, high = (own[f"curvature_{name}{end}"] for end in ("", "_low", "_high"))
    return (
        f"{words} of the Hessian {value:.4g} ({low:.4g} to {high:.4g}), "
        f"on {int(own[f'curvature_{name}_images']):,} train images"
    )


def right(accuracy: float, what: str = "") -> str:
    """Return an accuracy in brackets; nothing of a regression, which has none."""
    return f" ({accuracy:.1%}{what})" if math.isfinite(accuracy) else ""


def verdict(probed: Probed, level: float = 0.95) -> str:
    """Return what was found, in a few lines for the terminal."""
    from valleys import figures
    from valleys.results import stats

    data, block = probed.tables, probed.request.block
    (own,), judged, about = data["solutions"].to_dict("records"), data["asymmetry"], data["directions"]
    lines = [
        f"{own['dataset']} / {own['model']}, solution {own['solution']}: {own['parameters']:,} parameters, "
        f"train loss {own['train_loss']:.4g}{right(own['train_accuracy'], ' right')}, "
        f"test loss {own['test_loss']:.4g}{right(own['test_accuracy'])} as stored"
    ]
    if math.isfinite(own["gradient_gain"]):
        n = block["train_images"] or own["n_train"]
        what = "train loss" if n >= own["n_train"] else f"loss of {n} train images"
        lines.append(
            f"along its gradient, of norm {own['gradient_norm']:.3g}, the {what} falls by "
            f"{own['gradient_gain']:.2g} nats"
        )
    if probed.apart is not None:
        stored, refreshed = probed.apart
        lines.append(
            f"with refreshed batch norm the train loss at these weights is {refreshed:.4g}, with the "
            f"statistics in the file {stored:.4g}; the curves have the first, --bn frozen the second"
        )
    if not math.isnan(own["curvature_trace_images"]):
        lines += [_curvature(own, name, words) for name, words in _CURVATURE.items()]
    if searches := _searches(probed):
        return "\n".join([*lines, *searches])
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
    for status, meaning in _UNJUDGED.items():
        if (judged["status"] == status).any():
            lines.append(f"  {status}: {meaning}")
    keys = ("c_star", "rise_minus", "rise_plus")
    c_star, minus, plus = (figures.number(judged[key].median()) for key in keys)
    uneven = figures.number(math.exp(judged["asymmetry_index"].abs().median()))
    lines.append(
        f"  medians: c* {c_star}, rise {minus} at -R and {plus} at +R [nats]; about the curve's own least "
        f"point the larger over the smaller {uneven}"
    )
    if block.get("adaptive") or block.get("until"):
        lines.append(
            f"  {about['points'].mean():.1f} of {block['points']} points a curve, "
            f"all in {int((about['points'] == block['points']).sum())} of {len(about)}"
        )
    return "\n".join([*lines, *_errors(probed), share_in_words(judged, probed.request.asymmetry["c"], level)])


def share_in_words(judged: pd.DataFrame, c: float, level: float) -> str:
    """Return whether most directions of the kind are asymmetric, in a sentence.

    Directions drawn at one solution are a sample of those that there are at it: n counts them here. As in
    claims, those along which the loss does not rise as asked for count against either verdict.
    """
    from valleys.results import measures, stats

    if judged["status"].isin(list(_UNJUDGED)).all():  # a greater n would not help
        return "Definition 1 says nothing of these directions, for the reasons given above."
    short, hit = measures.falls_short(judged), judged["status"] == "asymmetric"
    low, high = (stats.wilson(int(hits.sum()), len(judged), level) for hits in (hit & ~short, hit | short))
    if low.low > 0.5:
        words = "most directions of this kind are asymmetric"
    elif high.high < 0.5:
        words = "most directions of this kind are not asymmetric"
    else:
        help_ = (
            "a smaller --rise, which the loss reaches along more of them" if short.any() else "a greater --n"
        )
        words = f"whether most directions of this kind are asymmetric is open; try {help_}"
    return f"By Definition 1 at c = {c:g}, {words} (share {low.low:.0%} to {high.high:.0%})."

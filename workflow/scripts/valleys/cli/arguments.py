"""The arguments of each command, and their help."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn

from valleys import __version__
from valleys.storage import files

_EXAMPLES = """
examples:
  %(prog)s --weights results/default/cells/digits/mlp-bn/swa/seed-0/sgd.safetensors \\
      --data results/default/data/digits/seed-0
  %(prog)s --weights mine.safetensors --model preresnet:depth=20 --data cifar10:root=data --n 20
  %(prog)s --weights mine.safetensors --model '{arch: mlp, hidden: [64, 64]}' \\
      --data image_folder:train=photos/train,test=photos/test,size=32 --direction gaussian --bn frozen
  %(prog)s --weights mine.pt --model '{factory: "mypkg.nets:build", kwargs: {width: 8}}' \\
      --data '{source: numpy, train: train.npz, test: test.npz, mean: [0.5], std: [0.25]}'

Weights are a state dict, or what training scripts wrap around one; those of the workflow know their model.
Of a file with several, choose one by its key, or by what its names begin with, after '#':
last.pt#swa_state_dict, last.pt#model.ema, all.safetensors#teacher. An index of shards, or a folder with one,
will do too.
Models and data sources are written name:option=value,... or as a YAML or JSON mapping; the command options
lists both, and a factory is any callable of your own that returns a torch.nn.Module. Images are normalised by
the mean and deviation of the train set: give the mean and std that your weights were trained with. Without
--radius or --relative a curve ends where the loss has risen by --rise. Defaults are in brackets.
"""


_PATH_EXAMPLES = """
examples:
  %(prog)s --weights results/default/cells/digits/mlp-bn/swa/seed-0/sgd.safetensors \\
      --to results/default/cells/digits/mlp-bn/swa/seed-0/swa.safetensors \\
      --data results/default/data/digits/seed-0
  %(prog)s --weights one.pt --to other.pt --model preresnet:depth=20 --data cifar10:root=data --until 0.95

Weights, models and data are written as for the command probe. Batch norm's statistics are those of the train
images at each point. Defaults are in brackets.
"""


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    name = "valleys" if Path(sys.argv[0]).name == "valleys" else "python -m valleys"
    top = _Parser(prog=name, description="Loss valleys of neural networks, from the command line.")
    top.add_argument("--version", action="version", version=f"valleys {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="command")
    _add_probe(commands)
    _add_path(commands)
    compare = commands.add_parser("compare", help="two finished experiments side by side")
    compare.add_argument(
        "a", type=files.expand, metavar="A", help="results folder of the first, as in results/default"
    )
    compare.add_argument("b", type=files.expand, metavar="B", help="results folder of the second")
    compare.add_argument(
        "--output", type=files.expand, help="also write the rows to this .parquet, .csv or .html file"
    )
    surface = commands.add_parser("surface", help="planes of a finished run in 3-D, as an HTML page to turn")
    surface.add_argument(
        "planes",
        type=files.expand,
        metavar="PLANES",
        help="results folder, as in results/default, or a planes.parquet with plane_points.parquet beside it",
    )
    surface.add_argument("--plane", help="only the plane of this name (all)")
    surface.add_argument("--log", action="store_true", default=None, help="logarithmic axis of the loss")
    surface.add_argument("-o", "--output", type=files.expand, help="HTML file (planes.html beside the table)")
    _add_figure(commands)
    _add_replicate(commands)
    data = commands.add_parser(
        "data",
        help="data sets of a config, fetched, prepared and checked",
        description="Fetch the data sets of a config where torchvision can, prepare and check them.",
    )
    data.add_argument("config", type=files.expand, help="the run's config file")
    data.add_argument("--cores", default="all", help="a number, or all (all)")
    plan = commands.add_parser("plan", help="jobs, core-hours, GPU-hours, memory and disk of a run")
    plan.add_argument("config", type=files.expand, help="the run's config file")
    plan.add_argument("targets", nargs="*", help="files or experiments by name (default: everything)")
    plan.add_argument("--cores", help="cores to divide the work by: a number, or all there are")
    plan.add_argument(
        "--profile",
        type=files.expand,
        help="folder of a cluster's profile, as in profiles/slurm: are jobs too large for its nodes?",
    )
    plan.add_argument(
        "--measure",
        action="store_true",
        help="build networks of your own for their size, if no job has: runs their code",
    )
    claims = commands.add_parser("claims", help="the twelve verdicts of a finished run")
    claims.add_argument("config", type=files.expand, help="the run's config file")
    claims.add_argument("--all", action="store_true", help="all rows that were judged instead")
    listed = commands.add_parser(
        "options", help="data sources, architectures and directions (docs/reference/options.md)"
    )
    listed.add_argument(
        "--schema", action="store_true", help="as a JSON schema (workflow/schemas/options.schema.yaml)"
    )
    return top


def _add_figure(commands: Any) -> None:
    """Add the command ``figure``; what is not given has the config's defaults (`config.styles`)."""
    one = commands.add_parser(
        "figure",
        help="a figure of a finished run for a paper",
        description="Draw a figure of a finished run from its tables: each panel in a file of its own, or "
        "all in one. Width and fonts are those of the printed page.",
    )
    one.add_argument(
        "results", type=files.expand, metavar="RESULTS", help="results folder, as in results/default"
    )
    one.add_argument("name", metavar="NAME", help="of the figure, as in search or curves-uniform")
    one.add_argument(
        "--panel", action="append", default=[], help="only the panel of this name, again for more (all)"
    )
    one.add_argument("--format", help="pdf, svg or png (pdf, or as the output ends)")
    one.add_argument("--width", type=float, help="inches (3.35)")
    one.add_argument("--font", help="serif, sans-serif, or the name of an installed family (sans-serif)")
    one.add_argument("--font-size", type=float, help="points (9)")
    one.add_argument("--palette", help="petroff10, tableau-colorblind10 or Dark2 (petroff10)")
    one.add_argument("--dpi", type=int, help="dots an inch, of PNG files (150)")
    one.add_argument(
        "-o",
        "--output",
        type=files.expand,
        help="a file, as in search.pdf, or a folder of a file a panel (a folder of the figure's name)",
    )


def _add_replicate(commands: Any) -> None:
    """Add the command ``replicate``."""
    one = commands.add_parser(
        "replicate",
        help="a finished run again on fresh seeds, and whether its verdicts hold",
        description="Run a config again on seeds that it has not used, and compare the twelve verdicts.",
    )
    one.add_argument("config", type=files.expand, help="the first run's config file")
    one.add_argument("--seeds", help="fresh seeds, as in 100-111 (as many, after the greatest used)")
    one.add_argument("--name", default="", help="of the replicate (the experiment's name and -replicate)")
    one.add_argument("--cores", default="all", help="a number, or all (all)")
    one.add_argument("--dry-run", action="store_true", help="print what would be done")
    one.add_argument("arguments", nargs="*", help="of Snakemake, after --")


def _add_probe(commands: Any) -> None:
    """Add the command ``probe``; what is not given has the config's defaults (`requests.request`)."""
    one = commands.add_parser(
        "probe",
        help="a first look at given weights, without a config",
        description="Probe directions through given weights: tables, a figure and a verdict.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_what(one.add_argument_group("what is probed"))
    how = one.add_argument_group("directions")
    how.add_argument(
        "--direction", default="uniform", metavar="KIND", help="uniform, gaussian, ..., hessian (uniform)"
    )
    how.add_argument("--n", type=int, help="how many directions (10), of kind searched 1")
    how.add_argument("--group", help="all, bn, not_bn, conv, classifier, layer:<name>, ... (all)")
    how.add_argument("--share", type=float, help="kind sign: share of entries with the sign of w (0.5)")
    how.add_argument(
        "--orthogonal",
        action="store_true",
        default=None,
        help="kind sign: scale the sizes of entries so that a direction is orthogonal to w",
    )
    how.add_argument(
        "--search",
        help="kind searched: as in asymmetric:restarts=3,steps=60,floor=0.1, or symmetric, or flat",
    )
    how.add_argument(
        "--seed", type=int, default=0, help="of drawn directions (0); the workflow's weights have their own"
    )
    curve = one.add_argument_group("curves")
    curve.add_argument("--points", type=int, help="points of a curve, odd (41)")
    curve.add_argument(
        "--adaptive",
        action="store_true",
        default=None,
        help="measure 9 of the points first, then those that shape and verdict need",
    )
    curve.add_argument(
        "--until",
        type=float,
        help="a confidence, as 0.95: add images until each verdict is settled at it, at most --train-images",
    )
    curve.add_argument(
        "--curvature",
        action="store_true",
        help="also largest eigenvalue and trace of the Hessian, each to a tenth at 95 %%",
    )
    curve.add_argument("--radius", type=float, help="R: how far a curve goes, in 2-norm of weights")
    curve.add_argument("--relative", type=float, help="R as a share of the weights' norm")
    curve.add_argument("--relative-to", help="all or group: whose norm that is (all)")
    curve.add_argument("--rise", type=float, help="else R is where the larger rise is this, in nats (1.0)")
    _add_passes(curve)
    curve.add_argument("--slopes", help="differences or exact (differences)")
    curve.add_argument("--precision", help="fp32 or bf16 (fp32)")
    curve.add_argument("--c", type=float, help="level of Definition 1 (2)")
    _add_run(one.add_argument_group("run"), "results/look")


def _add_path(commands: Any) -> None:
    """Add the command ``path``; what is not given has the config's defaults (`requests.path_request`)."""
    one = commands.add_parser(
        "path",
        help="the barrier between two sets of given weights",
        description="Measure the loss on the straight line between two sets of weights of one network, and "
        "whether its barrier is above a threshold.",
        epilog=_PATH_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = one.add_argument_group("what is joined")
    _add_what(what)
    what.add_argument("--to", type=files.expand, required=True, help="the weights at the other end, likewise")
    line = one.add_argument_group("line")
    line.add_argument("--divisions", type=int, help="steps between the two (20)")
    line.add_argument("--threshold", type=float, help="of the barrier, in nats (0.1)")
    line.add_argument(
        "--until",
        type=float,
        help="a confidence, as 0.95: add images until it is settled at it whether the barrier is above the "
        "threshold, at most --train-images",
    )
    _add_passes(line)
    _add_run(one.add_argument_group("run"), "results/path")


def _add_what(what: Any) -> None:
    """Add weights, network, data and loss."""
    what.add_argument(
        "--weights",
        type=files.expand,
        required=True,
        help="state dict: safetensors, or of torch.save; FILE#KEY of several in it",
    )
    what.add_argument(
        "--data", required=True, help="source, as in digits or cifar10:root=data, or a prepared folder"
    )
    what.add_argument(
        "--model",
        help="as in preresnet:depth=20, or {factory: mypkg.nets:build}; weights of the workflow need none, "
        "unless a factory made their network",
    )
    what.add_argument(
        "--loss", default="cross_entropy", help="as in label_smoothing:smoothing=0.1 (cross_entropy)"
    )
    what.add_argument("--train-images", type=int, help="measure on so many of the train images (all)")
    what.add_argument("--test-images", type=int, help="and so many of the test images (all)")


def _add_passes(group: Any) -> None:
    """Add how a loss is measured at given weights."""
    group.add_argument("--bn", help="refreshed or frozen batch-norm statistics (refreshed)")
    group.add_argument("--bn-method", help="exact or streaming refresh (exact)")
    group.add_argument("--batch-size", type=int, help="images at a time (250)")


def _add_run(run: Any, out: str) -> None:
    """Add where results go and what computes them."""
    run.add_argument(
        "--out",
        type=files.expand,
        default=Path(out),
        help=f"folder for tables and figure ({out})",
    )
    run.add_argument("--device", default="auto", help="auto, cpu or cuda (auto)")
    run.add_argument("--threads", type=int, help="of the processor (what torch takes)")
    run.add_argument("--quiet", action="store_true", help="no progress bar")

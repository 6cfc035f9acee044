"""``python -m valleys``: probe given weights; compare, replicate, plan and draw runs; print what they say."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NoReturn

from valleys import __version__
from valleys.errors import ValleysError, shown
from valleys.storage import files

_EXAMPLES = """
examples:
  %(prog)s --weights results/default/cells/digits/resnet8-bn/short/seed-0/sgd.safetensors \\
      --data results/default/data/digits
  %(prog)s --weights mine.safetensors --model preresnet:depth=20 --data cifar10:root=data --n 20
  %(prog)s --weights mine.safetensors --model '{arch: mlp, hidden: [64, 64]}' \\
      --data image_folder:train=photos/train,test=photos/test --direction gaussian --bn frozen
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
    what = one.add_argument_group("what is probed")
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
    what.add_argument("--train-images", type=int, help="probe on so many of the train images (all)")
    what.add_argument("--test-images", type=int, help="and so many of the test images (all)")
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
    curve.add_argument("--radius", type=float, help="R: how far a curve goes, in 2-norm of weights")
    curve.add_argument("--relative", type=float, help="R as a share of the weights' norm")
    curve.add_argument("--relative-to", help="all or group: whose norm that is (all)")
    curve.add_argument("--rise", type=float, help="else R is where the larger rise is this, in nats (1.0)")
    curve.add_argument("--bn", help="refreshed or frozen batch-norm statistics (refreshed)")
    curve.add_argument("--bn-method", help="exact or streaming refresh (exact)")
    curve.add_argument("--batch-size", type=int, help="images at a time (250)")
    curve.add_argument("--slopes", help="differences or exact (differences)")
    curve.add_argument("--precision", help="fp32 or bf16 (fp32)")
    curve.add_argument("--c", type=float, help="level of Definition 1 (2)")
    run = one.add_argument_group("run")
    run.add_argument(
        "--out",
        type=files.expand,
        default=Path("results/look"),
        help="folder for tables and figure (results/look)",
    )
    run.add_argument("--device", default="auto", help="auto, cpu or cuda (auto)")
    run.add_argument("--threads", type=int, help="of the processor (what torch takes)")
    run.add_argument("--quiet", action="store_true", help="no progress bar")


def main(argv: list[str] | None = None) -> int:
    """Run a command; return the exit status."""
    arguments = parser().parse_args(argv)
    try:
        match arguments.command:
            case "probe":
                return show_probe(arguments)
            case "compare":
                return show_comparison(arguments.a, arguments.b, arguments.output)
            case "replicate":
                return show_replicate(arguments)
            case "surface":
                return show_surface(arguments.planes, arguments.plane, arguments.log, arguments.output)
            case "data":
                return show_data(arguments.config, arguments.cores)
            case "plan":
                return show_plan(arguments)
            case "claims":
                return show_claims(arguments.config, arguments.all)
        print(options_schema() if arguments.schema else options(), end="")
        return 0
    except ValleysError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except PermissionError as error:
        from valleys.execution.jobs import denied

        print(f"error: {' '.join(denied(error).split())}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if (error.name or "valleys").partition(".")[0] == "valleys":
            raise
        print(
            f"error: {arguments.command} needs the package {error.name}; install valleys with its extras: "
            "pip install '.[cli]', or '.[workflow]' for plan",
            file=sys.stderr,
        )
        return 1


def show_probe(arguments: argparse.Namespace) -> int:
    """Probe given weights; print the verdict and where tables and figure are."""
    from functools import partial

    from valleys.cli.probe import probe, verdict
    from valleys.cli.requests import PROBE_KEYS, parse_block, request
    from valleys.config.schema import check_writable
    from valleys.execution import jobs

    given = {key: getattr(arguments, key) for key in PROBE_KEYS}
    if arguments.search is not None:
        given["search"] = parse_block(arguments.search, "seek", "search")
    refresh = {"method": arguments.bn_method, "batch_size": arguments.batch_size}
    wanted = request(
        arguments.direction,
        {key: value for key, value in given.items() if value is not None},
        parse_block(arguments.loss, "name", "loss"),
        {key: value for key, value in refresh.items() if value is not None},
        {} if arguments.c is None else {"c": arguments.c},
    )
    if arguments.device not in ("auto", "cpu", "cuda"):
        raise ValleysError(f"--device: {arguments.device!r} is none; choose from auto, cpu, cuda")
    if arguments.threads is not None:
        if not 1 <= arguments.threads <= 4096:
            raise ValleysError(f"--threads: {arguments.threads} is not a whole number >= 1 (at most 4096)")
        jobs.set_threads(arguments.threads)
    check_writable(arguments.out)
    from tqdm import tqdm

    # On a terminal only: a log would get a line for each state of the bar.
    quiet = True if arguments.quiet else None
    bar = partial(tqdm, total=wanted.block["n"], unit="direction", disable=quiet)
    found = probe(
        arguments.weights,
        arguments.data,
        arguments.model,
        wanted,
        arguments.out,
        seed=arguments.seed,
        device=arguments.device,
        progress=bar,
        search_progress=partial(tqdm, unit="step", disable=quiet),
    )
    print(f"read {shown(found.read)}")
    print(shown(verdict(found)))
    print(f"tables: {found.folder / 'tables'}; figure: {found.figure}")
    return 0


def show_claims(config: Path, every_row: bool = False) -> int:
    """Print the twelve verdicts, or every row judged, and the report's path of a config file's experiment."""
    from valleys import claims
    from valleys.config.reading import load
    from valleys.storage import tables

    name = load(config).get("name")
    if not isinstance(name, str) or not name:
        raise ValleysError(f"config file {config}: name: {name!r} is not the name of an experiment")
    root = Path("results") / name
    table, as_text = ("claims", claims.as_text) if every_row else ("verdicts", claims.verdicts_as_text)
    print(shown(as_text(tables.read(root / "tables" / f"{table}.parquet", table).to_pandas())))
    print(f"\nreport: {root / 'report.html'}")
    if not every_row:
        print(f"all rows: valleys claims {config} --all")
    return 0


def show_comparison(a: Path, b: Path, output: Path | None) -> int:
    """Print two finished experiments side by side; write the rows to `output` if one is given."""
    from valleys.report import agreement, compare

    if output is not None:
        compare.check_output(output)
    left, right = compare.load(a), compare.load(b)
    rows = compare.compare(left, right)
    found = agreement.agree(left.verdicts, right.verdicts)
    if output is not None:
        compare.write(output, left, right, rows)
    print(shown(agreement.as_text(found)) + "\n")
    print(shown(compare.as_text(left, right, rows)))
    if output is not None:
        print(f"\nwritten to {output}")
    return 0


def show_surface(planes: Path, name: str | None, log: bool | None, output: Path | None) -> int:
    """Write planes of a run as one HTML page; print its path."""
    from valleys.cli import surface

    page, left_out = surface.write(planes, output, name, log)
    print(page)
    for line in left_out:
        print(shown(f"left out: {line}"))
    return 0


def show_replicate(arguments: argparse.Namespace) -> int:
    """Run an experiment again on fresh seeds; print the verdicts of both, claim by claim."""
    import subprocess

    from valleys.config import replicas
    from valleys.costs import plan
    from valleys.report import agreement

    cores = arguments.cores
    _workflow("replicate", cores)
    seeds = None if arguments.seeds is None else replicas.parse_seeds(arguments.seeds)
    made = replicas.write(arguments.config, seeds, arguments.name)
    first = None if arguments.dry_run else agreement.verdicts_of(made.first)  # before hours of work
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(plan.SNAKEFILE), "--cores", cores]
    command += ["--configfile", str(made.config), *(["--dry-run"] if arguments.dry_run else [])]
    status = subprocess.run([*command, *arguments.arguments], check=False).returncode
    if status or first is None:
        return status
    found = agreement.agree(first, agreement.verdicts_of(made.folder))
    print(f"A: {made.first}\nB: {made.folder}\n")
    print(shown(agreement.as_text(found)))
    return 0


def _workflow(command: str, cores: str | None) -> None:
    """Check that there is a workflow to work with, and that `cores`, if given, is a number or ``all``."""
    from valleys.costs import plan

    if not plan.SNAKEFILE.is_file():
        raise ValleysError(
            f"{command}: there is no workflow at {plan.SNAKEFILE.parent}; it needs a clone of the repository"
        )
    if cores is not None and cores != "all" and not (cores.isdecimal() and int(cores) > 0):
        raise ValleysError(f"--cores: {cores!r} is not a whole number >= 1, nor 'all'")


def show_data(config: Path, cores: str) -> int:
    """Fetch, prepare and check the data sets of a config file; print a line on each."""
    from functools import partial

    from valleys.cli import data

    _workflow("data", cores)
    problems = data.prepare(config, cores, partial(print, flush=True))
    for line in problems:
        print(f"error: {' '.join(line.split())}", file=sys.stderr)
    return int(bool(problems))


def show_plan(arguments: argparse.Namespace) -> int:
    """Print the plan of the experiment in a config file."""
    import os

    from valleys.costs import plan, plan_text

    cores, profile = arguments.cores, arguments.profile
    _workflow("plan", cores)
    number = os.cpu_count() if cores == "all" else int(cores) if cores else None
    limit = None if profile is None else plan.memory_limit(profile)
    local = number is not None and profile is None
    found = plan.make(
        arguments.config, arguments.targets, local=local, measure=arguments.measure, limit_mb=limit
    )
    print(shown(plan_text.as_text(found, number)))
    if found.refused:
        print(f"error: {shown(found.refused)}", file=sys.stderr)
    return int(bool(found.refused))


def options_schema() -> str:
    """Return what editors know of data sources, architectures and direction kinds, as YAML."""
    import yaml

    from valleys.config import schema

    plain = json.loads(json.dumps(schema.options_schema()))  # nothing shared, which YAML would mark
    return yaml.safe_dump(plain, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)


def options() -> str:
    """Return the tables of data sources, architectures and direction kinds as Markdown."""
    from valleys.data.options import COMMON_OPTIONS, DATASET_OPTIONS
    from valleys.data.tasks import TASKS
    from valleys.landscape.kinds import GROUPS, KINDS
    from valleys.models.options import ARCHS, OPTIONS

    lines = ["# Options", "", "Made by `python -m valleys options`; every other key is described in"]
    lines += ["`workflow/schemas/config.schema.yaml`.", "", "## Data sources (`datasets.<name>.source`)", ""]
    for name, source in DATASET_OPTIONS.items():
        lines += [f"**`{name}`**: {source.description}", ""]
        for key, option in source.options.items():
            default = "required" if option.required else f"default {option.default}"
            lines.append(f"- `{key}` ({option.kind}, {default}): {option.help}")
        lines.append("")
    lines += ["All sources take:", ""]
    lines += [f"- `{key}` ({o.kind}, default {o.default}): {o.help}" for key, o in COMMON_OPTIONS.items()]
    lines += ["", "## Tasks (`datasets.<name>.task`)", ""]
    for name, task in TASKS.items():
        losses = ", ".join(f"`{loss}`" for loss in task.losses)
        archs = "" if task.archs else " The network is a factory's."
        lines.append(f"- **`{name}`**: {task.description}. Losses: {losses}, or a factory's.{archs}")
    takers = [f"`{name}`" for name, source in DATASET_OPTIONS.items() if source.tasks]
    lines += ["", f"Sources of all tasks: {', '.join(takers)}; the others have images with a class each.", ""]
    lines += ["## Architectures (`models.<name>.arch`)", ""]
    for name, arch in ARCHS.items():
        given = ", ".join(f"{key} {value}" for key, value in arch.options.items())
        lines.append(f"- **`{name}`**: {arch.description}. Options and defaults: {given}.")
    lines.append("")
    lines += [f"- `{key}` ({option.wanted()}): {option.help}" for key, option in OPTIONS.items()]
    lines += ["", "## Directions (`probes.<name>.kind`)", ""]
    lines += [f"- **`{name}`**: {kind.help}" for name, kind in KINDS.items()]
    lines += ["", f"Parameter groups (`group`): {', '.join(f'`{g}`' for g in GROUPS)}.", ""]
    return "\n".join(lines)

"""``python -m valleys``: look at weights; compare, replicate, plan and draw runs; print what they say."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from valleys.cli.arguments import parser
from valleys.errors import ValleysError, shown

#: The environment variable that has a run of Snakemake leave the verdicts to who started it: it is ``later``.
VERDICTS = "VALLEYS_VERDICTS"


def main(argv: list[str] | None = None) -> int:
    """Run a command; return the exit status.

    Where a reader has seen enough, as ``head`` has, it is 1 and nothing is said, as Python's manual has it.
    """
    try:
        try:
            return _run(parser().parse_args(argv))
        finally:
            sys.stdout.flush()  # where it is caught: at its end Python would print a traceback
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be flushed
        return 1


def _say(line: str) -> None:
    """Print a line about an error, if somebody reads."""
    with contextlib.suppress(BrokenPipeError):
        print(f"error: {line}", file=sys.stderr, flush=True)


def _run(arguments: argparse.Namespace) -> int:
    try:
        match arguments.command:
            case "probe":
                return show_probe(arguments)
            case "path":
                return show_path(arguments)
            case "compare":
                return show_comparison(arguments.a, arguments.b, arguments.output)
            case "replicate":
                return show_replicate(arguments)
            case "surface":
                return show_surface(arguments.planes, arguments.plane, arguments.log, arguments.output)
            case "figure":
                return show_figure(arguments)
            case "data":
                return show_data(arguments.config, arguments.cores)
            case "plan":
                return show_plan(arguments)
            case "claims":
                return show_claims(arguments.config, arguments.all)
        print(options_schema() if arguments.schema else options(), end="")
        return 0
    except ValleysError as error:
        _say(" ".join(str(error).split()))
        return 1
    except PermissionError as error:
        from valleys.execution.jobs import denied

        _say(" ".join(denied(error).split()))
        return 1
    except ModuleNotFoundError as error:
        if (error.name or "valleys").partition(".")[0] == "valleys":
            raise
        _say(
            f"{arguments.command} needs the package {error.name}; install valleys with its extras: "
            "pip install '.[cli]', or '.[workflow]' for plan"
        )
        return 1


def show_probe(arguments: argparse.Namespace) -> int:
    """Probe given weights; print the verdict and where tables and figure are."""
    from functools import partial

    from valleys.cli.probe import probe, verdict
    from valleys.cli.requests import PROBE_KEYS, parse_block, request

    given = {key: getattr(arguments, key) for key in PROBE_KEYS}
    if arguments.search is not None:
        given["search"] = parse_block(arguments.search, "seek", "search")
    wanted = request(
        arguments.direction,
        {key: value for key, value in given.items() if value is not None},
        parse_block(arguments.loss, "name", "loss"),
        _bn_refresh(arguments),
        {} if arguments.c is None else {"c": arguments.c},
    )
    _check_run(arguments)
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
        curvature=arguments.curvature,
        progress=bar,
        search_progress=partial(tqdm, unit="step", disable=quiet),
    )
    print(f"read {shown(found.read)}")
    print(shown(verdict(found)))
    print(f"tables: {found.folder / 'tables'}; figure: {found.figure}")
    return 0


def show_path(arguments: argparse.Namespace) -> int:
    """Measure the line between given weights; print its barrier and where table and figure are."""
    from functools import partial

    from valleys.cli.path import join, verdict
    from valleys.cli.requests import PATH_KEYS, parse_block, path_request

    given = {key: getattr(arguments, key) for key in PATH_KEYS}
    wanted = path_request(
        {key: value for key, value in given.items() if value is not None},
        parse_block(arguments.loss, "name", "loss"),
        _bn_refresh(arguments),
        arguments.threshold,
    )
    _check_run(arguments)
    from tqdm import tqdm

    found = join(
        arguments.weights,
        arguments.to,
        arguments.data,
        arguments.model,
        wanted,
        arguments.out,
        device=arguments.device,
        progress=partial(tqdm, unit="point", disable=True if arguments.quiet else None),
    )
    for line in found.read:
        print(f"read {shown(line)}")
    print(shown(verdict(found)))
    print(f"table: {found.table}; figure: {found.figure}")
    return 0


def _bn_refresh(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what was given of the block ``bn_refresh``."""
    given = {"method": arguments.bn_method, "batch_size": arguments.batch_size}
    return {key: value for key, value in given.items() if value is not None}


def _check_run(arguments: argparse.Namespace) -> None:
    """Check device, threads and output folder, and set the threads."""
    from valleys.config.schema import check_writable
    from valleys.execution import jobs

    if arguments.device not in ("auto", "cpu", "cuda"):
        raise ValleysError(f"--device: {arguments.device!r} is none; choose from auto, cpu, cuda")
    if arguments.threads is not None:
        if not 1 <= arguments.threads <= 4096:
            raise ValleysError(f"--threads: {arguments.threads} is not a whole number >= 1 (at most 4096)")
        jobs.set_threads(arguments.threads)
    check_writable(arguments.out)


def show_claims(config: Path, every_row: bool = False) -> int:
    """Print the twelve verdicts, or every row judged, and the report's path of a config file's experiment."""
    from valleys.config.reading import load

    name = load(config).get("name")
    if not isinstance(name, str) or not name:
        raise ValleysError(f"config file {config}: name: {name!r} is not the name of an experiment")
    root = Path("results") / name
    print(verdicts_of(root, every_row))
    if not every_row:
        print(f"all rows: valleys claims {config} --all")
    return 0


def verdicts_of(root: Path, every_row: bool = False) -> str:
    """Return the twelve verdicts of a finished run, or every row judged, and its report's path.

    Where seeds were added until claims were decided, also at which look that stopped.

    Raises
    ------
    ValleysError
        When the table cannot be read.
    """
    from valleys import claims
    from valleys.claims import looks
    from valleys.storage import tables

    table, as_text = ("claims", claims.as_text) if every_row else ("verdicts", claims.verdicts_as_text)
    path, looked = (root / "tables" / f"{name}.parquet" for name in (table, "looks"))
    rows, config = tables.read(path, table).to_pandas(), tables.about(path)["config"] or {}
    text = as_text(rows, config.get("claims", {}).get("level", 0.95))
    if looked.is_file() and _same_seeds(tables.about(looked)["config"] or {}, config):
        text += f"\n\n{looks.as_text(tables.read(looked, 'looks').to_pandas())}"
    return f"{shown(text)}\n\nreport: {root / 'report.html'}"


def _same_seeds(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two tables are of the same seeds and levels, and not one of an earlier config."""
    return all(one.get(key) == other.get(key) for key in ("seeds", "claims"))


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


def show_figure(arguments: argparse.Namespace) -> int:
    """Draw a figure of a run for a paper; print the paths of its files."""
    from valleys.cli import figure

    given = {key: getattr(arguments, key) for key in figure.STYLE_KEYS}
    style = {key: value for key, value in given.items() if value is not None}
    for path in figure.write(arguments.results, arguments.name, style, arguments.output, arguments.panel):
        print(path)
    return 0


def show_replicate(arguments: argparse.Namespace) -> int:
    """Run an experiment again on fresh seeds; print the verdicts of both, claim by claim."""
    import os
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
    environment = {**os.environ, VERDICTS: "later"}
    status = subprocess.run([*command, *arguments.arguments], env=environment, check=False).returncode
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
    from valleys.costs import plan, plan_text

    cores, profile = arguments.cores, arguments.profile
    _workflow("plan", cores)
    number = os.cpu_count() if cores == "all" else int(cores) if cores else None
    limit = None if profile is None else plan.memory_limit(profile)
    local = number is not None and profile is None
    refused: dict[str, None] = {}
    for i, (heading, targets) in enumerate(plan.bounds(arguments.config, arguments.targets)):
        found = plan.make(arguments.config, targets, local=local, measure=arguments.measure, limit_mb=limit)
        print(
            "\n" * bool(i) + (f"{heading}\n\n" if heading else "") + shown(plan_text.as_text(found, number))
        )
        refused |= {found.refused: None} if found.refused else {}
    for line in refused:
        print(f"error: {shown(line)}", file=sys.stderr)
    return int(bool(refused))


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

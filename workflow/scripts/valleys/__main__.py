"""``python -m valleys``: what a run will take, the claims of a finished one, the options a config may use."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from valleys.errors import ValleysError


def main(argv: list[str] | None = None) -> int:
    """Run a command; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m valleys", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    claims = commands.add_parser("claims", help="print the claims table of a finished run")
    claims.add_argument("config", type=Path, help="the run's config file")
    commands.add_parser("options", help="print data sources, architectures and directions (docs/options.md)")
    plan = commands.add_parser("plan", help="print jobs, core-hours, GPU-hours, memory and disk of a run")
    plan.add_argument("config", type=Path, help="the run's config file")
    plan.add_argument("targets", nargs="*", help="files or experiments by name (default: everything)")
    plan.add_argument("--cores", help="cores to divide the work by: a number, or all there are")
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "options":
            print(options(), end="")
            return 0
        if arguments.command == "plan":
            return show_plan(arguments.config, arguments.targets, arguments.cores)
        return show_claims(arguments.config)
    except ValleysError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def show_claims(config: Path) -> int:
    """Print the claims table and the report's path of the experiment that a config file names."""
    import yaml

    from valleys import claims, tables

    try:
        name = yaml.safe_load(config.read_text(encoding="utf-8"))["name"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ValleysError(f"config file {config} cannot be read or has no name ({reason})") from error
    root = Path("results") / str(name)
    print(claims.as_text(tables.read(root / "tables" / "claims.parquet", "claims").to_pandas()))
    print(f"\nreport: {root / 'report.html'}")
    return 0


def show_plan(config: Path, targets: list[str], cores: str | None) -> int:
    """Print the plan of the experiment in a config file."""
    import os

    from valleys import plan

    if not plan.SNAKEFILE.is_file():
        raise ValleysError(
            f"plan: there is no workflow at {plan.SNAKEFILE.parent}; it needs a clone of the repository"
        )
    if cores is not None and cores != "all" and not (cores.isdigit() and int(cores) > 0):
        raise ValleysError(f"--cores: {cores!r} is not a whole number >= 1, nor 'all'")
    number = os.cpu_count() if cores == "all" else int(cores) if cores else None
    print(plan.make(config, targets, local=number is not None).as_text(number))
    return 0


def options() -> str:
    """Return the tables of data sources, architectures and direction kinds as Markdown."""
    from valleys.arch_options import ACTIVATIONS, ARCHS, NORM_INITS, NORMS
    from valleys.dataset_options import COMMON_OPTIONS, DATASET_OPTIONS
    from valleys.direction_kinds import GROUPS, KINDS

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
    lines += ["", "## Architectures (`models.<name>.arch`)", ""]
    for name, arch in ARCHS.items():
        given = ", ".join(f"{key} {value}" for key, value in arch.options.items())
        lines.append(f"- **`{name}`**: {arch.description}. Options and defaults: {given}.")
    lines += ["", f"`norm`: {', '.join(NORMS)}. `activation`: {', '.join(ACTIVATIONS)}."]
    lines += [f"`norm_init`: {', '.join(NORM_INITS)}.", "", "## Directions (`probes.<name>.kind`)", ""]
    lines += [f"- **`{name}`**: {text}" for name, text in KINDS.items()]
    lines += ["", f"Parameter groups (`group`): {', '.join(f'`{g}`' for g in GROUPS)}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

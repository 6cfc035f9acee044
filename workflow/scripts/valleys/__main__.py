"""``python -m valleys claims CONFIG``: print the claims of a finished run and where its report is."""

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
    arguments = parser.parse_args(argv)
    try:
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
        raise ValleysError(f"config file {config} cannot be read or has no name: {error}") from error
    root = Path("results") / str(name)
    print(claims.as_text(tables.read(root / "tables" / "claims.parquet", "claims").to_pandas()))
    print(f"\nreport: {root / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Read a config file, as it stands there: neither checked nor with defaults."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from valleys.config.schema import check_plain, read_yaml
from valleys.errors import ValleysError
from valleys.storage import files


def load(path: str | Path) -> dict[str, Any]:
    """Read a config file, as it stands there: neither checked nor with defaults.

    Raises
    ------
    ValleysError
        When it cannot be read, is no YAML mapping in UTF-8, or has a key twice.
    """
    where = f"config file {path}"
    files.check_regular(path, "config file", "give the path of a YAML file")
    check_plain(path)
    try:
        found = read_yaml(Path(path).read_text(encoding="utf-8"), where)
    except UnicodeDecodeError as error:
        raise ValleysError(f"{where} cannot be read: it is not UTF-8 ({error}); save it as UTF-8") from error
    except OSError as error:
        raise ValleysError(
            f"{where} cannot be read ({error.strerror}); give the path of a YAML file"
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split()).replace('in "<unicode string>", ', "in ")
        tabs = "; YAML is indented by spaces, not tabs" if r"'\t'" in reason else ""
        raise ValleysError(f"{where} cannot be read: it is no YAML ({reason}){tabs}") from error
    if not isinstance(found, dict):
        what = "is empty" if found is None else f"holds a {type(found).__name__}"
        raise ValleysError(f"{where} {what}; it must be a mapping of keys, as config.yaml is")
    return found


def check_arguments(words: Sequence[str]) -> None:
    """Check the config files on a command line of Snakemake, which opens them before it reads the Snakefile.

    It takes every word after ``--configfile`` for one, a target too. Pipes can be read once, so they are left
    to it.

    Raises
    ------
    ValleysError
        As `load`, for the first file that is not right.
    """
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--configfile", "--configfiles", nargs="+", default=[], dest="files")
    try:
        names = parser.parse_known_args(list(words))[0].files
    except (argparse.ArgumentError, SystemExit):  # none follow it, which Snakemake says
        return
    for place, name in enumerate(names):
        path = Path(name)
        if place > 0 and not path.is_file():
            before, targets = " ".join(names[:place]), " ".join(names[place:])
            raise ValleysError(
                f"--configfile: {name!r} is no config file; every word after --configfile is taken for one, "
                f"so write a target before it: snakemake {targets} --configfile {before}"
            )
        if path.is_file() or path.is_dir() or not path.exists():
            load(path)

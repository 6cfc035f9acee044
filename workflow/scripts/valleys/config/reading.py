"""Read a config file, as it stands there: neither checked nor with defaults."""

from __future__ import annotations

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

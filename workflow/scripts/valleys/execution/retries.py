"""Which failed jobs another try cannot help: those whose log ends in the one line of an error of ours.

A bad input, or a training that diverges, comes to the same end each time; a time limit, a node or memory may
not. Snakemake tries all of them again, as it does not tell one exit status from another. So the log says it:
`jobs.job` ends it with ``error: ...``, and with `MAY_PASS` behind that where the next try may differ.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from valleys.storage.files import last_line

MAY_PASS = " (may pass, so it is tried again if retries are left)"
_ERROR = re.compile(r"[0-9:]{8} error: (.*)")  # as the formatter of `jobs` writes it
BEHIND = 1.0  # seconds; times of files are those of the last tick, and a virtual machine may miss some ticks


class Failures:
    """What the logs of one run say; those of earlier runs count for nothing."""

    def __init__(self) -> None:
        self._since = time.time() - BEHIND

    def reason(self, log: str | Path) -> str | None:
        """Return why the job with this log cannot succeed; None where it may, or its log does not say."""
        try:
            if Path(log).stat().st_mtime < self._since:
                return None
            found = _ERROR.fullmatch(last_line(log))
        except OSError:
            return None
        return found[1] if found and not found[1].endswith(MAY_PASS) else None

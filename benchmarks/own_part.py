"""Runs a module as ``python -m`` does, and writes which share of its time the workflow's own code took.

    python benchmarks/own_part.py FILE MODULE [ARGUMENT...]

200 times a second the stack of the main thread is looked at, from the innermost call outwards. The first call
found there of a function of this repository, or of Snakemake, has the time. So input functions, params,
resources and the code of the rule files are ours, with what they call, though Snakemake calls them, and each
look counts once. What is neither (Python's start, its end) is counted as Snakemake's.
"""

from __future__ import annotations

import runpy
import signal
import sys
from pathlib import Path
from types import FrameType

SECONDS = 0.005
ROOT = Path(__file__).resolve().parents[1]
OURS = str(ROOT / "workflow"), str(ROOT / "Snakefile")
SNAKEMAKE = "/snakemake"  # the package, and those of its interfaces


class Looks:
    """Counts looks at the stack."""

    def __init__(self) -> None:
        self.all = self.own = 0

    def __call__(self, _: int, frame: FrameType | None) -> None:
        """Look at the stack."""
        self.all += 1
        while frame is not None:
            file = frame.f_code.co_filename
            if file.startswith(OURS):
                self.own += 1
                return
            if SNAKEMAKE in file:
                return
            frame = frame.f_back


def main() -> None:
    """Run the module; write the share when it ends, however it does."""
    into, module, *arguments = sys.argv[1:]
    into = Path(into).resolve()
    sys.argv, sys.path[0] = [module, *arguments], str(Path.cwd())
    looks = Looks()
    signal.signal(signal.SIGALRM, looks)
    signal.setitimer(signal.ITIMER_REAL, SECONDS, SECONDS)
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        into.write_text(str(looks.own / max(looks.all, 1)), encoding="utf-8")


if __name__ == "__main__":
    main()

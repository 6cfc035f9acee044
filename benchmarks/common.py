"""What the benchmarks share: the machine, timing a process, tables, and their place in the docs.

Every script here measures ratios: all that it compares runs in one process or one session, in turns, since
machines are noisy. Rows go to ``benchmarks/results/<name>.parquet``; the table a reader sees is written
between two marks of ``docs/performance.md`` or ``benchmarks/README.md``.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENT = ROOT / "docs" / "performance.md"
PAGES = (DOCUMENT, ROOT / "benchmarks" / "README.md")
LIBRARY = ROOT / "workflow" / "scripts"
sys.path.insert(0, str(LIBRARY))

from valleys.execution.jobs import RSS_UNIT  # noqa: E402


def machine() -> dict[str, Any]:
    """Return what a reader must know of the machine: processor, cores, Python."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
    }


def child(
    command: Sequence[str], cwd: Path, environment: Mapping[str, str] | None = None
) -> tuple[float, float, str]:
    """Run a command; return its seconds, its peak resident MB (of the largest process of it) and its output.

    Raises
    ------
    RuntimeError
        When it fails, with what it printed.
    """
    with (cwd / "output.txt").open("w+b") as output:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode(errors="replace")
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{text[-4000:]}")
    return seconds, used.ru_maxrss * RSS_UNIT / 1e6, text


def save(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows, with the machine's description in each, to the benchmark's Parquet file."""
    RESULTS.mkdir(exist_ok=True)
    table = pd.DataFrame([{**row, **machine()} for row in rows])
    partial = RESULTS / f".{name}.parquet"
    table.to_parquet(partial, index=False)
    partial.replace(RESULTS / f"{name}.parquet")


def rows(name: str) -> list[dict[str, Any]]:
    """Return the rows that `save` wrote last, without the machine's description."""
    table = pd.read_parquet(RESULTS / f"{name}.parquet").drop(columns=list(machine()))
    return table.to_dict("records")


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows of ready text as a Markdown table; the keys of the first are its head."""
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([str(row[key]) for key in head] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def document(name: str, text: str, path: Path | None = None) -> None:
    """Put text between ``<!-- name -->`` and ``<!-- /name -->`` of a page: that of `PAGES` which has them."""
    if path is None:
        path = next((p for p in PAGES if f"<!-- {name} -->" in p.read_text(encoding="utf-8")), DOCUMENT)
    page = path.read_text(encoding="utf-8")
    pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
    page, count = re.subn(pattern, lambda m: f"{m[1]}{text}\n{m[2]}", page, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{path} has no place for {name}: <!-- {name} --> and <!-- /{name} -->")
    partial = path.with_suffix(".partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)


def rounds(arms: Mapping[str, Callable[[], Any]], count: int) -> dict[str, list[float]]:
    """Return the seconds of `count` calls of each arm, in turns; a first call of each is not counted."""
    found: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(count + 1):
        for name, call in arms.items():
            begin = time.perf_counter()
            call()
            if turn:
                found[name].append(time.perf_counter() - begin)
    return found

"""What a machine does in a second, and what starting a job takes on it."""

from __future__ import annotations

import contextlib
import functools
import os
from dataclasses import dataclass, replace
from pathlib import Path

MB = 1e6


@dataclass(frozen=True)
class Machine:
    """One core, or one GPU with the core that feeds it.

    Attributes
    ----------
    flops
        Floating-point operations a second that convolutions reach.
    traffic
        Bytes a second read or written by everything else.
    layer_s
        Seconds to start one operation, whatever its size (Python, dispatch, kernel launch).
    start_s
        Seconds from start to the first image: Python, torch, the device.
    memory_mb
        Main memory of a process that has done so.
    bf16
        Times as fast at convolutions and matrix products in bfloat16; what else there is to do stays.
    """

    flops: float
    traffic: float
    layer_s: float
    start_s: float
    memory_mb: float
    bf16: float = 1.0


#: One core of a 2020s server, all cores busy: fitted to the jobs of the default run.
CPU = Machine(flops=58e9, traffic=13e9, layer_s=38e-6, start_s=2.0, memory_mb=350)
#: A data-centre GPU of 2020 or later in float32. Not measured: nothing here has run on one. So bf16 is priced
#: as float32 there.
GPU = Machine(flops=15e12, traffic=800e9, layer_s=10e-6, start_s=10.0, memory_mb=3500)
#: Of a CPU with instructions for it: fitted to benchmarks/README.md, where wide networks are 1.7 times as
#: fast, and networks of a few channels no faster.
BF16_GAIN = 1.9
BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # in /proc/cpuinfo; the last of ARM, not measured
BF16_CASTS = 0.5  # operations more for each layer: operands are rounded
BF16_CHECKED = (
    2  # points of a curve that are measured in fp32 too, beside offset 0: `adaptive.confirm_precision`
)
#: Share of curves that are then measured again in fp32, by BN policy: 17 of 108, 17 of 176, 110 of 372 of the
#: default run's networks.
BF16_AGAIN = {"refreshed": 0.16, "frozen": 0.10, "none": 0.30}
FORKED_S = 0.3  # seconds to start a job that is forked (`valleys.execution.forkserver`), imports included
IMPORTS_S = 1.0  # of the seconds of a job on tables, what goes to imports that a fork has


def faster_by(machine: Machine, speed: float) -> Machine:
    """Return a machine that is `speed` times as fast."""
    return replace(
        machine,
        flops=machine.flops * speed,
        traffic=machine.traffic * speed,
        layer_s=machine.layer_s / speed,
        start_s=machine.start_s / speed,
    )


@functools.cache
def bf16_gain(cpuinfo: str = "/proc/cpuinfo") -> float:
    """Return how many times as fast this machine's CPU is at products in bfloat16: `BF16_GAIN` or 1.

    On a cluster that is the login node's; its nodes may differ.
    """
    try:
        text = Path(cpuinfo).read_text(encoding="utf-8")
    except OSError:
        return 1.0
    lines = [line for line in text.splitlines() if line.lower().startswith(("flags", "features"))]
    return BF16_GAIN if lines and BF16_FLAGS & set(lines[0].split()) else 1.0


def memory_mb(root: Path = Path("/")) -> float:
    """Return the main memory that this process may use: the machine's, or less where a cgroup says so.

    Parameters
    ----------
    root
        Where the folders ``proc`` and ``sys`` are.
    """
    limits = [float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE")]
    # Of cgroups version 2, those of this process and of all that it is in; of version 1, the outermost.
    found = [root / "sys/fs/cgroup/memory/memory.limit_in_bytes"]
    with contextlib.suppress(OSError, StopIteration):
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        own = Path(next(line[3:] for line in lines if line.startswith("0::")).strip("/"))
        found += [root / "sys/fs/cgroup" / each / "memory.max" for each in (own, *own.parents)]
    for path in found:
        with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
            limits.append(float(path.read_text(encoding="utf-8")))
    return min(limits) / MB

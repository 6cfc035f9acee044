"""What every rule's script does around its work: log file, threads, device, one-line errors; not the work."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import resource
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from valleys.errors import PassingError, ValleysError, shown
from valleys.execution import runs
from valleys.execution.retries import MAY_PASS

RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes of one unit of ``ru_maxrss``
log = logging.getLogger("valleys")


class _Formatter(logging.Formatter):
    """Keeps what a file calls its contents from steering the terminal that shows the log."""

    def format(self, record: logging.LogRecord) -> str:
        return shown(super().format(record))


@contextlib.contextmanager
def job(snakemake: Any) -> Iterator[logging.Logger]:
    """Run a rule's body with progress going to its log file.

    A `ValleysError` is logged as one line, repeated on standard error, and ends the process with status 1.
    Any other exception keeps its traceback, in the log as well. torch, if it is imported later, uses
    as many threads as Snakemake gave the job: results on CPU are bit-identical for one thread count.
    When Snakemake itself is killed the job ends too (`runs.end_with_run`). The log's last line is the memory
    that the job took (`peak_memory`), which plans read.
    """
    path = Path(str(snakemake.log[0]))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    except PermissionError as error:
        sys.exit(f"error in rule {snakemake.rule}: {denied(error)}")
    handler.setFormatter(_Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    set_threads(int(snakemake.threads))
    keep_memory()
    runs.end_with_run()
    try:
        yield log
        log.info("peak memory %.0f MB", peak_memory())
    except (ValleysError, PermissionError) as error:
        line = " ".join((denied(error) if isinstance(error, PermissionError) else str(error)).splitlines())
        line += MAY_PASS if isinstance(error, PassingError) else ""
        log.error("error: %s", line)
        print(f"error in rule {snakemake.rule}: {line}", file=sys.stderr, flush=True)
        sys.exit(1)
    except Exception:
        log.error("%s", traceback.format_exc())
        raise
    finally:
        log.removeHandler(handler)
        handler.close()


def peak_memory() -> float:
    """Return the MB that this process has had resident at most.

    Snakemake's benchmark of a job that the fork server runs is of the program that waits for it.
    """
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT / 1e6


def denied(error: PermissionError) -> str:
    """Return one line for a file or folder that may not be read or written."""
    what = error.filename if error.filename2 is None else f"{error.filename} to {error.filename2}"
    return f"{what or 'a file'}: {error.strerror or error}; give this user the right to read and write it"


def set_threads(threads: int) -> None:
    """Set the thread count of torch (when it gets imported) and of BLAS libraries."""
    # Read by OpenMP and MKL when torch is first imported, which job bodies do after this call.
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def keep_memory() -> None:
    """Tell glibc to keep freed memory: activations come and go by the megabyte, a page fault for every page.

    A no-op where the C library is another.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    m_trim_threshold, m_mmap_threshold, one_gib = -1, -3, 1 << 30  # names and numbers of malloc.h
    mallopt(m_mmap_threshold, one_gib)
    mallopt(m_trim_threshold, one_gib)


def read_split(snakemake: Any, part: str, device: Any) -> Any:
    """Return a job's input ``train`` or ``test`` as a `Split` whose batches are on `device`.

    Where its images take more than ``execution.resident_mb`` they stay in the file.
    """
    from valleys.data.cache import load_split

    limit = snakemake.config["execution"]["resident_mb"]
    return load_split(snakemake.input[part], resident_mb=limit).to(device)


def read_splits(snakemake: Any, device: Any) -> tuple[Any, Any]:
    """Return a job's inputs ``train`` and ``test`` as `read_split` does."""
    return read_split(snakemake, "train", device), read_split(snakemake, "test", device)


def data_checksums(snakemake: Any, parts: tuple[str, ...] = ("train", "test")) -> list[str]:
    """Return the checksums of the parts of the data set that a job reads."""
    from valleys.data.cache import read_metadata

    return [read_metadata(snakemake.input[part])["checksum"] for part in parts]


def pick_device(config: Any) -> Any:
    """Return the torch device of a job: ``execution.device``, where ``auto`` takes a GPU if there is one.

    Raises
    ------
    PassingError
        When ``cuda`` is asked for and there is none: another node may have one.
    """
    import torch

    wanted = config["execution"]["device"]
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise PassingError("config: execution.device: 'cuda' but torch sees no GPU; use 'auto' or 'cpu'")
    return torch.device(wanted)


def compiles(config: Any) -> bool:
    """Whether a job's passes are compiled: ``execution.compile``."""
    return bool(config["execution"]["compile"])


def kernels(device: Any) -> str:
    """Return what decides the last bits on this machine: ``AVX512, 1 thread``, or the GPU's name."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{torch.backends.cpu.get_cpu_capability()}, {threads} thread{'' if threads == 1 else 's'}"


def arithmetic(device: Any, compiled: bool = False) -> str:
    """Return what a job's last bits hang on besides its inputs, for the key of state it may resume from."""
    import torch

    threads = torch.get_num_threads() if torch.device(device).type == "cpu" else 1
    return f"{device}{', compiled' * compiled}{f', {threads} threads' * (threads > 1)}"

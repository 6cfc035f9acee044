"""Files that are whole or absent: atomic writes, digests, files of a user's that are what they should be.

Every artefact is written to a temporary name in its own folder, flushed and renamed, so a reader never
meets half a file. What is in a file is not said here: `weights`, `state` and `tables` have the formats.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import hashlib
import json
import os
import platform
import shutil
import stat
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

from valleys.errors import PassingError, ValleysError

SEAL = "fingerprint"  # of the other metadata
_TAIL = 1 << 16  # bytes of a file that `last_line` reads
#: Files that Hugging Face's ``save_pretrained`` leaves in a folder, in the order in which it looks for them.
_IN_FOLDER = ("model.safetensors", "model.safetensors.index.json")
_IN_FOLDER += ("pytorch_model.bin", "pytorch_model.bin.index.json")
_INDEX = ".index.json"  # ends the name of a list of shards


def check_regular(path: str | Path, what: str = "", wanted: str = "give the path of a file") -> Path:
    """Return a path when there is a regular file: one that can be opened and has an end.

    To open a pipe waits for a writer, and a device such as ``/dev/zero`` never ends.

    Parameters
    ----------
    what
        Is put before the path in the message, as in ``checkpoint``.
    wanted
        Ends the message: what would be right.

    Raises
    ------
    ValleysError
        When the path is absent, or is a folder, pipe, socket or device.
    """
    path, named = Path(path), f"{what} {path}".strip()
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise ValleysError(f"{named} does not exist; {wanted}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValleysError(f"{named} cannot be read ({reason}); {wanted}") from None
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    if not stat.S_ISREG(mode):
        raise ValleysError(f"{named} is {kinds.get(stat.S_IFMT(mode), 'no file')}; {wanted}")
    return path


def split_choice(text: str | Path) -> tuple[Path, str | None]:
    """Return the path of a checkpoint and what is chosen in it: ``last.pt#ema`` is ``last.pt`` and ``ema``.

    A file may have ``#`` in its name: the longest part before one that is there is the path.

    Returns
    -------
    path, choice
        ``~`` is expanded. The choice is None where there is none.
    """
    text = str(text)
    places = [i for i, character in enumerate(text) if character == "#" and i]
    for at in [len(text), *reversed(places)]:
        path = os.path.expanduser(text[:at])  # noqa: PTH111 (Path's raises where there is no such user)
        if os.path.lexists(path):
            return Path(path), None if at == len(text) else text[at + 1 :]
    at = places[0] if places else len(text)
    return Path(os.path.expanduser(text[:at])), text[at + 1 :] if places else None  # noqa: PTH111


def checkpoint_file(path: Path) -> Path:
    """Return the file that a checkpoint's path means: in a folder of Hugging Face's, that with the weights.

    Raises
    ------
    ValleysError
        When it is a folder without such a file.
    """
    if not os.path.isdir(path):  # noqa: PTH112 (Path's raises for a name that is too long)
        return path
    for name in _IN_FOLDER:
        if (path / name).is_file():
            return path / name
    sharded = any(path.glob("*.distcp")) or (path / "latest").exists() or (path / "zero_to_fp32.py").exists()
    hint = "it has shards of FSDP or DeepSpeed: gather them in one file first" if sharded else "give its file"
    raise ValleysError(f"checkpoint {path} is a folder without {' or '.join(_IN_FOLDER[::2])}; {hint}")


def shards(path: Path) -> dict[str, Path]:
    """Return the file of each tensor that an index of shards names; nothing for other files.

    Raises
    ------
    ValleysError
        When the index cannot be read, or names a file that is absent or not beside it.
    """
    if not path.name.endswith(_INDEX):
        return {}
    check_regular(path, "checkpoint")
    try:
        names = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        pairs = [(str(name), str(file)) for name, file in names.items()]
        if not pairs:
            raise ValueError("weight_map is empty")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValleysError(
            f"checkpoint {path} is no index of shards with a weight_map ({type(error).__name__}); fetch it "
            "again"
        ) from error
    for file in dict.fromkeys(file for _, file in pairs):
        if file in ("", ".", "..") or set(file) & set("/\\\0") or file.endswith(_INDEX):
            raise ValleysError(f"checkpoint {path}: shard {file!r} must be the name of a file beside it")
        if not (path.parent / file).is_file():
            raise ValleysError(f"checkpoint {path}: shard {file} is not beside it; fetch all of its shards")
    return {name: path.parent / file for name, file in pairs}


@functools.cache
def boot_id() -> str:
    """Return what names this machine since it booted; where there is no such thing, its host name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return platform.node()


def _remove_strays(path: Path) -> None:
    """Remove temporary files that a killed process of this machine left beside `path`, on the way to it."""
    for stray in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        owner = stray.name.removesuffix(".tmp").rpartition(".")[2]
        boot, _, pid = owner.rpartition("-")
        if boot == boot_id()[:8] and pid.isdigit() and not _exists(int(pid)):
            stray.unlink(missing_ok=True)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it to `path`.

    On any exception the temporary file is removed and `path` is left as it was. What a SIGKILL leaves behind
    is removed when the file is next written on the same machine.

    Raises
    ------
    ValleysError
        When the folder cannot be made or written to, or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_strays(path)
        owner = f".{boot_id()[:8]}-{os.getpid()}.tmp"
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=owner)
        os.close(handle)
    except OSError as error:
        stays = isinstance(error, PermissionError | NotADirectoryError | FileExistsError)
        kind = ValleysError if stays else PassingError
        raise kind(f"cannot write {path}: {error.strerror}; make {path.parent} writable") from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes 0600; a shared results folder wants the usual mode
        temporary.replace(path)
    except OSError as error:
        raise PassingError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def expand(path: str | Path) -> Path:
    """Return a path that a user wrote: ``~`` is the home folder."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (that of pathlib raises for a user it does not know)


def matching(pattern: str) -> list[str]:
    """Return what is there under a path that a user wrote, else what matches it as a pattern, by name.

    A path that exists is itself, whatever it has of ``[``, ``*`` and ``?``.
    """
    path = os.path.expanduser(pattern)  # noqa: PTH111 (the text stays as it is: Snakemake compares it)
    if Path(path).exists():
        return [path]
    return sorted(glob.glob(path, recursive=True))  # noqa: PTH207 (absolute patterns)


def digest(path: str | Path, suffixes: tuple[str, ...] = ()) -> str:
    """Return 16 hexadecimal digits: of a file its size and time of change, of a folder those of its files.

    Nothing is read of a file. Files in a folder count with their paths below it; links are followed, hidden
    files do not count. A network file system is asked by 16 threads, one folder each.

    Parameters
    ----------
    suffixes
        In small letters, of the names that count in a folder; all count where there are none.
    """
    path = Path(path)
    if not path.is_dir():
        about = path.stat()
        return fingerprint([about.st_size, about.st_mtime_ns])

    def within(folder: str) -> tuple[list[tuple[str, int, int]], list[str]]:
        found, below = [], []
        with contextlib.suppress(OSError), os.scandir(folder) as entries:  # the job that reads it will say
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    below.append(entry.path)
                    found.append((entry.path, -1, 0))
                elif not suffixes or entry.name.lower().endswith(suffixes):
                    with contextlib.suppress(OSError):  # a link to nothing
                        about = entry.stat()
                        found.append((entry.path, about.st_size, about.st_mtime_ns))
        return found, below

    every: list[tuple[str, int, int]] = []
    todo, visited = [str(path)], set()
    with ThreadPoolExecutor(16) as pool:
        while todo:
            todo = [
                place for place in todo if os.path.realpath(place) not in visited
            ]  # a link to a folder above
            visited |= set(map(os.path.realpath, todo))
            layers = list(pool.map(within, todo))
            every += [one for found, _ in layers for one in found]
            todo = [place for _, below in layers for place in below]
    start = len(str(path))
    return fingerprint(sorted((name[start:], size, time) for name, size, time in every))


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` in one atomic step (UTF-8)."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def last_line(path: str | Path) -> str:
    """Return the last line of a text file, of which no more than its end is read; "" of an empty one."""
    with Path(path).open("rb") as stream:
        stream.seek(max(0, stream.seek(0, 2) - _TAIL))
        lines = stream.read().decode("utf-8", "replace").splitlines()
    return lines[-1] if lines else ""


def read_svg(path: str | Path) -> str:
    """Read the text of an SVG file.

    Raises
    ------
    ValleysError
        When the file is absent, truncated, or otherwise no whole SVG.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        whole = ElementTree.fromstring(text).tag.rpartition("}")[2] == "svg"
    except OSError as error:
        raise ValleysError(
            f"{path} cannot be read ({error.strerror}); rerun the rule that makes it"
        ) from error
    except (UnicodeDecodeError, ElementTree.ParseError):
        whole = False
    if not whole:
        raise ValleysError(f"{path} is no whole SVG file, truncated or damaged; delete it and rerun")
    return text


def stable_seed(*parts: object) -> int:
    """Return a 63-bit seed that depends on nothing but the text of `parts` (unlike ``hash``)."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def fingerprint(value: object) -> str:
    """Return 16 hexadecimal digits that name a JSON-able value: the key of cached, resumable state."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def publish_folder(source: Path, target: Path) -> None:
    """Move a finished folder to its final name in one rename, replacing what stood there.

    Temporary files that a SIGKILL left in it are removed first.
    """
    for stray in source.glob(".*.tmp"):
        stray.unlink()
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        shutil.rmtree(target)
    source.replace(target)

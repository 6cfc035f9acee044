"""The cache file of a split: written once by rule prepare_dataset, checked whenever it is read."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from valleys.data.on_disk import ImagesOnDisk
from valleys.data.split import Split, Tally, label_problem, shape_problem
from valleys.data.tasks import CLASSIFICATION, said
from valleys.errors import ValleysError
from valleys.storage.files import atomic
from valleys.storage.weights import describe

_FORMAT = "valleys-split-1"
_RESERVED = ("format", "classes", "mean", "std", "checksum")
_TYPES = {torch.uint8: "U8", torch.float32: "F32", torch.int64: "I64"}  # as safetensors call them
_REMEDY = "delete it and rerun prepare_dataset"
RESIDENT_MB = 20_000  # ``execution.resident_mb`` where nobody says
_CHUNK = 1024  # images written at a time
_BLOCK = 1 << 24  # bytes read at a time for a checksum
_LONGEST = "-1.7976931348623157e+308"  # no float of 64 bits is longer
log = logging.getLogger("valleys")


def _sha(metadata: Mapping[str, str], shape: Sequence[int]) -> Any:
    """Return the SHA-256 of the metadata (the checksum aside) and the shape; images and labels follow."""
    described = {key: value for key, value in metadata.items() if key != "checksum"}
    return hashlib.sha256(json.dumps([described, list(shape)], sort_keys=True).encode())


def _checksum(metadata: Mapping[str, str], images: Tensor, labels: Sequence[Tensor]) -> str:
    """Return the SHA-256 over the metadata (the checksum aside), the shape, and all tensors' bytes."""
    digest = _sha(metadata, images.shape)
    for tensor in (images, *labels):
        digest.update(tensor.numpy())
    return digest.hexdigest()


def save_split(path: str | Path, split: Split, metadata: Mapping[str, str] | None = None) -> None:
    """Write ``split`` to one safetensors file, whole or not at all; see `write_split`."""
    write_split(
        path,
        split.labels.cpu(),
        (part.cpu() for part in split.pixels(slice(i, i + _CHUNK) for i in range(0, len(split), _CHUNK))),
        split.images.shape,
        split.classes,
        (split.mean, split.std),
        metadata,
        task=split.task,
    )


def write_split(
    path: str | Path,
    labels: Tensor,
    chunks: Iterable[Tensor],
    shape: Sequence[int],
    classes: int,
    statistics: tuple[Sequence[float] | None, Sequence[float] | None] = (None, None),
    metadata: Mapping[str, str] | None = None,
    clean_labels: Tensor | None = None,
    task: str = CLASSIFICATION,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Write a split to one safetensors file, whole or not at all, without ever holding all of its images.

    The file is written under a temporary name in the same folder, synced, and renamed into place. The same
    split and metadata give the same bytes. The library's own writer wants all images in memory, and orders
    metadata at random; so the few lines of the format are written here.

    Statistics and checksum come first in the file and are known last. So the images are written behind room
    for the longest header that may come, then read once more, for the checksum, and moved up to the header.

    Parameters
    ----------
    labels
        int64 (N,), CPU; or as `Split` has them.
    chunks
        The images in order, uint8 (n, C, H, W), CPU; or inputs of another kind, as `Split` has them.
    shape
        (N, C, H, W), or that of other inputs.
    statistics
        Mean and std, by channel; what is None is that of these images.
    metadata
        Strings to keep beside the tensors, such as the source's options. The keys ``format``, ``classes``,
        ``mean``, ``std``, ``checksum`` and ``task`` are ours.
    clean_labels
        int64 (N,), CPU: the labels before some were made wrong, kept beside them for whoever checks.
    task
        Of `data.tasks.TASKS`.

    Returns
    -------
    mean, std

    Raises
    ------
    ValleysError
        When a label is out of range or the file cannot be written; whatever ``chunks`` raises.
    """
    path, kept = Path(path), {"labels": labels.contiguous()}
    kept |= {} if clean_labels is None else {"clean_labels": clean_labels.contiguous()}
    metadata = dict(metadata or {})
    for key, value in metadata.items():
        if key in (*_RESERVED, "task"):
            raise ValueError(f"the metadata key {key!r} is reserved")
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"metadata must map strings to strings, not {key!r} to {value!r}")
    for values in kept.values():
        if problem := label_problem(values, classes, task):
            raise ValleysError(f"{path} was not written: {problem}")
    metadata |= said(task)
    metadata |= {"format": _FORMAT, "classes": str(classes), "checksum": "0" * 64}
    channels = 0 if task == "tokens" else shape[1]
    statistics = ((), ()) if task == "tokens" else statistics
    expected = ([_LONGEST] * channels if given is None else given for given in statistics)
    metadata |= {key: json.dumps(value) for key, value in zip(("mean", "std"), expected, strict=True)}
    chunks = iter(chunks)
    first = next(chunks)
    tensors = {**{name: (values.dtype, values.shape) for name, values in kept.items()}}
    tensors["images"] = (first.dtype, tuple(shape))
    room = len(_header(metadata, tensors))
    size, tally, written = math.prod(shape) * first.itemsize, Tally(), hashlib.sha256()

    with atomic(path) as temporary, temporary.open("w+b", buffering=0) as file:
        begin = room + sum(values.nbytes for values in kept.values())
        file.seek(begin)
        for chunk in itertools.chain([first], chunks):
            chunk = chunk.contiguous()
            if None in statistics:
                tally.add(chunk)
            written.update(chunk.numpy())
            _write(file, chunk.numpy())
        if file.tell() != begin + size:
            raise ValueError(f"{file.tell() - begin} bytes of images were given for the shape {tuple(shape)}")
        found = tally.statistics() if None in statistics else statistics
        mean, std = (
            tuple(by_channel if given is None else given)
            for by_channel, given in zip(found, statistics, strict=True)
        )
        metadata |= {"mean": json.dumps(mean), "std": json.dumps(std)}
        shift = room - len(_header(metadata, tensors))
        digest, back, at = _sha(metadata, shape), hashlib.sha256(), begin
        while block := os.pread(file.fileno(), min(_BLOCK, begin + size - at), at):
            digest.update(block)
            back.update(block)
            if shift:
                file.seek(at - shift)
                _write(file, block)
            at += len(block)
        if back.digest() != written.digest():
            raise ValleysError(f"{path} was not written: its disk gives back other bytes than it was given")
        file.truncate(begin + size - shift)
        for values in kept.values():
            digest.update(values.numpy())
        metadata["checksum"] = digest.hexdigest()
        file.seek(0)
        _write(file, _header(metadata, tensors))
        for values in kept.values():
            _write(file, values.numpy())  # labels first: their bytes are aligned
    return mean, std


def _header(metadata: Mapping[str, str], tensors: Mapping[str, tuple[torch.dtype, Sequence[int]]]) -> bytes:
    """Return all that precedes the tensors, of these types and shapes in this order, in a file."""
    described, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        described[name] = {"dtype": _TYPES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    about = {"__metadata__": dict(sorted(metadata.items())), **described}
    header = json.dumps(about, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


def _write(file: io.FileIO, content: Any) -> None:
    """Write all of an array or of bytes: one call of the system writes 2 GB at most, or less."""
    left = memoryview(content).cast("B")
    while left:
        left = left[file.write(left) :]


def _open(path: Path) -> tuple[dict[str, str], dict[str, tuple[str, tuple[int, ...]]]]:
    """Read a cache file's metadata, and types and shapes; every failure is a ``ValleysError``."""
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise ValleysError(f"{path} {what}; run prepare_dataset to make it")
    try:
        metadata, described = describe(path)
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValleysError(
            f"{path} is not a whole safetensors file, truncated or damaged ({reason}); {_REMEDY}"
        ) from error
    if set(described) - {"clean_labels"} != {"images", "labels"}:
        raise ValleysError(
            f"{path} holds the tensors {sorted(described)}; a split holds exactly images and labels, or "
            f"clean_labels beside them; {_REMEDY}"
        )
    if metadata.get("format") != _FORMAT:
        raise ValleysError(
            f"{path} has the format {metadata.get('format')!r}, but this version of prepare_dataset writes "
            f"{_FORMAT!r}; {_REMEDY}"
        )
    missing = [key for key in _RESERVED if key not in metadata]
    if missing:
        raise ValleysError(f"{path} lacks the metadata {', '.join(missing)}; {_REMEDY}")
    return metadata, described


def read_metadata(path: str | Path) -> dict[str, str]:
    """Return the metadata of a cache file, the keys of ``save_split`` among them, without its tensors."""
    return _open(Path(path))[0]


def clean_labels(path: str | Path) -> Tensor:
    """Return the labels of a cache file before some were made wrong, int64 (N,); else the labels.

    Raises
    ------
    ValleysError
        When there is no whole cache file.
    """
    described = _open(Path(path))[1]
    with safe_open(path, framework="pt", device="cpu") as file:
        return file.get_tensor("clean_labels" if "clean_labels" in described else "labels").clone()


def _read_resident(path: Path, names: Sequence[str]) -> tuple[Tensor, list[Tensor]]:
    """Read images, and labels by their names, into memory."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            # Copied out of the mapped file, so that no later change to the file reaches us.
            return file.get_tensor("images").clone(), [file.get_tensor(name).clone() for name in names]
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValleysError(
            f"{path} is not a whole safetensors file, truncated or damaged ({reason}); {_REMEDY}"
        ) from error
    except RuntimeError as error:  # torch's word for an allocation that fails
        size = path.stat().st_size / 1e6
        raise ValleysError(
            f"{path} takes {size:.0f} MB, more than there are; lower execution.resident_mb below that, and "
            "it stays in the file that prepare_dataset wrote"
        ) from error


def _on_disk(
    path: Path, names: Sequence[str], shape: tuple[int, ...], most: float
) -> tuple[ImagesOnDisk, list[Tensor]]:
    """Return the images as they lie in the file, and labels by their names."""
    with safe_open(path, framework="numpy") as file:
        labels = [torch.from_numpy(file.get_tensor(name).copy()) for name in names]
    # Images come last, whoever wrote the file (larger types come first), and nothing follows them.
    return ImagesOnDisk(path, path.stat().st_size - math.prod(shape), shape, most), labels


def _is_whole(images: ImagesOnDisk, labels: Sequence[Tensor], metadata: Mapping[str, str]) -> bool:
    """Return whether a file is what its checksum says, or has been found to be (`on_disk`)."""
    if not images.is_checked(metadata["checksum"]):
        log.info("checking %s, %d images: once, until it is written to", images.path, len(images.rows))
        whole = _sha(metadata, images.shape)
        for row in range(len(images.rows)):
            whole.update(images[row].numpy())
        for values in labels:
            whole.update(values.numpy())
        if whole.hexdigest() != metadata["checksum"]:
            return False
        images.keep_checked(metadata["checksum"])
    return True


def load_split(path: str | Path, verify: bool = True, resident_mb: float = math.inf) -> Split:
    """Read a cache file and check it.

    Always checked: that the file is whole, the tensors' names, types and shapes, the statistics, and the
    labels' range. ``verify`` adds the checksum, without which a flipped bit in the images goes unseen.

    Parameters
    ----------
    resident_mb
        Images that take more MB stay in the file, which is checked once and then watched (`on_disk`).

    Raises
    ------
    ValleysError
        On any of these; the line names the file, what is wrong, and what to do.
    """
    path = Path(path)
    metadata, described = _open(path)
    try:
        classes = int(metadata["classes"])
        mean, std = (tuple(float(value) for value in json.loads(metadata[key])) for key in ("mean", "std"))
    except (ValueError, TypeError) as error:
        raise ValleysError(f"{path} has unreadable classes, mean or std ({error}); {_REMEDY}") from error
    kind, shape = described["images"]
    names = [name for name in ("labels", "clean_labels") if name in described]
    as_ours = kind == "U8" and len(shape) == 4 and {described[name] for name in names} == {("I64", shape[:1])}
    if as_ours and math.prod(shape) > resident_mb * 1e6:
        images, found = _on_disk(path, names, shape, resident_mb * 1e6)
        whole = partial(_is_whole, images, found, metadata)
    else:
        images, found = _read_resident(path, names)
        whole = lambda: _checksum(metadata, images, found) == metadata["checksum"]  # noqa: E731
    task = metadata.get("task", CLASSIFICATION)
    problems = (shape_problem(images, values, classes, mean, std, task) for values in found)
    problem = next(filter(None, problems), None)
    if not problem and verify and not whole():
        raise ValleysError(f"{path} is damaged: its contents do not match its SHA-256 checksum; {_REMEDY}")
    problem = problem or next(filter(None, (label_problem(each, classes, task) for each in found)), None)
    if problem:
        raise ValleysError(f"{path}: {problem}; {_REMEDY}")
    return Split(images, found[0], classes, mean, std, task)

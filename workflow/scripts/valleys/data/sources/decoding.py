"""Encoded image files into pixels, with limits on what a file may ask of memory."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from valleys.errors import ValleysError
from valleys.storage import files
from valleys.storage.state import require

if TYPE_CHECKING:
    from PIL import Image
from valleys.data.sources.base import in_order, logger, pieces_of, progress, source_line

# Formats that PIL decodes itself: for others, as EPS, it starts a program.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_MAX_PIXELS = 178_956_970  # of one image, before and after it is resized; PIL's own limit
_TILE = (322, 323)  # TIFF's tags of a tile's width and height, and of the bytes of strips and tiles
_STRIP_BYTES = (279, 325)
_ORIENTATION = 274  # EXIF's tag: 1 is upright, 2 to 8 are turned or mirrored


def _decode(
    source: Any, where: str, size: int | None, grayscale: bool, upright: bool = False
) -> tuple[np.ndarray, bool]:
    """Decode one encoded image (bytes or a path) to uint8 (C, H, W); say whether its EXIF would turn it.

    With ``size`` the shorter side is resized to it (bilinear, antialiased) and the centre square cropped;
    with ``upright`` it is turned before that.
    """
    require("PIL")
    from PIL import Image, ImageOps, UnidentifiedImageError

    encoded = isinstance(source, bytes)
    length = len(source) if encoded else files.check_regular(source, wanted="remove it").stat().st_size
    try:
        with Image.open(io.BytesIO(source) if encoded else source, formats=_FORMATS) as opened:
            _check_size(opened, size, length)
            image, turned = opened, False
            deep = image.mode in ("I", "F") or image.mode.startswith("I;")
            if not deep:
                image = image.convert("L" if grayscale else "RGB")
                turned = _is_turned(opened)  # decoded: PIL has turned a TIFF itself by now
                if turned and upright:
                    image = ImageOps.exif_transpose(image)
    except Exception as error:  # PIL's decoders raise many types on damaged input
        reason = source_line(error)
        if isinstance(error, UnidentifiedImageError):
            reason = f"it is none of {', '.join(_FORMATS)}"
        raise ValleysError(
            f"{where} cannot be decoded as an image ({reason}); replace or remove it"
        ) from error
    if deep:
        raise ValleysError(f"{where} has pixels of mode {image.mode}; convert it to 8 bits a channel")
    if size is not None:
        image = _square(image, size)
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if grayscale else pixels.transpose(2, 0, 1), turned


def _is_turned(image: Image.Image) -> bool:
    """Whether an image's EXIF says that it is not stored upright; one that cannot be read says nothing."""
    try:
        return image.getexif().get(_ORIENTATION) in range(2, 9)
    except Exception:  # whatever PIL's parser raises: the pixels are sound
        return False


def _check_size(image: Image.Image, size: int | None, length: int) -> None:
    """Raise when an image, by its header, takes absurdly much memory to decode or to resize."""
    width, height = image.size
    needs = {f"{width} x {height} pixels": width * height}
    if size is not None and min(width, height) > 0:
        wide, high = (side * size // min(width, height) for side in (width, height))
        needs[f"{width} x {height} pixels, which become {wide} x {high},"] = wide * high
    tags = getattr(image, "tag_v2", {})
    if all(tag in tags for tag in _TILE):
        needs["tiles of {} x {} pixels".format(*(tags[tag] for tag in _TILE))] = math.prod(
            float(tags[tag]) for tag in _TILE
        )
    for what, pixels in needs.items():
        if pixels > _MAX_PIXELS:
            raise ValueError(f"{what} are beyond the limit of {_MAX_PIXELS:,}")
    for tag in _STRIP_BYTES:
        counts = tags.get(tag, ())
        if (most := max(counts if isinstance(counts, tuple) else (counts,), default=0)) > length:
            raise ValueError(f"it declares a strip of {most:,} bytes, beyond the limit of its {length:,}")


def _square(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to ``size`` and crop the centre square, as torchvision's transforms do."""
    from PIL import Image

    width, height = image.size
    short = min(width, height)
    if short != size:
        width, height = (size if side == short else int(size * side / short) for side in (width, height))
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def decoded_images(
    encoded: Iterable[tuple[Any, str]], total: int, what: str, spec: Mapping[str, Any]
) -> Iterator[np.ndarray]:
    """Decode ``total`` images, each given with its name in messages, and yield them some at a time.

    All have the shape of the first. ``spec``: ``size``, ``grayscale``, ``upright`` if it is given, and
    ``workers``, threads that decode.
    """
    upright = spec.get("upright", False)

    def decode(part: Sequence[tuple[Any, str]]) -> list[tuple[np.ndarray, bool]]:
        return [_decode(source, where, spec["size"], spec["grayscale"], upright) for source, where in part]

    shape, first, done, turned = None, "", 0, []
    for part, found in in_order(decode, pieces_of(encoded), spec["workers"]):
        images = [image for image, _ in found]
        turned += [where for (_, is_turned), (_, where) in zip(found, part, strict=True) if is_turned]
        for image, (_, where) in zip(images, part, strict=True):
            if shape is None:
                shape, first = image.shape, where
            if image.shape != shape:
                (_, height, width), (_, height_0, width_0) = image.shape, shape
                raise ValleysError(
                    f"{where} is {width}x{height} pixels but {first} is {width_0}x{height_0}; "
                    f"all must have the same size: set the option 'size'"
                )
        done += len(images)
        progress(done, len(images), total, what)
        yield np.stack(images)
    if turned and not upright:
        logger.warning(
            "%s: %d of %d images have an EXIF orientation, the first %s; it is not applied: set the option "
            "'upright' to true to turn them",
            *(what, len(turned), total, turned[0]),
        )
    if done != total:  # the caller gives exactly `total`
        raise ValleysError(f"{what} gave {done} of the {total} images asked for; is it being written to?")

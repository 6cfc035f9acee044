"""Figures as the page carries them: a small PNG to look at, and the SVG, compressed, to zoom and to save."""

from __future__ import annotations

import base64
import gzip
import io
import re

from PIL import Image

COLOURS = 64
"""Of a PNG in the page. A figure has a dozen, and their shades where lines are smooth."""
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif"
"""Of the page (report.css), and so of the text in SVGs that it shows; a font that the config chose stays."""
_OF_FIGURES = re.compile(r"font-family: 'DejaVu Sans'[^;\"]*")


def shown(png: bytes) -> str:
    """Return a PNG file as a ``data:`` URI, in `COLOURS` colours: a third of its bytes.

    Figures are drawn on white, so nothing is lost with the transparency.
    """
    with Image.open(io.BytesIO(png)) as image:
        few = image.convert("RGB").quantize(
            COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
        )
    file = io.BytesIO()
    few.save(file, "PNG", optimize=True)
    return _uri("image/png", file.getvalue())


def in_font_of_page(svg: str) -> str:
    """Return an SVG whose text is in the page's font, which each reader has."""
    return _OF_FIGURES.sub(f"font-family: {FONTS}", svg)


def drawn(svg: str) -> str:
    """Return an SVG as a ``data:`` URI that browsers show as it is."""
    return _uri("image/svg+xml", svg.encode("utf-8"))


def saved(svg: str) -> tuple[str, int]:
    """Return a compressed SVG (``.svgz``) as a ``data:`` URI, and its bytes: a sixth of the SVG's."""
    data = gzip.compress(svg.encode("utf-8"), mtime=0)
    return _uri("application/gzip", data), len(data)


def size(svg: str) -> tuple[int | None, int | None]:
    """Return the size in CSS pixels that an SVG written by Matplotlib declares in points."""
    tag = re.search(r"<svg\b[^>]*>", svg)
    sizes = [re.search(rf'\b{key}="([\d.]+)pt"', tag[0]) if tag else None for key in ("width", "height")]
    width, height = (round(float(one[1]) * 4 / 3) if one else None for one in sizes)
    return width, height


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"

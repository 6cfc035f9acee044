"""Figures and their captions, drawn from the tables alone, one module a kind of figure."""

from typing import TYPE_CHECKING

from valleys.lazy import names_of

if TYPE_CHECKING:
    from valleys.figures.drawing import (
        KINDS,
        caption,
        draw,
        nothing,
        panels,
        save,
        save_as,
        save_panel,
        save_panels,
        title,
        write,
    )
    from valleys.figures.frames import SETTING, Data, Spec
    from valleys.figures.style import STYLE
    from valleys.figures.wording import number

__getattr__, __dir__, __all__ = names_of(
    __name__,
    {
        "drawing": (
            "KINDS",
            "caption",
            "draw",
            "nothing",
            "panels",
            "save",
            "save_as",
            "save_panel",
            "save_panels",
            "title",
            "write",
        ),
        "frames": ("SETTING", "Data", "Spec"),
        "style": ("STYLE",),
        "wording": ("number",),
    },
)

"""The front door of the library: one object for a user's own network, data and loss."""

from typing import TYPE_CHECKING

from valleys.lazy import names_of

if TYPE_CHECKING:
    from valleys.api.landscape import Landscape

__getattr__, __dir__, __all__ = names_of(__name__, {"landscape": ("Landscape",)})

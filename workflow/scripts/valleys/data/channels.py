"""What ``mean`` and ``std`` of a data set may be. Pure Python: the Snakefile checks them too."""

from __future__ import annotations

from collections.abc import Sequence

from valleys.errors import ValleysError


def check_channels(name: str, key: str, values: Sequence[float], channels: int | None) -> None:
    """Check that ``mean`` or ``std`` has a number for each channel, where it is known how many there are.

    Raises
    ------
    ValleysError
        When it has not.
    """
    if channels not in (None, len(values)):
        raise ValleysError(
            f"datasets.{name}.{key} is {values!r}; it must be {channels} numbers, one a channel"
        )


def check_scale(name: str, key: str, values: Sequence[float]) -> None:
    """Check that ``mean`` or ``std`` of 8-bit pixels is on the scale 0 to 1 that they are brought to first.

    Of numbers in [0, 1] neither can be above 1, whatever the images are.

    Raises
    ------
    ValleysError
        When one is above 1: as a rule it was measured on pixels of 0 to 255.
    """
    if max(values) > 1:
        right = ", ".join(f"{value / 255:.4g}" for value in values)
        raise ValleysError(
            f"datasets.{name}.{key}: {list(values)!r} has numbers above 1, but pixels are divided by 255 "
            f"first; give it on the scale 0 to 1 (divided by 255 it is [{right}])"
        )

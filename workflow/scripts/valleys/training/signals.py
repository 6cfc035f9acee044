"""SIGTERM and SIGINT while training: remembered until a step is done and its state saved."""

from __future__ import annotations

import signal
from typing import Any


class Stopped(SystemExit):
    """SIGTERM or SIGINT arrived and the state has been saved; exit status 128 + signal number."""


class SignalFlag:
    """Remembers SIGTERM and SIGINT so that the loop can save between two steps; restores handlers after."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> SignalFlag:
        """Catch both signals, where this is the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._previous[number] = signal.signal(number, self._receive)
            except ValueError:  # not the main thread (a notebook, a test): no handlers there
                break
        return self

    def _receive(self, number: int, frame: object) -> None:
        self.received = number

    def __exit__(self, *exc: object) -> None:
        """Put back what caught them before."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

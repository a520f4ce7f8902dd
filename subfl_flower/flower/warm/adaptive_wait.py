"""Waits that are short where something has just happened, and as long as Flower's where nothing does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

_SHORTEST_PART = 1 / 15
_PART_OF_THE_TIME_SO_FAR = 1 / 5


class AdaptiveWait:
    """A stand-in for the module `time` in a loop of Flower's, whose waits have fixed lengths.

    The loop waits for different things one after the other, each with a length that tells what it waits for. A wait
    takes a fifth of the time for which the loop has waited for the same thing, between a fifteenth of Flower's length
    and that length. So it adds at most a fifth to what happens soon, and asks a server that has nothing to say no more
    often than Flower does.
    """

    def __init__(self, on_change: Callable[[], None], clock: Any = time) -> None:
        """Count the time from the first wait on.

        Args:
            on_change: called when the loop begins to wait for something else.
            clock: has `monotonic` and `sleep`.
        """
        self._on_change = on_change
        self._clock = clock
        self._longest: float | None = None
        self._since = 0.0

    def sleep(self, longest: float) -> None:
        """Wait for `longest` seconds at most."""
        now = self._clock.monotonic()
        if longest != self._longest:
            self._longest, self._since = longest, now
            self._on_change()
        so_far = now - self._since
        self._clock.sleep(min(longest, max(longest * _SHORTEST_PART, so_far * _PART_OF_THE_TIME_SO_FAR)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clock, name)

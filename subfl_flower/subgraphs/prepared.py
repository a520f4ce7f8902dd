"""Arrays of some clients that are prepared once for all rounds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Prepared(Generic[T]):
    """Things that are prepared for sets of clients, by their positions in a cohort.

    Where other clients take part in each round, other sets come together each time. The sets that were used last are
    kept, with twice as many clients together as the cohort has: each client alone, and all of them in chunks. Threads
    may prepare different sets at the same time.

    Args:
        clients: number of clients of the cohort.
    """

    def __init__(self, clients: int) -> None:
        self._most = 2 * clients
        self._kept: dict[tuple[int, ...], tuple[Hashable, T]] = {}
        self._lock = threading.Lock()

    def of(self, positions: tuple[int, ...], make: Callable[[], T], version: Hashable = None) -> T:
        """The thing of some clients, made where it is new or of another version.

        Args:
            positions: of the clients.
            make: prepares it.
            version: of what it is made of.
        """
        with self._lock:
            found = self._kept.pop(positions, None)
            if found is not None and found[0] == version:
                self._kept[positions] = found  # now the last one
                return found[1]
        made = make()
        with self._lock:
            self._kept[positions] = version, made
            while sum(map(len, self._kept)) > self._most and len(self._kept) > 1:
                self._kept.pop(next(iter(self._kept)))
        return made

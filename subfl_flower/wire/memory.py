"""How the process asks the system for memory."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST = 2**31 - 1


_MUCH = 2**28
"""Bytes of which a second copy is worth the time that fresh pages take."""


@cache
def keep_freed_memory() -> None:
    """Let glibc keep large blocks when they are freed, instead of handing each back to the system.

    Every round allocates and frees the same stacks of tens of MB. Fresh pages for them, which the system must clear
    one by one, cost more than the copies that fill them: a quarter of a FedAvg round of 50 clients on Cora. Does
    nothing where the C library is not glibc.
    """
    if (library := _glibc()) is not None:
        library.mallopt(_M_MMAP_THRESHOLD, _LARGEST)
        library.mallopt(_M_TRIM_THRESHOLD, _LARGEST)


def hand_back_freed_memory(freed: int) -> None:
    """Hand `freed` bytes back to the system after all, where they are many and lie in pieces that nothing fits into."""
    if freed >= _MUCH and (library := _glibc()) is not None:
        library.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is glibc."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL("libc.so.6")
        return library if library.mallopt and library.malloc_trim else None
    except (OSError, AttributeError):
        return None

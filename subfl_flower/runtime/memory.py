"""How the process asks the system for memory."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST = 2**31 - 1


@cache
def keep_freed_memory() -> None:
    """Let glibc keep large blocks when they are freed, instead of handing each back to the system.

    Every round allocates and frees the same stacks of tens of MB. Fresh pages for them, which the system must clear
    one by one, cost more than the copies that fill them: a quarter of a FedAvg round of 50 clients on Cora. Does
    nothing where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGEST)
    mallopt(_M_TRIM_THRESHOLD, _LARGEST)

"""The cores of a process: how many it may use, and their share among the clients that it works.

`runtime.threads` cores work as many chunks of clients side by side, each with one of PyTorch's threads. Where a node
has fewer clients than cores, the rest of the cores is used inside a step, as PyTorch does by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from subfl_flower.config import Runtime
from subfl_flower.node.iteration import SideBySide

_own: int | None = None
"""PyTorch's threads in this process before a node changed them."""


def cores_of(runtime: Runtime) -> int:
    """Number of cores that a process works clients with.

    ``auto`` is what the runtime gives a process, else the number of threads that PyTorch had at the beginning of the
    run: all cores, or fewer if ``OMP_NUM_THREADS`` or `torch.set_num_threads` says so.
    """
    global _own
    if runtime.threads != "auto":
        return runtime.threads
    if _own is None:
        _own = torch.get_num_threads()
    return runtime.threads_per_process or _own


def shared_among(cores: int, clients: int) -> SideBySide:
    """Divide cores among clients that may be worked at the same time.

    Args:
        cores: of the process.
        clients: largest number of clients, or of other parts, that work on their own.
    """
    workers = max(1, min(cores, clients))
    return SideBySide(workers, max(1, cores // workers))


@contextmanager
def threads_given_back() -> Iterator[None]:
    """Give PyTorch's threads back as they were before the block; inside, ``runtime.threads=auto`` is their number."""
    global _own
    outer, before = _own, torch.get_num_threads()
    _own = before
    try:
        yield
    finally:
        _own = outer
        torch.set_num_threads(before)

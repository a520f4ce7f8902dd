"""The order in which the clients of a node are worked: an exchangeable part.

A way to iterate takes batches, each small enough to be worked at once, and the work on one of them. All ways give the
same result; `one_by_one` is the plain one, for debugging and for tests of the others. Clients of different sizes are
padded to the largest one of their batch, which may change the rounding of sums.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from subfl_flower.wire.batch import Batch, Result

Work = Callable[[Batch], Result]
Iteration = Callable[[Sequence[Batch], Work], Result]

_PATIENCE = 1.0
"""Seconds after which a thread is interrupted once more."""


def in_chunks(batches: Sequence[Batch], work: Work) -> Result:
    """Work batch by batch; a batch that fails is repeated client by client, to find the client that failed."""
    return Result.joined([part for batch in batches for part in _worked(batch, work)])


def one_by_one(batches: Sequence[Batch], work: Work) -> Result:
    """Work client by client."""
    return in_chunks([batch.take([place]) for batch in batches for place in range(len(batch))], work)


@dataclass(frozen=True)
class SideBySide:
    """Work several batches at a time, each in a thread; results and failures are in the order of the batches.

    PyTorch computes without the interpreter's lock, so that threads use as many cores. Where the caller is interrupted,
    the threads stop, too.

    Attributes:
        workers: largest number of threads.
        inner: PyTorch's threads in each of them.
    """

    workers: int
    inner: int = 1

    def __call__(self, batches: Sequence[Batch], work: Work) -> Result:
        """Work all batches, as `in_chunks` does."""
        workers = min(self.workers, len(batches))
        if workers < 2:
            return in_chunks(batches, work)
        pile = _Pile(batches, work, self.inner)
        crew = [_Worker(pile) for _ in range(workers)]
        for worker in crew:
            worker.start()
        try:
            for worker in crew:
                worker.ended.wait()
        except BaseException:
            for worker in crew:
                worker.interrupt()
            raise
        return Result.joined(pile.parts())


class _Pile:
    """Batches of which several threads take one after the other."""

    def __init__(self, batches: Sequence[Batch], work: Work, inner: int) -> None:
        self._batches, self._work, self._inner = batches, work, inner
        self._next, self._lock = 0, threading.Lock()
        self._found: dict[int, list[Result]] = {}
        self._error: BaseException | None = None

    def work(self) -> None:
        """Work batches in this thread until none is left."""
        try:
            torch.set_num_threads(self._inner)  # holds for this thread, and for threads that begin later
            while (place := self._taken()) is not None:
                self._found[place] = _worked(self._batches[place], self._work)
        except BaseException as error:
            self._error = error

    def parts(self) -> list[Result]:
        """The results in the order of the batches; raises what no client's failure explains."""
        if self._error is not None:
            raise self._error
        return [part for place in sorted(self._found) for part in self._found[place]]

    def _taken(self) -> int | None:
        with self._lock:
            place, self._next = self._next, self._next + 1
        return place if place < len(self._batches) and self._error is None else None


class _Worker(threading.Thread):
    """A thread that works a pile of batches.

    Attributes:
        ended: set at its end. Python 3.11 takes a thread for ended whose ``join`` was interrupted.
    """

    def __init__(self, pile: _Pile) -> None:
        super().__init__(daemon=True)
        self._pile, self.ended = pile, threading.Event()

    def run(self) -> None:
        """Work, and say when it is done."""
        try:
            self._pile.work()
        finally:
            self.ended.set()

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in the thread, as Ctrl-C does in the main one, and wait for its end."""
        while not self.ended.is_set():
            if self.ident is None:  # it was never started
                return
            thread = ctypes.c_ulong(self.ident)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(KeyboardInterrupt))
            self.ended.wait(_PATIENCE)  # a client's code may have caught the first one


def _worked(batch: Batch, work: Work) -> list[Result]:
    try:
        return [work(batch)]
    except Exception as error:
        if len(batch) > 1:
            return [part for place in range(len(batch)) for part in _worked(batch.take([place]), work)]
        return [Result(failures={batch.clients[0]: f"{type(error).__name__}: {error}"})]

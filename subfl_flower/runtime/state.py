"""What is personal to a client and stays between rounds: optimiser moments, masks, the best model so far.

A cohort's state is one flat float32 buffer; by name it is seen as stacks [clients, ...]. Where the buffer lives is the
only difference between the stores:

- `MemoryStore`: in the process. For a runtime that stays in one process.
- `MappedStore`: a file mapped into memory. Whichever of a machine's processes gets a node's next message goes on in the
  same pages; nothing is sent.
- `ContextStore`: in Flower's ``Context.state``, which travels with every message: for actors on several machines.

A client is worked on in a copy of its rows, which replaces them when the work has succeeded: a client that fails
keeps the state that it had. A row is marked while it is replaced; a process killed in that moment leaves the mark,
and the state is then refused instead of used half-written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, RecordDict
from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]

_FRESH, _READY, _BUSY = 0.0, 1.0, 2.0
_CONDITION = "condition"


class TornStateError(RuntimeError):
    """A process died while it changed a client's state."""


class CohortState:
    """The state of a cohort of C clients.

    Args:
        client_ids: the cohort, in the order of its rows.
        shapes: per-client shapes by name.
        buffer: float32, of `buffer_size` entries; zero where new.
    """

    def __init__(self, client_ids: Sequence[int], shapes: Shapes, buffer: Tensor) -> None:
        self.client_ids = tuple(client_ids)
        self.buffer = buffer
        self._tensors: dict[str, Tensor] = {}
        start = 0
        for name, shape in {_CONDITION: (), **shapes}.items():
            size = len(client_ids) * math.prod(shape)
            self._tensors[name] = buffer[start : start + size].view(len(client_ids), *shape)
            start += size

    def __getitem__(self, name: str) -> Tensor:
        """A stack of the state [C, ...], in place."""
        return self._tensors[name]

    def _names(self, names: Sequence[str] | None) -> Sequence[str]:
        return [name for name in self._tensors if name != _CONDITION] if names is None else names

    def is_fresh(self, position: int) -> bool:
        """Whether the client in this row has never been worked on."""
        return float(self._tensors[_CONDITION][position]) == _FRESH

    @contextmanager
    def rows(
        self, positions: Sequence[int], device: torch.device, names: Sequence[str] | None = None
    ) -> Iterator[dict[str, Tensor]]:
        """A copy of some rows to work on, each stack [len(positions), ...] on `device`; kept if the block succeeds.

        Args:
            positions: which rows.
            device: where they are worked on.
            names: which stacks; None for all.

        Raises:
            TornStateError: an earlier process died while it replaced one of these rows.
        """
        condition = self._tensors[_CONDITION]
        for position in positions:
            if float(condition[position]) == _BUSY:
                raise TornStateError(
                    f"the state of client {self.client_ids[position]} is torn: "
                    "a process was killed while it wrote this client's state"
                )
        first, count = positions[0], len(positions)
        adjacent = list(positions) == list(range(first, first + count))
        chosen: slice | Tensor = slice(first, first + count) if adjacent else torch.tensor(positions)
        rows = {name: self._tensors[name][chosen].to(device, copy=True) for name in self._names(names)}
        yield rows
        with self.replacing(chosen):
            for name, values in rows.items():
                self._tensors[name][chosen] = values.to(self.buffer.device)

    @contextmanager
    def replacing(self, chosen: slice | int | Tensor) -> Iterator[None]:
        """Mark rows as torn for as long as the block writes to them."""
        self._tensors[_CONDITION][chosen] = _BUSY
        yield
        self._tensors[_CONDITION][chosen] = _READY


def buffer_size(num_clients: int, shapes: Shapes) -> int:
    """Entries of the buffer that a cohort's state needs."""
    return num_clients * (1 + sum(math.prod(shape) for shape in shapes.values()))


class StateStore(Protocol):
    """Keeps cohorts' states between messages."""

    def open(self, client_ids: Sequence[int], shapes: Shapes) -> CohortState:
        """The state of a cohort, fresh where there is none yet."""

    def commit(self, state: CohortState) -> None:
        """Keep what has changed since `open`."""


class MemoryStore:
    """Keeps states in this process."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self._states: dict[tuple[int, ...], CohortState] = {}

    def open(self, client_ids: Sequence[int], shapes: Shapes) -> CohortState:
        """The state of a cohort, fresh where there is none yet."""
        key = tuple(client_ids)
        if key not in self._states:
            buffer = torch.zeros(buffer_size(len(key), shapes), device=self._device)
            self._states[key] = CohortState(key, shapes, buffer)
        return self._states[key]

    def commit(self, state: CohortState) -> None:
        """Nothing to do: the state was changed where it lives."""


class MappedStore:
    """Keeps states in files of `directory` that are mapped into memory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: dict[tuple[int, ...], CohortState] = {}

    def open(self, client_ids: Sequence[int], shapes: Shapes) -> CohortState:
        """The state of a cohort, fresh where there is none yet."""
        key = tuple(client_ids)
        if key not in self._open:
            self._directory.mkdir(parents=True, exist_ok=True)
            path = self._directory / f"cohort-{key[0]:04d}.f32"
            buffer = torch.from_file(str(path), shared=True, size=buffer_size(len(key), shapes))
            self._open[key] = CohortState(key, shapes, buffer)
        return self._open[key]

    def commit(self, state: CohortState) -> None:
        """Nothing to do: the pages of the file were changed in place."""


class ContextStore:
    """Keeps states in the records of a Flower context."""

    def __init__(self, records: RecordDict) -> None:
        self._records = records

    def open(self, client_ids: Sequence[int], shapes: Shapes) -> CohortState:
        """The state of a cohort, fresh where there is none yet."""
        record = self._record(client_ids)
        if record in self._records.array_records:
            values = self._records.array_records[record]["buffer"].numpy()
        else:
            values = np.zeros(buffer_size(len(client_ids), shapes), dtype=np.float32)
        return CohortState(client_ids, shapes, torch.from_numpy(values))

    def commit(self, state: CohortState) -> None:
        """Put the state into the context, which returns to the node with the reply."""
        self._records[self._record(state.client_ids)] = ArrayRecord({"buffer": Array(state.buffer.numpy())})

    @staticmethod
    def _record(client_ids: Sequence[int]) -> str:
        return f"cohort-{client_ids[0]:04d}"

"""What is personal to a client and stays between rounds: optimiser moments, masks, the best model so far.

A cohort's state is one flat float32 buffer; by name it is seen as stacks [clients, ...]. Where the buffer lives is the
only difference between the stores:

- `MemoryStore`: in the process. For a runtime that stays in one process.
- `MappedStore`: a file mapped into memory. Whichever of a machine's processes gets a node's next message goes on in the
  same pages; nothing is copied or sent.
- `ContextStore`: in Flower's ``Context.state``, which travels with every message: for actors on several machines.

Steps change the state in place. A client is marked while it is worked on; a process killed in the middle leaves the
mark, and the state is then refused instead of used half-written.
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

    def is_fresh(self, position: int) -> bool:
        """Whether the client in this row has never been worked on."""
        return float(self._tensors[_CONDITION][position]) == _FRESH

    @contextmanager
    def rows(self, positions: Sequence[int], device: torch.device) -> Iterator[dict[str, Tensor]]:
        """The state of some rows, each stack [len(positions), ...] on `device`; changes are kept.

        Rows that lie side by side on the same device are the state itself; others are gathered, and written back at the
        end, also when the block raises: steps are whole or not taken.

        Raises:
            TornStateError: an earlier process died while it worked on one of these rows.
        """
        condition = self._tensors[_CONDITION]
        for position in positions:
            if float(condition[position]) == _BUSY:
                raise TornStateError(
                    f"the state of client {self.client_ids[position]} is torn: "
                    "a process was killed while it trained this client"
                )
        first, count = positions[0], len(positions)
        adjacent = list(positions) == list(range(first, first + count))
        chosen: slice | Tensor = slice(first, first + count) if adjacent else torch.tensor(positions)
        condition[chosen] = _BUSY
        rows = {name: tensor[chosen].to(device) for name, tensor in self._tensors.items() if name != _CONDITION}
        try:
            yield rows
        finally:
            if not (adjacent and self.buffer.device == device):
                for name, values in rows.items():
                    self._tensors[name][chosen] = values.to(self.buffer.device)
            condition[chosen] = _READY


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
    """Keeps a state in the records of a Flower context."""

    _RECORD = "cohort"

    def __init__(self, records: RecordDict) -> None:
        self._records = records

    def open(self, client_ids: Sequence[int], shapes: Shapes) -> CohortState:
        """The state of a cohort, fresh where there is none yet."""
        if self._RECORD in self._records.array_records:
            values = self._records.array_records[self._RECORD]["buffer"].numpy()
        else:
            values = np.zeros(buffer_size(len(client_ids), shapes), dtype=np.float32)
        return CohortState(client_ids, shapes, torch.from_numpy(values))

    def commit(self, state: CohortState) -> None:
        """Put the state into the context, which returns to the node with the reply."""
        self._records[self._RECORD] = ArrayRecord({"buffer": Array(state.buffer.numpy())})

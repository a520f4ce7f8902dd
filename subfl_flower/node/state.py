"""Personal state of clients between rounds: optimiser moments, masks, the best model so far.

A cohort's state is one flat float32 buffer, with named views as stacks [clients, ...]. The stores differ only in the
place of the buffer:

- `MemoryStore`: in the process. For a runtime that stays in one process.
- `MappedStore`: a file mapped into memory. The next message of a node may reach any process of the machine, which goes
  on in the same pages; nothing is sent.
- `ContextStore`: in Flower's ``Context.state``, which travels with every message: for actors on several machines.
- `DurableStore` (`subfl_flower.node.durable_store`): in one of these, and in a file for each client and round, for
  processes and machines that may die.

A client is worked on in a copy of its rows, which replaces them when the work has succeeded: a client that fails
keeps its state. A row is marked while it is replaced. A process that is killed in that moment leaves the mark, and the
state is then refused instead of used half-written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, RecordDict
from torch import Tensor

from subfl_flower.node.kept_arrays import KeptArrays, KeptInContext, KeptInFiles, KeptInMemory
from subfl_flower.storage.durable_files import make_private_folder


@dataclass(frozen=True)
class OwnRows:
    """Shape of an array of which each client of a cohort has a different number of rows.

    A client's state holds its own number of rows alone. It is therefore the same in every cohort.

    Attributes:
        counts: rows of each client, by position in the cohort.
        rest: shape of one row.
    """

    counts: tuple[int, ...]
    rest: tuple[int, ...]


Shape = tuple[int, ...] | OwnRows
Shapes = Mapping[str, Shape]

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
        dies_with_process: True where no other process ever reads the buffer, so that rows may be worked on in place.
    """

    def __init__(
        self, client_ids: Sequence[int], shapes: Shapes, buffer: Tensor, *, dies_with_process: bool = False
    ) -> None:
        self.client_ids = tuple(client_ids)
        self._dies_with_process = dies_with_process
        self.buffer = buffer
        self.changed: set[int] = set()
        """Rows that were replaced since they were last stored elsewhere."""
        self._tensors: dict[str, Tensor] = {}
        self._own_rows: dict[str, tuple[Tensor, ...]] = {}
        start = 0
        for name, shape in {_CONDITION: (), **shapes}.items():
            size = _entries(shape, len(client_ids))
            part = buffer[start : start + size]
            if isinstance(shape, OwnRows):
                self._own_rows[name] = part.view(sum(shape.counts), *shape.rest).split(shape.counts)
            else:
                self._tensors[name] = part.view(len(client_ids), *shape)
            start += size

    def __getitem__(self, name: str) -> Tensor:
        """A stack of the state [C, ...], in place; clients have as many rows each."""
        return self._tensors[name]

    def of_client(self, name: str, position: int) -> Tensor:
        """One client's values under a name, in place, without client axis."""
        return self._own_rows[name][position] if name in self._own_rows else self._tensors[name][position]

    def _names(self, names: Sequence[str] | None) -> Sequence[str]:
        if names is not None:
            return names
        return [name for name in (*self._tensors, *self._own_rows) if name != _CONDITION]

    def is_fresh(self, position: int) -> bool:
        """True where the client in this row has never been worked on."""
        return float(self._tensors[_CONDITION][position]) == _FRESH

    def export_row(self, position: int) -> dict[str, np.ndarray]:
        """A client's state by name, without client axis."""
        return {name: self.of_client(name, position).cpu().numpy() for name in self._names(None)}

    def import_row(self, position: int, values: Mapping[str, np.ndarray]) -> None:
        """Replace a client's state by the arrays of `export_row`.

        Raises:
            ValueError: they are the state of another model or client family.
        """
        expected = {name: ("float32", *self.of_client(name, position).shape) for name in self._names(None)}
        found = {name: (str(value.dtype), *value.shape) for name, value in values.items()}
        if found != expected:
            different = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
            raise ValueError(f"{different[0]} is {found.get(different[0])}, not {expected.get(different[0])}")
        with self.replacing(position):
            for name, value in values.items():
                self.of_client(name, position).copy_(torch.from_numpy(value))

    @contextmanager
    def rows(
        self, positions: Sequence[int], device: torch.device, names: Sequence[str] | None = None
    ) -> Iterator[dict[str, Tensor]]:
        """Some rows to work on, each stack [len(positions), ...] on `device`; changes are kept if the block succeeds.

        Where clients have different numbers of rows, a stack is as wide as the largest of these clients, and is padded
        with zeros; what is written to the padding is not kept.

        The rows are a copy. Where the state dies with the process, stacks of adjacent rows are the state itself
        instead, and a copy is put back if the block fails: it saves a second copy of each stack.

        Args:
            positions: positions of the rows.
            device: device of the copy.
            names: names of the stacks; None for all.

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
        chosen = _chosen(positions)
        in_place = self._dies_with_process and isinstance(chosen, slice) and self.buffer.device == torch.device(device)
        rows = self.copied(positions, device, names)
        before = {name: values for name, values in rows.items() if in_place and name not in self._own_rows}
        # `data` counts changes apart: autograd would take a change of any other row for one of these.
        themselves = {name: self._tensors[name][chosen].data for name in before}
        rows |= themselves
        try:
            yield rows
        except BaseException:
            for name, values in before.items():
                self._tensors[name][chosen] = values
            raise
        with self.replacing(chosen):
            for name, values in rows.items():
                if values is themselves.get(name):
                    continue
                if name in self._own_rows:
                    for position, own in zip(positions, values, strict=True):
                        kept = self._own_rows[name][position]
                        kept.copy_(own[: len(kept)])
                else:
                    self._tensors[name][chosen] = values.to(self.buffer.device)

    def copied(
        self, positions: Sequence[int], device: torch.device, names: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """A copy of some rows, as `rows` gives it, whose changes are not kept."""
        chosen = _chosen(positions)
        copies = {}
        for name in self._names(names):
            if name in self._own_rows:
                copies[name] = _padded([self._own_rows[name][position] for position in positions], device)
            else:
                copies[name] = self._tensors[name][chosen].to(device, copy=True)
        return copies

    @contextmanager
    def replacing(self, chosen: slice | int | Tensor) -> Iterator[None]:
        """Mark rows as torn for as long as the block writes to them."""
        self._tensors[_CONDITION][chosen] = _BUSY
        yield
        self._tensors[_CONDITION][chosen] = _READY
        self.changed.update(torch.arange(len(self.client_ids))[chosen].reshape(-1).tolist())


def buffer_size(num_clients: int, shapes: Shapes) -> int:
    """Number of entries of the buffer for a cohort's state."""
    return num_clients + sum(_entries(shape, num_clients) for shape in shapes.values())


def _entries(shape: Shape, num_clients: int) -> int:
    if isinstance(shape, OwnRows):
        return sum(shape.counts) * math.prod(shape.rest)
    return num_clients * math.prod(shape)


def _chosen(positions: Sequence[int]) -> slice | Tensor:
    first, count = positions[0], len(positions)
    adjacent = list(positions) == list(range(first, first + count))
    return slice(first, first + count) if adjacent else torch.tensor(positions)


def _padded(parts: Sequence[Tensor], device: torch.device) -> Tensor:
    """The `parts` [rows, ...] as one stack on `device`, zero where a part has fewer rows than the longest."""
    longest = max(len(part) for part in parts)
    stack = torch.empty(len(parts), longest, *parts[0].shape[1:], device=device)
    for row, part in zip(stack, parts, strict=True):
        row[: len(part)].copy_(part)
        row[len(part) :].zero_()
    return stack


class StateStore(Protocol):
    """Store of cohorts' states between messages."""

    @property
    def kept(self) -> KeptArrays:
        """Arrays that clients keep of exchanges."""

    def open(self, client_ids: Sequence[int], shapes: Shapes) -> CohortState:
        """Open the state of a cohort, fresh where there is none yet."""

    def commit(self, state: CohortState) -> None:
        """Keep all changes since `open`."""


class CurrentStore:
    """Store for the message that is being handled.

    A node makes one for its client object, and sets `now` for each message.

    Attributes:
        now: holds states as they were before the message.
        opened: the cohorts of which a state was opened.
    """

    now: StateStore

    def __init__(self) -> None:
        self.opened: set[tuple[int, ...]] = set()

    @property
    def kept(self) -> KeptArrays:
        """Arrays that clients keep of exchanges."""
        return self.now.kept

    def open(self, client_ids: Sequence[int], shapes: Shapes) -> CohortState:
        """Open the state of a cohort, fresh where there is none yet."""
        self.opened.add(tuple(client_ids))
        return self.now.open(client_ids, shapes)

    def commit(self, state: CohortState) -> None:
        """Keep all changes since `open`."""
        self.now.commit(state)


class MemoryStore:
    """Store of states in this process."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self._states: dict[tuple[int, ...], CohortState] = {}
        self.kept: KeptArrays = KeptInMemory()

    def open(self, client_ids: Sequence[int], shapes: Shapes) -> CohortState:
        """Open the state of a cohort, fresh where there is none yet."""
        key = tuple(client_ids)
        if key not in self._states:
            buffer = torch.zeros(buffer_size(len(key), shapes), device=self._device)
            self._states[key] = CohortState(key, shapes, buffer, dies_with_process=True)
        return self._states[key]

    def commit(self, state: CohortState) -> None:
        """Do nothing: the state was changed in place."""


class MappedStore:
    """Store of states in files of `directory` that are mapped into memory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.kept: KeptArrays = KeptInFiles(lambda client_id: directory)
        self._open: dict[tuple[int, ...], CohortState] = {}

    def open(self, client_ids: Sequence[int], shapes: Shapes) -> CohortState:
        """Open the state of a cohort, fresh where there is none yet."""
        key = tuple(client_ids)
        if key not in self._open:
            make_private_folder(self._directory)
            path = self._directory / f"cohort-{key[0]:04d}.f32"
            buffer = torch.from_file(str(path), shared=True, size=buffer_size(len(key), shapes))
            self._open[key] = CohortState(key, shapes, buffer)
        return self._open[key]

    def commit(self, state: CohortState) -> None:
        """Do nothing: the pages of the file were changed in place."""


class ContextStore:
    """Store of states in the records of a Flower context."""

    def __init__(self, records: RecordDict) -> None:
        self._records = records
        self.kept: KeptArrays = KeptInContext(records)

    def open(self, client_ids: Sequence[int], shapes: Shapes) -> CohortState:
        """Open the state of a cohort, fresh where there is none yet."""
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

"""Personal state of clients between rounds: optimiser moments, masks, the best model so far.

A cohort's state is one flat float32 buffer, with named views as stacks [clients, ...]. The stores differ only in the
place of the buffer:

- `MemoryStore`: in the process. For a runtime that stays in one process.
- `MappedStore`: a file mapped into memory. The next message of a node may reach any process of the machine, which goes
  on in the same pages; nothing is sent.
- `ContextStore`: in Flower's ``Context.state``, which travels with every message: for actors on several machines.
- `DurableStore`: in one of these, and in a file for each client and round, for processes and machines that may die.

A client is worked on in a copy of its rows, which replaces them when the work has succeeded: a client that fails
keeps its state. A row is marked while it is replaced. A process that is killed in that moment leaves the mark, and the
state is then refused instead of used half-written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, RecordDict
from torch import Tensor

from subfl_flower.node.kept_arrays import KeptArrays, KeptInContext, KeptInFiles, KeptInMemory
from subfl_flower.runs.files import writing
from subfl_flower.storage.durable_files import make_private_folder
from subfl_flower.storage.tensor_file import Card, read_tensor_file, write_tensor_file

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
        self.changed: set[int] = set()
        """Rows that were replaced since they were last stored elsewhere."""
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
        """True where the client in this row has never been worked on."""
        return float(self._tensors[_CONDITION][position]) == _FRESH

    def export_row(self, position: int) -> dict[str, np.ndarray]:
        """A client's state by name, without client axis."""
        return {name: self._tensors[name][position].cpu().numpy() for name in self._names(None)}

    def import_row(self, position: int, values: Mapping[str, np.ndarray]) -> None:
        """Replace a client's state by the arrays of `export_row`.

        Raises:
            ValueError: they are the state of another model or client family.
        """
        expected = {name: ("float32", *self._tensors[name].shape[1:]) for name in self._names(None)}
        found = {name: (str(value.dtype), *value.shape) for name, value in values.items()}
        if found != expected:
            different = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
            raise ValueError(f"{different[0]} is {found.get(different[0])}, not {expected.get(different[0])}")
        with self.replacing(position):
            for name, value in values.items():
                self._tensors[name][position] = torch.from_numpy(value).to(self.buffer)

    @contextmanager
    def rows(
        self, positions: Sequence[int], device: torch.device, names: Sequence[str] | None = None
    ) -> Iterator[dict[str, Tensor]]:
        """A copy of some rows to work on, each stack [len(positions), ...] on `device`; kept if the block succeeds.

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
        self.changed.update(torch.arange(len(self.client_ids))[chosen].reshape(-1).tolist())


def buffer_size(num_clients: int, shapes: Shapes) -> int:
    """Number of entries of the buffer for a cohort's state."""
    return num_clients * (1 + sum(math.prod(shape) for shape in shapes.values()))


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
            self._states[key] = CohortState(key, shapes, buffer)
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


TRAIN, EVALUATE = "train", "evaluate"
"""The phases that every round has; a method's phases come before them."""

Moment = tuple[int, int]
"""A round, and the index of one of its phases."""


class StateCard(Card):
    """The moment that a client's state is of.

    Attributes:
        client: id of the client; below 0 for all clients together.
        round: the round, 1-based.
        phase: of the round.
    """

    holds: ClassVar[str] = "the state of a client"

    client: int
    round: int
    phase: str


class DurableStore:
    """Store of states in another store, and after each round in files that survive it.

    A file is written in one step and belongs to one client, round and phase. Before a phase of a round, a client
    without a state here goes on with its last state of an earlier moment. This is so after a crash, and also where a
    federation went back to a checkpoint and repeats rounds that this client has already trained.

    Args:
        store: store in which states are worked on.
        folder_of: the folder of a client's files, by its id.
        server_round: the round of the message, 1-based.
        checkpoint: the last round that the server can go back to; states that it no longer needs are removed.
        keep: True to write this round's states.
        phase: the message's phase of the round; a phase that is not among `phases` sees the state before training.
        phases: of a round, in their order: those of the method, ``train`` and ``evaluate``.
    """

    def __init__(
        self,
        store: StateStore,
        folder_of: Callable[[int], Path],
        server_round: int,
        checkpoint: int,
        keep: bool,
        phase: str = TRAIN,
        phases: Sequence[str] = (TRAIN, EVALUATE),
    ) -> None:
        self._phases = tuple(phases)
        self._store = store
        self._folder_of = folder_of
        self.kept: KeptArrays = KeptInFiles(folder_of, server_round, checkpoint)
        self._now: Moment = (server_round, self._phases.index(phase if phase in phases else TRAIN))
        self._checkpoint = checkpoint
        self._keep = keep

    def open(self, client_ids: Sequence[int], shapes: Shapes) -> CohortState:
        """The state of a cohort, as it was before the round's phase; fresh where there is none.

        Raises:
            SubflError: a client's file is damaged or holds the state of another model.
        """
        state = self._store.open(client_ids, shapes)
        for position, client_id in enumerate(client_ids):
            if state.is_fresh(position):
                earlier = [(moment, path) for moment, path in self._files(client_id) if moment < self._now]
                if earlier:
                    _restore(state, position, max(earlier)[1])
                    state.changed.discard(position)
        return state

    def commit(self, state: CohortState) -> None:
        """Keep all changes since `open`.

        Raises:
            SubflError: a file cannot be written; earlier files are still there.
        """
        self._store.commit(state)
        if not self._keep:
            return
        for position in sorted(state.changed):
            client_id = state.client_ids[position]
            path = self._folder_of(client_id) / self._file_name(self._now)
            card = StateCard(client=client_id, round=self._now[0], phase=self._phases[self._now[1]])
            write_tensor_file(path, state.export_row(position), card)
            with writing(path):
                self._remove_unneeded(client_id)
        state.changed.clear()

    def keep(self, state: CohortState) -> None:
        """Write all states and kept arrays that the files do not have yet.

        Raises:
            SubflError: a file cannot be written; earlier files are still there.
        """
        if not isinstance(self._store, MemoryStore):  # another process may have changed any of them
            ids = range(len(state.client_ids))
            state.changed.update(position for position in ids if not state.is_fresh(position))
        kept = self._store.kept
        for client_id, name, server_round in kept.entries(state.client_ids):
            if self.kept.round_of(client_id, name) != server_round:
                self.kept.put(client_id, name, server_round, kept.get(client_id, name))
        self.commit(state)

    def _file_name(self, moment: Moment) -> str:
        server_round, phase = moment[0], self._phases[moment[1]]
        return f"round-{server_round:06d}{'' if phase == TRAIN else f'-{phase}'}.safetensors"

    def _files(self, client_id: int) -> list[tuple[Moment, Path]]:
        found = []
        for path in self._folder_of(client_id).glob("round-*.safetensors"):
            match = re.fullmatch(r"round-(\d+)(?:-(\w+))?", path.stem)
            if match and (match[2] or TRAIN) in self._phases:
                found.append(((int(match[1]), self._phases.index(match[2] or TRAIN)), path))
        return found

    def _remove_unneeded(self, client_id: int) -> None:
        """Keep this phase's file, and the newest that the server can go back to."""
        files = self._files(client_id)
        restart = max((moment for moment, _ in files if moment[0] <= self._checkpoint), default=(-1, 0))
        for moment, path in files:
            if moment < restart or moment > self._now or restart < moment < self._now:
                path.unlink(missing_ok=True)
        # Files of a killed process; this round's may be another node's that is being written, as the oracle's are.
        for unfinished in self._folder_of(client_id).glob(".round-*"):
            if not unfinished.name.startswith(f".{self._file_name(self._now)}"):
                unfinished.unlink(missing_ok=True)


def _restore(state: CohortState, position: int, path: Path) -> None:
    values, card = read_tensor_file(path, StateCard)
    if card.client != state.client_ids[position]:
        raise card.damaged(path, f"it is of the client {card.client}, not of the client {state.client_ids[position]}")
    try:
        state.import_row(position, values)
    except (ValueError, TypeError, AttributeError) as error:
        raise card.damaged(path, error) from None

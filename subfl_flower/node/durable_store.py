"""Personal state of clients in files, a file for each client, round and phase, for processes that may die."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from subfl_flower.node.kept_arrays import KeptArrays, KeptInFiles
from subfl_flower.node.state import CohortState, MemoryStore, Shapes, StateStore
from subfl_flower.runs.files import writing
from subfl_flower.storage.tensor_file import Card, read_tensor_file, write_tensor_file

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

    kind: Literal["client_state"] = "client_state"
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

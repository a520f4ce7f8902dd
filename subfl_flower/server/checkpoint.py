"""Checkpoints, from which the server goes on after a crash: one file, replaced in one step; and their times.

`checkpoint/server.safetensors` of a run directory holds the strategy's state, and in its metadata the number of the
last finished round and the clients. The rounds themselves are in `metrics.jsonl`. Clients' personal state stays with
them; see `state.DurableStore`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from subfl_flower.errors import SubflError
from subfl_flower.runs.files import writing
from subfl_flower.storage.tensor_file import Card, read_tensor_file, write_tensor_file
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.roster import SIZES, Roster

_FILE = "server.safetensors"


class RosterCard(BaseModel):
    """The clients of a run, as `Roster` has them but for their nodes; None stands for a size that is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    client_ids: tuple[int, ...]
    num_examples: tuple[float | None, ...]
    num_nodes: tuple[float | None, ...]
    num_edges: tuple[float | None, ...]
    num_features: int
    num_classes: int
    overlapping: bool
    user_values: tuple[int, ...] = ()
    item_values: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _one_size_a_client(self) -> Self:
        if any(len(getattr(self, name)) != len(self.client_ids) for name in SIZES):
            raise ValueError("its roster has not one size for each client")
        return self

    @classmethod
    def of(cls, roster: Roster) -> Self:
        """The card of a roster."""
        sizes = {name: tuple(None if np.isnan(x) else float(x) for x in getattr(roster, name)) for name in SIZES}
        facts = {name: getattr(roster, name) for name in cls.model_fields if name not in sizes}
        return cls.model_validate({**facts, **sizes})

    def roster(self) -> Roster:
        """The roster, without nodes."""
        unknown = {name: [np.nan if value is None else value for value in getattr(self, name)] for name in SIZES}
        sizes: dict[str, Any] = {name: np.array(values, dtype=float) for name, values in unknown.items()}
        facts = {name: getattr(self, name) for name in type(self).model_fields if name not in sizes}
        return Roster(node_ids=(None,) * len(self.client_ids), **facts, **sizes)


class CheckpointCard(Card):
    """A run after one of its rounds, but for the arrays of its strategy.

    Attributes:
        run_id, round, seconds, exchanges: as of `Checkpoint`.
        roster: the clients.
        repeated: the number of equal rows of each array of which the file holds one.
    """

    holds: ClassVar[str] = "a checkpoint"

    kind: Literal["checkpoint"] = "checkpoint"
    schema_version: Literal[3] = Field(default=3, alias="schema")
    run_id: str
    round: int = Field(ge=0)
    roster: RosterCard
    exchanges: list[dict[str, Any]]
    seconds: float
    repeated: dict[str, Annotated[int, Field(ge=1)]]


@dataclass(frozen=True)
class Checkpoint:
    """A run after one of its rounds.

    Attributes:
        run_id: of the run; clients keep their states under it.
        server_round: the last finished round; 0 before the first.
        roster: the clients. Their nodes are not kept.
        strategy: the strategy's state; see `CohortStrategy.state`.
        exchanges: the log of the phases before the first round.
        seconds: wall-clock time spent so far.
    """

    run_id: str
    server_round: int
    roster: Roster
    strategy: Stack
    exchanges: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def write(self, folder: Path) -> None:
        """Replace the checkpoint in `folder`.

        Raises:
            SubflError: it cannot be written; the earlier one is then still there.
        """
        # What is one row in memory, as FedAvg's parameters are, is one row on disk.
        repeated = {name: len(value) for name, value in self.strategy.items() if _is_repeated(value)}
        arrays = {
            name: np.array(value[:1] if name in repeated else value, order="C") for name, value in self.strategy.items()
        }
        card = CheckpointCard(
            run_id=self.run_id,
            round=self.server_round,
            roster=RosterCard.of(self.roster),
            exchanges=self.exchanges,
            seconds=self.seconds,
            repeated=repeated,
        )
        write_tensor_file(folder / _FILE, arrays, card)
        with writing(folder / _FILE):
            for unfinished in folder.glob(f".{_FILE}.*"):  # of a process that was killed
                unfinished.unlink(missing_ok=True)

    @staticmethod
    def is_in(folder: Path) -> bool:
        """True where `folder` holds a checkpoint."""
        return (folder / _FILE).is_file()

    @classmethod
    def read(cls, folder: Path) -> Checkpoint:
        """The checkpoint in `folder`.

        Raises:
            SubflError: there is none, or it is damaged or of another version.
        """
        path = folder / _FILE
        if not cls.is_in(folder):
            raise SubflError(
                f"{path} does not exist: the run left no checkpoint (record.checkpoint_every), so it can only be "
                "started again"
            )
        strategy, card = read_tensor_file(path, CheckpointCard)
        try:
            for name, count in card.repeated.items():
                strategy[name] = np.broadcast_to(strategy[name], (count, *strategy[name].shape[1:]))
        except (KeyError, ValueError, OverflowError) as error:
            raise card.damaged(path, f"{type(error).__name__}: {error}") from None
        return cls(card.run_id, card.round, card.roster.roster(), strategy, card.exchanges, card.seconds)


def _is_repeated(value: np.ndarray) -> bool:
    return value.ndim > 0 and len(value) > 1 and value.strides[0] == 0


class CheckpointTimes:
    """Times of a simulation's checkpoints: one a minute, none in the first, and fewer where writing one takes long.

    Checkpoints take at most a twentieth of a run's time.
    """

    seconds: ClassVar[float] = 60.0
    """Least time between two checkpoints, and before the first."""

    _share: ClassVar[float] = 1 / 20

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._cost = 0.0

    @property
    def is_due(self) -> bool:
        """True where it is time for a checkpoint."""
        return time.monotonic() - self._last >= max(self.seconds, self._cost / self._share)

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Count the block as the writing of a checkpoint."""
        start = time.monotonic()
        yield
        self._last = time.monotonic()
        self._cost = self._last - start

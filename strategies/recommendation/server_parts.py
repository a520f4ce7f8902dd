"""Parts that the server of a method on ratings is composed of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from subfl_flower.server.exchange import Exchange
from subfl_flower.server.updates import Updates
from subfl_flower.wire.contract import RunContext
from subfl_flower.wire.payload import Stack
from subfl_flower.wire.ragged import Ragged
from subfl_flower.wire.roster import Roster

HEADERS = 4096
"""Bytes beside what an answer is about: headers, keys, padding."""

Parameters = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Server:
    """Facts that parts know.

    Attributes:
        run: facts of the run.
        roster: gives the clients, and where they are at the moment.
        participants: positions of the clients who take part in a round, ascending.
    """

    run: RunContext
    roster: Callable[[], Roster]
    participants: Callable[[int], Sequence[int]]


class ServerPart:
    """A part of a strategy; every hook does nothing unless it is overridden.

    Args:
        server: what it knows.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.run = server.run
        self.settings: Any = server.run.settings

    @property
    def roster(self) -> Roster:
        """The clients, and where they are at the moment."""
        return self.server.roster()

    def set_up(self) -> None:
        """Refuse what the task or the model cannot do."""
        return

    def before_round(self, server_round: int, exchange: Exchange) -> None:
        """Ask the clients something between two rounds."""
        return

    def instructions(self, sent: Stack, server_round: int, positions: Sequence[int]) -> Stack:
        """The arrays for the clients at `positions`, from those without this part."""
        return sent

    def row_instructions(self, parameters: Parameters, positions: Sequence[int]) -> Mapping[str, Ragged]:
        """The arrays of which each of the clients at `positions` is sent a number of rows of its own."""
        return {}

    def watch(self, updates: Updates) -> None:
        """See the uploads that are aggregated next."""
        return

    def report(self, prepared: Any | None, uploads: int) -> dict[str, Any]:
        """Further entries of the run's summary.

        Args:
            prepared: all clients' data, where the run is a simulation.
            uploads: the most that one client has uploaded.
        """
        return {}

    def state(self) -> Stack:
        """Arrays by name that it needs to go on after a crash."""
        return {}

    def load_state(self, state: Stack) -> None:
        """Go on from what `state` gave."""
        return


class Aggregation(ServerPart, ABC):
    """The mean gradient of a round's uploads."""

    def readable(self, updates: Updates) -> bool:
        """True where the uploads can be aggregated; else the round makes no step, and a warning says why."""
        return True

    @abstractmethod
    def mean(self, updates: Updates, parameters: Parameters) -> dict[str, Tensor]:
        """The mean gradient by each of the parameters, of their shapes."""

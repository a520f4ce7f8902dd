"""Parts of the server of a method on ratings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from subfl_flower.server.exchange import Exchange
from subfl_flower.server.updates import Updates
from subfl_flower.strategies.recommendation.server_model import ServerModel
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.contract import RunContext
from subfl_flower.wire.ragged import Ragged
from subfl_flower.wire.roster import Roster

HEADERS = 4096
"""Bytes of an answer besides its content: headers, keys, padding."""

Parameters = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Server:
    """Facts of a server that its parts know.

    Attributes:
        run: facts of the run.
        roster: the clients, and their present nodes.
        participants: positions of the clients that take part in a round, ascending.
    """

    run: RunContext
    roster: Callable[[], Roster]
    participants: Callable[[int], Sequence[int]]


class ServerPart:
    """A part of a strategy; every hook does nothing unless it is overridden.

    Args:
        server: facts of the server.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.run = server.run
        self.settings: Any = server.run.settings

    @property
    def roster(self) -> Roster:
        """The clients, and their present nodes."""
        return self.server.roster()

    def set_up(self) -> None:
        """Refuse a task or a model that the part cannot work with."""
        return

    def before_round(self, server_round: int, exchange: Exchange) -> None:
        """Ask the clients something between two rounds."""
        return

    def instructions(self, sent: Stack, server_round: int, positions: Sequence[int]) -> Stack:
        """The arrays for the clients at `positions`, given those without this part."""
        return sent

    def row_instructions(self, parameters: Parameters, positions: Sequence[int]) -> Mapping[str, Ragged]:
        """Arrays of which each of the clients at `positions` is sent a different number of rows."""
        return {}

    @property
    def announcements(self) -> dict[str, float]:
        """Numbers that all clients are told with every message, by name."""
        return {}

    def settle(self, model: ServerModel) -> None:
        """Set parameters that the part decides on, after `before_round` and after each step."""
        return

    def watch(self, updates: Updates) -> None:
        """Read the uploads that are aggregated next."""
        return

    def report(self, prepared: Any | None, uploads: int) -> dict[str, Any]:
        """Further entries of the run's summary.

        Args:
            prepared: all clients' data, where the run is a simulation.
            uploads: the largest number of uploads of one client.
        """
        return {}

    def state(self) -> Stack:
        """Arrays by name that the part needs to go on after a crash."""
        return {}

    def load_state(self, state: Stack) -> None:
        """Restore the arrays of `state`."""
        return


class Aggregation(ServerPart, ABC):
    """The mean gradient of a round's uploads."""

    def readable(self, updates: Updates) -> bool:
        """True where the uploads can be aggregated; else the round makes no step, and a warning says why."""
        return True

    @abstractmethod
    def mean(self, updates: Updates, parameters: Parameters) -> dict[str, Tensor]:
        """The mean gradient by each of the parameters, of the parameters' shapes."""

"""Rows of the item table that users asked for, in place of the whole table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from subfl_flower.clients.recommendation.requested_rows import WANTED
from subfl_flower.clients.recommendation.user_parts import IDS, ITEMS, ROWS
from subfl_flower.errors import SubflError
from subfl_flower.server.exchange import Exchange
from subfl_flower.strategies.recommendation.server_parts import HEADERS, Parameters, Server, ServerPart
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.ragged import Ragged


class RequestedRows(ServerPart):
    """Ask users once for the rows that they need, and send these in place of the table (`RequestedRowsSettings`).

    After a crash users are asked again.
    """

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._num_items = len(self.run.initial[ITEMS])
        self._rows_of: dict[int, np.ndarray] = {}
        """Item rows requested by the client at each position, int32 ascending."""

    def set_up(self) -> None:
        """Refuse to send rows where each round samples other items."""
        if self._samples_items and self.settings.download == "rows":
            raise SubflError(
                "method.download: with task=ranking users sample items in each round, and the server cannot know which "
                "rows they need; must be table or auto"
            )

    @property
    def _samples_items(self) -> bool:
        return self.run.model is not None and self.run.model.samples_items

    @cached_property
    def sends_rows(self) -> bool:
        """True where users are sent the rows that they asked for, in place of the table."""
        settings = self.settings
        if self._samples_items:
            return False
        if settings.download != "auto":
            rows: bool = settings.download == "rows"
            return rows
        if settings.pseudo_items == "all" or settings.pseudo_refresh:
            return False
        most: float = settings.pseudo_items + float(np.nanmean(self.roster.num_examples))
        return most <= self._num_items / 2

    def before_round(self, server_round: int, exchange: Exchange) -> None:
        """Ask this round's users for the rows that they need, if they have not been asked before."""
        if not self.sends_rows:
            return
        unknown = [p for p in self.server.participants(server_round) if p not in self._rows_of]
        if unknown:
            most = [np.dtype(np.int32).itemsize * self._num_items + HEADERS] * len(self.roster)
            answers = exchange.ask(WANTED, self._decode, most, sent={position: {} for position in unknown})
            self._rows_of.update((p, ids) for p, ids in enumerate(answers) if ids is not None)

    def _decode(self, answer: Stack) -> np.ndarray:
        ids = answer[IDS]
        if ids.dtype != np.int32 or ids.ndim != 1 or len(ids) > self._num_items:
            raise ValueError(f"{IDS} must be at most {self._num_items} numbers of rows")
        if len(ids) and (ids.min() < 0 or ids.max() >= self._num_items or (np.diff(ids) <= 0).any()):
            raise ValueError(f"{IDS} must be ascending numbers of rows, below {self._num_items}")
        return ids

    def instructions(self, sent: Stack, server_round: int, positions: Sequence[int]) -> Stack:
        """All arrays but the item table, where rows are sent."""
        return {name: value for name, value in sent.items() if name != ITEMS} if self.sends_rows else sent

    def row_instructions(self, parameters: Parameters, positions: Sequence[int]) -> Mapping[str, Ragged]:
        """The rows of the item table that each user asked for."""
        if not self.sends_rows:
            return {}
        nothing = np.zeros(0, dtype=np.int32)
        wanted = [self._rows_of.get(position, nothing) for position in positions]
        lengths = np.array([len(ids) for ids in wanted], dtype=np.int64)
        return {ROWS: Ragged(parameters[ITEMS].numpy()[np.concatenate(wanted)], lengths)}

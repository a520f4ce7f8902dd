"""Expansion of users' local graphs through the matcher (FedGNN: Wu et al., 2022, Algorithm 2).

The server relays sealed boxes between users and the matcher, a node that hosts no client. It cannot open them.
"""

from __future__ import annotations

from logging import WARNING

import numpy as np

from subfl_flower.clients.recommendation.expansion import EXPAND, NEIGHBOURS
from subfl_flower.clients.recommendation.user_parts import ITEMS
from subfl_flower.errors import RunFailure
from subfl_flower.flower.log import log
from subfl_flower.node.matcher import BOX, MATCH
from subfl_flower.privacy.tokens import TOKEN_BYTES
from subfl_flower.server.exchange import Exchange
from subfl_flower.strategies.recommendation.server_parts import HEADERS, ServerPart
from subfl_flower.wire.array_format import Stack


class Expansion(ServerPart):
    """Expand users' graphs every few rounds (settings: `ExpansionSettings`)."""

    def before_round(self, server_round: int, exchange: Exchange) -> None:
        """Relay users' boxes to the matcher, and its answers back, in rounds with an expansion.

        If that fails, training goes on without the expansion.
        """
        settings = self.settings
        since_start = server_round - settings.expansion_start
        if not settings.max_neighbours or since_start < 0 or since_start % settings.expansion_every:
            return
        matcher = self.roster.matcher
        try:
            if matcher is None:
                raise RunFailure("no node is the matcher at the moment")
            about: dict[str, int | bytes] = {"matcher_key": matcher.public_key}
            sealed = exchange.ask(EXPAND, _box, self._most_bytes_of_box, about=about, tolerant=True)
            # The matcher sees a number that stands for the user in this expansion only.
            numbers = np.random.default_rng().permutation(len(sealed)).tolist()
            boxes = {number: {BOX: box} for number, box in zip(numbers, sealed, strict=True) if box is not None}
            answers = exchange.ask_matcher(MATCH, boxes)
            told = {p: answers[number] for p, number in enumerate(numbers) if number in answers}
            exchange.ask(NEIGHBOURS, _nothing, sent=told, tolerant=True)
        except RunFailure as error:
            log(WARNING, "round %d goes on without an expansion of graphs: %s", server_round, error)

    @property
    def _most_bytes_of_box(self) -> list[int]:
        """Size for each client of tokens of all items and an embedding, padded to a power of two."""
        table = self.run.initial[ITEMS]
        plain = TOKEN_BYTES * len(table) + table.nbytes // len(table)
        return [2 * plain + HEADERS] * len(self.roster)


def _box(answer: Stack) -> np.ndarray:
    box = answer[BOX]
    if box.dtype != np.uint8 or box.ndim != 1:
        raise ValueError("a sealed box is a vector of bytes")
    return box


def _nothing(answer: Stack) -> None:
    if answer:
        raise ValueError("there is nothing to answer")

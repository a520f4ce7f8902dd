"""Which node hosts which client, and what the server must know of the clients' data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import Message

ROSTER = "roster"


@dataclass(frozen=True)
class Roster:
    """The federation's clients; position p of every server-side stack belongs to ``client_ids[p]``.

    Attributes:
        client_ids: ascending.
        node_ids: the Flower node of each client, None while it has none. Flower's ids change at every start; nothing is
            keyed by them.
        num_examples: training examples of each client [K]; not a number for a client that was never there.
        num_nodes, num_edges: of each client's graph [K]; edges count once for each direction.
        num_features, num_classes: of the data set.
        overlapping: whether clients may share nodes.
    """

    client_ids: tuple[int, ...]
    node_ids: tuple[int | None, ...]
    num_examples: np.ndarray
    num_nodes: np.ndarray
    num_edges: np.ndarray
    num_features: int
    num_classes: int
    overlapping: bool

    def __len__(self) -> int:
        """The number of clients, K."""
        return len(self.client_ids)

    @property
    def reachable(self) -> list[int]:
        """Positions of the clients that a node hosts at the moment."""
        return [position for position, node in enumerate(self.node_ids) if node is not None]

    def by_node(self, positions: Sequence[int]) -> dict[int, list[int]]:
        """Those of the given positions that can be reached, grouped by the node that hosts them."""
        groups: dict[int, list[int]] = {}
        for position in positions:
            node = self.node_ids[position]
            if node is not None:
                groups.setdefault(node, []).append(position)
        return groups


def describe_error(reply: Message) -> str:
    """The reason of an error reply in one line, without the class name that Flower wraps it in."""
    reason = reply.error.reason or f"error code {reply.error.code}"
    _, separator, inner = reason.partition(":<'")
    lines = (inner.removesuffix("'>") if separator else reason).strip().splitlines()
    return lines[0] if lines else reason

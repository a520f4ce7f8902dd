"""Boundary of a client's graph: the nodes that other clients may list, too, under keyed hashes of their ids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from subfl_flower.data.graph import ClientGraph
from subfl_flower.privacy.tokens import comparable, item_tokens


@dataclass(frozen=True, eq=False)
class Boundary:
    """T nodes, in the order of their tokens, which is unrelated to their ids.

    Listed are the nodes elsewhere that an edge of the client leads to, own nodes from which such an edge leads, own
    nodes that it may share, and the neighbours of these. All neighbours of a node that is not listed are held by this
    client alone.

    Attributes:
        tokens: uint8 `[T, 16]`, distinct.
        node_ids: int64 `[T]`, global ids.
        own: int64 `[T]`, local ids; -1 where the client does not hold the node.
    """

    tokens: np.ndarray
    node_ids: np.ndarray
    own: np.ndarray

    @property
    def held(self) -> np.ndarray:
        """Bool `[T]`: the nodes that the client holds."""
        held: np.ndarray = self.own >= 0
        return held

    @classmethod
    def of(cls, graph: ClientGraph, key: bytes, context: bytes) -> Boundary:
        """The boundary of a client's graph.

        Args:
            graph: the client's graph, with its cross edges.
            key: secret that the clients share and the server does not have, at least 16 bytes.
            context: such as the run; tokens of two contexts cannot be matched.

        Raises:
            SubflError: the key is too short.
        """
        inside = graph.shareable.copy()
        inside[graph.cross_edges[0]] = True
        inside[graph.edge_index[0, graph.shareable[graph.edge_index[1]]]] = True
        held = np.flatnonzero(inside)
        elsewhere = np.unique(graph.cross_edges[1])
        node_ids = np.concatenate([graph.node_ids[held], elsewhere])
        own = np.concatenate([held, np.full(len(elsewhere), -1)])
        tokens = item_tokens(node_ids, key, context)
        order = np.argsort(comparable(tokens))
        return cls(tokens[order], node_ids[order], own[order])

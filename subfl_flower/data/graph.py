"""The global graph and the subgraph of one client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import scipy.sparse as sp

from subfl_flower.data.feature_transform import FeatureTransform

FeatureMatrix: TypeAlias = np.ndarray | sp.csr_array
"""float32 `[nodes, features]`: CSR where few entries are non-zero, dense otherwise."""

TRAIN, VALIDATION, TEST, NO_ROLE = 0, 1, 2, -1
"""Roles of nodes; a node without a label has no role."""


@dataclass(frozen=True)
class Notes:
    """Remarks of a reader on its source, one sentence each.

    Attributes:
        dropped: parts of the source that are not used, such as columns, self-loops or repeated edges.
        warnings: things that the data's owner should check before trusting a result.
        counts: counts of things in the source, by name.
    """

    dropped: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: Notes) -> Notes:
        """Notes of both, in order."""
        return Notes(self.dropped + other.dropped, self.warnings + other.warnings, {**self.counts, **other.counts})


@dataclass(frozen=True, eq=False)
class Graph:
    """The global graph, cleaned: undirected, without self-loops, without duplicate edges.

    Attributes:
        features: float32 `[nodes, features]`, dense or CSR.
        edge_index: int64 `[2, edges]`; every edge in both directions, sorted by (row, column).
        labels: int64 `[nodes]`, -1 where unlabelled; None where the data set has no labels at all.
        num_classes: number of classes; 0 without labels.
        class_names: name of each class in the source, in the order of the class numbers; None where the source has
            numbers only.
        node_names: text `[nodes]`, the source's id of each node; None where the source numbers its rows.
        edge_weight: float32 `[edges]`, positive, equal in both directions of an edge; None without weights.
        given_roles: int8 `[nodes]`, the split that the source states; None where it is drawn.
        columns: name of each feature; None where features have no names.
        transform: treatment of the source's features, with the numbers learnt from training nodes; None: no treatment.
        notes: remarks on the source.
    """

    features: FeatureMatrix
    edge_index: np.ndarray
    labels: np.ndarray | None
    num_classes: int
    class_names: tuple[str, ...] | None = None
    node_names: np.ndarray | None = None
    edge_weight: np.ndarray | None = None
    given_roles: np.ndarray | None = None
    columns: tuple[str, ...] | None = None
    transform: FeatureTransform | None = None
    notes: Notes = field(default_factory=Notes)

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return int(self.features.shape[0])

    @property
    def num_features(self) -> int:
        """Width of the feature matrix."""
        return int(self.features.shape[1])

    @property
    def num_edges(self) -> int:
        """Number of directed edges: twice the number of undirected ones."""
        return int(self.edge_index.shape[1])


def _no_edges() -> np.ndarray:
    return np.empty((2, 0), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class ClientGraph:
    """The subgraph that one client holds: its nodes, the edges between them, and edges to nodes of other clients.

    Attributes:
        client_id: id of the client.
        node_ids: int64 `[nodes]`, global ids, ascending; position is the local id.
        features: float32 `[nodes, features]`, dense or CSR.
        edge_index: int64 `[2, edges]` of LOCAL ids, both directions, sorted by (row, column).
        labels: int64 `[nodes]`, -1 where unlabelled; None without labels.
        num_classes: number of classes of the whole data set; 0 without labels.
        roles: int8 `[nodes]`: 0 train, 1 validation, 2 test, -1 none.
        shareable: bool `[nodes]`: the nodes that the client may reveal to others, under a keyed hash of
            their ids. In a prepared partition: those that more than one client holds.
        cross_edges: int64 `[2, cross edges]`, the edges that the client knows and holds one end of: a LOCAL id, and the
            GLOBAL id of a neighbour that it does not hold. Each edge once, sorted by (row 0, row 1), and none in
            `edge_index`. Only methods that exchange data across them use them. The client knows the neighbour's id
            alone, not its holder, if there is one. None where a site made its own folder.
        edge_weight: float32 `[edges]`, positive, equal in both directions of an edge; None without weights.
        cross_weight: float32 `[cross edges]`, the weights of `cross_edges`; None without weights.
    """

    client_id: int
    node_ids: np.ndarray
    features: FeatureMatrix
    edge_index: np.ndarray
    labels: np.ndarray | None
    num_classes: int
    roles: np.ndarray
    shareable: np.ndarray
    cross_edges: np.ndarray = field(default_factory=_no_edges)
    edge_weight: np.ndarray | None = None
    cross_weight: np.ndarray | None = None

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return int(self.node_ids.shape[0])

    @property
    def num_features(self) -> int:
        """Width of the feature matrix."""
        return int(self.features.shape[1])

    @property
    def num_train(self) -> int:
        """Number of training nodes."""
        return int(np.count_nonzero(self.roles == TRAIN))

    def only_nodes(self, places: np.ndarray, roles: np.ndarray) -> ClientGraph:
        """Some of the nodes, without features and edges.

        Args:
            places: int64 [nodes], local ids.
            roles: int8 [nodes], their new roles.
        """
        return replace(
            self,
            node_ids=self.node_ids[places],
            features=np.zeros((len(places), 0), dtype=np.float32),
            edge_index=_no_edges(),
            labels=None if self.labels is None else self.labels[places],
            roles=roles,
            shareable=self.shareable[places],
            cross_edges=_no_edges(),
            edge_weight=None,
            cross_weight=None,
        )

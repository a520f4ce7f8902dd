"""The files of a prepared partition: their content and checks."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from subfl_flower.data.description import describe_graph, graph_digests
from subfl_flower.data.disturbances.disturbed import Disturber
from subfl_flower.data.disturbances.record import Disturbed
from subfl_flower.data.feature_transform import FeatureTransform
from subfl_flower.data.graph import TEST, TRAIN, VALIDATION, ClientGraph, Graph
from subfl_flower.data.graph_file import read_client_graph, read_graph, write_client_graph, write_graph
from subfl_flower.data.prepared.entry import PreparedEntry, write_metadata
from subfl_flower.data.subgraphs import SubgraphCutter
from subfl_flower.errors import SubflError
from subfl_flower.storage.durable_files import write_durably
from subfl_flower.storage.tensor_file import Card, read_tensor_file, write_tensor_file

SCHEMA_VERSION = 7
"""Raised whenever the same settings would give other files; since 7 each file of arrays states its kind."""

_GRAPH, _CROSS_EDGES, _NAMES = "global.safetensors", "cross_edges.safetensors", "names.json"


class CrossEdgesCard(Card):
    """Edges between clients."""

    holds: ClassVar[str] = "the edges between clients"
    remedy: ClassVar[str] = "prepare the partition again"

    kind: Literal["cross_edges"] = "cross_edges"


class PreparedPartition(PreparedEntry):
    """A directory that holds the global graph, every client's subgraph and the edges between clients.

    `metadata.json`; `client-0000.safetensors`, ...; `global.safetensors`, the whole graph with its
    roles; `cross_edges.safetensors`, the edges that no client holds; `names.json`, the source's id of each node,
    where it has ids. A file is checked against the size and sha256 in the metadata when it is read.

    Attributes:
        directory: the directory of the files.
        metadata: content of `metadata.json`: the settings, sizes for every client, checksums.
    """

    schema = SCHEMA_VERSION

    @property
    def num_clients(self) -> int:
        """Number of clients."""
        return len(self.metadata["clients"])

    @property
    def num_features(self) -> int:
        """Width of the feature matrix."""
        return int(self.metadata["num_features"])

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 without labels."""
        return int(self.metadata["num_classes"])

    @property
    def overlapping(self) -> bool:
        """True if the partitioner lets clients share nodes."""
        return bool(self.metadata["overlapping"])

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The source's name of each class; None where it has numbers only."""
        names = self.metadata["class_names"]
        return None if names is None else tuple(names)

    @property
    def transform(self) -> FeatureTransform | None:
        """Treatment of the source's features; None where there was none."""
        transform = self.metadata["transform"]
        return None if transform is None else FeatureTransform.model_validate(transform)

    @property
    def data(self) -> dict[str, Any]:
        """Facts on the data; see `description.describe_graph`."""
        facts: dict[str, Any] = self.metadata["data"]
        return facts

    def node_names(self) -> np.ndarray | None:
        """The source's id of each node of the global graph, text `[nodes]`; None where it numbers its rows.

        Raises:
            SubflError: the file is damaged.
        """
        return self._node_names

    @cached_property
    def _node_names(self) -> np.ndarray | None:
        if _NAMES not in self.metadata["files"]:
            return None
        return np.array(json.loads(self.verified(_NAMES).read_bytes()), dtype=object)

    def client(self, client_id: int) -> ClientGraph:
        """One client's graph.

        Raises:
            SubflError: there is no such client, or its file is damaged.
        """
        if not 0 <= client_id < self.num_clients:
            raise SubflError(f"{self.directory} has the clients 0..{self.num_clients - 1}, not {client_id}")
        return read_client_graph(self.verified(client_file(client_id)))

    def graph(self) -> tuple[Graph, np.ndarray]:
        """The global graph and the role of every node (int8 `[nodes]`).

        Raises:
            SubflError: the file is damaged.
        """
        return read_graph(self.verified(_GRAPH))

    def cross_edges(self) -> np.ndarray:
        """The edges that no client holds: int64 `[2, edges]`, global ids, both directions.

        Raises:
            SubflError: the file is damaged.
        """
        return read_tensor_file(self.verified(_CROSS_EDGES), CrossEdgesCard)[0]["edge_index"]


def client_file(client_id: int) -> str:
    """The name of a client's file."""
    return f"client-{client_id:04d}.safetensors"


def write_partition(
    directory: Path,
    graph: Graph,
    roles: np.ndarray,
    assignments: list[np.ndarray],
    described: dict[str, Any],
    lost: np.ndarray | None = None,
    disturber: Disturber | None = None,
) -> None:
    """Write every file of a prepared partition into an empty directory.

    Args:
        directory: where to write.
        graph: the global graph.
        roles: int8 `[nodes]`.
        assignments: one ascending int64 array of node ids a client.
        described: further metadata: the schema, the settings, `overlapping`.
        lost: bool `[edges]`, edges of `graph` that no client is to hold; None: no such.
        disturber: disturbs clients' graphs; None: they stay as they are cut.
    """
    write_graph(directory / _GRAPH, graph, roles)
    cutter = SubgraphCutter(graph, roles, assignments, lost)
    clients, disturbed = [], Disturbed()
    for client_id in range(len(assignments)):
        client = cutter.cut(client_id)
        if disturber is not None:
            client = disturbed.take(*disturber.of(client))
        write_client_graph(directory / client_file(client_id), client)
        counts = np.bincount(client.roles + 1, minlength=4)[1:]
        clients.append(
            {"nodes": client.num_nodes, "edges": int(client.edge_index.shape[1])}
            | {name: int(counts[role]) for name, role in (("train", TRAIN), ("validation", VALIDATION), ("test", TEST))}
            | ({} if disturber is None else disturbed.about_last)
        )
    cross_edges = cutter.cross_edges()
    write_tensor_file(directory / _CROSS_EDGES, {"edge_index": cross_edges}, CrossEdgesCard())
    if graph.node_names is not None:
        write_durably(directory / _NAMES, json.dumps(graph.node_names.tolist()).encode())
    files = {name: digest for name, digest in described.get("source_files", ())}
    digests = {"files": files, **graph_digests(graph, roles, assignments)}
    facts = describe_graph(graph, roles, assignments, clients, cross_edges.shape[1] // 2)
    if disturber is not None:
        digests["partition"] = disturbed.digest(str(digests["partition"]))
        facts["disturbed"] = disturbed.facts(disturber)
    metadata = described | {
        "class_names": graph.class_names,
        "transform": None if graph.transform is None else graph.transform.model_dump(mode="json"),
        "data": facts | {"fingerprints": digests},
        "num_nodes": graph.num_nodes,
        "num_edges": graph.num_edges,
        "num_features": graph.num_features,
        "num_classes": graph.num_classes,
        "num_cross_edges": int(cross_edges.shape[1]),
        "clients": clients,
    }
    write_metadata(directory, metadata)

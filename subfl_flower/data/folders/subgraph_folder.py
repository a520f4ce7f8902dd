"""Folder with one client's graph: all that the client's machine needs.

Of other clients' data it contains only the ids of nodes that are neighbours of the client's nodes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from subfl_flower.data.data_facts import NOTHING_KNOWN, DataFacts
from subfl_flower.data.folders.described_folder import AGAIN, DescribedFolder, Description
from subfl_flower.data.folders.subgraph_check import require_sound
from subfl_flower.data.graph import TEST, TRAIN, VALIDATION, ClientGraph
from subfl_flower.data.graph_file import read_client_graph, write_client_graph
from subfl_flower.errors import SubflError
from subfl_flower.storage.durable_files import write_durably
from subfl_flower.storage.sealed_folder import new_folder

_GRAPH, _NAMES = "graph.safetensors", "names.json"


class ClientDescription(DataFacts, Description):
    """Content of `client.json` for a client with a graph.

    Attributes:
        num_nodes, num_edges: of the client's graph; every edge counts in both directions.
        num_cross_edges: edges to nodes that the client does not hold, each counted once; 0 where a site made its own
            folder.
        num_features, num_classes: of the whole data set; no classes without labels.
        overlapping: true if clients may share nodes.
        classes, transform, data, reading: of the whole data set; see `DataFacts`.
    """

    needed: ClassVar[tuple[str, ...]] = (_GRAPH,)
    optional: ClassVar[tuple[str, ...]] = (_NAMES,)

    kind: Literal["graph"] = "graph"
    num_nodes: int = Field(ge=1)
    num_edges: int = Field(ge=0)
    num_cross_edges: int = Field(ge=0)
    num_features: int = Field(ge=1)
    num_classes: int = Field(ge=0)
    overlapping: bool

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        self.require_classes(self.num_classes)
        return self

    @property
    def of_partition(self) -> tuple[object, ...]:
        """Facts that all clients of a partition share."""
        return (*super().of_partition, self.num_features, self.num_classes, self.classes)


@dataclass(frozen=True)
class ClientFolder(DescribedFolder[ClientDescription]):
    """A client's folder: `client.json`, `graph.safetensors` and `clients.key`, the key that all clients share.

    Where the source has ids, `names.json` lists those of the client's nodes.

    Attributes:
        path: path of the folder.
        description: content of `client.json`.
    """

    described_by: ClassVar[type[ClientDescription]] = ClientDescription

    def graph(self) -> ClientGraph:
        """The client's graph, checked against its checksum and its description.

        Raises:
            SubflError: the file is damaged, is no client's graph, or is not the graph that `client.json` describes.
        """
        file = self.verified(_GRAPH)
        graph = read_client_graph(file)
        require_sound(graph, str(file))
        self.description.require_facts(_facts(graph), file)
        return graph

    def names(self) -> np.ndarray | None:
        """The source's ids of the client's nodes, text `[nodes]`; None where the source numbers its rows.

        Raises:
            SubflError: the file is damaged, or does not hold a different text for each node.
        """
        names = self.texts(_NAMES, list[str], "a list of texts")
        if names is None:
            return None
        said = self.description.num_nodes
        if len(names) != said or len(set(names)) != said:
            raise SubflError(f"{self.path / _NAMES} must name {said} nodes, each otherwise; {AGAIN}")
        return np.array(names, dtype=object)


def write_client_folder(
    path: Path,
    graph: ClientGraph,
    *,
    dataset: str,
    partition: str,
    num_clients: int | None,
    overlapping: bool,
    key: bytes,
    facts: DataFacts = NOTHING_KNOWN,
    names: np.ndarray | None = None,
) -> None:
    """Write a client's folder whole or not at all: it is written under a temporary name and renamed.

    Args:
        path: path of the folder; must not exist.
        graph: the client's graph.
        dataset: name of the data set.
        partition: key of the prepared partition, 16 hexadecimal digits; empty where a site makes its own folder.
        num_clients: number of clients; None where a site does not know it.
        overlapping: true if clients may share nodes.
        key: the clients' shared key; the file is readable by its owner alone.
        facts: facts on the whole data set.
        names: text `[nodes]`, the source's ids of the client's nodes; None where it numbers its rows.

    Raises:
        SubflError: `path` exists, the graph is not sound, or the folder cannot be written.
    """
    with new_folder(path) as unfinished:
        require_sound(graph, f"the graph of client {graph.client_id}")
        write_client_graph(unfinished / _GRAPH, graph)
        if names is not None:
            write_durably(unfinished / _NAMES, json.dumps(names.tolist()).encode())
        ClientFolder.seal(
            unfinished,
            key,
            **{**dict(facts), **_facts(graph)},
            dataset=dataset,
            partition=partition,
            clients=num_clients,
            overlapping=overlapping,
        )


def _facts(graph: ClientGraph) -> dict[str, int]:
    """The facts of a description that follow from the graph."""
    facts = {
        "client_id": graph.client_id,
        "num_nodes": graph.num_nodes,
        "num_edges": int(graph.edge_index.shape[1]),
        "num_cross_edges": int(graph.cross_edges.shape[1]),
        "num_features": graph.num_features,
        "num_classes": graph.num_classes,
    }
    roles = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    return facts | {name: int((graph.roles == role).sum()) for name, role in roles.items()}

"""One client's graph as a folder of its own: all that a client's machine needs.

Of what other clients hold it names nothing but the ids of its own nodes' neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from subfl_flower.data.client_graph_check import require_sound
from subfl_flower.data.durable_files import write_durably
from subfl_flower.data.graph import TEST, TRAIN, VALIDATION, ClientGraph
from subfl_flower.data.sealed_folder import (
    AGAIN,
    CLIENT_SCHEMA,
    DESCRIPTION,
    KEY,
    Description,
    FileEntry,
    SealedFolder,
    new_folder,
    open_folders,
    sealed_files,
)
from subfl_flower.data.storage import read_client_graph, write_client_graph
from subfl_flower.errors import SubflError

__all__ = [
    "CLIENT_SCHEMA",
    "ClientDescription",
    "ClientFolder",
    "FileEntry",
    "open_client_folders",
    "write_client_folder",
]

_GRAPH = "graph.safetensors"


class ClientDescription(Description):
    """What `client.json` says of a client with a graph.

    Attributes:
        num_nodes, num_edges: of the client's graph; every edge counts in both directions.
        num_cross_edges: edges to nodes that the client does not hold, each counted once; 0 where a site made its own
            folder.
        num_features, num_classes: of the whole data set; no classes without labels.
        overlapping: whether clients may share nodes.
    """

    holds: ClassVar[str] = "graph"
    needed: ClassVar[tuple[str, ...]] = (_GRAPH,)

    num_nodes: int = Field(ge=1)
    num_edges: int = Field(ge=0)
    num_cross_edges: int = Field(ge=0)
    num_features: int = Field(ge=1)
    num_classes: int = Field(ge=0)
    overlapping: bool

    @property
    def of_partition(self) -> tuple[object, ...]:
        """What all clients of a partition have in common."""
        return (*super().of_partition, self.num_features, self.num_classes)


@dataclass(frozen=True)
class ClientFolder(SealedFolder[ClientDescription]):
    """A client's folder: `client.json`, `graph.safetensors` and `clients.key`, the key that all clients share.

    Attributes:
        path: of the folder.
        description: what `client.json` says.
    """

    described_by: ClassVar[type[ClientDescription]] = ClientDescription

    def graph(self) -> ClientGraph:
        """What the client holds, checked against its checksum and its description.

        Raises:
            SubflError: the file is damaged, is no client's graph, or is not the graph that `client.json` describes.
        """
        file = self.verified(_GRAPH)
        try:
            graph = read_client_graph(file)
        except SubflError:
            raise
        except Exception as error:  # NumPy, SciPy and JSON each raise their own for arrays that are none of a graph's
            raise SubflError(f"{file} does not hold a client's graph ({error}); {AGAIN}") from error
        require_sound(graph, str(file))
        self.description.require_facts(_facts(graph), file)
        return graph


def open_client_folders(paths: Sequence[Path]) -> list[ClientFolder]:
    """The folders of clients that one node hosts, by ascending client id.

    Raises:
        SubflError: one cannot be opened, two hold the same client, or they are not of one partition.
    """
    return open_folders(ClientFolder, paths)


def write_client_folder(
    path: Path,
    graph: ClientGraph,
    *,
    dataset: str,
    partition: str,
    num_clients: int | None,
    overlapping: bool,
    key: bytes,
) -> None:
    """Write a client's folder. It appears whole or not at all: it is written beside its place and renamed.

    Args:
        path: of the folder; must not exist.
        graph: what the client holds.
        dataset: name of the data set.
        partition: key of the prepared partition, 16 hexadecimal digits; empty where a site makes its own folder.
        num_clients: how many clients there are; None where a site does not know.
        overlapping: whether clients may share nodes.
        key: the clients' shared key; the file is readable by its owner alone.

    Raises:
        SubflError: `path` exists, the graph is not sound, or the folder cannot be written.
    """
    with new_folder(path) as unfinished:
        require_sound(graph, f"the graph of client {graph.client_id}")
        write_client_graph(unfinished / _GRAPH, graph)
        description = ClientDescription(
            **_facts(graph),
            dataset=dataset,
            partition=partition,
            clients=num_clients,
            overlapping=overlapping,
            files=sealed_files(unfinished),
        )
        write_durably(unfinished / KEY, key, mode=0o600)
        write_durably(unfinished / DESCRIPTION, description.as_bytes())


def _facts(graph: ClientGraph) -> dict[str, int]:
    """What of a description follows from the graph."""
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

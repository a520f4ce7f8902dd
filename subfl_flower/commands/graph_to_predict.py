"""The graph that predictions are made of: a client's folder, or a file of the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from subfl_flower.data.client_folder import ClientFolder
from subfl_flower.data.datasets import CustomDataset
from subfl_flower.data.graph import NO_ROLE, ClientGraph, Graph
from subfl_flower.errors import SubflError


@dataclass(frozen=True, eq=False)
class GraphToPredict:
    """A graph, and how its nodes are called.

    Attributes:
        graph: cleaned as for training.
        names: what users call the nodes, `[nodes]`: a client's global ids, a table's ids, or positions in a PyG file.
        of_client: whether it is a client's own graph, with roles.
        about: what it is, in words.
    """

    graph: ClientGraph
    names: np.ndarray
    of_client: bool
    about: str

    def comparable_labels(self, num_classes: int) -> np.ndarray | None:
        """The labels, int64 `[nodes]`, -1 where there is none; None unless there are as many classes."""
        return self.graph.labels if self.graph.num_classes == num_classes else None


def open_graph(path: Path, row_normalize: bool, classes: tuple[str, ...] | None = None) -> GraphToPredict:
    """Open a client's folder, or what `dataset.path` of `dataset=custom` takes.

    Args:
        path: of the folder or file.
        row_normalize: make the feature rows of a file sum to one; a client's folder holds what training read.
        classes: the labels of a file in the order of their class numbers; None sorts the labels that are found.

    Raises:
        SubflError: it is missing, damaged or malformed, or a class is named twice.
    """
    if not path.exists():
        raise SubflError(f"{path} does not exist; a graph is a client's folder, a PyG file or a folder of tables")
    if (path / "client.json").exists():
        client = ClientFolder.open(path).graph()
        return GraphToPredict(client, client.node_ids, True, f"the graph of client {client.client_id}")
    if classes is not None and len(set(classes)) < len(classes):
        raise SubflError(f"--classes: every class must be named once (found {','.join(classes)})")
    dataset = CustomDataset(path=path, row_normalize=row_normalize, classes=classes)
    graph = dataset.load(Path())
    names = dataset.node_names()
    treated = "with rows that sum to one" if row_normalize else "as they are"
    return GraphToPredict(
        _without_roles(graph),
        np.arange(graph.num_nodes) if names is None else names,
        False,
        f"{path}, features {treated}",
    )


def _without_roles(graph: Graph) -> ClientGraph:
    return ClientGraph(
        client_id=0,
        node_ids=np.arange(graph.num_nodes),
        features=graph.features,
        edge_index=graph.edge_index,
        labels=graph.labels,
        num_classes=graph.num_classes,
        roles=np.full(graph.num_nodes, NO_ROLE, dtype=np.int8),
        shareable=np.zeros(graph.num_nodes, dtype=bool),
    )

"""Disjoint subgraphs by METIS."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pymetis
from pydantic import Field

from subfl_flower.data.graph import Graph
from subfl_flower.data.partitions.settings import PartitionSettings, require_nodes
from subfl_flower.errors import SubflError


def metis_parts(graph: Graph, parts: int, seed: int, what: str) -> list[np.ndarray]:
    """Divide the nodes into parts of about equal size with few edges between them.

    Karypis and Kumar, A Fast and High Quality Multilevel Scheme for Partitioning Irregular Graphs, SIAM
    J. Sci. Comput. 1998. Same graph, same seed, same parts.

    Args:
        graph: the global graph.
        parts: number of parts.
        seed: METIS' own seed.
        what: the setting that `parts` comes from, for an error.

    Returns:
        `parts` ascending int64 arrays of node ids, none empty, that cover every node once.

    Raises:
        SubflError: more parts than nodes, or METIS leaves a part empty.
    """
    require_nodes(graph, parts, what)
    degrees = np.bincount(graph.edge_index[0], minlength=graph.num_nodes)
    starts = np.concatenate([[0], np.cumsum(degrees)])
    adjacency = pymetis.CSRAdjacency(starts.astype(np.int32), graph.edge_index[1].astype(np.int32))
    _, membership = pymetis.part_graph(parts, adjacency, options=pymetis.Options(seed=seed))
    owner = np.asarray(membership, dtype=np.int64)
    sizes = np.bincount(owner, minlength=parts)
    if (sizes == 0).any():
        raise SubflError(
            f"METIS left {np.count_nonzero(sizes == 0)} of {what}={parts} parts of {graph.num_nodes} nodes "
            "empty; ask for fewer, or use partition=random"
        )
    return np.split(np.argsort(owner, kind="stable"), np.cumsum(sizes)[:-1])


class MetisPartition(PartitionSettings):
    """The global graph cut by METIS into one part a client: FED-PUB's disjoint setting (Section 5.1)."""

    name: Literal["metis"] = "metis"
    clients: int = Field(default=10, ge=1)

    def assign(self, graph: Graph) -> list[np.ndarray]:
        """One METIS part a client; disjoint, covers every node.

        Raises:
            SubflError: more clients than nodes, or METIS leaves a client empty.
        """
        return metis_parts(graph, self.clients, self.seed, "partition.clients")

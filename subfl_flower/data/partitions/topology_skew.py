"""Disjoint subgraphs with skewed topology: clients differ in homophily or in degree."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from subfl_flower.data.graph import Graph
from subfl_flower.data.partitions.metis import metis_parts
from subfl_flower.data.partitions.settings import PartitionSettings
from subfl_flower.errors import SubflError
from subfl_flower.seeding import shared_generator


class TopologySkewPartition(PartitionSettings):
    """Small METIS parts, dealt to clients in the order of a property of their topology.

    The graph is cut into P = clients · parts_per_client parts of about equal size. Part p has rank r(p) by its property
    and rank q(p) in a random order, both 0 .. P - 1. Parts are ordered by skew · r(p) + (1 - skew) · q(p), and each
    client gets parts_per_client of them that follow one another.

    Attributes:
        by: the property. ``homophily``: share of a part's inner edges between labelled nodes whose ends have one class,
            1 without such an edge. ``degree``: mean degree of its nodes in the whole graph.
        parts_per_client: number of parts that a client gets.
        skew: weight of the property against chance.
    """

    name: Literal["topology_skew"] = "topology_skew"
    clients: int = Field(default=10, ge=1)
    by: Literal["homophily", "degree"] = "homophily"
    parts_per_client: int = Field(default=10, ge=1)
    skew: float = Field(default=1.0, ge=0, le=1)

    def assign(self, graph: Graph) -> list[np.ndarray]:
        """Disjoint, covers every node.

        Raises:
            SubflError: homophily is asked for and no node has a label; more parts than nodes; METIS leaves one empty.
        """
        if self.by == "homophily" and (graph.labels is None or (graph.labels < 0).all()):
            raise SubflError(
                "partition=topology_skew orders by homophily, and no node of this data set has a label; use "
                "partition.by=degree"
            )
        count = self.clients * self.parts_per_client
        parts = metis_parts(graph, count, self.seed, "partition.clients times partition.parts_per_client")
        scores = part_homophily(graph, parts) if self.by == "homophily" else part_degree(graph, parts)
        ranks = np.empty(count)
        ranks[np.argsort(scores, kind="stable")] = np.arange(count)
        chance = shared_generator(self.seed, "topology skew").permutation(count)
        order = np.argsort(self.skew * ranks + (1 - self.skew) * chance, kind="stable")
        dealt = order.reshape(self.clients, self.parts_per_client)
        return [np.sort(np.concatenate([parts[p] for p in own])) for own in dealt]


def part_homophily(graph: Graph, parts: list[np.ndarray]) -> np.ndarray:
    """Share of each part's inner edges between labelled nodes whose ends have one class [P]; 1 without such an edge."""
    assert graph.labels is not None
    part = _membership(graph, parts)
    u, v = graph.edge_index
    inner = (part[u] == part[v]) & (graph.labels[u] >= 0) & (graph.labels[v] >= 0)
    counts = np.bincount(part[u[inner]], minlength=len(parts))
    same = np.bincount(part[u[inner]], graph.labels[u[inner]] == graph.labels[v[inner]], len(parts))
    return np.divide(same, counts, out=np.ones(len(parts)), where=counts > 0)


def part_degree(graph: Graph, parts: list[np.ndarray]) -> np.ndarray:
    """Mean degree of each part's nodes [P], edges to other parts among them."""
    degrees = np.bincount(graph.edge_index[0], minlength=graph.num_nodes)
    return np.array([degrees[nodes].mean() for nodes in parts])


def _membership(graph: Graph, parts: list[np.ndarray]) -> np.ndarray:
    part = np.empty(graph.num_nodes, dtype=np.int64)
    for number, nodes in enumerate(parts):
        part[nodes] = number
    return part

"""Statistics of a partition: sizes, clustering, data heterogeneity and cut edges (FED-PUB, Table 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from subfl_flower.analysis.clustering import average_clustering
from subfl_flower.analysis.labels import jensen_shannon_divergence, label_distribution
from subfl_flower.analysis.pairs import pair_values
from subfl_flower.data.graph import ClientGraph, Graph


@dataclass(frozen=True)
class GraphStatistics:
    """A graph, or the mean over several.

    Attributes:
        nodes: number of nodes.
        edges: number of undirected edges; FED-PUB's tables count both directions.
        classes: number of classes that occur; None without labels.
        clustering: average local clustering coefficient.
    """

    nodes: float
    edges: float
    classes: float | None
    clustering: float

    @classmethod
    def of(cls, graph: Graph | ClientGraph) -> GraphStatistics:
        """Count the nodes, edges, classes and clustering of `graph`."""
        classes = None if graph.labels is None else int(np.unique(graph.labels[graph.labels >= 0]).size)
        clustering = average_clustering(graph.edge_index, graph.num_nodes)
        return cls(graph.num_nodes, graph.edge_index.shape[1] // 2, classes, clustering)


@dataclass(frozen=True)
class PartitionStatistics:
    """Statistics of a partition.

    Attributes:
        whole: the graph that was divided.
        clients: the clients' subgraphs, by id.
        mean: their unweighted mean.
        heterogeneity: median over pairs of clients of the Jensen-Shannon divergence of their label distributions, in
            bits: 0 if all are equal, 1 if no class is shared. None without labels or with a single client.
        label_distance: median over all K x K entries, those of the diagonal included, of the Jensen-Shannon distance of
            label distributions, the square root of the divergence in nats: the heterogeneity of FED-PUB's Table 4.
            None as above.
        missing_edges: undirected edges of the whole graph that no client holds.
        missing_share: their share of the whole graph's edges; NaN where it has none.
    """

    whole: GraphStatistics
    clients: tuple[GraphStatistics, ...]
    mean: GraphStatistics
    heterogeneity: float | None
    label_distance: float | None
    missing_edges: int
    missing_share: float


def partition_statistics(
    graph: Graph, clients: Sequence[ClientGraph], cross_edges: np.ndarray, divergence: np.ndarray | None
) -> PartitionStatistics:
    """Describe a partition.

    Args:
        graph: the global graph.
        clients: each client's subgraph, by id.
        cross_edges: [2, edges], both directions: the edges that no client holds.
        divergence: [K, K], result of `label_divergence`.
    """
    found = tuple(GraphStatistics.of(client) for client in clients)
    missing = cross_edges.shape[1] // 2
    return PartitionStatistics(
        whole=GraphStatistics.of(graph),
        clients=found,
        mean=_mean(found),
        heterogeneity=None if divergence is None else _median(pair_values(divergence)),
        label_distance=None if divergence is None or len(found) < 2 else _median(np.sqrt(np.log(2) * divergence)),
        missing_edges=missing,
        missing_share=missing / (graph.num_edges // 2) if graph.num_edges else float("nan"),
    )


def label_divergence(clients: Sequence[ClientGraph]) -> np.ndarray | None:
    """Jensen-Shannon divergence in bits between clients' label distributions [K, K]; None without labels."""
    distributions = [
        label_distribution(client.labels, client.num_classes) for client in clients if client.labels is not None
    ]
    return jensen_shannon_divergence(np.stack(distributions)) if len(distributions) == len(clients) else None


def _mean(graphs: Sequence[GraphStatistics]) -> GraphStatistics:
    means = pd.DataFrame(graphs, dtype="float64").mean()
    return GraphStatistics(**means.astype(object).where(means.notna(), None))


def _median(values: np.ndarray) -> float | None:
    """Median of the known values; None where there is none."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else None

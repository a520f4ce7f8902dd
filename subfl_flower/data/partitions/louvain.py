"""Disjoint subgraphs made of Louvain communities."""

from __future__ import annotations

import heapq
from typing import Literal

import numpy as np
from pydantic import Field

from subfl_flower.data.graph import Graph
from subfl_flower.data.partitions.metis import metis_split
from subfl_flower.data.partitions.settings import PartitionSettings, require_nodes
from subfl_flower.errors import SubflError
from subfl_flower.seeding import shared_generator

LARGEST_SHARE = 1.5
"""A community of more than this many times a client's fair share of the nodes is divided."""


class LouvainPartition(PartitionSettings):
    """Louvain communities, merged to clients of balanced size.

    Blondel et al., Fast Unfolding of Communities in Large Networks, J. Stat. Mech. 2008. While there are fewer
    communities than clients, or the largest has more than 1.5 times nodes/clients nodes, METIS halves the
    largest. Then, from the largest to the smallest, each goes to the client with the fewest nodes so far
    (Graham, Bounds on Multiprocessing Timing Anomalies, SIAM J. Appl. Math. 1969). Every client holds less than
    twice nodes/clients.

    Attributes:
        resolution: above 1 communities are smaller and more, below 1 larger and fewer.
        merge: `balanced` as above. `random`: communities are kept whole, and each client gets as many of them, at
            random, whatever their sizes (Zhang et al., NeurIPS 2021, as FED-PUB describes it in App. C.2).
    """

    name: Literal["louvain"] = "louvain"
    clients: int = Field(default=10, ge=1)
    resolution: float = Field(default=1.0, gt=0)
    merge: Literal["balanced", "random"] = "balanced"

    def assign(self, graph: Graph) -> list[np.ndarray]:
        """Disjoint, covers every node.

        Raises:
            SubflError: more clients than nodes, or than communities where these are kept whole.
        """
        require_nodes(graph, self.clients, "partition.clients")
        communities = louvain_communities(graph, self.resolution, self.seed)
        if self.merge == "random":
            if len(communities) < self.clients:
                raise SubflError(
                    f"partition.clients={self.clients} is more than the {len(communities)} communities that Louvain's "
                    "method finds; raise partition.resolution, or use partition.merge=balanced"
                )
            order = shared_generator(self.seed, "merged communities").permutation(len(communities))
            return [
                np.sort(np.concatenate([communities[i] for i in each])) for each in np.array_split(order, self.clients)
            ]
        return merged(divided(graph, communities, self.clients, self.seed), self.clients)


def louvain_communities(graph: Graph, resolution: float, seed: int) -> list[np.ndarray]:
    """The communities that Louvain's method finds: ascending int64 arrays of node ids that cover every node once.

    Args:
        graph: the global graph.
        resolution: weight of the expected against the actual edges of a community.
        seed: of the order in which nodes are visited.
    """
    import networkx as nx

    network = nx.empty_graph(graph.num_nodes)
    network.add_edges_from(graph.edge_index.T.tolist())
    found = nx.community.louvain_communities(network, resolution=resolution, seed=seed)
    return [np.array(sorted(community), dtype=np.int64) for community in found]


def divided(graph: Graph, communities: list[np.ndarray], clients: int, seed: int) -> list[np.ndarray]:
    """Communities, the largest halved by METIS until there are enough of them and none is much too large.

    Args:
        graph: the global graph.
        communities: disjoint ascending int64 arrays of node ids that cover the graph.
        clients: number of clients, at most the number of nodes.
        seed: METIS' seed.

    Returns:
        at least `clients` such arrays of at most `LARGEST_SHARE` times nodes/clients nodes each, from the
        largest to the smallest, among equals the one with the lowest id first.
    """
    limit = LARGEST_SHARE * graph.num_nodes / clients
    largest_first = [_entry(nodes) for nodes in communities]
    heapq.heapify(largest_first)
    while len(largest_first) < clients or largest_first[0][2].size > limit:
        *_, largest = heapq.heappop(largest_first)
        for half in metis_split(graph, largest, 2, seed):
            heapq.heappush(largest_first, _entry(half))
    return [nodes for *_, nodes in sorted(largest_first)]


def _entry(nodes: np.ndarray) -> tuple[int, int, np.ndarray]:
    """Sort key: larger communities first, then those with the lowest id."""
    return -nodes.size, int(nodes[0]), nodes


def merged(communities: list[np.ndarray], clients: int) -> list[np.ndarray]:
    """The nodes of every client: each community goes to the client with the fewest nodes so far.

    Args:
        communities: disjoint int64 arrays of node ids, from the largest to the smallest.
        clients: number of clients, at most that of communities.

    Returns:
        `clients` ascending int64 arrays.
    """
    fewest_first = [(0, client_id) for client_id in range(clients)]
    held: list[list[np.ndarray]] = [[] for _ in range(clients)]
    for nodes in communities:
        size, client_id = fewest_first[0]
        held[client_id].append(nodes)
        heapq.heapreplace(fewest_first, (size + nodes.size, client_id))
    return [np.sort(np.concatenate(group)) for group in held]

"""Structural distances: seconds that clients take to describe their subgraphs, and the server to compare them.

OMP_NUM_THREADS=1 .venv/bin/python benchmarks/structural.py --data-root "$SUBFL_DATA"

Cora and Photo are divided among 15 and 50 clients with overlap. Then each of 50 clients holds all of Photo and may
share a tenth of its nodes. Every shareable node is the source of a search. Clients take turns on one thread. Without
--data-root the graphs are random, as large as the real ones.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from rich.console import Console
from rich.table import Table

from subfl_flower.data.cleaning import undirected_edges
from subfl_flower.data.datasets.amazon import PhotoDataset
from subfl_flower.data.datasets.planetoid import CoraDataset
from subfl_flower.data.graph import Graph
from subfl_flower.data.partitions.overlapping import OverlappingPartition
from subfl_flower.subgraphs.similarity.random_graph import erdos_renyi
from subfl_flower.subgraphs.similarity.structural import describe_structure, structural_distances

DATASETS = {"cora": CoraDataset, "photo": PhotoDataset}
SIZES = {"cora": (2_485, 10_138), "photo": (7_487, 238_086)}
KEY = bytes(range(32))


@dataclass(frozen=True)
class Subgraph:
    """Client's data that `describe_structure` needs."""

    edge_index: np.ndarray
    node_ids: np.ndarray
    shareable: np.ndarray


@dataclass(frozen=True)
class Timing:
    """One case: clients, the most nodes and shareable nodes of one client, seconds of all clients together."""

    clients: int
    nodes: int
    shareable: int
    describe: float
    compare: float


@dataclass(frozen=True)
class Case:
    """A graph, its number of clients, and the target in seconds for all of them on one thread."""

    what: str
    dataset: str
    clients: int
    share: float | None
    """Shareable share of the whole graph, which every client holds; None: the graph is divided with overlap."""
    target: float

    def subgraphs(self, root: Path | None) -> Iterator[Subgraph]:
        """The clients, one at a time."""
        graph = random_graph(*SIZES[self.dataset]) if root is None else DATASETS[self.dataset]().load(root)
        return divided(graph, self.clients) if self.share is None else whole(graph, self.clients, self.share)


CASES = {
    "a": Case("Cora cut", "cora", 15, None, 5.0),
    "b1": Case("Photo cut", "photo", 50, None, 60.0),
    "b2": Case("Photo each", "photo", 50, 0.1, 60.0),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, help="where Planetoid/Cora/raw and Amazon/Photo/raw are")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    arguments = parser.parse_args(argv)

    table = Table(title="Structural distances")
    for name in ("case", "clients", "nodes", "sources", "describe s", "compare s", "target"):
        table.add_column(name, justify="left" if name == "case" else "right")
    for name in arguments.cases:
        case = CASES[name]
        found = measure(case.subgraphs(arguments.data_root))
        table.add_row(
            f"{name}: {case.what}",
            *(f"{count:,}" for count in (found.clients, found.nodes, found.shareable)),
            *(f"{seconds:.3f}" for seconds in (found.describe, found.compare)),
            f"< {case.target:.0f}",
        )
    Console().print(table)


def random_graph(num_nodes: int, num_edges: int) -> Graph:
    """A random graph with about as many directed edges, without labels."""
    edges = erdos_renyi(num_nodes, num_edges / (num_nodes * (num_nodes - 1)), np.random.default_rng(0))
    return Graph(np.zeros((num_nodes, 1), dtype=np.float32), undirected_edges(edges, num_nodes), None, 0)


def divided(graph: Graph, clients: int) -> Iterator[Subgraph]:
    """Subgraphs of FED-PUB's overlapping setting; shareable are the nodes that more than one client holds."""
    assignments = OverlappingPartition(clients=clients).assign(graph)
    held = np.bincount(np.concatenate(assignments), minlength=graph.num_nodes)
    ones = np.ones(graph.num_edges, dtype=np.int8)
    adjacency = sp.csr_array((ones, tuple(graph.edge_index)), shape=(graph.num_nodes,) * 2)
    for nodes in assignments:
        edges = np.stack(adjacency[nodes][:, nodes].nonzero()).astype(np.int64)
        yield Subgraph(edges, nodes, held[nodes] > 1)


def whole(graph: Graph, clients: int, share: float) -> Iterator[Subgraph]:
    """Clients that hold the whole graph and may share the same `share` of its nodes."""
    nodes = np.arange(graph.num_nodes)
    chosen = np.random.default_rng(0).choice(nodes, round(share * len(nodes)), replace=False)
    for _ in range(clients):
        yield Subgraph(graph.edge_index, nodes, np.isin(nodes, chosen))


def measure(subgraphs: Iterator[Subgraph]) -> Timing:
    """Describe all clients and compare them, once: the work is long compared with the clock's resolution."""
    structures, nodes, describe = [], 0, 0.0
    for subgraph in subgraphs:
        num_nodes = len(subgraph.node_ids)
        start = time.perf_counter()
        structures.append(
            describe_structure(subgraph.edge_index, num_nodes, subgraph.shareable, subgraph.node_ids, KEY)
        )
        describe += time.perf_counter() - start
        nodes = max(nodes, num_nodes)
    start = time.perf_counter()
    structural_distances(structures)
    compare = time.perf_counter() - start
    return Timing(len(structures), nodes, max(len(structure.tokens) for structure in structures), describe, compare)


if __name__ == "__main__":
    main()

"""The clients that one node hosts: their graphs, and the chunks of clients that are worked at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch

from subfl_flower.data.data_facts import NOTHING_KNOWN, DataFacts
from subfl_flower.data.graph import ClientGraph, Graph
from subfl_flower.data.prepared.partition import PreparedPartition
from subfl_flower.errors import SubflError
from subfl_flower.node.shared_key import SharedKey
from subfl_flower.privacy.discrete_noise import Words
from subfl_flower.seeding import client_generator, system_words, words_of
from subfl_flower.subgraphs.prepared import Prepared
from subfl_flower.tasks.choices import Examples, GraphTask

# A stacked step keeps several copies of its parameters and activations alive; on a GPU a chunk takes at most this share
# of the free memory, each parameter and activation counted this many times.
_MEMORY_SHARE, _COPIES = 0.4, 12
# On a CPU a chunk has at most as many parameters and activations: enough that computing outweighs starting operations.
_CHUNK_FLOATS = 4_000_000


@dataclass(frozen=True)
class Cohort:
    """The clients of a node.

    Attributes:
        graphs: each client's graph, by position in the cohort.
        num_features, num_classes: of the whole data set.
        device: where models are trained.
        chunk: clients worked at once; ``auto`` decides by device and size, ``all`` is the whole cohort.
        task: the task that they learn.
        shared_key: the key that all clients share and the server does not have.
        whole: reads the graph that the clients' subgraphs were cut from, and its nodes' roles; for upper bounds.
        facts: facts on the whole data set; they travel with models.
    """

    graphs: tuple[ClientGraph, ...]
    num_features: int
    num_classes: int
    device: torch.device
    chunk: int | Literal["auto", "all"]
    task: GraphTask
    shared_key: SharedKey | None = None
    whole: Callable[[], tuple[Graph, np.ndarray]] | None = None
    facts: DataFacts = NOTHING_KNOWN

    @classmethod
    def load(
        cls,
        partition: PreparedPartition,
        client_ids: Sequence[int],
        device: torch.device,
        chunk: int | Literal["auto", "all"],
        task: GraphTask,
        shared_key: SharedKey | None = None,
    ) -> Cohort:
        """Read the graphs of `client_ids` from a prepared partition."""
        graphs = tuple(partition.client(client_id) for client_id in client_ids)
        return cls(
            graphs,
            partition.num_features,
            partition.num_classes,
            device,
            chunk,
            task,
            shared_key,
            partition.graph,
            DataFacts.of(partition),
        )

    @cached_property
    def visible(self) -> tuple[ClientGraph, ...]:
        """The part of `graphs` that the task lets a model see."""
        return tuple(self.task.visible(graph) for graph in self.graphs)

    @cached_property
    def num_examples(self) -> tuple[int, ...]:
        """Training examples of each client.

        Raises:
            SubflError: a client has none.
        """
        return tuple(self.task.num_examples(graph) for graph in self.graphs)

    @property
    def sizes(self) -> dict[str, list[float]]:
        """Sizes of each client's graph, for the roster."""
        return {
            "num_examples": [float(count) for count in self.num_examples],
            "num_nodes": [float(graph.num_nodes) for graph in self.graphs],
            "num_edges": [float(graph.edge_index.shape[1]) for graph in self.graphs],
        }

    @property
    def num_outputs(self) -> int:
        """Width of a model's output."""
        return self.task.num_outputs(self.num_classes)

    @property
    def simulated(self) -> bool:
        """True where the graph that the clients' subgraphs were cut from is at hand."""
        return self.whole is not None

    def noise_words(self, seed: int, client_id: int, server_round: int) -> Words:
        """Random words for the noise on a client's upload: of the operating system where clients' data are apart.

        In a simulation they follow from the run's seed, so that runs repeat; such noise hides nothing.
        """
        if self.simulated:
            return words_of(client_generator(seed, client_id, server_round, "noise on the upload"))
        return system_words

    def whole_graph(self, client_id: int, asker: str) -> ClientGraph:
        """The graph that the clients' subgraphs were cut from, as if one client held it.

        Args:
            client_id: that client's id.
            asker: the part that needs the graph, for the error.

        Raises:
            SubflError: the node does not have it, as in a deployment.
        """
        if self.whole is None:
            raise SubflError(
                f"{asker} needs the graph that the clients' subgraphs were cut from; it is not at hand here"
            )
        graph, roles = self.whole()
        return ClientGraph(
            client_id=client_id,
            node_ids=np.arange(graph.num_nodes),
            features=graph.features,
            edge_index=graph.edge_index,
            labels=graph.labels,
            num_classes=graph.num_classes,
            roles=roles,
            shareable=np.zeros(graph.num_nodes, dtype=bool),
            edge_weight=graph.edge_weight,
            cross_weight=None if graph.edge_weight is None else np.zeros(0, dtype=np.float32),
        )

    @property
    def client_ids(self) -> tuple[int, ...]:
        """The clients, by position."""
        return tuple(graph.client_id for graph in self.graphs)

    def chunk_size(self, num_parameters: int, hidden: int) -> int:
        """Clients to work at once, for models of `num_parameters` entries and layers of width `hidden`."""
        if self.chunk == "all":
            return len(self.graphs)
        if self.chunk != "auto":
            return self.chunk
        floats = num_parameters + 2 * hidden * max(graph.num_nodes for graph in self.graphs)
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            return max(1, min(len(self.graphs), int(_MEMORY_SHARE * free / (4 * _COPIES * floats))))
        return -(-len(self.graphs) // _number_of_chunks(len(self.graphs), max(1, _CHUNK_FLOATS // floats)))

    def split(self, positions: Sequence[int], size: int) -> Iterator[list[int]]:
        """Cut `positions` into runs of at most `size`.

        Where some clients are missing and ``auto`` decides, each one is alone on a CPU: another chunk would have to be
        prepared for each set of clients.
        """
        if self.chunk == "auto" and self.device.type == "cpu" and len(positions) < len(self.graphs):
            size = 1
        for start in range(0, len(positions), size):
            yield list(positions[start : start + size])

    def examples(self, positions: Sequence[int]) -> Examples:
        """Examples that some clients learn from and are measured on, prepared on first use."""
        graphs = [self.graphs[position] for position in positions]
        return self._examples.of(tuple(positions), lambda: self.task.examples(graphs, self.device))

    @cached_property
    def _examples(self) -> Prepared[Examples]:
        return Prepared(len(self.graphs))


def _number_of_chunks(clients: int, most: int) -> int:
    """Number of chunks of at most `most` clients: at least 2, a power of 2, for 2, 4 or 8 cores to have equal work."""
    found = 2
    while found * most < clients:
        found *= 2
    return found

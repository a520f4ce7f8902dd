"""Training steps on sampled neighbourhoods, for a client whose whole graph is too large for a step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from subfl_flower.data.graph import NO_ROLE, TRAIN, ClientGraph
from subfl_flower.subgraphs.models.chunk import GraphChunk
from subfl_flower.subgraphs.models.graph_network import GraphNetwork
from subfl_flower.subgraphs.models.local_graph import LocalGraph
from subfl_flower.tasks.choices import Examples, GraphTask


class Minibatches:
    """Steps over a client's training nodes, some at a time.

    Args:
        network: samples the neighbourhoods that it needs.
        task: divides the training nodes.
        device: where steps are computed.
    """

    def __init__(self, network: GraphNetwork[Any], task: GraphTask, device: torch.device) -> None:
        self._network, self._task, self._device = network, task, device

    def epoch(
        self, local: LocalGraph, graph: ClientGraph, rng: np.random.Generator
    ) -> Iterator[tuple[GraphChunk, Examples, float]]:
        """The steps of one epoch: a chunk of one sampled graph, its examples, and their share of the epoch's.

        Args:
            local: the client's whole graph, prepared for the network.
            graph: the client's graph, with labels and roles.
            rng: divides the nodes and draws their neighbours.

        Raises:
            SubflError: the network cannot be trained on samples.
        """
        parts = self._task.minibatches(graph, rng)
        number = sum(len(seeds) for seeds in parts)
        for seeds in parts:
            sample, nodes = self._network.sampled(local, seeds, self._task.max_neighbours, rng)
            roles = np.full(sample.num_own, NO_ROLE, dtype=np.int8)
            roles[: len(seeds)] = TRAIN
            examples = self._task.examples([graph.only_nodes(nodes[: sample.num_own], roles)], self._device)
            yield self._network.stacked([sample], self._device), examples, len(seeds) / number

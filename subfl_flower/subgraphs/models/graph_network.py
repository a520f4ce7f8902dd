"""The interface of networks that clients on graphs train: shapes, initial values, prepared graphs, outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from subfl_flower.data.graph import NO_ROLE, ClientGraph
from subfl_flower.models.settings import GraphModelSettings
from subfl_flower.subgraphs.models.chunk import GraphChunk
from subfl_flower.subgraphs.models.local_graph import LocalGraph

Parameters = Mapping[str, Tensor]
"""Stacked parameters by name, each [C, ...]."""

AnyChunk = TypeVar("AnyChunk", bound=GraphChunk)


class Probe(Protocol):
    """A random graph, prepared to embed models."""

    def embed(self, parameters: Parameters) -> Tensor:
        """Functional embeddings [C, embedding width] of C models."""


class GraphNetwork(ABC, Generic[AnyChunk]):
    """A network for C clients at once; every parameter has a leading client axis.

    Attributes:
        settings: of the network.
        shapes: of what is trained, by name, without client axis.
        buffer_shapes: of what is not trained and may change in a training step, such as running means. It stays with a
            client, is handed over with the parameters, and is exported with them.
        feature_rows: the name of the matrix whose rows belong to features, one each; None where there is none.
        reach: how many edges away from a client's own nodes lie those that its outputs depend on, where `local_graph`
            is cut from a larger graph; None: any.
    """

    settings: GraphModelSettings
    shapes: dict[str, tuple[int, ...]]
    buffer_shapes: Mapping[str, tuple[int, ...]] = {}
    feature_rows: str | None = None
    reach: int | None = None

    @classmethod
    def check(cls, settings: Any) -> None:
        """Refuse settings that no network can be made of, before there are data.

        Raises:
            SubflError: they name what is not there.
        """
        return

    @classmethod
    def reads_edge_weights(cls, settings: Any) -> bool:
        """Find out if a network of these settings computes with edge weights."""
        return True

    @property
    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all that a trained model consists of: parameters and buffers."""
        return {**self.shapes, **self.buffer_shapes}

    @property
    def weight_matrices(self) -> tuple[str, ...]:
        """Names of the parameters with two dimensions and more: what masks act on."""
        return tuple(name for name, shape in self.shapes.items() if len(shape) >= 2)

    @property
    @abstractmethod
    def widest(self) -> int:
        """Width of the widest layer, to estimate memory by."""

    @property
    @abstractmethod
    def embedding_width(self) -> int:
        """Width of `embedding`."""

    # Initial values -------------------------------------------------------------------------------------------------

    @abstractmethod
    def initial_of(self, seed: int) -> dict[str, np.ndarray]:
        """The initial parameters that a whole federation starts from, float32 without client axis."""

    def initial_buffers_of(self, seed: int) -> dict[str, np.ndarray]:
        """The buffers that every client starts from, float32 without client axis."""
        return {}

    # Graphs ---------------------------------------------------------------------------------------------------------

    @abstractmethod
    def local_graph(self, graph: ClientGraph, num_own: int | None = None) -> LocalGraph:
        """The part of a graph's work that is constant in all steps.

        Args:
            graph: the nodes and edges to propagate over.
            num_own: how many of its nodes, from the first on, are the client's own; None for all.
        """

    @abstractmethod
    def stacked(self, graphs: Sequence[LocalGraph], device: torch.device | str = "cpu") -> AnyChunk:
        """A chunk of clients' graphs, which `local_graph` has prepared."""

    def chunk(self, graphs: Sequence[ClientGraph], device: torch.device | str = "cpu") -> AnyChunk:
        """Clients' graphs, prepared for this network."""
        return self.stacked([self.local_graph(graph) for graph in graphs], device)

    # Computing ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def training_draws(
        self, chunk: AnyChunk, generators: Sequence[np.random.Generator], device: torch.device
    ) -> Sequence[Any] | None:
        """Everything random in one training step, each client's from its own generator; None where nothing is.

        What a client draws depends on itself alone, never on the chunk that it is worked in.
        """

    @abstractmethod
    def __call__(self, parameters: Parameters, chunk: AnyChunk, draws: Sequence[Any] | None = None) -> Tensor:
        """Outputs [C, own width, outputs] of clients' own nodes.

        Args:
            parameters: stacked, and buffers; those are changed in place in training, where the network says so.
            chunk: the clients' graphs, as `chunk` prepares them.
            draws: as made by `training_draws`; None to evaluate.
        """

    @abstractmethod
    def embedding(self, parameters: Parameters, chunk: AnyChunk) -> Tensor:
        """The mean over a graph's nodes of what the network makes of each, without dropout: [C, embedding width].

        Args:
            parameters: stacked, and buffers.
            chunk: one graph for each of the C models, all of one size.
        """

    def probe(self, edge_index: np.ndarray, features: np.ndarray, device: torch.device | str = "cpu") -> Probe:
        """A random graph, prepared to embed models of this network.

        Args:
            edge_index: int64 [2, edges] of the random graph, both directions.
            features: float32 [N, features].
            device: where models live.
        """
        return ForwardProbe(self, edge_index, features, device)


class ForwardProbe:
    """A random graph whose embedding is the network's `embedding`, one model after the other.

    Args:
        network: makes the embeddings.
        edge_index: int64 [2, edges] of the random graph, both directions.
        features: float32 [N, features].
        device: where models live.
    """

    def __init__(
        self,
        network: GraphNetwork[Any],
        edge_index: np.ndarray,
        features: np.ndarray,
        device: torch.device | str = "cpu",
    ) -> None:
        self._network = network
        self._chunk = network.chunk([_nobodys(edge_index, features)], device)

    @torch.no_grad()
    def embed(self, parameters: Parameters) -> Tensor:
        """Functional embeddings [C, embedding width] of C models."""
        clients = len(next(iter(parameters.values())))
        alone = ({name: value[c : c + 1] for name, value in parameters.items()} for c in range(clients))
        return torch.cat([self._network.embedding(model, self._chunk) for model in alone])


def _nobodys(edge_index: np.ndarray, features: np.ndarray) -> ClientGraph:
    """A graph without labels and roles, as if a client held it."""
    num_nodes = len(features)
    return ClientGraph(
        client_id=0,
        node_ids=np.arange(num_nodes),
        features=features,
        edge_index=edge_index,
        labels=None,
        num_classes=0,
        roles=np.full(num_nodes, NO_ROLE, dtype=np.int8),
        shareable=np.zeros(num_nodes, dtype=bool),
    )

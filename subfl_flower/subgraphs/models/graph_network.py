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
from subfl_flower.subgraphs.models.input_rows import InputRows
from subfl_flower.subgraphs.models.local_graph import LocalGraph

Parameters = Mapping[str, Tensor]
"""Stacked parameters by name, each [C, ...]."""

AnyChunk = TypeVar("AnyChunk", bound=GraphChunk)


class Probe(Protocol):
    """A random graph, prepared to embed models."""

    def embed(self, parameters: Parameters, rows: InputRows | None = None) -> Tensor:
        """Functional embeddings [C, embedding width] of C models.

        Args:
            parameters: stacked.
            rows: the rows that `parameters` have of the first layer, the others being zero; None: they have all.
        """


class GraphNetwork(ABC, Generic[AnyChunk]):
    """A network for C clients at once; every parameter has a leading client axis.

    Attributes:
        settings: of the network.
        shapes: shapes of trained parameters, by name, without client axis.
        buffer_shapes: shapes of tensors that are not trained and may change in a training step, such as running means.
            They stay with a client, are passed together with the parameters, and are exported with them.
        feature_rows: the name of the matrix whose rows belong to features, one each; None where there is none.
        input_rows: the name of the matrix whose rows belong to the columns of a `LocalGraph`'s inputs; None where there
            is none.
        reach: distance in edges from a client's own nodes of the nodes that its outputs depend on, where `local_graph`
            is cut from a larger graph; None: any distance.
        feature_hops: distance in edges of the nodes whose features a node's outputs depend on; known wherever
            `feature_rows` is. None: any distance.
        side_by_side: True where several threads may compute with it at the same time.
    """

    settings: GraphModelSettings
    shapes: dict[str, tuple[int, ...]]
    buffer_shapes: Mapping[str, tuple[int, ...]] = {}
    feature_rows: str | None = None
    input_rows: str | None = None
    reach: int | None = None
    feature_hops: int | None = None
    side_by_side: bool = True

    @classmethod
    def check(cls, settings: Any) -> None:
        """Refuse settings that make no network, before there are data.

        Raises:
            SubflError: they name something that does not exist.
        """
        return

    @classmethod
    def reads_edge_weights(cls, settings: Any) -> bool:
        """True where a network of these settings computes with edge weights."""
        return True

    @property
    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all tensors of a trained model: parameters and buffers."""
        return {**self.shapes, **self.buffer_shapes}

    @property
    def weight_matrices(self) -> tuple[str, ...]:
        """Names of the parameters with two or more dimensions, on which masks act."""
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
        """Initial parameters of all clients, float32 without client axis."""

    def initial_buffers_of(self, seed: int) -> dict[str, np.ndarray]:
        """Initial buffers of all clients, float32 without client axis."""
        return {}

    # Graphs ---------------------------------------------------------------------------------------------------------

    def reached_inputs(self, graph: ClientGraph) -> np.ndarray:
        """Flags of the rows of `input_rows` that can have an effect on a graph's outputs: bool [inputs]."""
        return np.ones(self.shapes[self.input_rows][0] if self.input_rows else 0, dtype=bool)

    @abstractmethod
    def local_graph(self, graph: ClientGraph, num_own: int | None = None) -> LocalGraph:
        """The part of a graph's computation that is constant in all steps.

        Args:
            graph: the nodes and edges to propagate over.
            num_own: number of the client's own nodes, which come first; None for all.
        """

    @abstractmethod
    def sampled(
        self, graph: LocalGraph, seeds: np.ndarray, neighbours: int | None, rng: np.random.Generator
    ) -> tuple[LocalGraph, np.ndarray]:
        """A sampled part of a local graph, from which outputs at `seeds` are computed in training.

        Args:
            graph: from `local_graph`.
            seeds: int64 [seeds], different nodes of the client's own.
            neighbours: largest number of a node's neighbours; None: all.
            rng: draws the neighbours.

        Returns:
            The part, whose own nodes begin with `seeds`, and the place in `graph` of each of its nodes, int64.

        Raises:
            SubflError: the network does not show how many propagations it makes.
        """

    @abstractmethod
    def stacked(self, graphs: Sequence[LocalGraph], device: torch.device | str = "cpu") -> AnyChunk:
        """Stack clients' graphs, prepared by `local_graph`, to a chunk."""

    def chunk(self, graphs: Sequence[ClientGraph], device: torch.device | str = "cpu") -> AnyChunk:
        """Prepare clients' graphs for this network."""
        return self.stacked([self.local_graph(graph) for graph in graphs], device)

    # Computing ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def training_draws(
        self, chunk: AnyChunk, generators: Sequence[np.random.Generator], device: torch.device
    ) -> Sequence[Any] | None:
        """Everything random in one training step, each client's from its generator; None where nothing is random.

        A client's draw depends on that client alone, never on its chunk.
        """

    @abstractmethod
    def __call__(self, parameters: Parameters, chunk: AnyChunk, draws: Sequence[Any] | None = None) -> Tensor:
        """Outputs [C, own width, outputs] of clients' own nodes.

        Args:
            parameters: stacked, and buffers; a training step may change buffers in place, where the network says so.
            chunk: the clients' graphs, from `chunk`.
            draws: from `training_draws`; None to evaluate.
        """

    @abstractmethod
    def embedding(self, parameters: Parameters, chunk: AnyChunk) -> Tensor:
        """Mean of the network's embedding over a graph's nodes, without dropout: [C, embedding width].

        Args:
            parameters: stacked, and buffers.
            chunk: one graph for each of the C models, all of one size.
        """

    def probe(self, edge_index: np.ndarray, features: np.ndarray, device: torch.device | str = "cpu") -> Probe:
        """Prepare a random graph to embed models of this network.

        Args:
            edge_index: int64 [2, edges] of the random graph, both directions.
            features: float32 [N, features].
            device: device of the models.
        """
        return ForwardProbe(self, edge_index, features, device)


class ForwardProbe:
    """A random graph whose embedding is the network's `embedding`, for one model after the other.

    Args:
        network: makes the embeddings.
        edge_index: int64 [2, edges] of the random graph, both directions.
        features: float32 [N, features].
        device: device of the models.
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
    def embed(self, parameters: Parameters, rows: InputRows | None = None) -> Tensor:
        """Functional embeddings [C, embedding width] of C models, one after the other."""
        if rows is not None:
            assert self._network.input_rows is not None
            first = {self._network.input_rows: rows.spread(parameters[self._network.input_rows])}
            parameters = {**parameters, **first}
        clients = len(next(iter(parameters.values())))
        alone = ({name: value[c : c + 1] for name, value in parameters.items()} for c in range(clients))
        return torch.cat([self._network.embedding(model, self._chunk) for model in alone])


def _nobodys(edge_index: np.ndarray, features: np.ndarray) -> ClientGraph:
    """A graph without labels and roles, in the form of a client's."""
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

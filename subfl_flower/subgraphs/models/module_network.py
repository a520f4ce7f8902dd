"""A ``torch.nn.Module`` with ``forward(x, edge_index)`` as the clients' network, for one client after the other.

The module is made once and holds no client's values: ``torch.func.functional_call`` passes it each client's parameters
and buffers. Where its ``forward`` has an argument ``edge_weight``, this gets the edges' weights, 1 where the graph has
none.

A module's buffers, such as the running means of a batch norm, stay with the client: they are never averaged. So do
parameters that it does not train (``requires_grad`` is false). Parameters that several parts of it share are one
parameter under the first of their names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch_geometric.nn import MessagePassing

from subfl_flower.data.graph import ClientGraph
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import ModuleSettings
from subfl_flower.seeding import shared_generator, torch_seed, torch_seeded
from subfl_flower.subgraphs.models.chunk import GraphChunk, stacked_support
from subfl_flower.subgraphs.models.graph_network import GraphNetwork, Parameters
from subfl_flower.subgraphs.models.local_graph import LocalGraph, present_features
from subfl_flower.subgraphs.models.module_class import constructor_arguments, module_class, takes
from subfl_flower.subgraphs.models.neighbourhood import neighbourhood

_KEPT_TYPES = (torch.float32, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
"""Types of buffers that a client's state, which is float32, can keep."""


@dataclass(frozen=True)
class PlainGraph:
    """One client's graph in the form that a module reads.

    Attributes:
        x: float32 [N, features], the client's own nodes first.
        edge_index: int64 [2, edges], both directions of every edge.
        edge_weight: float32 [edges].
        num_own: number of the client's own nodes.
    """

    x: Tensor
    edge_index: Tensor
    edge_weight: Tensor
    num_own: int


@dataclass(frozen=True)
class ModuleChunk(GraphChunk):
    """Separate graphs of C clients."""

    graphs: tuple[PlainGraph, ...]


class ModuleNetwork(GraphNetwork[ModuleChunk]):
    """A module for C clients.

    Args:
        settings: the module's class, and arguments of its constructor.
        num_features: input width.
        num_outputs: output width.

    Raises:
        SubflError: the class cannot be imported or made, or the module cannot be trained this way.
    """

    settings: ModuleSettings

    side_by_side = False
    """The module holds one client's values at a time, and may draw from PyTorch's one generator."""

    def __init__(self, settings: ModuleSettings, num_features: int, num_outputs: int) -> None:
        self.settings = settings
        self.num_features = num_features
        self.num_outputs = num_outputs
        self._module = self._made(0)
        self.shapes = {name: tuple(value.shape) for name, value in self._trained(self._module).items()}
        kept = self._kept(self._module)
        self.buffer_shapes = {name: tuple(value.shape) for name, value in kept.items()}
        self._buffer_types = {name: value.dtype for name, value in kept.items()}

    @classmethod
    def check(cls, settings: ModuleSettings) -> None:
        """Refuse a class that cannot be imported, and arguments that its constructor does not take.

        Raises:
            SubflError: the class or the argument that fails.
        """
        constructor_arguments(settings, 1, 1)

    @classmethod
    def reads_edge_weights(cls, settings: ModuleSettings) -> bool:
        """True where ``forward`` takes weights, and does not ignore them, as PyG's models declare."""
        found = module_class(settings)
        return takes(found.forward, "edge_weight") and getattr(found, "supports_edge_weight", True) is not False

    @property
    def widest(self) -> int:
        """The largest width of a parameter."""
        return max((max(shape) for shape in self.shapes.values() if shape), default=1)

    @cached_property
    def embedding_width(self) -> int:
        """Width of the module's output for comparison; found by a trial on two nodes without edges."""
        values = {**self.initial_of(0), **self.initial_buffers_of(0)}
        stacked = {name: torch.from_numpy(value).unsqueeze(0) for name, value in values.items()}
        graph = PlainGraph(
            torch.zeros(2, self.num_features), torch.zeros(2, 0, dtype=torch.long), torch.zeros(0), num_own=2
        )
        with torch.no_grad():
            return self._answer(self._embedder, stacked, 0, graph, None).shape[1]

    # Initial values -------------------------------------------------------------------------------------------------

    def initial_of(self, seed: int) -> dict[str, np.ndarray]:
        """The parameters as the module's own initialisation draws them from the seed."""
        return _arrays(self._trained(self._initial(seed)))

    def initial_buffers_of(self, seed: int) -> dict[str, np.ndarray]:
        """The buffers as the module's own initialisation leaves them."""
        return _arrays(self._kept(self._initial(seed)))

    def _initial(self, seed: int) -> torch.nn.Module:
        return self._made(torch_seed(shared_generator(seed, "initial model")))

    def _made(self, seed: int) -> torch.nn.Module:
        path = self.settings.target
        found = module_class(self.settings)
        arguments = constructor_arguments(self.settings, self.num_features, self.num_outputs)
        try:
            with torch_seeded(seed):
                module: torch.nn.Module = found(**arguments)
        except Exception as error:  # a class of the user's own may raise anything
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
            raise SubflError(f"model._target_: {path}({given}) cannot be made ({reason})") from error
        self._require_usable(module)
        return module

    def _require_usable(self, module: torch.nn.Module) -> None:
        """Raise SubflError where the module cannot be trained, or its tensors cannot be kept."""
        path = self.settings.target
        named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        for name, value in named.items():
            if is_lazy(value):
                raise SubflError(
                    f"model._target_: {path} makes {name} only when it first computes; give its layers their widths"
                )
        for name, value in self._trained(module).items():
            if value.dtype != torch.float32:
                raise SubflError(f"model._target_: {path} has {name} of type {value.dtype}; it must be torch.float32")
        for name, value in self._kept(module).items():
            if value.dtype not in _KEPT_TYPES or not torch.equal(value.float().to(value.dtype), value):
                raise SubflError(
                    f"model._target_: {path} has {name} of type {value.dtype}, whose values torch.float32 cannot hold"
                )
        if not self._trained(module):
            raise SubflError(f"model._target_: {path} has no parameters to train")

    @staticmethod
    def _trained(module: torch.nn.Module) -> dict[str, Tensor]:
        return {name: value.detach() for name, value in module.named_parameters() if value.requires_grad}

    @staticmethod
    def _kept(module: torch.nn.Module) -> dict[str, Tensor]:
        frozen = {name: value.detach() for name, value in module.named_parameters() if not value.requires_grad}
        return {**frozen, **dict(module.named_buffers())}

    # Graphs ---------------------------------------------------------------------------------------------------------

    def local_graph(self, graph: ClientGraph, num_own: int | None = None) -> LocalGraph:
        """The weights of the edges, 1 where there are none, and the features."""
        weight = np.ones(graph.edge_index.shape[1]) if graph.edge_weight is None else graph.edge_weight
        adjacency = scipy.sparse.csr_array(
            (weight.astype(np.float32), tuple(graph.edge_index)), shape=(graph.num_nodes, graph.num_nodes)
        )
        return LocalGraph(
            client_id=graph.client_id,
            num_own=graph.num_nodes if num_own is None else num_own,
            operator=adjacency,
            inputs=graph.features,
            feature_support=present_features(graph.features),
        )

    def sampled(
        self, graph: LocalGraph, seeds: np.ndarray, neighbours: int | None, rng: np.random.Generator
    ) -> tuple[LocalGraph, np.ndarray]:
        """A sampled part of the graph, over as many hops as the module has layers of PyG's ``MessagePassing``.

        Edges lead from drawn neighbours to their node. Their weights do not change: such layers normalise by the
        degrees that they find, as with PyG's ``NeighborLoader``.
        """
        hops = sum(isinstance(layer, MessagePassing) for layer in self._module.modules())
        if not hops:
            raise SubflError(
                f"task.batch_size: {self.settings.target} has no layer that is a torch_geometric.nn.MessagePassing, so "
                "the neighbourhood that a node depends on is unknown; only null is allowed"
            )
        part, nodes = neighbourhood(graph, seeds, hops, neighbours, rng, rescale=False)
        return replace(part, operator=part.operator.T.tocsr()), nodes

    def stacked(self, graphs: Sequence[LocalGraph], device: torch.device | str = "cpu") -> ModuleChunk:
        """A chunk of separate graphs."""
        return ModuleChunk(
            client_ids=tuple(graph.client_id for graph in graphs),
            num_nodes=tuple(graph.num_nodes for graph in graphs),
            width=max(graph.num_nodes for graph in graphs),
            own_width=max(graph.num_own for graph in graphs),
            feature_support=stacked_support(graphs, device),
            graphs=tuple(_plain(graph, device) for graph in graphs),
        )

    # Computing ------------------------------------------------------------------------------------------------------

    def training_draws(
        self, chunk: ModuleChunk, generators: Sequence[np.random.Generator], device: torch.device
    ) -> list[int]:
        """A seed for each client's step."""
        return [torch_seed(generator) for generator in generators]

    def __call__(self, parameters: Parameters, chunk: ModuleChunk, draws: Sequence[int] | None = None) -> Tensor:
        """Outputs [C, own width, outputs] of clients' own nodes, zero where a client has fewer.

        Args:
            parameters: stacked, and buffers; a training step replaces the buffers' values in place.
            chunk: the clients' graphs, from `chunk`.
            draws: a seed for each client's random numbers; None to evaluate.

        Raises:
            SubflError: the module does not return `num_outputs` values a node.
        """
        found = []
        for c, graph in enumerate(chunk.graphs):
            outputs = self._answer(self._module.forward, parameters, c, graph, None if draws is None else draws[c])
            if outputs.shape[1] != self.num_outputs:
                raise SubflError(
                    f"model._target_: {self.settings.target} answers with {outputs.shape[1]} values a node, "
                    f"where {self.num_outputs} belong"
                )
            own = outputs[: graph.num_own]
            found.append(torch.nn.functional.pad(own, (0, 0, 0, chunk.own_width - graph.num_own)))
        return torch.stack(found)

    def embedding(self, parameters: Parameters, chunk: ModuleChunk) -> Tensor:
        """Mean over nodes of the module's ``embed(x, edge_index)``, or, without this, of its outputs."""
        embedder = self._embedder
        return torch.stack(
            [self._answer(embedder, parameters, c, graph, None).mean(0) for c, graph in enumerate(chunk.graphs)]
        )

    @property
    def _embedder(self) -> Callable[..., Any]:
        embed = getattr(self._module, "embed", None)
        return embed if callable(embed) else self._module.forward

    def _answer(
        self, method: Callable[..., Any], parameters: Parameters, c: int, graph: PlainGraph, seed: int | None
    ) -> Tensor:
        """Output of a module's method on client c's graph [N, width]; with a `seed` in training mode."""
        device = graph.x.device
        buffers = {name: parameters[name][c].to(kind, copy=True) for name, kind in self._buffer_types.items()}
        values = {**{name: parameters[name][c] for name in self.shapes}, **buffers}
        called = _Called(self._module.to(device).train(seed is not None), method)
        weights = {"edge_weight": graph.edge_weight} if takes(method, "edge_weight") else {}
        with torch_seeded(0 if seed is None else seed, device):
            outputs, after = torch.func.functional_call(
                called,
                {f"module.{name}": value for name, value in values.items()},
                (graph.x, graph.edge_index),
                weights,
            )
        if not (isinstance(outputs, Tensor) and outputs.ndim == 2 and len(outputs) == len(graph.x)):
            shape = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise SubflError(
                f"model._target_: {self.settings.target}.{method.__name__} answers with {shape} for {len(graph.x)} "
                "nodes; it must be a tensor [nodes, width]"
            )
        if seed is not None:
            with torch.no_grad():
                for name in self.buffer_shapes:
                    parameters[name][c].copy_(after[name])
        return outputs


class _Called(torch.nn.Module):
    """A module that forwards its call to one of its methods, and returns the buffers after it, too."""

    def __init__(self, module: torch.nn.Module, method: Callable[..., Any]) -> None:
        super().__init__()
        self.module = module
        self._method = method

    def forward(self, *inputs: Tensor, **weights: Tensor) -> tuple[Any, Mapping[str, Tensor]]:
        """The method's answer, and the module's buffers and untrained parameters by name."""
        outputs = self._method(*inputs, **weights)
        return outputs, {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}


def _plain(graph: LocalGraph, device: torch.device | str) -> PlainGraph:
    edges = graph.operator.tocoo()
    features = graph.inputs if isinstance(graph.inputs, np.ndarray) else graph.inputs.toarray()
    return PlainGraph(
        x=torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32)).to(device),
        edge_index=torch.from_numpy(np.stack([edges.row, edges.col]).astype(np.int64)).to(device),
        edge_weight=torch.from_numpy(edges.data.astype(np.float32)).to(device),
        num_own=graph.num_own,
    )


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: value.to(torch.float32).numpy().copy() for name, value in tensors.items()}

"""Base of the graph networks of the subgraph methods: stacked parameters, layers, initial values."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import ClassVar

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from subfl_flower.data.graph import ClientGraph, FeatureMatrix
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import StackedSettings
from subfl_flower.models.sparse import SparseMatrix
from subfl_flower.seeding import shared_generator
from subfl_flower.subgraphs.models.chunk import StackedChunk
from subfl_flower.subgraphs.models.graph_network import GraphNetwork, Parameters
from subfl_flower.subgraphs.models.local_graph import LocalGraph, present_features
from subfl_flower.subgraphs.models.neighbourhood import neighbourhood

__all__ = ["CLASSIFIER", "CONVOLUTION", "Parameters", "StackedGNN", "layer_parameters", "propagate"]

CLASSIFIER = "classifier"
CONVOLUTION = "conv"
"""Beginning of the names of convolutions over features, followed by the layer's number."""


def layer_parameters(names: Iterable[str], layers: Sequence[str]) -> tuple[str, ...]:
    """The parameters among `names` that belong to some layers.

    A layer is named by the beginning of its parameters' names, up to any of their dots: of ``convs.0.lin.weight`` by
    ``convs``, ``convs.0`` or ``convs.0.lin``. A parameter whose name has no dot is a layer by itself.

    Raises:
        SubflError: there is no such layer, or no parameter would be left.
    """
    by_layer: dict[str, list[str]] = {}
    names = tuple(names)
    for name in names:
        parts = name.split(".")
        for end in range(1, max(2, len(parts))):
            by_layer.setdefault(".".join(parts[:end]), []).append(name)
    for layer in layers:
        if layer not in by_layer:
            raise SubflError(
                f"method.personal_layers: there is no layer {layer!r}; the model has {', '.join(by_layer)}"
            )
    found = tuple(dict.fromkeys(name for layer in layers for name in by_layer[layer]))
    if len(found) == len(names):
        raise SubflError("method.personal_layers: all layers are personal; use method=local")
    return found


class StackedGNN(GraphNetwork[StackedChunk]):
    r"""Graph convolutions and a linear classifier, for C clients at once.

    .. math:: H^{(l)} = \mathrm{dropout}(\mathrm{relu}(\mathrm{conv}_l(H^{(l-1)}))), \quad
              \mathrm{output} = H^{(L)} W + b.

    Every parameter has a leading client axis; a single client is a chunk of one. A subclass defines the convolution. It
    may have several `extractors`, whose outputs are concatenated for the classifier.

    Where a convolution is linear in a weight W and then propagates, its first propagation is of the features alone and
    is computed beforehand: `propagated` gives its result. Other networks have the features as inputs, and override
    `first_of`.

    Args:
        settings: depth, width and dropout.
        num_features: input width.
        num_outputs: output width: classes, or the width that the task defines.
    """

    settings: StackedSettings
    input_rows = f"{CONVOLUTION}1.weight"

    def __init__(self, settings: StackedSettings, num_features: int, num_outputs: int) -> None:
        self.settings = settings
        self.num_features = num_features
        self.num_outputs = num_outputs
        self.reach = self.propagations
        self.feature_hops = self.propagations_beforehand + self.propagations
        self.shapes = self.layer_shapes()

    # What a convolution is ------------------------------------------------------------------------------------------

    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all parameters by name: convolutions of each extractor, then the classifier."""
        settings, shapes = self.settings, {}
        for stem, inputs in self.extractors.items():
            for layer, (width, hidden) in enumerate(pairwise([inputs] + [settings.hidden] * settings.layers), start=1):
                own = self.convolution_shapes(width, hidden)
                shapes.update({f"{stem}{layer}.{name}": shape for name, shape in own.items()})
        return {**shapes, **self.classifier_shapes(len(self.extractors) * settings.hidden)}

    def convolution_shapes(self, width: int, hidden: int) -> dict[str, tuple[int, ...]]:
        """Shapes of a convolution's parameters, for nodes of `width` values: its weight first."""
        return {"weight": (self.fan_in(width), hidden), "bias": (hidden,)}

    def classifier_shapes(self, width: int) -> dict[str, tuple[int, ...]]:
        """Shapes of a linear classifier of `width` values."""
        return {f"{CLASSIFIER}.weight": (width, self.num_outputs), f"{CLASSIFIER}.bias": (self.num_outputs,)}

    def fan_in(self, width: int) -> int:
        """Rows of a convolution's weight, for nodes of `width` values."""
        return width

    @property
    def propagations(self) -> int:
        """Propagations over a chunk's adjacency; the first convolution's is computed beforehand."""
        return self.settings.layers - 1

    @property
    def propagations_beforehand(self) -> int:
        """Propagations that the inputs of `propagated` have had."""
        return 1

    symmetric: ClassVar[bool] = True
    """True where the operator of `propagated` is its own transpose."""

    rescales: ClassVar[bool] = True
    """True where messages are summed by fixed weights, which drawn neighbours must make up for."""

    @abstractmethod
    def propagated(self, graph: ClientGraph) -> tuple[scipy.sparse.csr_array, FeatureMatrix]:
        """The operator of a graph's convolutions [n, n], and the inputs of the first one [n, fan in]."""

    def convolve(self, adjacency: SparseMatrix, hidden: Tensor, weight: Tensor) -> Tensor:
        """A convolution without its bias: [C, width, hidden] of H [C, width, hidden] and W [C, fan in, hidden].

        Here it is H W, without a propagation.
        """
        return torch.bmm(hidden, weight)

    def convolved(self, name: str, parameters: Parameters, chunk: StackedChunk, hidden: Tensor) -> Tensor:
        """The output [C, width, hidden] of the convolution of a `name` such as ``conv2``, before its activation."""
        hidden = self.convolve(chunk.adjacency, hidden, parameters[f"{name}.weight"])
        return hidden + parameters[f"{name}.bias"].unsqueeze(1)

    def activate(self, hidden: Tensor) -> Tensor:
        """The activation after a convolution: ReLU."""
        return torch.relu(hidden)

    @property
    def extractors(self) -> dict[str, int]:
        """Parallel stacks of convolutions: the beginning of their layers' names, and the width of their inputs."""
        return {CONVOLUTION: self.num_features}

    # Common to all convolutions -------------------------------------------------------------------------------------

    @property
    def widest(self) -> int:
        """Width of the hidden layers."""
        return self.settings.hidden

    @property
    def embedding_width(self) -> int:
        """The last convolution's width, for each of the extractors."""
        return len(self.extractors) * self.settings.hidden

    def reached_inputs(self, graph: ClientGraph) -> np.ndarray:
        """The rows of features that a node has, for each width of features that the inputs are made of."""
        present = present_features(graph.features)
        return np.tile(present, self.shapes[self.input_rows][0] // len(present))

    def local_graph(self, graph: ClientGraph, num_own: int | None = None) -> LocalGraph:
        """The operator, and the first convolution's inputs."""
        operator, inputs = self.propagated(graph)
        return LocalGraph(
            client_id=graph.client_id,
            num_own=graph.num_nodes if num_own is None else num_own,
            operator=operator,
            inputs=inputs,
            feature_support=present_features(graph.features),
            symmetric=self.symmetric,
        )

    def sampled(
        self, graph: LocalGraph, seeds: np.ndarray, neighbours: int | None, rng: np.random.Generator
    ) -> tuple[LocalGraph, np.ndarray]:
        """A sampled part of the graph; the first convolution's inputs stay those of the whole graph."""
        return neighbourhood(graph, seeds, self.propagations, neighbours, rng, rescale=self.rescales)

    def stacked(self, graphs: Sequence[LocalGraph], device: torch.device | str = "cpu") -> StackedChunk:
        """A chunk of clients' graphs as one block-diagonal graph."""
        return StackedChunk.build(graphs, device)

    def initial(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Initial parameters of one client, without a client axis.

        They are uniform between minus and plus `initial_bound`.
        """
        parameters = {}
        for name, shape in self.shapes.items():
            bound = self.initial_bound(name)
            parameters[name] = rng.uniform(-bound, bound, shape).astype(np.float32)
        return parameters

    def initial_bound(self, name: str) -> float:
        """Largest initial value of a parameter.

        Convolutions are Glorot-uniform with zero biases, the classifier is uniform in ±1/sqrt(fan in): the defaults of
        PyG's ``GCNConv`` and of PyTorch's ``Linear``.
        """
        if name.startswith(f"{CLASSIFIER}."):
            return self.linear_bound(name)
        return self.glorot_bound(name) if name.endswith("weight") else 0.0

    def linear_bound(self, name: str) -> float:
        """1/sqrt(fan in) of the layer that a weight or a bias belongs to, PyTorch's ``Linear``."""
        fan_in = self.shapes[f"{name.rpartition('.')[0]}.weight"][0]
        return float(fan_in**-0.5)

    def glorot_bound(self, name: str) -> float:
        """sqrt(6 / (fan in + fan out)) of a weight."""
        return float((6.0 / sum(self.shapes[name])) ** 0.5)

    def initial_of(self, seed: int) -> dict[str, np.ndarray]:
        """Initial parameters of all clients."""
        return self.initial(shared_generator(seed, "initial model"))

    def training_draws(
        self, chunk: StackedChunk, generators: Sequence[np.random.Generator], device: torch.device
    ) -> list[Tensor] | None:
        """Dropout masks; None without dropout."""
        return self.dropout_masks(chunk, generators, device) if self.settings.dropout else None

    @property
    def dropout_layers(self) -> int:
        """Number of hidden layers that are followed by dropout."""
        return len(self.extractors) * self.settings.layers

    def dropout_masks(
        self, chunk: StackedChunk, generators: Sequence[np.random.Generator], device: torch.device
    ) -> list[Tensor]:
        """One dropout multiplier a layer of each extractor, [C, width, hidden]: 0 or 1/(1-p), each client's drawn from
        its own generator.

        A client's draw depends on its size alone, never on its chunk.
        """
        layers, hidden = self.dropout_layers, self.settings.hidden
        keep = np.zeros((layers, len(chunk), chunk.width, hidden), dtype=np.float32)
        for c, (nodes, generator) in enumerate(zip(chunk.num_nodes, generators, strict=True)):
            keep[:, c, :nodes] = multipliers(generator, (layers, nodes, hidden), self.settings.dropout)
        return list(torch.from_numpy(keep).to(device))

    def __call__(self, parameters: Parameters, chunk: StackedChunk, draws: Sequence[Tensor] | None = None) -> Tensor:
        """Outputs [C, own width, num_outputs] of clients' own nodes.

        Args:
            parameters: stacked.
            chunk: the clients' graphs, from `chunk`.
            draws: dropout, from `dropout_masks`; None to evaluate.
        """
        return self.classified(parameters, self._extracted(parameters, chunk, draws)[:, : chunk.own_width])

    def classified(self, parameters: Parameters, hidden: Tensor) -> Tensor:
        """The linear classifier's outputs [C, n, outputs] of H [C, n, hidden]."""
        bias, weight = parameters[f"{CLASSIFIER}.bias"], parameters[f"{CLASSIFIER}.weight"]
        return torch.baddbmm(bias.unsqueeze(1), hidden, weight)

    def _extracted(self, parameters: Parameters, chunk: StackedChunk, draws: Sequence[Tensor] | None) -> Tensor:
        """The classifier's input [C, width, hidden] of each extractor, concatenated."""
        share = 0 if draws is None else len(draws) // len(self.extractors)
        found = []
        for position, stem in enumerate(self.extractors):
            masks = None if draws is None else draws[position * share : (position + 1) * share]
            hidden = self.last_convolution(stem, parameters, chunk, masks)
            found.append(self.activated(hidden, self.settings.layers, masks))
        return found[0] if len(found) == 1 else torch.cat(found, dim=2)

    def activated(self, hidden: Tensor, layer: int, dropout: Sequence[Tensor] | None) -> Tensor:
        """A layer's output [C, width, hidden] after its activation and the dropout of the layer's number, from 1."""
        hidden = self.activate(hidden)
        return hidden if dropout is None else hidden * dropout[layer - 1]

    def last_convolution(
        self, stem: str, parameters: Parameters, chunk: StackedChunk, dropout: Sequence[Tensor] | None
    ) -> Tensor:
        """The output [C, width, hidden] of an extractor's last convolution, before its activation.

        Args:
            stem: beginning of the names of the extractor's layers.
            parameters: stacked.
            chunk: the clients' graphs.
            dropout: the extractor's share of what is drawn in a training step.
        """
        hidden = self.first_of(stem, parameters, chunk)
        for layer in range(2, self.settings.layers + 1):
            hidden = self.activated(hidden, layer - 1, dropout)
            hidden = self.convolved(f"{stem}{layer}", parameters, chunk, hidden)
        return hidden

    def embedding(self, parameters: Parameters, chunk: StackedChunk) -> Tensor:
        """Mean over nodes of the last convolution before its activation, of all extractors concatenated."""
        found = [self.last_convolution(stem, parameters, chunk, None) for stem in self.extractors]
        return torch.cat(found, dim=2).mean(1)

    def first_of(self, stem: str, parameters: Parameters, chunk: StackedChunk) -> Tensor:
        """The output [C, width, hidden] of an extractor's first convolution, before its ReLU."""
        return self.first_convolution(parameters, chunk)

    def first_convolution(self, parameters: Parameters, chunk: StackedChunk) -> Tensor:
        """The first convolution's output [C, width, hidden] before its ReLU, from the constant half in the chunk."""
        hidden = input_product(chunk, parameters["conv1.weight"], parameters["conv1.bias"])
        return hidden if chunk.told is None else torch.where(*chunk.told, hidden)


def input_product(chunk: StackedChunk, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A chunk's inputs times W [C, inputs, hidden], and a bias [C, hidden]: [C, width, hidden]."""
    if isinstance(chunk.inputs, SparseMatrix):
        stacked = weight.reshape(-1, weight.shape[-1])
        product = (chunk.inputs @ stacked).view(len(chunk), chunk.width, -1)
        return product if bias is None else product + bias.unsqueeze(1)
    return torch.bmm(chunk.inputs, weight) if bias is None else torch.baddbmm(bias.unsqueeze(1), chunk.inputs, weight)


def multipliers(generator: np.random.Generator, shape: tuple[int, ...], rate: float) -> np.ndarray:
    """Dropout multipliers of a client: 0 with probability `rate`, else 1/(1 - rate); float32 of `shape`."""
    threshold = min(round(rate * 65536), 65535)
    draws = np.frombuffer(generator.bytes(2 * int(np.prod(shape))), dtype=np.uint16)
    return (draws >= threshold).reshape(shape) * np.float32(65536 / (65536 - threshold))


def propagate(adjacency: SparseMatrix, hidden: Tensor) -> Tensor:
    """The operator times a padded stack H [C, width, hidden]."""
    return (adjacency @ hidden.reshape(-1, hidden.shape[-1])).view(hidden.shape)

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
        self.reach = settings.layers - 1  # the first convolution is computed beforehand
        self.shapes = {}
        for stem, inputs in self.extractors.items():
            for layer, (width, hidden) in enumerate(pairwise([inputs] + [settings.hidden] * settings.layers), start=1):
                self.shapes[f"{stem}{layer}.weight"] = (self.fan_in(width), hidden)
                self.shapes[f"{stem}{layer}.bias"] = (hidden,)
        self.shapes[f"{CLASSIFIER}.weight"] = (len(self.extractors) * settings.hidden, num_outputs)
        self.shapes[f"{CLASSIFIER}.bias"] = (num_outputs,)

    # What a convolution is ------------------------------------------------------------------------------------------

    @abstractmethod
    def fan_in(self, width: int) -> int:
        """Rows of a convolution's weight, for nodes of `width` values."""

    symmetric: ClassVar[bool] = True
    """True where the operator of `propagated` is its own transpose."""

    @abstractmethod
    def propagated(self, graph: ClientGraph) -> tuple[scipy.sparse.csr_array, FeatureMatrix]:
        """The operator of a graph's convolutions [n, n], and the inputs of the first one [n, fan in]."""

    @abstractmethod
    def convolve(self, adjacency: SparseMatrix, hidden: Tensor, weight: Tensor) -> Tensor:
        """A convolution without its bias: [C, width, hidden] of H [C, width, hidden] and W [C, fan in, hidden]."""

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
        return neighbourhood(graph, seeds, self.settings.layers - 1, neighbours, rng, rescale=True)

    def stacked(self, graphs: Sequence[LocalGraph], device: torch.device | str = "cpu") -> StackedChunk:
        """A chunk of clients' graphs as one block-diagonal graph."""
        return StackedChunk.build(graphs, device)

    def initial(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Initial parameters of one client, without a client axis.

        Convolutions are Glorot-uniform with zero biases, the classifier is uniform in ±1/sqrt(fan in): the defaults of
        PyG's ``GCNConv`` and of PyTorch's ``Linear``.
        """
        parameters = {}
        for name, shape in self.shapes.items():
            layer = name.split(".")[0]
            fan_in, fan_out = self.shapes[f"{layer}.weight"]
            if layer == CLASSIFIER:
                bound = fan_in**-0.5
            else:
                bound = (6.0 / (fan_in + fan_out)) ** 0.5 if name.endswith("weight") else 0.0
            parameters[name] = rng.uniform(-bound, bound, shape).astype(np.float32)
        return parameters

    def initial_of(self, seed: int) -> dict[str, np.ndarray]:
        """Initial parameters of all clients."""
        return self.initial(shared_generator(seed, "initial model"))

    def training_draws(
        self, chunk: StackedChunk, generators: Sequence[np.random.Generator], device: torch.device
    ) -> list[Tensor] | None:
        """Dropout masks; None without dropout."""
        return self.dropout_masks(chunk, generators, device) if self.settings.dropout else None

    def dropout_masks(
        self, chunk: StackedChunk, generators: Sequence[np.random.Generator], device: torch.device
    ) -> list[Tensor]:
        """One dropout multiplier a layer of each extractor, [C, width, hidden]: 0 or 1/(1-p), each client's drawn from
        its own generator.

        A client's draw depends on its size alone, never on its chunk.
        """
        rate, hidden = self.settings.dropout, self.settings.hidden
        threshold = min(round(rate * 65536), 65535)
        layers = len(self.extractors) * self.settings.layers
        shape = (layers, len(chunk), chunk.width, hidden)
        keep = np.zeros(shape, dtype=np.float32)
        for c, (nodes, generator) in enumerate(zip(chunk.num_nodes, generators, strict=True)):
            size = layers * nodes * hidden
            draws = np.frombuffer(generator.bytes(2 * size), dtype=np.uint16)
            keep[:, c, :nodes] = (draws >= threshold).reshape(layers, nodes, hidden)
        keep *= 65536 / (65536 - threshold)
        return list(torch.from_numpy(keep).to(device))

    def __call__(self, parameters: Parameters, chunk: StackedChunk, draws: Sequence[Tensor] | None = None) -> Tensor:
        """Outputs [C, own width, num_outputs] of clients' own nodes.

        Args:
            parameters: stacked.
            chunk: the clients' graphs, from `chunk`.
            draws: dropout, from `dropout_masks`; None to evaluate.
        """
        layers = self.settings.layers
        found = []
        for position, stem in enumerate(self.extractors):
            masks = None if draws is None else draws[position * layers : (position + 1) * layers]
            found.append(self._extracted(stem, parameters, chunk, masks)[:, : chunk.own_width])
        hidden = found[0] if len(found) == 1 else torch.cat(found, dim=2)
        bias, weight = parameters[f"{CLASSIFIER}.bias"], parameters[f"{CLASSIFIER}.weight"]
        return torch.baddbmm(bias.unsqueeze(1), hidden, weight)

    def _extracted(
        self, stem: str, parameters: Parameters, chunk: StackedChunk, dropout: Sequence[Tensor] | None
    ) -> Tensor:
        """One extractor's output [C, width, hidden]."""
        hidden = torch.relu(self._last_convolution(stem, parameters, chunk, dropout))
        return hidden if dropout is None else hidden * dropout[-1]

    def _last_convolution(
        self, stem: str, parameters: Parameters, chunk: StackedChunk, dropout: Sequence[Tensor] | None
    ) -> Tensor:
        """The output [C, width, hidden] of an extractor's last convolution, before its ReLU."""
        hidden = self.first_of(stem, parameters, chunk)
        for layer in range(2, self.settings.layers + 1):
            hidden = torch.relu(hidden)
            if dropout is not None:
                hidden = hidden * dropout[layer - 2]
            hidden = self.convolve(chunk.adjacency, hidden, parameters[f"{stem}{layer}.weight"])
            hidden = hidden + parameters[f"{stem}{layer}.bias"].unsqueeze(1)
        return hidden

    def embedding(self, parameters: Parameters, chunk: StackedChunk) -> Tensor:
        """Mean over nodes of the last convolution before its ReLU, of all extractors concatenated."""
        found = [self._last_convolution(stem, parameters, chunk, None) for stem in self.extractors]
        return torch.cat(found, dim=2).mean(1)

    def first_of(self, stem: str, parameters: Parameters, chunk: StackedChunk) -> Tensor:
        """The output [C, width, hidden] of an extractor's first convolution, before its ReLU."""
        return self.first_convolution(parameters, chunk)

    def first_convolution(self, parameters: Parameters, chunk: StackedChunk) -> Tensor:
        """The first convolution's output [C, width, hidden] before its ReLU, from the constant half in the chunk."""
        weight, bias = parameters["conv1.weight"], parameters["conv1.bias"].unsqueeze(1)
        if isinstance(chunk.inputs, SparseMatrix):
            stacked = weight.reshape(-1, weight.shape[-1])
            hidden = (chunk.inputs @ stacked).view(len(chunk), chunk.width, -1) + bias
        else:
            hidden = torch.baddbmm(bias, chunk.inputs, weight)
        return hidden if chunk.told is None else torch.where(*chunk.told, hidden)


def propagate(adjacency: SparseMatrix, hidden: Tensor) -> Tensor:
    """The operator times a padded stack H [C, width, hidden]."""
    return (adjacency @ hidden.reshape(-1, hidden.shape[-1])).view(hidden.shape)

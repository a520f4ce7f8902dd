r"""NeighGen: a generator of the neighbours that a client's nodes have elsewhere, from the client's graph.

FedSage+ (Zhang et al., "Subgraph Federated Learning with Missing Neighbor Generation", NeurIPS 2021, arXiv 2106.13430,
Section 4). An encoder maps a graph with hidden nodes (`mending.hidden_neighbours`) to :math:`z_v`, by two GraphSAGE
layers (Hamilton et al., 2017) that take the mean over neighbours,

.. math:: h'_v = \mathrm{relu}\Big(h_v W_{own} + \frac{1}{|N(v)|} \sum_{u \in N(v)} h_u W_{nb} + b\Big),

From z_v follow the number of missing neighbours and the features of up to p of them, with
:math:`\epsilon \sim N(0, \sigma^2)` in each of z's dimensions,

.. math:: \tilde n_v = \mathrm{softplus}(z_v \cdot w + b), \quad
          \tilde x_v^q = \mathrm{relu}\big((z_v + \epsilon_v) W_q + b_q\big) W_{out} + b_{out}, \quad q = 1 \dots p.

A two-layer GraphSAGE classifies the nodes of the graph together with the first round(ñ_v) generated neighbours of each
node. With n_v the number of hidden neighbours :math:`H_v`, and k the number of visible nodes, the loss is

.. math:: \lambda_d \frac{1}{k} \sum_v \mathrm{smoothL1}(\tilde n_v, n_v)
          + \lambda_f \frac{1}{k} \sum_v \sum_{q \le \min(n_v, p)} \min_{u \in H_v} d(\tilde x_v^q, x_u)
          + \lambda_c \mathrm{CE}.

The sum over q runs to n_v and not to ñ_v. Every node that has lost a neighbour then trains the features, also while the
number is still wrong, and no node without a loss is measured against an empty set.

**Scale.** All features are in units of the client's root mean square entry, and d is the mean over the features of the
squared difference. That is the squared distance over the mean squared norm: generating zeros costs 1, whether features
are row-normalised or not.

**Hiding.** A client has few hidden nodes, and after some dozen steps on the same ones the generator only memorises
them. Hiding others for every step (`hide_neighbours` and `MendingExample.of` are quick) delays that.

**Number.** The paper's ReLU is a softplus here: most nodes lose no neighbour, and a ReLU that is zero for all nodes has
no gradient.

**Output.** It is linear, because features may have any sign and size. Generated values are then raised to the smallest
entry that the client has anywhere, zero for bags of words. This is a step towards every vector whose entries are not
smaller.

**Size.** The p heads share the output layer. A decoder, which other clients are sent, is p · latent · hidden +
hidden · features numbers and biases. Because the output is linear, neither training nor `cross_loss` writes a generated
feature matrix out: squared distances follow from the hidden units a, :math:`|aW - x|^2 = a W W^T a^T - 2 a W x +
    |x|^2`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from subfl_flower.data.graph import ClientGraph, FeatureMatrix
from subfl_flower.seeding import Normals
from subfl_flower.subgraphs.mending.feature_distances import candidates, mean_squares, nearest
from subfl_flower.subgraphs.mending.generated_distances import Distances, distances
from subfl_flower.subgraphs.mending.hidden_neighbours import Impaired, with_neighbours
from subfl_flower.subgraphs.mending.mended_sage import Parameters, mended_sage, sage, sage_shapes
from subfl_flower.subgraphs.mending.mending_example import MendingExample, ScaledFeatures, Surroundings, feature_unit


class NeighbourGeneratorSettings(BaseModel):
    """Widths of the generator and the weights of its loss.

    `latent` is the width of encoder and classifier, `hidden` that of each of the `most_neighbours` heads, `noise` the
    standard deviation of the noise on z.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    latent: int = Field(default=128, ge=1)
    hidden: int = Field(default=64, ge=1)
    most_neighbours: int = Field(default=5, ge=1)
    noise: float = Field(default=1.0, ge=0)
    count_weight: float = Field(default=1.0, ge=0)
    feature_weight: float = Field(default=1.0, ge=0)
    class_weight: float = Field(default=1.0, ge=0)


class Losses(NamedTuple):
    """The terms of the loss without their weights, and their weighted sum; scalars."""

    counts: Tensor
    features: Tensor
    classes: Tensor
    total: Tensor


class NeighbourGenerator:
    """The generator of one client.

    Args:
        settings: widths and weights.
        num_features: F.
        num_classes: classes of the data set; 0 leaves the classifier and its term out.

    Attributes:
        shapes: all parameters by name.
        decoder_names: parameters that generate features from z; other clients are sent these.
    """

    decoder_names = ("heads.weight", "heads.bias", "output.weight", "output.bias")

    def __init__(self, settings: NeighbourGeneratorSettings, num_features: int, num_classes: int) -> None:
        self.settings = settings
        self.num_features, self.num_classes = num_features, num_classes
        latent, heads = settings.latent, settings.most_neighbours * settings.hidden
        self.shapes: dict[str, tuple[int, ...]] = {
            **sage_shapes("encoder1", num_features, latent),
            **sage_shapes("encoder2", latent, latent),
            "count.weight": (latent, 1),
            "count.bias": (1,),
            "heads.weight": (latent, heads),
            "heads.bias": (heads,),
            "output.weight": (settings.hidden, num_features),
            "output.bias": (num_features,),
        }
        if num_classes:
            self.shapes |= sage_shapes("classifier1", num_features, latent)
            self.shapes |= sage_shapes("classifier2", latent, num_classes)

    def initial(self, rng: np.random.Generator, features: FeatureMatrix) -> dict[str, np.ndarray]:
        """Initial parameters for a client with these features: matrices Glorot-uniform, biases zero.

        The output's bias is the mean of the features, so that generated features start near it. The mean is hard to
        beat: most of a bag of words cannot be predicted. The output's weights start at a tenth of their usual size.
        """
        parameters = {}
        for name, shape in self.shapes.items():
            bound = (6.0 / sum(shape)) ** 0.5 if len(shape) == 2 else 0.0
            parameters[name] = rng.uniform(-bound, bound, shape).astype(np.float32)
        parameters["output.weight"] *= np.float32(0.1)
        parameters["output.bias"] += np.asarray(features.mean(0)).ravel() / np.float32(feature_unit(features))
        return parameters

    # Forward --------------------------------------------------------------------------------------------------------

    def encode(self, parameters: Parameters, surroundings: Surroundings) -> Tensor:
        """z, [n, latent]."""
        first = sage(parameters, "encoder1", surroundings.features.matrix, surroundings)
        return sage(parameters, "encoder2", first.relu(), surroundings).relu()

    def counts(self, parameters: Parameters, latent: Tensor) -> Tensor:
        """ñ, [n]: not rounded, and not bounded above."""
        return F.softplus(latent @ parameters["count.weight"] + parameters["count.bias"]).squeeze(1)

    def rounded(self, counts: Tensor) -> Tensor:
        """Number of neighbours to generate where `counts` are expected, int64 [n], 0 to p."""
        return counts.detach().round().clamp(0, self.settings.most_neighbours).long()

    def noisy(self, latent: Tensor, rng: Normals) -> Tensor:
        """z + ε, [n, latent]."""
        draws = rng.standard_normal(tuple(latent.shape), dtype=np.float32)
        return latent + self.settings.noise * torch.from_numpy(draws).to(latent)

    def decode(self, decoder: Parameters, noisy: Tensor, counts: Tensor) -> Tensor:
        """The first `counts` vectors of every node, those of node 0 first.

        Args:
            decoder: the parameters in `decoder_names`.
            noisy: z + ε, [n, latent].
            counts: int64 [n], 0 to p.

        Returns:
            Features in units of `feature_unit`, [counts.sum(), F].
        """
        return self._chosen(decoder, noisy, counts)[1] @ decoder["output.weight"] + decoder["output.bias"]

    def _chosen(self, decoder: Parameters, noisy: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden units of `decode`'s vectors [m, hidden], preceded by the node of each [m]."""
        heads = (noisy @ decoder["heads.weight"] + decoder["heads.bias"]).relu()
        numbers = torch.arange(self.settings.most_neighbours, device=noisy.device)
        owners, places = torch.nonzero(numbers < counts[:, None], as_tuple=True)
        stacked = heads.view(len(noisy), self.settings.most_neighbours, self.settings.hidden)
        return owners, stacked[owners, places]

    def classify(self, parameters: Parameters, surroundings: Surroundings, owners: Tensor, hidden: Tensor) -> Tensor:
        """Logits [n, classes] of the graph's nodes, with generated ones in the graph.

        Args:
            parameters: all parameters.
            surroundings: the graph of n nodes.
            owners: int64 [m], the node whose neighbour each generated node is.
            hidden: [m, hidden], the output layer's inputs for their features.
        """
        own, by_neighbours = parameters["classifier1.own"], parameters["classifier1.neighbours"]
        weight, bias = parameters["output.weight"], parameters["output.bias"]
        generated = [hidden @ (weight @ matrix) + bias @ matrix for matrix in (own, by_neighbours)]
        inputs = [surroundings.features.matrix @ matrix for matrix in (own, by_neighbours)]
        first = mended_sage(parameters, "classifier1", inputs, generated, surroundings, owners)
        rows, new = (outputs.relu() for outputs in first)
        own, by_neighbours = parameters["classifier2.own"], parameters["classifier2.neighbours"]
        products = (rows @ own, rows @ by_neighbours), (new @ own, new @ by_neighbours)
        return mended_sage(parameters, "classifier2", *products, surroundings, owners)[0]

    # Training -------------------------------------------------------------------------------------------------------

    def losses(self, parameters: Parameters, example: MendingExample, rng: np.random.Generator) -> Losses:
        """The loss of a client, differentiable in the parameters; `rng` draws the noise."""
        latent = self.encode(parameters, example.surroundings)
        counts, noisy = self.counts(parameters, latent), self.noisy(latent, rng)
        count = F.smooth_l1_loss(counts, example.missing)
        feature = self._feature_loss(parameters, noisy, example)
        classes = torch.zeros_like(count)
        if self.num_classes and len(example.train):
            generated = self._chosen(parameters, noisy, self.rounded(counts))
            logits = self.classify(parameters, example.surroundings, *generated)
            classes = F.cross_entropy(logits[example.train], example.labels)
        settings = self.settings
        terms = (settings.count_weight * count, settings.feature_weight * feature, settings.class_weight * classes)
        return Losses(count, feature, classes, torch.stack(terms).sum())

    def _feature_loss(self, parameters: Parameters, noisy: Tensor, example: MendingExample) -> Tensor:
        """(1/k) Σ_v Σ_q min d over a node's own hidden neighbours."""
        owners, hidden = self._chosen(parameters, noisy, self.rounded(example.missing))
        vectors, rows = candidates(owners, example)
        squares = mean_squares(parameters, hidden, example.targets, vectors, rows)
        least = squares.new_full((len(hidden),), torch.inf).scatter_reduce(0, vectors, squares, "amin")
        return least.sum() / len(noisy)

    def local_gradients(
        self, parameters: Parameters, example: MendingExample, rng: np.random.Generator
    ) -> tuple[Losses, dict[str, Tensor]]:
        """The loss of a client and its gradients by name, detached.

        The `cross_gradients` of other clients may be added before a step of the optimiser is taken.
        """
        leaves = {name: parameters[name].detach().requires_grad_() for name in self.shapes}
        losses = self.losses(leaves, example, rng)
        found = torch.autograd.grad(losses.total, list(leaves.values()), allow_unused=True, materialize_grads=True)
        return Losses(*(term.detach() for term in losses)), dict(zip(leaves, found, strict=True))

    @torch.no_grad()
    def outgoing(self, parameters: Parameters, surroundings: Surroundings, rng: Normals) -> tuple[Tensor, Tensor]:
        """Data for other clients, besides the decoder: z + ε [n, latent], and round(ñ) int64 [n], at most p."""
        latent = self.encode(parameters, surroundings)
        return self.noisy(latent, rng), self.rounded(self.counts(parameters, latent))

    def cross_loss(self, decoder: Parameters, noisy: Tensor, counts: Tensor, features: ScaledFeatures) -> Tensor:
        r"""Distance of another client's generated neighbours from this client's nodes.

        .. math:: \frac{1}{k} \sum_v \sum_{q \le count_v} \min_{u \in V_j} d(\tilde x_v^q, x_u),

        the term of client j in the paper's joint training (Section 4). The work is Σ count · n_j · hidden, in blocks of
        bounded size.

        Args:
            decoder: the other client's parameters in `decoder_names`.
            noisy: z + ε of its k nodes, [k, latent].
            counts: int64 [k], number of vectors of each node.
            features: this client's, in the OTHER one's unit.

        Returns:
            A scalar, differentiable in `decoder` and `noisy`.
        """
        hidden = self._chosen(decoder, noisy, counts)[1]
        with torch.no_grad():
            rows = nearest(decoder, hidden, features)
        vectors = torch.arange(len(hidden), device=hidden.device)
        return mean_squares(decoder, hidden, features, vectors, rows).sum() / len(noisy)

    def cross_gradients(
        self, decoder: Parameters, noisy: Tensor, counts: Tensor, features: ScaledFeatures
    ) -> dict[str, np.ndarray]:
        """The gradients of `cross_loss` with respect to the decoder, by name."""
        leaves = {name: decoder[name].detach().requires_grad_() for name in self.decoder_names}
        loss = self.cross_loss(leaves, noisy, counts, features)
        found = torch.autograd.grad(loss, list(leaves.values()))
        return {name: gradient.cpu().numpy() for name, gradient in zip(leaves, found, strict=True)}

    # Use ------------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def generate(
        self, parameters: Parameters, graph: ClientGraph, rng: np.random.Generator, counts: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Missing neighbours of a graph's nodes.

        Args:
            parameters: all parameters.
            graph: the client's graph.
            rng: draws the noise.
            counts: int64 [n], 0 to p, number for each node; None: the expected number, rounded.

        Returns:
            Number for each node, int64 [n], and features, float32 [counts.sum(), F], those of node 0 first.
        """
        device, unit = parameters["output.bias"].device, feature_unit(graph.features)
        latent = self.encode(parameters, Surroundings.of(graph, unit, device))
        if counts is None:
            counts = self.rounded(self.counts(parameters, latent)).cpu().numpy()
        generated = unit * self.decode(parameters, self.noisy(latent, rng), torch.from_numpy(counts).to(device))
        return counts, np.maximum(generated.cpu().numpy(), np.float32(graph.features.min()))

    def mend(self, graph: ClientGraph, parameters: Parameters, rng: np.random.Generator) -> ClientGraph:
        """The client's graph with generated neighbours after its own nodes; see `with_neighbours`."""
        return with_neighbours(graph, *self.generate(parameters, graph, rng))

    def distance_to_hidden(
        self, parameters: Parameters, impaired: Impaired, features: FeatureMatrix, rng: np.random.Generator
    ) -> Distances:
        """Generate the missing neighbours of a graph, min(n_v, p) for each node, and measure their distances.

        Args:
            parameters: all parameters.
            impaired: the visible part of a graph; training should not have used it with the same nodes hidden.
            features: of the hidden nodes, in the rows that `impaired.indices` names.
            rng: draws the noise.
        """
        counts = np.minimum(impaired.missing, self.settings.most_neighbours)
        return distances(impaired, features, counts, self.generate(parameters, impaired.graph, rng, counts)[1])

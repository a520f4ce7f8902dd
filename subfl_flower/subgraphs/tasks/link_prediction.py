r"""Link prediction: which pairs of a client's nodes are joined by an edge (FED-PUB, Fig. 10).

A client's undirected edges are divided into training, validation and test edges. The model sees the training edges
alone. The score of a pair is the dot product of its nodes' outputs, less the mean output of the client's nodes. This
mean does not tell pairs apart, and early in training it is nearly all of an output. The loss is binary cross-entropy
over the training edges and as many pairs without an edge, drawn again at every step. The metric is the area under the
ROC curve over held-out edges and as many pairs without an edge, the same throughout and for all methods.

The role of an edge is a hash of its global ends and the seed, so that an edge that several clients hold has one role
everywhere: no client trains on an edge that another one is tested on. The weight of an edge counts in messages; loss
and metric ignore it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from subfl_flower.data.graph import TEST, TRAIN, VALIDATION, ClientGraph
from subfl_flower.errors import SubflError
from subfl_flower.seeding import client_generator
from subfl_flower.subgraphs.tasks.class_measures import area_of, precision_of
from subfl_flower.tasks.metric import SHARE, Metric
from subfl_flower.tasks.settings import GraphTask

# Number of draws of a pair that happens to be an edge; then it is left out.
_DRAWS = 8


class LinkPrediction(GraphTask):
    """Prediction of each client's own edges.

    Attributes:
        validation_fraction, test_fraction: shares of the edges that are held out.
        dimensions: width of the outputs whose dot products are the scores.
        seed: of the division of edges and of the pairs without an edge that the metric uses.
        figures: further measures of test pairs to report: ``average_precision`` as ``test.average_precision``.
    """

    needs_labels: ClassVar[bool] = False
    scores_pairs: ClassVar[bool] = True
    measures_pooled: ClassVar[bool] = True
    metric_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    name: Literal["link_prediction"]
    validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    dimensions: int = Field(default=64, ge=1)
    seed: int = Field(default=1234, ge=0, lt=2**31)
    figures: tuple[Literal["average_precision"], ...] = ()

    @property
    def metric(self) -> str:
        """``roc_auc``."""
        return "roc_auc"

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metric, and the further measures."""
        further = Metric(SHARE.low, SHARE.high, by_client=True, averaged=True)
        return {**super().metrics, **{f"test.{name}": further for name in self.figures}}

    @model_validator(mode="after")
    def _something_is_left(self) -> LinkPrediction:
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction and test_fraction must leave edges to train on")
        return self

    def num_outputs(self, num_classes: int) -> int:
        """`dimensions`."""
        return self.dimensions

    def visible(self, graph: ClientGraph) -> ClientGraph:
        """The training edges with their weights, both directions, also of those to nodes elsewhere.

        A loss may use any node.
        """
        directed = self._roles(graph.node_ids[graph.edge_index]) == TRAIN
        own, elsewhere = graph.cross_edges
        crossing = self._roles(np.stack([graph.node_ids[own], elsewhere])) == TRAIN
        return replace(
            graph,
            edge_index=graph.edge_index[:, directed],
            cross_edges=graph.cross_edges[:, crossing],
            edge_weight=None if graph.edge_weight is None else graph.edge_weight[directed],
            cross_weight=None if graph.cross_weight is None else graph.cross_weight[crossing],
            roles=np.full_like(graph.roles, TRAIN),
        )

    def num_examples(self, graph: ClientGraph) -> int:
        """Number of training edges."""
        count = len(self.edges(graph, TRAIN)[0])
        if not count:
            raise SubflError(
                f"client {graph.client_id} has no training edge; use fewer clients, another partition, "
                "or smaller task.validation_fraction and task.test_fraction"
            )
        return count

    def examples(self, graphs: Sequence[ClientGraph], device: torch.device) -> LinkExamples:
        """Edges of every role, and pairs without an edge."""
        return LinkExamples([_ClientPairs(self, graph, device) for graph in graphs], self.figures)

    def measured(self, outputs: np.ndarray, truth: np.ndarray) -> float:
        """The area under the ROC curve of some pairs' scores [T, 1]; truth [T] is 1 for an edge."""
        return area_of(outputs[:, 0], truth)

    def edges(self, graph: ClientGraph, role: int) -> np.ndarray:
        """A client's undirected edges of a role, int64 `[2, edges]` of local ids, the smaller first."""
        undirected = graph.edge_index[:, graph.edge_index[0] < graph.edge_index[1]]
        found: np.ndarray = undirected[:, self._roles(graph.node_ids[undirected]) == role]
        return found

    def _roles(self, ends: np.ndarray) -> np.ndarray:
        """The role of every edge by the global ids of its ends [2, edges], the same in both directions everywhere."""
        ends = np.sort(ends, axis=0).astype(np.uint64)
        uniform = _hashed(ends[0] << np.uint64(32) | ends[1], self.seed) / 2.0**64
        held_out = self.validation_fraction + self.test_fraction
        return np.where(uniform < self.validation_fraction, VALIDATION, np.where(uniform < held_out, TEST, TRAIN))


class _ClientPairs:
    """One client's pairs of nodes, on a device."""

    def __init__(self, task: LinkPrediction, graph: ClientGraph, device: torch.device) -> None:
        self._num_nodes = graph.num_nodes
        self._device = device
        train = task.edges(graph, TRAIN)
        self._train = torch.from_numpy(train).to(device)
        self._train_codes = np.sort(train[0] * graph.num_nodes + train[1])
        every = graph.edge_index
        codes = np.sort(every[0] * graph.num_nodes + every[1])
        self.held_out: list[tuple[Tensor, np.ndarray]] = []
        for role in (VALIDATION, TEST):
            edges = task.edges(graph, role)
            rng = client_generator(task.seed, graph.client_id, 0, f"pairs without an edge, role {role}")
            others = pairs_without_edge(graph.num_nodes, codes, edges.shape[1], rng)
            truth = np.repeat([1, 0], [edges.shape[1], others.shape[1]])
            self.held_out.append((torch.from_numpy(np.concatenate([edges, others], axis=1)).to(device), truth))

    def loss(self, outputs: Tensor, rng: np.random.Generator) -> Tensor:
        """Mean binary cross-entropy over training edges and newly drawn pairs without one; a client knows its edges."""
        others = pairs_without_edge(self._num_nodes, self._train_codes, self._train.shape[1], rng)
        pairs = torch.cat([self._train, torch.from_numpy(others).to(self._device)], dim=1)
        truth = torch.zeros(pairs.shape[1], device=self._device)
        truth[: self._train.shape[1]] = 1
        return F.binary_cross_entropy_with_logits(self._scores(outputs, pairs), truth)

    def auc(self, outputs: Tensor, held_out: int) -> float:
        """Area under the ROC curve of one of `held_out`; NaN where it has no edge or no other pair."""
        from scipy.stats import rankdata  # a third of a second to import, and other tasks do not need it

        pairs, truth = self.held_out[held_out]
        if truth.all() or not truth.any():
            return float("nan")
        # The rank statistic of Mann and Whitney: sklearn's value, at a fraction of its fixed cost per call.
        positive = int(truth.sum())
        ranks = rankdata(self._scores(outputs, pairs).cpu().numpy())[truth == 1].sum()
        return float((ranks - positive * (positive + 1) / 2) / (positive * (len(truth) - positive)))

    def average_precision(self, outputs: Tensor, held_out: int) -> float:
        """Average precision of one of `held_out`, scikit-learn's; NaN where it has no edge or no other pair."""
        pairs, truth = self.held_out[held_out]
        return precision_of(self._scores(outputs, pairs).cpu().numpy(), truth)

    def test_outputs(self, outputs: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Scores of the test pairs, float32 [T, 1], and 1 for an edge, else 0: int64 [T]."""
        pairs, truth = self.held_out[1]
        return self._scores(outputs, pairs).float().cpu().numpy()[:, None], truth.astype(np.int64)

    def _scores(self, outputs: Tensor, pairs: Tensor) -> Tensor:
        return pair_scores(outputs[: self._num_nodes], pairs)


class LinkExamples:
    """The pairs of C clients.

    Args:
        clients: each one's pairs.
        further: measures of test pairs to report besides the metric.
    """

    def __init__(self, clients: Sequence[_ClientPairs], further: Sequence[str] = ()) -> None:
        self._clients, self._further = clients, further

    def losses(self, outputs: Tensor, generators: Sequence[np.random.Generator]) -> Tensor:
        """Each client's mean binary cross-entropy [C]."""
        of_clients = zip(self._clients, outputs, generators, strict=True)
        return torch.stack([client.loss(own, rng) for client, own, rng in of_clients])

    def evaluate(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Area under the ROC curve on validation and on test pairs, [C] each."""
        validation, test = (
            torch.tensor([client.auc(own, which) for client, own in zip(self._clients, outputs, strict=True)])
            for which in (0, 1)
        )
        return validation, test

    def figures(self, outputs: Tensor) -> dict[str, Tensor]:
        """The further measures of test pairs, [C] each; there are as many edges as other pairs."""
        of_clients = list(zip(self._clients, outputs, strict=True))
        return {
            f"test.{name}": torch.tensor([getattr(client, name)(own, 1) for client, own in of_clients])
            for name in self._further
        }

    def test_outputs(self, outputs: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
        """Each client's scores of its test pairs, and their truth."""
        return [client.test_outputs(own) for client, own in zip(self._clients, outputs, strict=True)]


def pair_scores(outputs: Tensor, pairs: Tensor) -> Tensor:
    """Scores [pairs] of pairs of nodes, int64 [2, pairs]: dot products of outputs centred over all nodes.

    Args:
        outputs: of one client's nodes, without padding, [nodes, outputs].
        pairs: local ids.
    """
    centred = outputs - outputs.mean(0)
    return (centred[pairs[0]] * centred[pairs[1]]).sum(-1)


def pairs_without_edge(num_nodes: int, edge_codes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Up to `count` uniformly drawn pairs of different nodes that no edge joins, int64 `[2, count]`, the smaller first.

    Args:
        num_nodes: N; pairs are of 0 .. N-1.
        edge_codes: the edges (u, v), u < v at least, as ascending u·N + v.
        count: number of pairs; fewer are returned only where nearly all pairs are edges.
        rng: draws them.
    """
    pairs = np.empty((2, 0), dtype=np.int64)
    for _ in range(_DRAWS if num_nodes > 1 else 0):
        missing = count - pairs.shape[1]
        if not missing:
            break
        first = rng.integers(0, num_nodes, missing)
        second = (first + rng.integers(1, num_nodes, missing)) % num_nodes
        drawn = np.sort(np.stack([first, second]), axis=0)
        codes = drawn[0] * num_nodes + drawn[1]
        places = np.minimum(np.searchsorted(edge_codes, codes), max(len(edge_codes) - 1, 0))
        joined = edge_codes[places] == codes if len(edge_codes) else np.zeros(missing, dtype=bool)
        pairs = np.concatenate([pairs, drawn[:, ~joined]], axis=1)
    return pairs


def _hashed(values: np.ndarray, seed: int) -> np.ndarray:
    """Uniform uint64 from uint64: SplitMix64's output function (Steele, Lea and Flood, OOPSLA 2014)."""
    mixed = values + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    hashed: np.ndarray = mixed ^ (mixed >> np.uint64(31))
    return hashed

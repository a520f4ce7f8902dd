r"""FedGTA's clients: Li et al., "FedGTA: topology-aware averaging for federated graph learning", VLDB 2024.

A client trains as in FedAvg. It then propagates the predictions :math:`\hat Y^0` of its model, the softmax of its
outputs, over its own edges, with the operator :math:`\hat A` of the network's convolutions:

.. math:: \hat Y^k = \alpha \hat Y^0 + (1 - \alpha) \hat A \hat Y^{k-1}, \quad k = 1, \dots, s .

It sends two arrays together with its parameters. The *mixed moments* of each step are the means over nodes of
:math:`\hat Y^k` to the powers :math:`1, \dots, o`, raw and centred, class by class. The *local smoothing confidence*
weighs the negative entropy of the last step by the nodes' degrees :math:`d_v`:

.. math:: H = \sum_v d_v \sum_c \left( e^{-1} + \hat Y^s_{vc} \log \hat Y^s_{vc} \right) \ge 0 .

No term is negative, because :math:`x \log x \ge -e^{-1}`. The server's side is `strategies/subgraphs/fedgta.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from subfl_flower.clients.subgraphs.description import Description
from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.data.graph import ClientGraph
from subfl_flower.subgraphs.models.chunk import GraphChunk, StackedChunk
from subfl_flower.subgraphs.models.graph_network import GraphNetwork, Parameters
from subfl_flower.subgraphs.models.stacked_gnn import propagate
from subfl_flower.wire.batch import Batch
from subfl_flower.wire.contract import Declared, RunContext
from subfl_flower.wire.payload import ArraySpec

MOMENTS, CONFIDENCE = "mixed_moments", "smoothing_confidence"


class FedGTAClient(SubgraphClient):
    """Send mixed moments and a smoothing confidence together with the parameters."""

    protects_uploads = False

    class Settings(SubgraphClient.Settings):
        """Knobs of the description, and of the server's average.

        Attributes:
            steps: s, steps of propagation.
            alpha: α, share of the predictions themselves in each step.
            orders: o, largest order of the moments.
            threshold: cosine of two clients' moments above which they average with each other.
        """

        steps: int = Field(default=5, ge=1)
        alpha: float = Field(default=0.5, ge=0, le=1)
        orders: int = Field(default=3, ge=1)
        threshold: float = Field(default=0.5, ge=-1, le=1)

    settings: Settings

    networks = ("gcn", "sage", "decoupled")
    """Networks that have an operator to propagate predictions with."""

    @classmethod
    def uploads(cls, run: RunContext) -> Declared:
        """The shared parameters, the moments [steps · orders · 2 · outputs], and the confidence [1]."""
        outputs = run.initial["classifier.bias"].size
        size = run.settings.steps * run.settings.orders * 2 * outputs
        return {
            **cls.shared(run),
            MOMENTS: ArraySpec((size,), "float32", remembered=True),
            CONFIDENCE: ArraySpec((1,), "float32", remembered=True),
        }

    def describes(self) -> Sequence[Description]:
        """The moments and the confidence."""
        return (PropagatedPredictions(self.model, self.cohort.visible, self.settings),)


class PropagatedPredictions(Description):
    """Mixed moments and smoothing confidence of propagated predictions.

    Args:
        model: the network.
        graphs: the clients' graphs.
        settings: ``steps``, ``alpha`` and ``orders`` of the method.
    """

    def __init__(self, model: GraphNetwork[Any], graphs: Sequence[ClientGraph], settings: FedGTAClient.Settings):
        self._model, self._settings = model, settings
        self._degrees = {
            graph.client_id: np.bincount(graph.edge_index[0], weights=graph.edge_weight, minlength=graph.num_nodes)
            for graph in graphs
        }

    def of(self, effective: Parameters, chunk: GraphChunk, batch: Batch) -> dict[str, Tensor]:
        """Moments [C, steps · orders · 2 · outputs], by step, order, kind, class; confidence [C, 1]."""
        assert isinstance(chunk, StackedChunk), "networks with an operator have stacked chunks"
        own, degrees = self._padded(chunk)
        start = label = self._model(effective, chunk).softmax(-1)
        moments = []
        for _ in range(self._settings.steps):
            label = self._settings.alpha * start + (1 - self._settings.alpha) * propagate(chunk.adjacency, label)
            moments.append(mixed_moments(label, own, self._settings.orders))
        return {MOMENTS: torch.cat(moments, 1), CONFIDENCE: smoothing_confidence(label, degrees)}

    def _padded(self, chunk: GraphChunk) -> tuple[Tensor, Tensor]:
        """Flags of the clients' nodes and the nodes' degrees, each [C, width, 1]; zero in the padding."""
        degrees = np.zeros((len(chunk), chunk.width, 1), dtype=np.float32)
        own = np.zeros_like(degrees)
        for row, client_id in enumerate(chunk.client_ids):
            degrees[row, : chunk.num_nodes[row], 0] = self._degrees[client_id]
            own[row, : chunk.num_nodes[row]] = 1
        device = chunk.feature_support.device
        return torch.from_numpy(own).to(device), torch.from_numpy(degrees).to(device)


def mixed_moments(label: Tensor, own: Tensor, orders: int) -> Tensor:
    """Raw and centred moments over nodes: [C, orders · 2 · outputs], by order, kind and class.

    Args:
        label: predictions [C, width, outputs].
        own: 1 for a client's nodes, 0 for padding [C, width, 1].
        orders: largest order.
    """
    count = own.sum(1)
    mean = (label * own).sum(1) / count
    centred = label - mean[:, None]
    of_orders = [(values**order * own).sum(1) / count for order in range(1, orders + 1) for values in (label, centred)]
    return torch.cat(of_orders, 1)


def smoothing_confidence(label: Tensor, degrees: Tensor) -> Tensor:
    """H [C, 1] of predictions [C, width, outputs] at nodes with these degrees [C, width, 1]."""
    return (degrees * (math.exp(-1) + torch.xlogy(label, label))).sum((1, 2))[:, None]

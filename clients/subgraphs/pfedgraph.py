r"""pFedGraph's clients: Ye et al., "Personalized federated learning with inferred collaboration graphs", ICML 2023.

A client minimises

.. math:: L(\theta) - \lambda \cos(\theta, \bar\theta_i),

where :math:`\bar\theta_i` is its aggregated model, which the server sent. The cosine is one of all shared parameters
together; its gradient is

.. math:: \frac{1}{\lVert \theta \rVert} \left( \frac{\bar\theta_i}{\lVert \bar\theta_i \rVert}
          - \cos(\theta, \bar\theta_i) \frac{\theta}{\lVert \theta \rVert} \right) .

A client starts at :math:`\bar\theta_i`, where this gradient is zero: the term acts from the second local step on. The
server's side is `strategies/subgraphs/pfedgraph.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from subfl_flower.clients.subgraphs.local_weights import LocalWeights
from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.subgraphs.models.chunk import GraphChunk
from subfl_flower.subgraphs.models.graph_network import GraphNetwork, Parameters


class PFedGraphClient(SubgraphClient):
    """Train in the direction of the received model."""

    class Settings(SubgraphClient.Settings):
        """Knobs of the local term, and of the server's quadratic program.

        Attributes:
            cosine: λ, weight of the cosine to the received model, from round 2 on; 0: FedAvg's local steps.
            prior: weight of the distance to FedAvg's weights; large: FedAvg's average.
        """

        cosine: float = Field(default=0.01, ge=0)
        prior: float = Field(default=0.8, gt=0)

    settings: Settings

    def local_weights(self) -> LocalWeights:
        """Parameters with the cosine in their objective."""
        return DirectedWeights(self.model, self.settings, self.seed, self.cohort.device)


class DirectedWeights(LocalWeights):
    """Shared and personal parameters, with the cosine to the received ones in the objective.

    Args:
        model: the network.
        settings: the method's.
        seed: of the initial model.
        device: where parameters are trained.
    """

    def __init__(
        self, model: GraphNetwork[Any], settings: PFedGraphClient.Settings, seed: int, device: torch.device
    ) -> None:
        super().__init__(model, settings, seed, device)
        self._cosine = settings.cosine

    def add_penalty_gradients(
        self,
        gradients: Mapping[str, Tensor],
        shared: Parameters,
        personal: Parameters,
        received: Parameters,
        chunk: GraphChunk,
        server_round: int,
    ) -> None:
        """Add the gradients of -λ cos(θ, θ̄) in place, from round 2 on; none where one of them is zero."""
        super().add_penalty_gradients(gradients, shared, personal, received, chunk, server_round)
        if not self._cosine or server_round == 1:
            return
        values = {name: value.detach() for name, value in shared.items()}
        own, sent, product = inner(values, values), inner(received, received), inner(values, received)
        length = (own * sent).sqrt()
        defined = length > 0
        towards = torch.where(defined, 1 / length, 0)
        away = torch.where(defined, product / (length * own), 0)
        for name, value in values.items():
            change = of_clients(towards, value) * received[name] - of_clients(away, value) * value
            gradients[name].sub_(change, alpha=self._cosine)


def inner(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Tensor:
    """Inner products [C] of two sets of parameters, each [C, ...] by name."""
    return torch.stack([(value * other[name]).flatten(1).sum(1) for name, value in one.items()]).sum(0)


def of_clients(values: Tensor, like: Tensor) -> Tensor:
    """Values [C] with as many dimensions as `like` [C, ...]."""
    return values.view(-1, *(1,) * (like.ndim - 1))

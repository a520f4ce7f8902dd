r"""The parameters of a subgraph client: shared ones, personal ones, and the model made of both.

A client minimises

.. math:: L(\theta) + \lambda_2 \lVert \theta - \bar\theta_i \rVert^2,

where :math:`\bar\theta_i` is what the server sent and :math:`\lambda_2` is ``proximal``. The term is that of FED-PUB's
eq. 4 and SubPFed's eq. 7. 0 leaves the plain local step of FedAvg (McMahan et al., 2017); µ/2 is FedProx (Li et al.,
2020). Layers named in ``personal_layers`` are trained and never leave the client: with the classifier alone this is
FedPer (Arivazhagan et al., 2019).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from subfl_flower.clients.subgraphs.compact_rows import Unreached, Uploads
from subfl_flower.subgraphs.models.chunk import GraphChunk
from subfl_flower.subgraphs.models.graph_network import GraphNetwork, Parameters
from subfl_flower.subgraphs.models.stacked_gnn import layer_parameters

Shapes = dict[str, tuple[int, ...]]
Value = TypeVar("Value")


class PenaltySettings(Protocol):
    """The knobs of local weights; see `SubgraphClient.Settings`."""

    proximal: float
    personal_layers: tuple[str, ...]


@dataclass(frozen=True)
class Used:
    """An occasion on which a client's network is used outside of training.

    Attributes:
        server_round: the round.
        received: the shared parameters as the server sent them [C, ...].
    """

    server_round: int
    received: Parameters


class LocalWeights:
    """Personal layers and a proximal term; subclasses add further personal parameters, such as masks.

    Args:
        model: the network.
        settings: the method's knobs.
        seed: of the initial model.
        device: where parameters are trained.
        own: names of the personal parameters of the network; None: those of `personal_layers`.

    Attributes:
        own_shapes: shapes of the network's personal parameters and buffers, by name.
        shared_shapes: shapes of the network's other parameters.
    """

    def __init__(
        self,
        model: GraphNetwork[Any],
        settings: PenaltySettings,
        seed: int,
        device: torch.device,
        own: tuple[str, ...] | None = None,
    ) -> None:
        self.model, self.proximal = model, settings.proximal
        self._seed, self._device = seed, device
        own = layer_parameters(model.shapes, settings.personal_layers) if own is None else own
        self.own_shapes: Shapes = {**{name: model.shapes[name] for name in own}, **model.buffer_shapes}
        self.shared_shapes: Shapes = {name: shape for name, shape in model.shapes.items() if name not in own}

    @property
    def personal_shapes(self) -> Shapes:
        """Per-client shapes of what never leaves the client: trained parameters, and the network's buffers."""
        return dict(self.own_shapes)

    @property
    def trained_shapes(self) -> Shapes:
        """Per-client shapes of all parameters that are trained: shared ones, then personal ones."""
        return self.trained({**self.shared_shapes, **self.personal_shapes})

    def trained(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """The shared and personal values that are trained: all but the network's buffers."""
        return {name: value for name, value in values.items() if name not in self.model.buffer_shapes}

    @property
    def by_input(self) -> tuple[str, ...]:
        """Names of the parameters whose rows belong to the network's inputs, one each."""
        return () if self.model.input_rows is None else (self.model.input_rows,)

    def unreached_rows(self, weight_decay: float) -> Unreached:
        """Treatment of the rows of `by_input` that no data of a client reach, at an optimiser's `weight_decay`.

        A subclass with another objective states it. Where it does not, all rows are trained.
        """
        own = type(self)
        as_here = own.effective is LocalWeights.effective
        as_here &= own.add_penalty_gradients is LocalWeights.add_penalty_gradients
        return "kept" if as_here and not weight_decay else "trained"

    def initial_personal(self, chunk: GraphChunk) -> dict[str, Tensor]:
        """First values of the personal parameters, each [C, ...]; all clients' personal layers start alike."""
        if not self.own_shapes:
            return {}
        initial = {**self.model.initial_of(self._seed), **self.model.initial_buffers_of(self._seed)}
        return {
            name: torch.from_numpy(initial[name]).to(self._device).expand(len(chunk), *shape)
            for name, shape in self.own_shapes.items()
        }

    def effective(
        self, shared: Parameters, personal: Parameters, chunk: GraphChunk, used: Used | None = None
    ) -> dict[str, Tensor]:
        """The network's parameters [C, ...] by name.

        Args:
            shared: parameters that are sent.
            personal: parameters that stay with the client.
            chunk: the C clients' graphs.
            used: the occasion where the network is measured, embedded or sent; None while it is trained.
        """
        return {**shared, **{name: personal[name] for name in self.own_shapes}}

    def add_penalty_gradients(
        self,
        gradients: Mapping[str, Tensor],
        shared: Parameters,
        personal: Parameters,
        received: Parameters,
        chunk: GraphChunk,
        server_round: int,
    ) -> None:
        """Add the gradients of the objective's penalties in place: 2 λ2 (θ - θ̄), from round 2 on."""
        if self.proximal and server_round > 1:
            for name, value in shared.items():
                gradients[name].add_(value.detach() - received[name], alpha=2 * self.proximal)

    def learning_rates(self) -> dict[str, float]:
        """Learning rates of single parameters that differ from the optimiser's."""
        return {}

    def upload(self, shared: Parameters, effective: Parameters, chunk: GraphChunk) -> Uploads:
        """The shared parameters as they are sent, each [C, ...]; zeros do not travel."""
        return dict(shared)

    def figures(self, effective: Parameters) -> dict[str, Tensor]:
        """Further figures of a chunk, each [C]."""
        return {}

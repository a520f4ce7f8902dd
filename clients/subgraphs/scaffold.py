r"""SCAFFOLD: Karimireddy et al., "SCAFFOLD: stochastic controlled averaging for federated learning", ICML 2020.

This is the clients' side of Algorithm 1. Client i holds a control variate :math:`c_i`, of the shape of the shared
parameters, and receives the server's :math:`c`. Each local step corrects the gradient (eq. 3),

.. math:: g_i(y) - c_i + c,

before the optimiser sees it. After K steps the client's variate is the mean of the gradients along them,

.. math:: c_i^+ = \frac{1}{K} \sum_{k=1}^{K} g_i(y_{k-1}),

which with plain SGD of rate :math:`\eta_l` equals the paper's option II (eq. 4),

.. math:: c_i - c + (x - y_K) / (K \eta_l) .

With Adam, whose change is no multiple of the gradients, only the mean is a gradient. The client sends
:math:`c_i^+ - c_i` together with its model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from subfl_flower.clients.subgraphs.compact_rows import Unreached, Uploads
from subfl_flower.clients.subgraphs.local_steps import Model
from subfl_flower.clients.subgraphs.local_weights import LocalWeights, Shapes, Used
from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import OptimizerSettings
from subfl_flower.subgraphs.models.chunk import GraphChunk
from subfl_flower.subgraphs.models.graph_network import Parameters
from subfl_flower.wire.batch import Batch
from subfl_flower.wire.contract import Declared, RunContext
from subfl_flower.wire.payload import ArraySpec

Value = TypeVar("Value")

CONTROL, CHANGE = "control.", "control_change."
"""Start of the names of control variates, c in what is sent and c_i in a client's state; and of the change of c_i."""


class ControlledWeights(LocalWeights):
    """Local weights whose gradients are corrected by control variates.

    During a client's steps, ``shared["control.<name>"]`` holds the sum of the gradients so far.
    """

    @property
    def personal_shapes(self) -> Shapes:
        """Personal layers, and the client's control variate c_i."""
        return {
            **super().personal_shapes,
            **{f"{CONTROL}{name}": shape for name, shape in self.shared_shapes.items()},
        }

    def trained(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """The values that are trained: control variates are not."""
        return {name: value for name, value in super().trained(values).items() if not name.startswith(CONTROL)}

    def unreached_rows(self, weight_decay: float) -> Unreached:
        """All rows are trained: corrections also move the rows that a client's data do not reach."""
        return "trained"

    def effective(
        self, shared: Parameters, personal: Parameters, chunk: GraphChunk, used: Used | None = None
    ) -> dict[str, Tensor]:
        """The network's parameters [C, ...] by name, without control variates."""
        return super().effective(without_controls(shared), personal, chunk, used)

    def add_penalty_gradients(
        self,
        gradients: Mapping[str, Tensor],
        shared: Parameters,
        personal: Parameters,
        received: Parameters,
        chunk: GraphChunk,
        server_round: int,
    ) -> None:
        """Add the objective's penalties, add the result up, then correct it in place: g_i - c_i + c (eq. 3)."""
        parameters = without_controls(shared)
        super().add_penalty_gradients(gradients, parameters, personal, received, chunk, server_round)
        for name in parameters:
            control = f"{CONTROL}{name}"
            shared[control].add_(gradients[name])
            gradients[name].add_(received[control] - personal[control])

    def upload(self, shared: Parameters, effective: Parameters, chunk: GraphChunk) -> Uploads:
        """The trained parameters, and the change of c_i, each [C, ...]."""
        parameters = without_controls(shared)
        return {**parameters, **{f"{CHANGE}{name}": shared[f"{CONTROL}{name}"] for name in parameters}}


class ScaffoldClient(SubgraphClient):
    """Train with corrected gradients, and send the change of the control variate."""

    protects_uploads = False

    @classmethod
    def downloads(cls, run: RunContext) -> Declared:
        """The shared parameters, and c."""
        shared = cls.shared(run)
        return {**shared, **{f"{CONTROL}{name}": ArraySpec(spec.shape, spec.dtype) for name, spec in shared.items()}}

    @classmethod
    def uploads(cls, run: RunContext) -> Declared:
        """The trained shared parameters, and the change of c_i."""
        shared = cls.shared(run)
        return {**shared, **{f"{CHANGE}{name}": ArraySpec(spec.shape, spec.dtype) for name, spec in shared.items()}}

    @classmethod
    def check_skipping(cls, model: Any, settings: Any, optimizer: OptimizerSettings, method: str) -> None:
        """Refuse to skip rows of absent features, which corrections change.

        Raises:
            SubflError: always.
        """
        raise SubflError(
            f"wire.absent_features: only send is allowed, because method={method} also changes rows of features that "
            "a client does not have"
        )

    def local_weights(self) -> ControlledWeights:
        """Weights with control variates."""
        return ControlledWeights(self.model, self.settings, self.seed, self.cohort.device)

    def take_steps(self, model: Model, state: Mapping[str, Tensor], chunk: GraphChunk, batch: Batch) -> Tensor:
        """Take corrected steps; then c_i becomes the mean gradient, and `model.shared` holds its change."""
        before = state["steps"].clone()
        changes = {name: value for name, value in model.shared.items() if name.startswith(CONTROL)}
        for change in changes.values():
            change.zero_()
        loss = super().take_steps(model, state, chunk, batch)
        taken = (state["steps"] - before).clamp(min=1)
        with torch.no_grad():
            for name, change in changes.items():
                change.div_(taken.view(-1, *[1] * (change.ndim - 1))).sub_(model.personal[name])
                model.personal[name].add_(change)
        return loss


def without_controls(values: Mapping[str, Value]) -> dict[str, Value]:
    """The values that are not control variates."""
    return {name: value for name, value in values.items() if not name.startswith(CONTROL)}

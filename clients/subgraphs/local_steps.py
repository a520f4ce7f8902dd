"""The local steps of a round: Adam on the task's loss and on the penalties of the local objective."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from subfl_flower.clients.subgraphs.local_weights import LocalWeights
from subfl_flower.models.adam import adam_step
from subfl_flower.models.settings import OptimizerSettings
from subfl_flower.seeding import client_generator
from subfl_flower.subgraphs.models.chunk import GraphChunk
from subfl_flower.subgraphs.models.graph_network import GraphNetwork, Parameters
from subfl_flower.tasks.choices import Examples
from subfl_flower.wire.batch import Batch

Epoch: TypeAlias = Iterable[tuple[GraphChunk, Examples, float]]
"""The steps of an epoch: their graphs, their examples, and their share of the epoch's examples."""


def generators(seed: int, chunk: GraphChunk, server_round: int, purpose: str) -> list[np.random.Generator]:
    """A generator for each client of a chunk, the same wherever the client runs."""
    return [client_generator(seed, client_id, server_round, purpose) for client_id in chunk.client_ids]


@dataclass(frozen=True)
class Model:
    """The parameters of a chunk of clients, [C, ...] each by name; steps change `shared` and `personal` in place.

    Attributes:
        shared: those that are sent, and further arrays that are sent with them, which steps do not train.
        personal: those that stay with the client.
        received: `shared` as the server sent it.
    """

    shared: Mapping[str, Tensor]
    personal: Mapping[str, Tensor]
    received: Parameters


class LocalSteps:
    """Steps of a chunk of clients.

    Args:
        network: of the clients.
        weights: makes the network's parameters, and adds the penalties.
        optimizer: settings of Adam.
        device: where steps are computed.
        seed: of the run.
        in_precision: the context in which the network computes.
    """

    def __init__(
        self,
        network: GraphNetwork[Any],
        weights: LocalWeights,
        optimizer: OptimizerSettings,
        device: torch.device,
        seed: int,
        in_precision: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self._network, self._weights, self._optimizer = network, weights, optimizer
        self._device, self._seed, self._in_precision = device, seed, in_precision

    def take(
        self, model: Model, state: Mapping[str, Tensor], epochs: Iterable[Epoch], chunk: GraphChunk, batch: Batch
    ) -> Tensor:
        """Take the steps of some epochs.

        Args:
            model: changed in place.
            state: Adam's, changed in place.
            epochs: their steps.
            chunk: the clients.
            batch: the orders that they work on.

        Returns:
            The mean training loss of each client in the last epoch [C].

        Raises:
            FloatingPointError: a loss is not finite; names the client.
        """
        dropped, sampled = (
            generators(self._seed, chunk, batch.server_round, purpose) for purpose in ("dropout", "examples")
        )
        trained = self._weights.trained({**model.shared, **model.personal})
        mean = torch.zeros(len(chunk))
        for epoch in epochs:
            mean = torch.zeros(len(chunk))
            for part, examples, share in epoch:
                draws = self._network.training_draws(part, dropped, self._device)
                losses, gradients = self._gradients(model, trained, part, examples, draws, sampled)
                with torch.no_grad():
                    self._weights.add_penalty_gradients(
                        gradients, model.shared, model.personal, model.received, chunk, batch.server_round
                    )
                    adam_step(trained, gradients, state, self._optimizer, self._weights.learning_rates())
                mean = mean + share * losses.cpu()
        return mean

    def _gradients(
        self,
        model: Model,
        trained: Mapping[str, Tensor],
        chunk: GraphChunk,
        examples: Examples,
        draws: Sequence[Any] | None,
        sampled: Sequence[np.random.Generator],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Each client's loss [C], and its gradient by the trained parameters."""
        leaves = {name: value.detach().requires_grad_() for name, value in trained.items()}
        effective = self._weights.effective(
            {name: leaves.get(name, value) for name, value in model.shared.items()},
            {name: leaves.get(name, value) for name, value in model.personal.items()},
            chunk,
        )
        with self._in_precision():
            outputs = self._network(effective, chunk, draws)
        losses = examples.losses(outputs.float(), sampled)
        if not bool(torch.isfinite(losses).all()):
            bad = [chunk.client_ids[row] for row in torch.nonzero(~torch.isfinite(losses)).flatten().tolist()]
            raise FloatingPointError(f"the training loss of client {bad[0]} is not finite")
        found = torch.autograd.grad(losses.sum(), list(leaves.values()), materialize_grads=True)
        return losses.detach(), dict(zip(leaves, found, strict=True))

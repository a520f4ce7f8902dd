"""FedMF (Chai et al., IEEE Intelligent Systems 2020): the server steps by sums of gradients, and sees no single one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from logging import WARNING

import numpy as np
import torch
from flwr.supercore import log
from torch import Tensor

from clients.fedmf import MASKED, PARTICIPANTS, FedMFClient
from clients.recommender import ITEMS
from strategies.recommender import GradientAveraging, for_all
from subfl_flower.privacy.secure_sum import unmask_sum
from subfl_flower.runtime.messages import Stack
from subfl_flower.runtime.updates import Updates


class FedMF(GradientAveraging):
    """Tells users who takes part in a round, adds up what they masked, and averages over participants."""

    Settings = FedMFClient.Settings
    counterpart = FedMFClient

    def instructions(self, server_round: int, positions: Sequence[int]) -> Stack:
        """All parameters; under masks also the ids of all who take part, the same for everyone."""
        sent = for_all(self.parameters, positions)
        if not self.settings.masks:
            return sent
        ids = np.array([self.roster.client_ids[p] for p in self._summed(server_round)], dtype=np.int32)
        return {**sent, PARTICIPANTS: np.broadcast_to(ids, (len(positions), len(ids)))}

    def _summed(self, server_round: int) -> list[int]:
        """Positions of a round's participants whom a node hosts at the moment."""
        return [p for p in self.participants(server_round) if self.roster.node_ids[p] is not None]

    def aggregate(self, updates: Updates) -> None:
        """Step by the mean gradient, unless a participant is missing: its masks then stay in the sum."""
        missing = len(self._summed(updates.server_round)) - len(updates.positions)
        if self.settings.masks and missing:
            log(
                WARNING,
                "round %d makes no step: the masked sum cannot be read without the %d participants who did not reply",
                updates.server_round,
                missing,
            )
            return
        super().aggregate(updates)

    def mean_gradients(self, updates: Updates) -> Mapping[str, Tensor]:
        """The mean gradient by each parameter."""
        if not self.settings.masks:
            return super().mean_gradients(updates)
        total = unmask_sum(updates.arrays[MASKED].sum(0, dtype=np.uint64), self.settings.fraction_bits)
        mean = torch.from_numpy(total / len(updates.positions)).float()
        # As users lay their gradients out: the item table last.
        shapes = {name: value.shape for name, value in self.parameters.items() if name != ITEMS}
        shapes[ITEMS] = self.parameters[ITEMS].shape
        parts = mean.split([math.prod(shape) for shape in shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}

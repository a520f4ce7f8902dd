"""Mean gradients of a round's uploads: from uploads that the server reads, or from a sum under masks."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from logging import WARNING

import numpy as np
import torch
from torch import Tensor

from subfl_flower.clients.recommendation.upload_transforms import ATTEMPT, ATTEMPT_BITS, MASKED, PARTICIPANTS, masks_of
from subfl_flower.clients.recommendation.user_parts import IDS, ITEMS, ROWS, UPLOADS
from subfl_flower.flower.log import log
from subfl_flower.privacy.secure_sum import unmask_sum
from subfl_flower.server.updates import GroupSum, Updates
from subfl_flower.strategies.recommendation.server_parts import Aggregation, Parameters
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import tensor_of


class GradientMeans(Aggregation):
    """Average uploads; an item row by the uploads that hold it, or by all participants (`row_average`)."""

    def mean(self, updates: Updates, parameters: Parameters) -> dict[str, Tensor]:
        """The mean gradient by each of the parameters."""
        if updates.sums:
            return self._mean_of_sum(updates.sums[0], parameters)
        found = {name: tensor_of(updates.arrays[name]).mean(0) for name in parameters if name != ITEMS}
        ids = tensor_of(updates.ragged[IDS].values).long()
        total = torch.zeros_like(parameters[ITEMS])
        total.index_add_(0, ids, tensor_of(updates.ragged[ROWS].values))
        total += len(updates.positions) * self._shrinking(parameters)
        if self.settings.row_average == "uploads":
            total /= torch.bincount(ids, minlength=len(total)).clamp(min=1)[:, None]
        else:
            total /= len(updates.positions)
        return {**found, ITEMS: total}

    def _mean_of_sum(self, summed: GroupSum, parameters: Parameters) -> dict[str, Tensor]:
        """The mean gradient of uploads that the server sees as a sum; each user counts once."""
        users = len(summed.positions)
        means = {name: torch.from_numpy(summed.totals[name] / users).float() for name in parameters if name != ITEMS}
        table = torch.from_numpy(summed.totals[ITEMS]).float() + users * self._shrinking(parameters)
        if self.settings.row_average == "uploads":
            table /= torch.from_numpy(np.rint(summed.totals[UPLOADS])).float().clamp(min=1)[:, None]
        else:
            table /= users
        return {**means, ITEMS: table}

    def _shrinking(self, parameters: Parameters) -> Tensor:
        """One user's share of the gradient of the penalty of items' embeddings that does not depend on ratings."""
        penalty: float = self.run.model.constant_penalty if self.run.model is not None else 0.0
        if self.settings.loss == "mean":  # a user's gradient is then that of one rating in as many as users have
            penalty /= max(1.0, float(np.nanmean(self.roster.num_examples)))
        share = 2 * penalty / len(self.roster) * parameters[ITEMS]
        share[:, -1] = 0
        return share


class MaskedSum(GradientMeans):
    """Average uploads whose masks cancel in the sum over all participants; without `masks`, uploads as they are.

    It stands a level deeper than other parts because a sum of masked uploads is that of plain ones.
    """

    def instructions(self, sent: Stack, server_round: int, positions: Sequence[int]) -> Stack:
        """The arrays to send, together with the ids of all participants, the same for everyone."""
        if not masks_of(self.run):
            return sent
        ids = np.array([self.roster.client_ids[p] for p in self._summed(server_round)], dtype=np.int32)
        return {**sent, PARTICIPANTS: np.broadcast_to(ids, (len(positions), len(ids)))}

    @property
    def announcements(self) -> dict[str, float]:
        """A number drawn for each exchange: where a round is repeated, also after a resume, masks are others."""
        return {ATTEMPT: float(secrets.randbits(ATTEMPT_BITS))} if masks_of(self.run) else {}

    def readable(self, updates: Updates) -> bool:
        """True where no participant is missing, whose masks would stay in the sum."""
        missing = len(self._summed(updates.server_round)) - len(updates.positions)
        if not (masks_of(self.run) and missing):
            return True
        log(
            WARNING,
            "round %d makes no step: the masked sum cannot be read without the %d participants who did not reply",
            updates.server_round,
            missing,
        )
        return False

    def mean(self, updates: Updates, parameters: Parameters) -> dict[str, Tensor]:
        """The mean gradient by each of the parameters."""
        if not masks_of(self.run):
            return super().mean(updates, parameters)
        total = unmask_sum(updates.arrays[MASKED].sum(0, dtype=np.uint64), self.settings.fraction_bits)
        mean = torch.from_numpy(total / len(updates.positions)).float()
        # In the order of users' uploads: the item table last.
        shapes = {name: value.shape for name, value in parameters.items() if name != ITEMS}
        shapes[ITEMS] = parameters[ITEMS].shape
        parts = mean.split([math.prod(shape) for shape in shapes.values()])
        found = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        return {**found, ITEMS: found[ITEMS] + self._shrinking(parameters)}

    def _summed(self, server_round: int) -> list[int]:
        """Positions of a round's participants who are on a node now."""
        return [p for p in self.server.participants(server_round) if self.roster.node_ids[p] is not None]

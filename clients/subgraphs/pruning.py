r"""Rules by which entries of masked weights are zero outside of training: a share of weights, or a threshold of masks.

`ShareOfWeights` prunes the entries of the smallest :math:`|\theta \odot \mu|`, as many as a schedule says. The schedule
is in shares of the run, and the number of entries a share of the client's, so that neither depends on the data, the
learning rate, or the number of steps. The share rises along the curve of Zhu and Gupta, "To prune, or not to prune",
2017, eq. 1: fast at first, without a jump in any round.

`MaskThreshold` prunes where :math:`|\mu|` is small. Masks start at one and an optimiser such as Adam moves them by at
most its learning rate a step, so threshold, learning rate and steps decide together in which round pruning begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

_SAMPLE = 1 << 15
"""Entries of a client by which the limit of its pruned entries is found; the share is met to about 0.3 %."""


class Pruning(Protocol):
    """A rule that makes entries of weights zero."""

    def effective(
        self,
        weights: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        places: Mapping[str, Sequence[Tensor]],
        server_round: int,
    ) -> dict[str, Tensor]:
        """The weights as used in a round outside of training.

        Args:
            weights: θ, [C, rows, columns] by name.
            masks: µ of each, by the same names.
            places: of matrices of which not all rows are pruned: the rows that are, int64 [n] of each client.
            server_round: the round.

        Returns:
            θ ⊙ µ, zero where pruned.
        """


@dataclass(frozen=True)
class MaskThreshold:
    """Prune entries whose mask has no larger absolute value than a threshold (FED-PUB, Section 3.3).

    Attributes:
        threshold: of mask entries.
    """

    threshold: float

    def effective(
        self,
        weights: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        places: Mapping[str, Sequence[Tensor]],
        server_round: int,
    ) -> dict[str, Tensor]:
        """See `Pruning.effective`; all rows are pruned."""
        return {name: value * F.hardshrink(masks[name], self.threshold) for name, value in weights.items()}


@dataclass(frozen=True)
class ShareOfWeights:
    """Prune a client's smallest entries, over all its matrices.

    Attributes:
        share: the share of entries that are zero at the end.
        reached: the share of the run after which it is reached.
        rounds: of the run.
    """

    share: float
    reached: float
    rounds: int

    def share_in(self, server_round: int) -> float:
        """The share that is pruned in a round, s (1 - (1 - t)³) with t from 0 at the start to 1."""
        end = self.reached * self.rounds
        progress = min(server_round / end, 1.0) if end else 1.0
        return self.share * (1 - (1 - progress) ** 3)

    def effective(
        self,
        weights: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        places: Mapping[str, Sequence[Tensor]],
        server_round: int,
    ) -> dict[str, Tensor]:
        """See `Pruning.effective`."""
        effective = {name: value * masks[name] for name, value in weights.items()}
        share = self.share_in(server_round)
        for client in range(len(next(iter(effective.values()), ()))):
            own = {name: value[client] for name, value in effective.items()}
            rows = {name: places[name][client] for name in own if name in places}
            limit = _limit({name: own[name][rows[name]] if name in rows else own[name] for name in own}, share)
            for name, value in own.items():
                small = value.abs() <= limit
                if name in rows:
                    value[rows[name]] = value[rows[name]].masked_fill(small[rows[name]], 0)
                else:
                    value.masked_fill_(small, 0)
        return effective


def _limit(matrices: Mapping[str, Tensor], share: float) -> float:
    """The absolute value that a share of the entries do not exceed; negative where none shall be pruned."""
    entries = sum(matrix.numel() for matrix in matrices.values())
    step = max(1, entries // _SAMPLE) | 1  # odd, so that it goes through all columns of the usual widths
    sample = torch.cat([matrix.flatten()[::step] for matrix in matrices.values()]).abs()
    smallest = round(share * len(sample))
    return float(sample.kthvalue(smallest).values) if smallest else -1.0

r"""Rules by which entries of masked weights are zero outside of training: a share of weights, or a threshold of masks.

`ShareOfWeights` prunes a share of the network's entries, those of the smallest :math:`|\bar\theta_i \odot \mu_i|`: the
average that a client received, times its mask. The share grows over the run, along the curve of Zhu and Gupta, "To
prune, or not to prune", 2017, eq. 1: fast at first, without a jump in any round. It does not depend on the data, the
learning rate or the number of steps. The received average ranks, and not the trained weights, so that clients of one
community prune nearly the same entries, which are then averaged over all of them.

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


@dataclass(frozen=True)
class Masked:
    """The weight matrices of C clients, [C, rows, columns] by name.

    Attributes:
        weights: θ.
        masks: µ.
        received: the weights as the server sent them; without those that stay with the client.
        places: of matrices of which not all rows may be pruned: the rows that may, int64 [n] of each client.
        absent: entries of each client that are zero because it does not have a feature [C].
    """

    weights: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    received: Mapping[str, Tensor]
    places: Mapping[str, Sequence[Tensor]]
    absent: Sequence[int]


class Pruning(Protocol):
    """A rule that makes entries of weights zero."""

    def effective(self, clients: Masked, server_round: int) -> dict[str, Tensor]:
        """θ ⊙ µ as used in a round outside of training, zero where pruned."""


@dataclass(frozen=True)
class MaskThreshold:
    """Prune entries whose mask has no larger absolute value than a threshold (FED-PUB, Section 3.3).

    Attributes:
        threshold: of mask entries.
    """

    threshold: float

    def effective(self, clients: Masked, server_round: int) -> dict[str, Tensor]:
        """See `Pruning.effective`; all rows are pruned."""
        masks = clients.masks
        return {name: value * F.hardshrink(masks[name], self.threshold) for name, value in clients.weights.items()}


@dataclass(frozen=True)
class ShareOfWeights:
    """Prune a client's entries of the smallest received weight times mask, over all matrices.

    Attributes:
        share: the share of the network's entries that are zero at the end; those of absent features are among them.
        reached: the share of the run after which it is reached.
        rounds: of the run.
        entries: of the network's matrices.
    """

    share: float
    reached: float
    rounds: int
    entries: int

    def share_in(self, server_round: int) -> float:
        """The share that is zero in a round, s (1 - (1 - t)³) with t from 0 at the start to 1."""
        end = self.reached * self.rounds
        progress = min(server_round / end, 1.0) if end else 1.0
        return self.share * (1 - (1 - progress) ** 3)

    def effective(self, clients: Masked, server_round: int) -> dict[str, Tensor]:
        """See `Pruning.effective`."""
        effective = {name: value * clients.masks[name] for name, value in clients.weights.items()}
        share = self.share_in(server_round)
        for client, absent in enumerate(clients.absent):
            ranked, pruned = {}, {}
            for name in effective:
                rank = clients.received.get(name, clients.weights[name])[client] * clients.masks[name][client]
                pruned[name] = rows = clients.places[name][client] if name in clients.places else slice(None)
                ranked[name] = rank[rows].abs_()
            own = sum(rank.numel() for rank in ranked.values())
            wanted = min(share, (share * self.entries - absent) / max(own, 1))
            limit = _limit(ranked, wanted)
            if limit is not None:
                for name, rank in ranked.items():
                    value, rows = effective[name][client], pruned[name]
                    value[rows] = value[rows].masked_fill(rank <= limit, 0)
        return effective


def _limit(ranked: Mapping[str, Tensor], share: float) -> float | None:
    """The number that a share of the entries do not exceed; None where no entry shall be pruned."""
    step = max(1, sum(rank.numel() for rank in ranked.values()) // _SAMPLE) | 1  # odd: goes through all columns
    sample = torch.cat([rank.flatten()[::step] for rank in ranked.values()])
    smallest = round(share * len(sample))
    return float(sample.kthvalue(smallest).values) if smallest > 0 else None

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

_SAMPLE = 1 << 14
"""Entries of a client by which the limit of its pruned entries is found; the share is met to about 0.4 %."""


@dataclass(frozen=True)
class Masked:
    """The weight matrices of C clients, [C, rows, columns] by name.

    Attributes:
        weights: θ.
        masks: µ.
        received: the weights as the server sent them; without those that stay with the client.
        places: of matrices of which not all rows may be pruned: the rows that may, int64 [n] of each client.
        prunable: the same rows as flags, bool [C, rows, 1].
        absent: entries of each client that are zero because it does not have a feature [C].
    """

    weights: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    received: Mapping[str, Tensor]
    places: Mapping[str, Sequence[Tensor]]
    prunable: Mapping[str, Tensor]
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
        if not share or not effective:
            return effective
        ranks = {
            name: (clients.received.get(name, value) * clients.masks[name]).abs_()
            for name, value in clients.weights.items()
        }
        limits = torch.tensor([self._limit(ranks, clients, share, client) for client in range(len(clients.absent))])
        for name, rank in ranks.items():
            small = rank <= limits.to(rank.device).view(-1, *[1] * (rank.ndim - 1))
            if name in clients.prunable:
                small &= clients.prunable[name]
            effective[name].masked_fill_(small, 0)
        return effective

    def _limit(self, ranks: Mapping[str, Tensor], clients: Masked, share: float, client: int) -> float:
        """The rank that as many of a client's entries do not exceed as are to be zero; -1 where none is.

        It follows from the client's own entries alone, and not from the chunk that the client is in.
        """
        places = {name: rows[client] for name, rows in clients.places.items()}
        sizes = {
            name: len(places[name]) * rank.shape[2] if name in places else rank[client].numel()
            for name, rank in ranks.items()
        }
        own = sum(sizes.values())
        step = max(1, own // _SAMPLE) | 1  # odd, so that it goes through all columns of the usual widths
        sampled = []
        for name, rank in ranks.items():
            entries = torch.arange(0, sizes[name], step, device=rank.device)
            if name in places:
                entries = places[name][entries // rank.shape[2]] * rank.shape[2] + entries % rank.shape[2]
            sampled.append(rank[client].flatten()[entries])
        sample = torch.cat(sampled)
        wanted = min(share, (share * self.entries - clients.absent[client]) / max(own, 1))
        smallest = round(wanted * len(sample))
        return float(sample.kthvalue(smallest).values) if smallest > 0 else -1.0

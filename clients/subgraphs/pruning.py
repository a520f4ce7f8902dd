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

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_SAMPLE = 1 << 14
"""Entries of a client by which the limit of its pruned entries is found; the share is met to about 0.4 %."""


class Prunable:
    """The entries that may be pruned of the matrices of C clients; kept for a chunk, with the indexes made of it.

    Args:
        places: of matrices of which not all rows may be pruned: the rows that may, int64 [n] of each client.
        absent: entries of each client that are zero because it does not have a feature [C].
    """

    def __init__(self, places: Mapping[str, Sequence[Tensor]], absent: Sequence[int]) -> None:
        self.places, self.absent = places, absent
        self._indexes: dict[tuple[tuple[str, torch.Size], ...], _Indexes] = {}

    def indexes(self, matrices: Mapping[str, Tensor]) -> _Indexes:
        """The indexes into matrices of these names and shapes, [C, rows, columns] each."""
        key = tuple((name, matrix.shape) for name, matrix in matrices.items())
        if key not in self._indexes:
            self._indexes[key] = _Indexes.of(self, matrices)
        return self._indexes[key]


@dataclass(frozen=True)
class _Indexes:
    """Entries and rows of stacks of matrices, [C, rows, columns] by name.

    Attributes:
        own: number of entries that may be pruned, of each client [C].
        sampled: entries by which the limits are found, of each flattened stack: one client after the other.
        counts: numbers of these of each client, by name [C].
        spared: rows that may not be pruned, int64, of each stack [C · rows, columns] that has such rows.
    """

    own: Sequence[int]
    sampled: Mapping[str, Tensor]
    counts: Mapping[str, Sequence[int]]
    spared: Mapping[str, Tensor]

    @classmethod
    def of(cls, prunable: Prunable, matrices: Mapping[str, Tensor]) -> _Indexes:
        clients, places = range(len(prunable.absent)), prunable.places
        sizes = {
            name: [len(places[name][c]) * matrix.shape[2] if name in places else matrix[c].numel() for c in clients]
            for name, matrix in matrices.items()
        }
        own = [sum(of_clients[c] for of_clients in sizes.values()) for c in clients]
        # Odd, so that it goes through all columns of the usual widths.
        steps = [max(1, entries // _SAMPLE) | 1 for entries in own]
        sampled: dict[str, Tensor] = {}
        counts: dict[str, Sequence[int]] = {}
        spared: dict[str, Tensor] = {}
        for name, matrix in matrices.items():
            # A matrix of which not all rows may be pruned has rows and columns; others have any shape.
            rows, columns = matrix.shape[1], matrix.shape[-1]
            parts = []
            for c in clients:
                entries = torch.arange(0, sizes[name][c], steps[c], device=matrix.device)
                if name in places:
                    entries = places[name][c][entries // columns] * columns + entries % columns
                parts.append(entries + c * matrix[c].numel())
            counts[name] = [len(part) for part in parts]
            sampled[name] = torch.cat(parts).to(torch.int32 if matrix.numel() < 1 << 31 else torch.int64)
            if name in places:
                free = torch.ones(len(clients), rows, dtype=torch.bool, device=matrix.device)
                for c in clients:
                    free[c, places[name][c]] = False
                spared[name] = free.flatten().nonzero().flatten()
        return cls(own, sampled, counts, spared)


@dataclass(frozen=True)
class Masked:
    """The weight matrices of C clients, [C, rows, columns] by name.

    Attributes:
        weights: θ.
        masks: µ.
        received: the weights as the server sent them; without those that stay with the client.
        prunable: the entries that may be pruned.
    """

    weights: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    received: Mapping[str, Tensor]
    prunable: Prunable


def kept_where_positive(values: Tensor, ranks: Tensor) -> Tensor:
    """The values where their ranks are positive or NaN, else zero.

    `values.masked_fill(ranks <= 0, 0)` gives the same bits, and takes ten times as long on a CPU, where it branches at
    each entry. This is the gradient of a ReLU, for which PyTorch has a kernel without branches.
    """
    kept: Tensor = torch.ops.aten.threshold_backward(values, ranks, 0)
    return kept


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
        indexes = clients.prunable.indexes(effective)
        ranks = {name: self._ranks(name, clients, effective[name]) for name in effective}
        limits = self._limits(ranks, indexes, clients.prunable.absent, share)
        for name, rank in ranks.items():
            above = rank.sub_(limits.to(rank.device).view(-1, 1, 1))
            if name in indexes.spared:
                above.view(-1, above.shape[2]).index_fill_(0, indexes.spared[name], torch.inf)
            effective[name] = kept_where_positive(effective[name], above)
        return effective

    @staticmethod
    def _ranks(name: str, clients: Masked, effective: Tensor) -> Tensor:
        """The absolute values that a matrix is ranked by; those of θ ⊙ µ where θ is as received, or is not sent."""
        weights = clients.weights[name]
        received = clients.received.get(name, weights)
        return effective.abs() if received is weights else (received * clients.masks[name]).abs_()

    def _limits(self, ranks: Mapping[str, Tensor], indexes: _Indexes, absent: Sequence[int], share: float) -> Tensor:
        """For each client the rank that as many of its entries do not exceed as are to be zero [C]; -1 where none is.

        It follows from a client's own entries alone, and not from the chunk that the client is in.
        """
        samples = []
        for name, rank in ranks.items():
            found = rank.flatten().index_select(0, indexes.sampled[name]).cpu()
            samples.append([part.numpy() for part in found.split(list(indexes.counts[name]))])
        limits = torch.full((len(absent),), -1.0)
        for c, parts in enumerate(zip(*samples, strict=True)):
            sample = np.concatenate(parts)
            wanted = min(share, (share * self.entries - absent[c]) / max(indexes.own[c], 1))
            smallest = round(wanted * len(sample))
            if smallest > 0:
                limits[c] = float(np.partition(sample, smallest - 1)[smallest - 1])
        return limits

"""The rows of a network's first layer that clients' data reach.

A client's nodes have some of a data set's features. The first layer has a row for each column of its inputs, and a row
whose column is zero at all nodes of a client has no effect on the client's outputs, and no gradient. Steps on the other
rows alone give the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from subfl_flower.models.row_stack import RowStack


@dataclass(frozen=True, eq=False)
class InputRows:
    """R of the F rows of C clients' first layers.

    A client's own rows come first, in ascending order. Where another client of the chunk has more, rows that the client
    does not reach fill up the rest.

    Attributes:
        index: int64 [C, R], the rows of each client, each once.
        counts: own rows of each client [C].
        height: F.
    """

    index: Tensor
    counts: tuple[int, ...]
    height: int

    @classmethod
    def of(cls, reached: Sequence[np.ndarray], device: torch.device | str = "cpu") -> InputRows | None:
        """The rows of some clients, from flags of those that each one reaches, bool [F]; None where all reach all."""
        if all(flags.all() for flags in reached):
            return None
        counts = tuple(int(flags.sum()) for flags in reached)
        index = np.stack([np.argsort(~flags, kind="stable")[: max(counts)] for flags in reached])
        return cls(torch.from_numpy(index).to(device), counts, len(reached[0]))

    def gathered(self, full: Tensor) -> Tensor:
        """The rows [C, R, ...] of a stack [C, F, ...], in memory that nothing else refers to."""
        if full.device.type == "cpu":
            rows = torch.empty(*self.index.shape, *full.shape[2:], dtype=full.dtype)
            for c, index in enumerate(self.index):
                torch.index_select(full[c], 0, index, out=rows[c])
            return rows
        return full.gather(1, self._expanded(full))

    def gathered_stack(self, stack: RowStack) -> Tensor:
        """The rows [C, R, H] of a stack that holds some of the rows [C, F, H]; zero where it does not hold one."""
        gathered = np.zeros((*self.index.shape, stack.shape[2]), dtype=stack.dtype)
        for c, index in enumerate(self.index.cpu().numpy()):
            held, values = stack.part(c)
            if len(held) <= len(index) and (held == index[: len(held)]).all():
                gathered[c, : len(held)] = values
            else:
                place = np.full(self.height, -1)
                place[held] = np.arange(len(held))
                found = place[index]
                gathered[c, found >= 0] = values[found[found >= 0]]
        return torch.from_numpy(gathered).to(self.index.device)

    def stack(self, rows: Tensor) -> RowStack:
        """The clients' own rows of a stack [C, R, H]."""
        own = [
            (values[:count], index[:count]) for values, index, count in zip(rows, self.index, self.counts, strict=True)
        ]
        return RowStack(
            torch.cat([values for values, _ in own]).cpu().numpy(),
            torch.cat([index for _, index in own]).cpu().numpy(),
            np.array(self.counts),
            self.height,
        )

    def put(self, rows: Tensor, full: Tensor) -> Tensor:
        """Replace the rows of a stack [C, F, ...] in place by `rows` [C, R, ...], and return the stack."""
        if full.device.type == "cpu":
            for own, values, index in zip(full, rows, self.index, strict=True):
                own.index_copy_(0, index, values)
            return full
        return full.scatter_(1, self._expanded(rows), rows)

    def spread(self, rows: Tensor) -> Tensor:
        """A stack [C, F, ...] with these `rows` [C, R, ...], and zeros elsewhere."""
        return self.put(rows, rows.new_zeros(len(rows), self.height, *rows.shape[2:]))

    def _expanded(self, like: Tensor) -> Tensor:
        shape = (*self.index.shape, *like.shape[2:])
        return self.index.view(*self.index.shape, *[1] * (like.ndim - 2)).expand(shape)

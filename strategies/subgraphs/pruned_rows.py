"""Averages of matrices of which each client sends some rows alone: products over the clients that sent a row.

Rows that were sent by as many clients, and go to as many, are worked at once, in batches that stay in cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from subfl_flower.models.row_stack import RowStack

# Entries of the clients' rows that are worked at once.
_BATCH = 1 << 16

_TINY = np.finfo(np.float32).tiny


class RowMixer:
    """Mixing of stacks of rows; the plan of the products is kept for the next stack of the same rows."""

    def __init__(self) -> None:
        self._key: list[np.ndarray] = []
        self._rows: _Rows | None = None
        self._groups: list[_Group] = []

    def mixed(
        self, matrix: np.ndarray, sent: RowStack, wanted: np.ndarray, positions: np.ndarray, owners_alone: bool
    ) -> RowStack:
        """M times a stack of pruned matrices, for each client only the entries that it uses: [K, F, H].

        Args:
            matrix: M, float32 [K, A].
            sent: [A, F, H], zero where pruned.
            wanted: bool [A, F], true where a client wants all of a row, whatever it sent of it.
            positions: of the A clients among the K; the others use every entry.
            owners_alone: True to average an entry over the clients that sent it, False to count it as zero of the
                others.
        """
        rows, values = self._planned(len(matrix), sent, wanted, positions), sent.values
        mixed = np.empty((rows.num_targets + 1, sent.shape[2]), dtype=np.float32)  # the last one takes what is padding
        for group in self._groups:
            own = values[group.sources]
            weights = matrix[group.clients[:, :, None], group.owners[:, None, :]]
            weights *= group.is_source[:, None, :]
            kept = own != 0
            everywhere = bool(kept.all())
            if owners_alone and everywhere:
                weights /= np.maximum(weights.sum(2, keepdims=True), _TINY)
            block = weights @ own
            if owners_alone and not everywhere:
                # Where nobody sent an entry its sum is zero, too.
                block /= np.maximum(weights @ kept.astype(np.float32), _TINY)
            if not everywhere:
                block *= (values[group.sent_by_target] != 0) | (group.sent_by_target < 0)[:, :, None]
            mixed[group.targets] = block
        return rows.as_stack(mixed[:-1])

    def _planned(self, num_clients: int, sent: RowStack, wanted: np.ndarray, positions: np.ndarray) -> _Rows:
        key = [np.array([num_clients, sent.height]), sent.index, sent.counts, wanted, positions]
        known = len(key) == len(self._key) and all(map(np.array_equal, key, self._key))
        if self._rows is None or not known:
            self._rows = _Rows.of(num_clients, sent, wanted, positions)
            self._groups = list(self._rows.groups(sent))
            self._key = [np.array(part) for part in key]
        return self._rows


@dataclass(frozen=True)
class _Group:
    """G rows with up to n sources, the clients that sent them, and up to t targets, the clients that they go to.

    Attributes:
        sources: places of the sent rows in the stack [G, n].
        owners: the clients that sent these [G, n].
        is_source: float32 [G, n], 0 where a source is padding.
        targets: places of the mixed rows [G, t]; the place after the last one where a target is padding.
        clients: the clients that these go to [G, t].
        sent_by_target: place of what a target itself sent of the row [G, t]; -1 where it uses every entry.
    """

    sources: np.ndarray
    owners: np.ndarray
    is_source: np.ndarray
    targets: np.ndarray
    clients: np.ndarray
    sent_by_target: np.ndarray


@dataclass(frozen=True)
class _Rows:
    """The clients that sent each of F rows, and those that it goes to.

    Attributes:
        by_row: places of the sent rows in the stack [N], row after row.
        num_sent: clients that sent each row [F].
        goes_to: bool [K, F].
        sent_by: int64 [K, F], the place of what a client sent of a row; -1 where it uses every entry.
    """

    by_row: np.ndarray
    num_sent: np.ndarray
    goes_to: np.ndarray
    sent_by: np.ndarray

    @classmethod
    def of(cls, num_clients: int, sent: RowStack, wanted: np.ndarray, positions: np.ndarray) -> _Rows:
        sent_by = np.full((num_clients, sent.height), -1)
        goes_to = np.ones(sent_by.shape, dtype=bool)
        goes_to[positions] = wanted
        sent_by[positions[sent.owners], sent.index] = np.arange(len(sent.index))
        own = sent_by >= 0
        sent_by[goes_to] = -1
        goes_to |= own
        num_sent = np.bincount(sent.index, minlength=sent.height)
        goes_to &= num_sent > 0
        return cls(np.argsort(sent.index, kind="stable"), num_sent, goes_to, sent_by)

    @property
    def num_targets(self) -> int:
        return int(np.count_nonzero(self.goes_to))

    def as_stack(self, values: np.ndarray) -> RowStack:
        """The mixed rows, which stand client by client."""
        return RowStack(values, np.nonzero(self.goes_to)[1], self.goes_to.sum(1), self.goes_to.shape[1])

    def groups(self, sent: RowStack) -> Iterator[_Group]:
        """All rows that were sent, in groups of about `_BATCH` entries."""
        place = np.full(self.goes_to.shape, -1)
        place[self.goes_to] = np.arange(self.num_targets)
        targets = np.nonzero(self.goes_to.T)[1]
        num_targets = self.goes_to.sum(0)
        first_source, first_target = (np.cumsum(counts) - counts for counts in (self.num_sent, num_targets))
        sizes = _padded_size(self.num_sent) * (len(self.goes_to) + _STEP) + _padded_size(num_targets)
        for size in np.unique(sizes[num_targets > 0]):
            n, t = divmod(int(size), len(self.goes_to) + _STEP)
            alike = np.flatnonzero((sizes == size) & (num_targets > 0))
            step = max(1, _BATCH // (max(n, t) * sent.shape[2]))
            for rows in (alike[start : start + step] for start in range(0, len(alike), step)):
                is_source, is_target = (
                    np.arange(length) < counts[rows, None] for length, counts in ((n, self.num_sent), (t, num_targets))
                )
                sources = self.by_row[np.where(is_source, first_source[rows, None] + np.arange(n), 0)]
                clients = targets[np.where(is_target, first_target[rows, None] + np.arange(t), 0)]
                yield _Group(
                    sources,
                    sent.owners[sources],
                    is_source.astype(np.float32),
                    np.where(is_target, place[clients, rows[:, None]], self.num_targets),
                    clients,
                    self.sent_by[clients, rows[:, None]],
                )


_STEP = 4


def _padded_size(counts: np.ndarray) -> np.ndarray:
    """Counts up to 8 as they are, larger ones as the next multiple of `_STEP`, so that groups are few."""
    return np.where(counts <= 2 * _STEP, counts, -(-counts // _STEP) * _STEP)

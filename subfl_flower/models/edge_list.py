"""The edges of a block-diagonal graph, one by one: values at their ends, sums and softmax over each node's edges."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from subfl_flower.models.sparse import SparseMatrix, block_diagonal


class EdgeList:
    """E directed edges between N nodes, sorted by the node that they lead to.

    All products are of constant sparse matrices, so that values and gradients are summed in a fixed order: a node's
    results do not depend on the other clients of its chunk.

    Args:
        operators: CSR [n, n] of each client, an entry (i, j) being an edge from j to i. Values are not read.
        width: nodes that each client is padded to.
        device: where products are computed.

    Attributes:
        counts: edges of each client.
    """

    def __init__(
        self, operators: Sequence[scipy.sparse.csr_array], width: int, device: torch.device | str = "cpu"
    ) -> None:
        blocks = block_diagonal(operators, (width, width))
        self.counts = tuple(int(operator.nnz) for operator in operators)
        targets = np.repeat(np.arange(blocks.shape[0]), np.diff(blocks.indptr))
        self._sources = _choice(blocks.indices, blocks.shape[0], device)
        self._targets = _choice(targets, blocks.shape[0], device)
        self._target = torch.from_numpy(targets.astype(np.int64)).to(device)

    def at_sources(self, values: Tensor) -> Tensor:
        """Values [E, ...] of the nodes that edges come from, of `values` [N, width]."""
        return self._sources @ values

    def at_targets(self, values: Tensor) -> Tensor:
        """Values [E, ...] of the nodes that edges lead to, of `values` [N, width]."""
        return self._targets @ values

    def summed(self, messages: Tensor) -> Tensor:
        """Sums [N, width] of the messages [E, width] that lead to each node; zero where there are none."""
        return self._targets.T @ messages

    @torch.no_grad()
    def largest(self, values: Tensor) -> Tensor:
        """The largest of the values [E, width] of edges that lead to one node, for each of these edges [E, width]."""
        index = self._target.unsqueeze(1).expand_as(values)
        lowest = values.new_full((self._targets.shape[1], values.shape[1]), -torch.inf)
        return lowest.scatter_reduce(0, index, values, "amax").index_select(0, self._target)

    def softmax(self, scores: Tensor) -> Tensor:
        r"""Shares [E, width] of the edges that lead to one node, which sum to one, of scores [E, width]:

        .. math:: \alpha_e = \frac{\exp(s_e)}{\sum_{e' : target(e') = target(e)} \exp(s_{e'})}.
        """
        exponentials = (scores - self.largest(scores)).exp()
        return exponentials / self.at_targets(self.summed(exponentials))


def _choice(index: np.ndarray, width: int, device: torch.device | str) -> SparseMatrix:
    """A matrix [E, width] with a single one in each row, at the column `index`."""
    entries = (np.ones(len(index), dtype=np.float32), index, np.arange(len(index) + 1))
    return SparseMatrix(scipy.sparse.csr_array(entries, shape=(len(index), width)), device)

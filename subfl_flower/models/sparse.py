"""A constant sparse matrix whose product with a dense one is differentiable at the cost of one product."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

_INT32 = np.iinfo(np.int32)


def _csr_tensor(matrix: scipy.sparse.csr_array, device: torch.device) -> Tensor:
    """A sparse tensor on a device.

    Where they fit, its indices have 32 bits: else PyTorch would make such ones for MKL at every product.

    Args:
        matrix: its indices ascend within a row.
        device: of the tensor.
    """
    index = np.int32 if max(matrix.nnz, *matrix.shape) <= _INT32.max else np.int64
    return torch.sparse_csr_tensor(
        torch.from_numpy(matrix.indptr.astype(index)),
        torch.from_numpy(matrix.indices.astype(index)),
        torch.from_numpy(matrix.data.astype(np.float32)),
        size=matrix.shape,
        check_invariants=False,
    ).to(device)


def _written_over(matrix: Tensor, dense: Tensor) -> Tensor:
    """``matrix @ dense``, written straight into fresh memory.

    ``@`` clears its result, copies it, and then writes to it, which costs several times the product where the matrix
    has many empty rows.
    """
    fresh = dense.new_empty(matrix.shape[0], dense.shape[1])
    return torch.addmm(fresh, matrix, dense, beta=0, out=fresh)


def _product(matrix: Tensor, dense: Tensor) -> Tensor:
    """The product of a sparse and a dense matrix, without a gradient."""
    if _WRITES_OVER and dense.device.type == "cpu" and dense.dtype == matrix.dtype:
        return _written_over(matrix, dense)
    return matrix @ dense


def _writes_over() -> bool:
    """True where this build of PyTorch leaves nothing in a product of what its memory held before."""
    matrix = _csr_tensor(scipy.sparse.csr_array(np.array([[0, 2], [0, 0]], dtype=np.float32)), torch.device("cpu"))
    held = torch.full((2, 1), torch.nan)
    found = torch.addmm(held, matrix, torch.tensor([[1.0], [3.0]]), beta=0, out=held)
    return found.tolist() == [[6.0], [0.0]]


# PyTorch announces once that CSR support is in beta: here, where filters of warnings are not yet several threads'.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)
    _WRITES_OVER = _writes_over()


class _Product(torch.autograd.Function):
    """``A @ X`` with the gradient ``Aᵀ @ G`` from a transpose made once, where autograd would re-sort A each time."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, transpose: Tensor, dense: Tensor) -> Tensor:
        ctx.transpose = transpose
        return _product(matrix, dense)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, Tensor]:
        return None, None, _product(ctx.transpose, gradients[0].contiguous())


class SparseMatrix:
    """A constant sparse matrix of shape [rows, columns] on a device, with its transpose.

    Args:
        matrix: any SciPy sparse matrix; stored as float32 CSR.
        device: where products are computed.
        symmetric: the transpose is the matrix itself and is not stored twice.
    """

    def __init__(
        self, matrix: scipy.sparse.sparray, device: torch.device | str = "cpu", *, symmetric: bool = False
    ) -> None:
        device = torch.device(device)
        rows = scipy.sparse.csr_array(matrix)
        rows.sort_indices()
        self.shape: tuple[int, int] = rows.shape
        self._matrix = _csr_tensor(rows, device)
        self._transpose = self._matrix if symmetric else _csr_tensor(rows.T.tocsr(), device)

    @property
    def T(self) -> SparseMatrix:
        """The transpose, which shares the stored values."""
        turned = copy(self)
        turned.shape = self.shape[::-1]
        turned._matrix, turned._transpose = self._transpose, self._matrix
        return turned

    def __matmul__(self, dense: Tensor) -> Tensor:
        """The product [rows, width] with a `dense` [columns, width], differentiable in `dense`; always in float32."""
        if torch.is_autocast_enabled(dense.device.type):
            with torch.autocast(dense.device.type, enabled=False):
                return self @ dense.float()
        if torch.is_grad_enabled() and dense.requires_grad:
            product: Tensor = _Product.apply(self._matrix, self._transpose, dense)  # type: ignore[no-untyped-call]
            return product
        return _product(self._matrix, dense)


def normalised_adjacency(
    edge_index: np.ndarray, num_nodes: int, weight: np.ndarray | None = None
) -> scipy.sparse.csr_array:
    """Â = D^-1/2 (A + I) D^-1/2 (Kipf and Welling, 2017).

    A holds the edges' weights, and D the row sums of A + I: a node has an edge of weight 1 to itself.

    Args:
        edge_index: [2, edges], both directions of every edge, without self-loops.
        num_nodes: N.
        weight: float [edges], positive, equal in both directions; None: all 1.

    Returns:
        Float32 CSR [N, N], symmetric.
    """
    loops = np.arange(num_nodes)
    row = np.concatenate([edge_index[0], loops])
    column = np.concatenate([edge_index[1], loops])
    every = None if weight is None else np.concatenate([weight, np.ones(num_nodes)])
    scale = 1.0 / np.sqrt(np.bincount(row, every, minlength=num_nodes))
    values = scale[row] * scale[column]
    if every is not None:
        values *= every
    values = values.astype(np.float32)
    return scipy.sparse.coo_array((values, (row, column)), shape=(num_nodes, num_nodes)).tocsr()


def mean_adjacency(edge_index: np.ndarray, num_nodes: int, weight: np.ndarray | None = None) -> scipy.sparse.csr_array:
    """D^-1 A, whose product with features is every node's weighted mean over its neighbours, zero where it has none.

    Args:
        edge_index: [2, edges], both directions of every edge, without self-loops.
        num_nodes: N.
        weight: float [edges], positive; None: all 1.

    Returns:
        Float32 CSR [N, N].
    """
    row, column = edge_index
    shares = (1.0 if weight is None else weight) / np.bincount(row, weight, minlength=num_nodes)[row]
    values = shares.astype(np.float32)
    return scipy.sparse.coo_array((values, (row, column)), shape=(num_nodes, num_nodes)).tocsr()


def block_diagonal(blocks: Sequence[scipy.sparse.csr_array], block_shape: tuple[int, int]) -> scipy.sparse.csr_array:
    """Blocks along the diagonal, each padded with empty rows and columns to `block_shape`.

    Block c starts at row ``c * block_shape[0]`` and column ``c * block_shape[1]``.
    """
    height, width = block_shape
    counts = [np.pad(np.diff(block.indptr), (0, height - block.shape[0])) for block in blocks]
    return scipy.sparse.csr_array(
        (
            np.concatenate([block.data for block in blocks]),
            np.concatenate([block.indices.astype(np.int64) + c * width for c, block in enumerate(blocks)]),
            np.concatenate([[0], np.cumsum(np.concatenate(counts))]),
        ),
        shape=(len(blocks) * height, len(blocks) * width),
    )

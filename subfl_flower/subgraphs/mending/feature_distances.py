"""Distances of generated features from true ones, from the hidden units alone: no generated matrix is written out.

The generator's output layer is linear, so that :math:`|aW - x|^2 = a W W^T a^T - 2 a W x + |x|^2`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from subfl_flower.subgraphs.mending.mended_sage import Parameters
from subfl_flower.subgraphs.mending.mending_example import MendingExample, ScaledFeatures

_BLOCK = 1 << 22  # distances at once


def mean_squares(
    decoder: Parameters, hidden: Tensor, features: ScaledFeatures, vectors: Tensor, rows: Tensor
) -> Tensor:
    """d of pairs of a generated vector and a row of `features`, [pairs].

    Args:
        decoder: parameters with the output layer, which is used.
        hidden: [m, hidden], the output layer's inputs for the vectors.
        features: n rows.
        vectors: int64 [pairs], 0 to m - 1.
        rows: int64 [pairs], 0 to n - 1.
    """
    weight, bias = decoder["output.weight"], decoder["output.bias"]
    squares = ((hidden @ (weight @ weight.T)) * hidden).sum(1) + 2 * hidden @ (weight @ bias) + bias @ bias
    products = (hidden[vectors] * (features.matrix @ weight.T)[rows]).sum(1)
    offsets = features.squared_norms - 2 * (features.matrix @ bias[:, None]).squeeze(1)
    return (squares[vectors] - 2 * products + offsets[rows]) / weight.shape[1]


def nearest(decoder: Parameters, hidden: Tensor, features: ScaledFeatures) -> Tensor:
    """Nearest of the n rows of `features` for each of m generated vectors, int64 [m]."""
    products = (features.matrix @ decoder["output.weight"].T).T
    offsets = features.squared_norms - 2 * (features.matrix @ decoder["output.bias"][:, None]).squeeze(1)
    blocks = hidden.split(max(_BLOCK // len(offsets), 1))
    return torch.cat([torch.addmm(offsets, block, products, alpha=-2).argmin(1) for block in blocks])


def candidates(owners: Tensor, example: MendingExample) -> tuple[Tensor, Tensor]:
    """Pairs of a generated vector and a hidden neighbour of its node: int64 [pairs] and, as rows of targets, [pairs].

    Args:
        owners: int64 [m], the node of each vector.
        example: holds the hidden neighbours.
    """
    held = torch.bincount(example.owners, minlength=len(example.missing))
    first, number = (held.cumsum(0) - held)[owners], held[owners]
    vectors = torch.repeat_interleave(number)
    within = torch.arange(len(vectors), device=owners.device) - (number.cumsum(0) - number)[vectors]
    return vectors, example.hidden[first[vectors] + within]

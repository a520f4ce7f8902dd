"""Products and sums over ragged rows: many users' rows in one matrix, user by user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class _SegmentProduct(torch.autograd.Function):
    """Product ``rows @ weight`` for users who all have the same weight, with each user's own gradient of it."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weights: Tensor, lengths: Sequence[int]) -> Tensor:
        ctx.save_for_backward(rows, weights)
        ctx.lengths = lengths
        return rows @ weights[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, None]:
        rows, weights = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        to_rows = gradient @ weights[0].T if ctx.needs_input_grad[0] else None
        return to_rows, _products_by_segment(rows, gradient, ctx.lengths), None


def _products_by_segment(left: Tensor, right: Tensor, lengths: Sequence[int]) -> Tensor:
    """``left_uᵀ @ right_u`` of every user u: [U, width of left, width of right]."""
    products = left.new_empty(len(lengths), left.shape[1], right.shape[1])
    sizes = list(lengths)
    for own_left, own_right, product in zip(left.split(sizes), right.split(sizes), products, strict=True):
        torch.mm(own_left.T, own_right, out=product)
    return products


def segment_product(rows: Tensor, weights: Tensor, lengths: Sequence[int]) -> Tensor:
    """Every row times the weight of its user, where all users have the same weight.

    One product covers all rows. The gradient is each user's own, without a matrix for every row.

    Args:
        rows: [E, in], users one after another.
        weights: [U, in, out], one matrix expanded along the first axis.
        lengths: rows of each user, U integers that add up to E.

    Returns:
        [E, out], differentiable in both.
    """
    product: Tensor = _SegmentProduct.apply(rows, weights, lengths)  # type: ignore[no-untyped-call]
    return product


def segment_sum(rows: Tensor, segment: Tensor, num_segments: int) -> Tensor:
    """The sum of each user's rows: [U, ...] for `rows` [E, ...] of the users `segment` [E]; 0 where there are none."""
    return rows.new_zeros(num_segments, *rows.shape[1:]).index_add(0, segment, rows)

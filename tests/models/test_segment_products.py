from __future__ import annotations

import torch

from subfl_flower.models.segments import segment_product, segment_sum

LENGTHS = (3, 0, 1, 5)


def test_a_product_and_each_users_gradient_of_the_weight_they_share() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(sum(LENGTHS), 4, generator=generator).requires_grad_()
    weight = torch.randn(4, 2, generator=generator)
    weights = weight.expand(len(LENGTHS), 4, 2).detach().requires_grad_()
    upstream = torch.randn(sum(LENGTHS), 2, generator=generator)
    product = segment_product(rows, weights, LENGTHS)
    by_rows, by_weights = torch.autograd.grad((product * upstream).sum(), (rows, weights))

    torch.testing.assert_close(product, rows @ weight)
    torch.testing.assert_close(by_rows, upstream @ weight.T)
    assert by_weights.shape == (len(LENGTHS), 4, 2)
    start = 0
    for u, length in enumerate(LENGTHS):
        own = slice(start, start + length)
        torch.testing.assert_close(by_weights[u], rows.detach()[own].T @ upstream[own])
        start += length


def test_a_product_agrees_with_finite_differences() -> None:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(sum(LENGTHS), 3, dtype=torch.float64, generator=generator).requires_grad_()
    weight = torch.randn(3, 2, dtype=torch.float64, generator=generator)

    def of_rows(values: torch.Tensor) -> torch.Tensor:
        return segment_product(values, weight.expand(len(LENGTHS), 3, 2), LENGTHS)

    assert torch.autograd.gradcheck(of_rows, (rows,))


def test_sums_of_segments_by_hand() -> None:
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    sums = segment_sum(rows, torch.tensor([0, 0, 2]), 4)
    assert sums.tolist() == [[4.0, 6.0], [0.0, 0.0], [5.0, 6.0], [0.0, 0.0]]
    assert segment_sum(rows[:, 1], torch.tensor([1, 2, 2]), 3).tolist() == [0.0, 2.0, 10.0]

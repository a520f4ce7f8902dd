"""Attention over own embedding and attributes: every entity as it is alone, component by component."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightgcn_by_hand import attributes_of, one_entity, random_codes, random_values

from subfl_flower.recommendation.models.attribute_attention import AttributeAttention
from subfl_flower.recommendation.models.user_graphs import Codes

DIM, SIZES = 5, (3, 4, 1)


def test_every_entity_is_what_it_is_alone() -> None:
    """12 entities of 3 users with different parameters; gradients by all of them."""
    attention = AttributeAttention("item", SIZES, DIM)
    codes = random_codes(12, SIZES, 1)
    segment = torch.tensor([0] * 5 + [1] * 3 + [2] * 4)
    stacks = {name: value.requires_grad_() for name, value in random_values(attention.shapes, 2, 3).items()}
    own = random_values({"own": (12, DIM)}, 3)["own"].requires_grad_()
    upstream = random_values({"up": (12, DIM)}, 4)["up"]
    found = attention.embeddings(stacks, own, Codes.of(attributes_of(codes, SIZES)), segment)
    expected = torch.stack(
        [
            one_entity(own[k], codes[k], SIZES, "item", {name: value[user] for name, value in stacks.items()})
            for k, user in enumerate(segment.tolist())
        ]
    )
    torch.testing.assert_close(found, expected)
    leaves = [own, *stacks.values()]
    for one, other in zip(
        torch.autograd.grad((found * upstream).sum(), leaves),
        torch.autograd.grad((expected * upstream).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_components_by_hand() -> None:
    """Own (1, 2), field means (3, 0) and (0, 4), product (0, 0), all with the same score."""
    attention = AttributeAttention("user", (2, 1), 2)
    stacks = {
        "user_values": torch.tensor([[[2.0, 0.0], [4.0, 0.0], [0.0, 4.0]]]),
        "user_attention": torch.zeros(1, 2),
        "user_components": torch.zeros(1, 4),
    }
    own = torch.tensor([[1.0, 2.0]])
    found = attention.embeddings(stacks, own, Codes.of(attributes_of([[0, 1, 2]], (2, 1))), torch.tensor([0]))
    product = torch.tensor([8.0 / 3, 0.0])  # of the pairs (0, 1), (0, 2) and (1, 2) only the first has one
    expected = (own[0] + torch.tensor([3.0, 0.0]) + torch.tensor([0.0, 4.0]) + product) / 4
    torch.testing.assert_close(found[0], expected)


@pytest.mark.parametrize("codes", [[], [0]])
def test_what_an_entity_lacks_has_no_weight(codes: list[int]) -> None:
    attention = AttributeAttention("item", SIZES, DIM)
    stacks = random_values(attention.shapes, 2, 1)
    stacks["item_components"][:, 2:] = 50.0  # fields that it has no value of, and the product
    own = random_values({"own": (1, DIM)}, 3)["own"]
    found = attention.embeddings(stacks, own, Codes.of(attributes_of([codes], SIZES)), torch.tensor([0]))
    expected = own[0]
    if codes:
        value, probe, beta = (stacks[f"item_{name}"][0] for name in ("values", "attention", "components"))
        weight = torch.sigmoid(own[0] @ probe + beta[0] - value[0] @ probe - beta[1])
        expected = weight * own[0] + (1 - weight) * value[0]
    torch.testing.assert_close(found[0], expected)


def test_no_entities_at_all() -> None:
    attention = AttributeAttention("item", SIZES, DIM)
    stacks = {name: value.requires_grad_() for name, value in random_values(attention.shapes, 2, 2).items()}
    none = Codes.of(attributes_of([], SIZES))
    found = attention.embeddings(stacks, torch.zeros(0, DIM, dtype=torch.float64), none, torch.zeros(0).long())
    assert found.shape == (0, DIM)
    for gradient in torch.autograd.grad(found.sum(), list(stacks.values()), materialize_grads=True):
        assert not gradient.any()


def test_an_entity_starts_as_mostly_itself() -> None:
    attention = AttributeAttention("item", (30, 40), 16)
    start = attention.initial(np.random.default_rng(0))
    assert {name: value.shape for name, value in start.items()} == attention.shapes
    assert start["item_values"].std() == pytest.approx(0.1, rel=0.1)  # 1,120 draws
    assert not start["item_attention"].any()
    assert start["item_components"].tolist() == [2, 0, 0, 0]

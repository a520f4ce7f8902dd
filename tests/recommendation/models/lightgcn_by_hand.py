"""LightGCN of one user in plain PyTorch, every step spelt out, with PyTorch Geometric's layers on the star."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn.conv import LGConv

from subfl_flower.data.graph import TEST, TRAIN, VALIDATION
from subfl_flower.data.ratings.attributes import Attributes
from subfl_flower.data.ratings.table import Ratings

ITEMS, DIM = 24, 4
LENGTHS = (6, 1, 0, 11, 2)
NEIGHBOURS = (2, 0, 3, 1, 1)


def five_users() -> Ratings:
    """Users with 6, 1, 0, 11 and 2 training items; each has one more that validates and one that tests."""
    rng = np.random.default_rng(4)
    items, roles = [], []
    for length in LENGTHS:
        items.append(np.sort(rng.choice(ITEMS, length + 2, replace=False)))
        roles.append(rng.permutation([TRAIN] * length + [VALIDATION, TEST]))
    counts = [len(own) for own in items]
    return Ratings(
        user_ids=np.array([3, 5, 8, 13, 21]),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        items=np.concatenate(items),
        values=rng.integers(1, 6, sum(counts)).astype(np.float32),
        roles=np.concatenate(roles).astype(np.int8),
        num_items=ITEMS,
        scale=(1.0, 5.0),
    )


def attributes_of(codes: list[list[int]], sizes: tuple[int, ...]) -> Attributes:
    """Attributes with these codes, and vocabularies of these sizes."""
    return Attributes(
        fields=tuple(f"field {number}" for number in range(len(sizes))),
        values=tuple(tuple(f"value {number:02}" for number in range(size)) for size in sizes),
        offsets=np.cumsum([0, *map(len, codes)], dtype=np.int64),
        codes=np.array([code for own in codes for code in own], dtype=np.int64),
    )


def random_codes(count: int, sizes: tuple[int, ...], seed: int) -> list[list[int]]:
    """Up to all values of all fields for each entity; the first has none, the second one."""
    rng = np.random.default_rng(seed)
    total = sum(sizes)
    drawn = [sorted(rng.choice(total, rng.integers(0, total + 1), replace=False).tolist()) for _ in range(count)]
    return [[], [total - 1], *drawn[2:]]


def random_values(shapes: dict[str, tuple[int, ...]], seed: int, *leading: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: 0.7 * torch.randn(*leading, *shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }


def one_entity(own: Tensor, codes: list[int], sizes: tuple[int, ...], side: str, p: dict[str, Tensor]) -> Tensor:
    """The embedding of one item or user, component by component."""
    values, probe, beta = (p[f"{side}_{name}"] for name in ("values", "attention", "components"))
    components, scores = [own], [own @ probe + beta[0]]
    field_of = [field for field, size in enumerate(sizes) for _ in range(size)]
    for field in range(len(sizes)):
        held = [values[code] for code in codes if field_of[code] == field]
        if held:
            components.append(torch.stack(held).mean(0))
            scores.append(components[-1] @ probe + beta[1 + field])
    products = [values[a] * values[b] for k, a in enumerate(codes) for b in codes[k + 1 :]]
    if products:
        components.append(torch.stack(products).mean(0))
        scores.append(components[-1] @ probe + beta[-1])
    weights = torch.stack(scores).softmax(0)
    return (weights[:, None] * torch.stack(components)).sum(0)


def one_user(user: Tensor, items: list[Tensor], layers: int, neighbours: Tensor) -> Tensor:
    """h_u, with neighbours layer by layer; without, by LGConv on the star of the user and its items."""
    if items and not len(neighbours):
        centre = len(items)
        ends = torch.tensor([list(range(centre)), [centre] * centre])
        edges = torch.cat([ends, ends.flip(0)], dim=1)
        found = [torch.stack([*items, user])]
        for _ in range(layers):
            found.append(LGConv()(found[-1], edges))
        averaged: Tensor = torch.stack(found).mean(0)[centre]
        return averaged
    of_layers = [user]
    for layer in range(1, layers + 1):
        if layer % 2:
            of_layers.append(sum(items, torch.zeros_like(user)) / max(len(items), 1) ** 0.5)
        else:
            of_layers.append(torch.stack([user, *neighbours]).mean(0))
    return torch.stack(of_layers).mean(0)


def one_loss(
    user: Tensor, positives: list[Tensor], negatives: list[list[Tensor]], layers: int, neighbours: Tensor
) -> Tensor:
    """The mean over one user's training items of their BPR losses, each without the item's own message."""
    found = []
    for k, (positive, sampled) in enumerate(zip(positives, negatives, strict=True)):
        hidden = one_user(user, positives[:k] + positives[k + 1 :], layers, neighbours)
        found.append(torch.stack([-F.logsigmoid(hidden @ positive - hidden @ other) for other in sampled]).mean())
    return torch.stack(found).mean() if found else user.sum() * 0

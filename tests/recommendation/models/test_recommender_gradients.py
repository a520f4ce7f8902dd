"""Every user of a stack is one user at a time in plain PyTorch, and no user's data reach another's gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from subfl_flower.data.graph import TEST, TRAIN
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.models.settings import RecommenderSettings
from subfl_flower.recommendation.models.recommender import StackedRecommender
from subfl_flower.recommendation.models.user_graphs import UserGraphs
from subfl_flower.recommendation.models.user_models import ReceivedModel

ITEMS, DIM = 30, 5
LENGTHS = (6, 1, 0, 12)
NEIGHBOURS = (2, 0, 3, 1)
KINDS = ("gat", "gcn", "ggnn", "none")


def some_ratings() -> Ratings:
    """Users with 6, 1, 0 and 12 training ratings; each has two more that test."""
    rng = np.random.default_rng(3)
    items, roles = [], []
    for length in LENGTHS:
        items.append(np.sort(rng.choice(ITEMS, length + 2, replace=False)))
        roles.append(rng.permutation([TRAIN] * length + [TEST] * 2))
    counts = [len(own) for own in items]
    return Ratings(
        user_ids=np.array([3, 5, 8, 13]),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        items=np.concatenate(items),
        values=rng.integers(1, 6, sum(counts)).astype(np.float32),
        roles=np.concatenate(roles).astype(np.int8),
        num_items=ITEMS,
        scale=(1.0, 5.0),
    )


def model_of(kind: str, neighbours: int = 0, **penalties: float) -> StackedRecommender:
    penalties = {"embedding_penalty": 0.0, "hidden_penalty": 0.0, "bias_penalty": 0.0, "shrinkage": 0.0, **penalties}
    settings = RecommenderSettings(name="recommender", gnn=kind, dim=DIM, neighbours=neighbours, **penalties)
    return StackedRecommender(settings, ITEMS)


def random_values(shapes: dict[str, tuple[int, ...]], seed: int, *leading: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.5 * torch.randn(*leading, *shape, generator=generator) for name, shape in shapes.items()}


def graphs_of(kind: str, with_neighbours: bool) -> UserGraphs:
    graphs = UserGraphs.build(some_ratings(), center=3.5, spread=1.25)
    if not with_neighbours:
        return graphs
    rng = np.random.default_rng(11)
    return graphs.with_neighbours([rng.standard_normal((count, DIM)).astype(np.float32) for count in NEIGHBOURS])


def weights_of(scores: Tensor) -> Tensor:
    return torch.exp(torch.clamp(F.leaky_relu(scores, 0.2), -5, 5))


def hidden_alone(kind: str, p: dict[str, Tensor], user: Tensor, messages: list[Tensor], scores: list[Tensor]) -> Tensor:
    """The hidden state of one user from a list of messages, every step spelt out."""
    if kind == "none":
        return user
    weights = [weights_of(score) if kind == "gat" else torch.ones(()) for score in scores]
    total = sum((weight * message for weight, message in zip(weights, messages, strict=True)), torch.zeros(DIM))
    aggregate = total / (p["gnn.shrinkage"][0].exp() + sum(weights, torch.zeros(())))
    if kind == "ggnn":
        names = ("gate_input", "gate_state", "gate_input_bias", "gate_state_bias")
        input_weight, state_weight, input_bias, state_bias = (p[f"gnn.{name}"] for name in names)
        gates = (input_weight.T, state_weight.T, input_bias, state_bias)
        return torch.gru_cell(aggregate[None], user[None], *gates)[0]
    return user + p["gnn.gain"][0].exp() * aggregate


def one_user(
    kind: str,
    p: dict[str, Tensor],
    items: Tensor,
    own: dict[str, Tensor],
    targets: Tensor,
    neighbours: Tensor,
    asked: Tensor | None = None,
) -> Tensor:
    """Hidden states of one user for its rated items, each without its own message; or for `asked` ones, with all."""
    messages, scores = [], []
    bias = p["bias"][0] + own["user_bias"]
    for item, target in zip(items, targets, strict=True):
        residual = (target - bias - item[-1]).detach()
        if kind != "none":
            messages.append(item[:-1] @ p["gnn.item"] + residual * (item[:-1] @ p["gnn.rating"]))
        if kind == "gat":
            kinds = p["gnn.rating_score"]
            score = own["user"] @ p["gnn.user_score"] + item[:-1] @ p["gnn.item_score"]
            scores.append(score + kinds[0] * residual + kinds[1] * residual.abs())
    first = len(messages)
    for neighbour in neighbours if kind != "none" else ():
        messages.append(neighbour @ p["gnn.neighbour"])
        if kind == "gat":
            scores.append(own["user"] @ p["gnn.user_score"] + neighbour @ p["gnn.neighbour_score"])
    if kind != "gat":
        scores = [torch.zeros(())] * len(messages)

    states = []
    for k in range(len(items if asked is None else asked)):
        kept = [j for j in range(len(messages)) if asked is not None or j >= first or j != k]
        states.append(hidden_alone(kind, p, own["user"], [messages[j] for j in kept], [scores[j] for j in kept]))
    return torch.stack(states) if states else torch.zeros(0, DIM)


def predicted(p: dict[str, Tensor], hidden: Tensor, items: Tensor, own: dict[str, Tensor]) -> Tensor:
    return (hidden * items[:, :-1]).sum(1) + items[:, -1] + own["user_bias"] + p["bias"][0]


@pytest.mark.parametrize(
    "penalties",
    [
        {},
        {"embedding_penalty": 0.3, "hidden_penalty": 0.2, "bias_penalty": 0.1},
        {"embedding_penalty": 0.3, "hidden_penalty": 0.2, "bias_penalty": 0.1, "shrinkage": 7.0},
    ],
    ids=["plain", "penalised", "shrunken"],
)
@pytest.mark.parametrize("with_neighbours", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_user_of_a_stack_is_one_user_alone(kind: str, with_neighbours: bool, penalties: dict[str, float]) -> None:
    model = model_of(kind, neighbours=3 * with_neighbours, **penalties)
    shared = random_values(model.shapes, 1)
    personal = random_values(model.personal_shapes, 2, len(LENGTHS))
    graphs = graphs_of(kind, with_neighbours)
    found = model.gradients(ReceivedModel(shared, personal, graphs), train_neighbours=with_neighbours)

    own_items = found.items.split(list(LENGTHS))
    own_neighbours = graphs.neighbours.split(list(graphs.neighbour_lengths))
    for u, (rows, targets) in enumerate(
        zip(graphs.rows.split(list(LENGTHS)), graphs.targets.split(list(LENGTHS)), strict=True)
    ):
        p = {name: value.clone().requires_grad_() for name, value in shared.items() if name != "items"}
        own = {name: value[u].clone().requires_grad_() for name, value in personal.items()}
        items = shared["items"][rows].clone().requires_grad_()
        neighbours = own_neighbours[u].clone().requires_grad_()
        hidden = one_user(kind, p, items, own, targets, neighbours)
        loss = objective = p["bias"].sum() * 0
        if len(items):
            loss = (predicted(p, hidden, items, own) - targets).square().mean()
            embeddings = items[:, :-1].square().sum(1).mean() + own["user"].square().sum()
            objective = loss + penalties.get("embedding_penalty", 0) * embeddings
            objective = objective + penalties.get("hidden_penalty", 0) * hidden.square().sum(1).mean()
            # So many times in the sum over the user's ratings, of which this is the mean.
            constant = penalties.get("shrinkage", 0) / len(items)
            objective = objective + constant * penalties.get("embedding_penalty", 0) * own["user"].square().sum()
            objective = objective + constant * penalties.get("hidden_penalty", 0) * hidden.square().sum(1).mean()
            biases = items[:, -1].square().mean() + own["user_bias"].square()
            objective = objective + penalties.get("bias_penalty", 0) * biases
        leaves = [items, neighbours, *p.values(), *own.values()]
        expected = iter(torch.autograd.grad(objective, leaves, materialize_grads=True))

        close = {"atol": 1e-5, "rtol": 1e-5}
        torch.testing.assert_close(found.loss[u], loss.detach(), **close)
        torch.testing.assert_close(own_items[u], next(expected), **close)
        by_neighbours = next(expected)
        if found.neighbours is not None:
            torch.testing.assert_close(
                found.neighbours.split(list(graphs.neighbour_lengths))[u], by_neighbours, **close
            )
        for name in p:
            torch.testing.assert_close(found.shared[name][u], next(expected), **close)
        for name in own:
            torch.testing.assert_close(found.personal[name][u], next(expected), **close)


@pytest.mark.parametrize("with_neighbours", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_those_of_one_user_alone(kind: str, with_neighbours: bool) -> None:
    model = model_of(kind, neighbours=3 * with_neighbours)
    shared = random_values(model.shapes, 1)
    personal = random_values(model.personal_shapes, 2, len(LENGTHS))
    graphs = graphs_of(kind, with_neighbours)
    ratings = some_ratings()
    asked = ratings.roles == TEST
    query, users = torch.from_numpy(ratings.items[asked]), torch.from_numpy(ratings.users()[asked])
    found = model.predict(ReceivedModel(shared, personal, graphs), query, users)

    assert found.shape == (2 * len(LENGTHS),)
    pieces = zip(
        graphs.rows.split(list(LENGTHS)),
        graphs.targets.split(list(LENGTHS)),
        graphs.neighbours.split(list(graphs.neighbour_lengths)),
        strict=True,
    )
    for u, (rows, targets, neighbours) in enumerate(pieces):
        own = {name: value[u] for name, value in personal.items()}
        items = shared["items"]
        asked_rows = items[query[users == u]]
        hidden = one_user(kind, shared, items[rows], own, targets, neighbours, asked_rows)
        expected = predicted(shared, hidden, asked_rows, own)
        torch.testing.assert_close(found[users == u], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rating_does_not_speak_for_itself(kind: str) -> None:
    """Of a user with one rating, only what does not depend on messages learns anything of it."""
    model = model_of(kind)
    shared = random_values(model.shapes, 1)
    personal = random_values(model.personal_shapes, 2, len(LENGTHS))
    found = model.gradients(ReceivedModel(shared, personal, graphs_of(kind, False)))
    of_messages = [name for name in ("gnn.item", "gnn.rating", "gnn.item_score", "gnn.gain") if name in model.shapes]
    single, several = LENGTHS.index(1), LENGTHS.index(12)
    for name in of_messages:
        assert not found.shared[name][single].any()
        assert found.shared[name][several].any()
    assert found.shared["bias"][single].abs() > 1e-3


def test_users_do_not_mix() -> None:
    """A user's gradients do not change, to the last bit but rounding, with who else is in the stack."""
    model = model_of("gat")
    shared = random_values(model.shapes, 1)
    personal = random_values(model.personal_shapes, 2, len(LENGTHS))
    together = model.gradients(ReceivedModel(shared, personal, graphs_of("gat", False)))
    items = together.items.split(list(LENGTHS))
    for u in range(len(LENGTHS)):
        graphs = UserGraphs.build(some_ratings().of_users([u]), center=3.5, spread=1.25)
        own = {name: value[u : u + 1] for name, value in personal.items()}
        alone = model.gradients(ReceivedModel(shared, own, graphs))
        close = {"atol": 1e-6, "rtol": 1e-5}
        torch.testing.assert_close(alone.items, items[u], **close)
        torch.testing.assert_close(alone.loss[0], together.loss[u], **close)
        for name, value in alone.shared.items():
            torch.testing.assert_close(value[0], together.shared[name][u], **close)


@pytest.mark.parametrize("kind", KINDS)
def test_a_user_without_ratings_has_no_gradients(kind: str) -> None:
    model = model_of(kind, neighbours=3)
    shared = random_values(model.shapes, 1)
    personal = random_values(model.personal_shapes, 2, 1)
    empty = UserGraphs.build(some_ratings().of_users([LENGTHS.index(0)]), center=3.5, spread=1.25)
    for graphs in (empty, empty.with_neighbours([np.ones((2, DIM), dtype=np.float32)])):
        found = model.gradients(ReceivedModel(shared, personal, graphs))
        assert found.loss.tolist() == [0.0]
        assert found.items.shape == (0, DIM + 1)
        for value in (*found.shared.values(), *found.personal.values()):
            assert value.shape[0] == 1
            assert not value.any()
        predicted = model.predict(
            ReceivedModel(shared, personal, graphs), torch.arange(3), torch.zeros(3, dtype=torch.int64)
        )
        assert torch.isfinite(predicted).all()

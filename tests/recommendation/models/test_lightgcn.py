"""Every user of a stack is one user at a time in plain PyTorch, whatever the others hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from lightgcn_by_hand import (
    DIM,
    ITEMS,
    LENGTHS,
    NEIGHBOURS,
    attributes_of,
    five_users,
    one_entity,
    one_loss,
    one_user,
    random_codes,
    random_values,
)
from torch import Tensor

from subfl_flower.data.graph import TRAIN
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import LightGCNSettings
from subfl_flower.recommendation.models.lightgcn import LightGCN
from subfl_flower.recommendation.models.user_graphs import Codes, RankingGraphs
from subfl_flower.recommendation.models.user_models import RatedUsers, ReceivedModel, UserGradients
from subfl_flower.seeding import client_generator

USER_SIZES, ITEM_SIZES = (2, 3), (5,)
USER_CODES, ITEM_CODES = random_codes(len(LENGTHS), USER_SIZES, 1), random_codes(ITEMS, ITEM_SIZES, 2)
OF_USERS, OF_ITEMS = attributes_of(USER_CODES, USER_SIZES), attributes_of(ITEM_CODES, ITEM_SIZES)
EVERYONE = range(len(LENGTHS))
CLOSE = {"atol": 1e-6, "rtol": 1e-6}  # the graphs' counts are float32


def model_of(sides: str = "", **chosen: Any) -> LightGCN:
    """A model with attributes of `users`, of `items`, of both, or of none."""
    settings = LightGCNSettings(name="lightgcn", dim=DIM, attributes=bool(sides), **chosen)
    user_values = USER_SIZES if "users" in sides else ()
    return LightGCN(settings, ITEMS, user_values, ITEM_SIZES if "items" in sides else ())


def graphs_of(
    model: LightGCN,
    positions: Sequence[int] = EVERYONE,
    *,
    training: bool = True,
    draws: int = 2,
    with_neighbours: bool = False,
) -> RankingGraphs:
    ratings = five_users().of_users(positions)
    samplers = [client_generator(0, user, 1, "negatives") for user in ratings.user_ids.tolist()]
    graphs = model.local_graphs(
        RatedUsers(ratings, user_attributes=OF_USERS.of(positions), item_attributes=OF_ITEMS),
        generators=samplers if training else None,
        draws=draws,
    )
    if not with_neighbours:
        return graphs
    rng = np.random.default_rng(11)
    embeddings = [rng.standard_normal((count, DIM)).astype(np.float32) for count in NEIGHBOURS]
    graphs = graphs.with_neighbours([embeddings[position] for position in positions])
    return replace(graphs, neighbours=graphs.neighbours.double())  # as the parameters


def parameters(model: LightGCN) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Shared parameters that differ between users, item tables likewise [U, ITEMS, DIM], and personal ones."""
    shared = random_values(model.shapes, 1, len(LENGTHS))
    tables = {"items": shared.pop("items")}
    return shared, tables, random_values(model.personal_shapes, 2, len(LENGTHS))


def step(model: LightGCN, graphs: RankingGraphs, users: Sequence[int] = EVERYONE, **more: Any) -> UserGradients:
    """A step of users of `parameters`, each at its own."""
    shared, tables, personal = parameters(model)
    chosen = list(users)
    rows = tables["items"][chosen][graphs.segment, graphs.items]
    stacks = {name: value[chosen] for name, value in shared.items()}
    return model.step(stacks, rows, {name: value[chosen] for name, value in personal.items()}, graphs, **more)


class OneUser:
    """One user's parameters as leaves, and what follows from them."""

    def __init__(self, model: LightGCN, position: int, sides: str) -> None:
        shared, tables, personal = parameters(model)
        self.shared = {name: value[position].clone().requires_grad_() for name, value in shared.items()}
        self.table = tables["items"][position].clone().requires_grad_()
        self.own = personal["user"][position].clone().requires_grad_()
        self.position, self.sides = position, sides

    @property
    def user(self) -> Tensor:
        if "users" not in self.sides:
            return self.own
        return one_entity(self.own, USER_CODES[self.position], USER_SIZES, "user", self.shared)

    def item(self, number: int) -> Tensor:
        if "items" not in self.sides:
            return self.table[number]
        return one_entity(self.table[number], ITEM_CODES[number], ITEM_SIZES, "item", self.shared)

    @property
    def trained_on(self) -> list[int]:
        ratings = five_users().of_users([self.position])
        numbers: list[int] = ratings.items[ratings.roles == TRAIN].tolist()
        return numbers


@pytest.mark.parametrize("layers", [0, 1, 2, 3, 4])
def test_users_are_those_of_lightgcns_layers_on_their_stars(layers: int) -> None:
    model = model_of(layers=layers)
    shared, personal = random_values(model.shapes, 1), random_values(model.personal_shapes, 2, len(LENGTHS))
    graphs = graphs_of(model, training=False)
    found = model.scorer(ReceivedModel(shared, personal, graphs))
    users, items = found.users, found.items
    torch.testing.assert_close(items, shared["items"])
    for u in EVERYONE:
        ratings = five_users().of_users([u])
        own = [shared["items"][number] for number in ratings.items[ratings.roles == TRAIN]]
        expected = one_user(personal["user"][u], own, layers, torch.zeros(0, DIM))
        torch.testing.assert_close(users[u], expected, **CLOSE)


@pytest.mark.parametrize(
    ("sides", "layers", "with_neighbours"),
    [
        ("", 0, False),
        ("", 1, False),
        ("", 2, False),
        ("", 3, False),
        ("", 1, True),
        ("", 2, True),
        ("", 4, True),
        ("users", 1, False),
        ("items", 2, False),
        ("users items", 3, False),
        ("users items", 2, True),
    ],
)
def test_every_user_of_a_stack_is_one_user_alone(sides: str, layers: int, with_neighbours: bool) -> None:
    penalty = 0.3
    model = model_of(sides, layers=layers, negatives=3, embedding_penalty=penalty)
    graphs = graphs_of(model, with_neighbours=with_neighbours)
    found = step(model, graphs, train_neighbours=with_neighbours, draw=1)

    own_items, own_numbers = found.items.split(list(graphs.lengths)), graphs.items.split(list(graphs.lengths))
    own_neighbours = graphs.neighbours.split(list(graphs.neighbour_lengths))
    assert tuple(found.shared) == tuple(name for name in model.shapes if name != "items")
    for u in EVERYONE:
        alone = OneUser(model, u, sides)
        neighbours = own_neighbours[u].clone().requires_grad_()
        sampled = graphs.items[graphs.negatives[1, graphs.positive_segment == u]].tolist()
        positives = [alone.item(number) for number in alone.trained_on]
        negatives = [[alone.item(number) for number in numbers] for numbers in sampled]
        loss = one_loss(alone.user, positives, negatives, layers, neighbours)
        objective = loss
        for number, numbers in zip(alone.trained_on, sampled, strict=True):
            squares = alone.table[number].square().sum() + alone.own.square().sum()
            squares = squares + alone.table[numbers].square().sum(1).mean()
            objective = objective + penalty * squares / len(sampled)
        leaves = [alone.table, alone.own, neighbours, *alone.shared.values()]
        by_table, by_user, by_neighbours, *by_shared = torch.autograd.grad(objective, leaves, materialize_grads=True)

        torch.testing.assert_close(found.loss[u], loss.detach(), **CLOSE)
        torch.testing.assert_close(own_items[u], by_table[own_numbers[u]], **CLOSE)
        assert by_table.square().sum() == pytest.approx(by_table[own_numbers[u]].square().sum().item())
        torch.testing.assert_close(found.personal["user"][u], by_user, **CLOSE)
        for gradient, expected in zip(found.shared.values(), by_shared, strict=True):
            torch.testing.assert_close(gradient[u], expected, **CLOSE)
        if found.neighbours is not None:
            heard = found.neighbours.split(list(graphs.neighbour_lengths))[u]
            torch.testing.assert_close(heard, by_neighbours, **CLOSE)


def test_a_pair_by_hand() -> None:
    """User 2, items 1 and 1/2: scores 2 and 1 without a layer."""
    ratings = five_users().of_users([1])  # one training item
    penalty = 0.125
    model = LightGCN(LightGCNSettings(name="lightgcn", dim=1, layers=0, embedding_penalty=penalty), ITEMS)
    graphs = model.local_graphs(RatedUsers(ratings), generators=[np.random.default_rng(0)])
    assert graphs.lengths == (2,)
    rows = torch.zeros(2, 1)
    rows[graphs.positives], rows[graphs.negatives[0, :, 0]] = 1.0, 0.5
    found = model.step({}, rows, {"user": torch.tensor([[2.0]])}, graphs)
    slope = 1 / (1 + np.e)  # of the loss log(1 + e^-1) by minus the difference
    assert found.loss.tolist() == pytest.approx([np.log1p(np.exp(-1))])
    assert found.items[graphs.positives, 0].tolist() == pytest.approx([-2 * slope + 2 * penalty * 1])
    assert found.items[graphs.negatives[0, :, 0], 0].tolist() == pytest.approx([2 * slope + 2 * penalty * 0.5])
    assert found.personal["user"].item() == pytest.approx(-0.5 * slope + 2 * penalty * 2)


def test_a_training_item_does_not_speak_for_itself() -> None:
    """With layer 1 each of two training items is scored by the user and by the other item."""
    ratings = five_users().of_users([4])
    model = LightGCN(LightGCNSettings(name="lightgcn", dim=1, layers=1, embedding_penalty=0), ITEMS)
    graphs = model.local_graphs(RatedUsers(ratings), generators=[np.random.default_rng(0)])
    rows = torch.full((len(graphs.rows), 1), 0.0)
    rows[graphs.positives] = torch.tensor([[3.0], [-1.0]])
    found = model.step({}, rows, {"user": torch.tensor([[2.0]])}, graphs)
    first, second = (2 - 1) / 2, (2 + 3) / 2
    expected = (np.log1p(np.exp(-3 * first)) + np.log1p(np.exp(1 * second))) / 2
    assert found.loss.tolist() == pytest.approx([expected])


@pytest.mark.parametrize("chunks", [[[0], [1], [2], [3], [4]], [[0, 3], [1, 2, 4]], [[4, 2, 0, 1, 3]]])
def test_chunks_and_order_of_users_change_nothing(chunks: list[list[int]]) -> None:
    model = model_of("users items", layers=2, negatives=2)
    everyone = graphs_of(model, with_neighbours=True)
    together = step(model, everyone, train_neighbours=True)
    rows, told = (
        values.split(list(lengths))
        for values, lengths in (
            (together.items, everyone.lengths),
            (together.neighbours, everyone.neighbour_lengths),
        )
    )
    for positions in chunks:
        graphs = graphs_of(model, positions, with_neighbours=True)
        found = step(model, graphs, positions, train_neighbours=True)
        close = {"atol": 1e-12, "rtol": 1e-9}
        torch.testing.assert_close(found.loss, together.loss[positions], **close)
        torch.testing.assert_close(found.items, torch.cat([rows[u] for u in positions]), **close)
        torch.testing.assert_close(found.neighbours, torch.cat([told[u] for u in positions]), **close)
        for name, value in found.shared.items():
            torch.testing.assert_close(value, together.shared[name][positions], **close)
        torch.testing.assert_close(found.personal["user"], together.personal["user"][positions], **close)


def test_what_all_received_alike_is_a_stack_of_the_same() -> None:
    model = model_of("users items", layers=1)
    graphs = graphs_of(model)
    shared, personal = random_values(model.shapes, 5), random_values(model.personal_shapes, 2, len(LENGTHS))
    alike = model.gradients(ReceivedModel(shared, personal, graphs), draw=1)
    stacks = {name: value.repeat(len(LENGTHS), *[1] * value.ndim) for name, value in shared.items() if name != "items"}
    spelt = model.step(stacks, shared["items"][graphs.items], personal, graphs, draw=1)
    torch.testing.assert_close(alike.items, spelt.items)
    for name, value in alike.shared.items():
        assert value.shape == (len(LENGTHS), *model.shapes[name])
        torch.testing.assert_close(value, spelt.shared[name])


def test_each_draw_has_items_of_its_own() -> None:
    model = model_of()
    graphs = graphs_of(model, draws=2)
    first, second, third = (step(model, graphs, draw=draw) for draw in range(3))
    assert (first.loss != second.loss).any()
    torch.testing.assert_close(first.items, third.items)
    once = graphs_of(model, draws=1)
    torch.testing.assert_close(step(model, once).loss, first.loss)
    with pytest.raises(ValueError, match="built for evaluation"):
        step(model, graphs_of(model, training=False))


@pytest.mark.parametrize("sides", ["", "users", "items", "users items"])
def test_representations_with_attributes(sides: str) -> None:
    """Of the whole table by what all share, and of users' own rows by their own."""
    model = model_of(sides, layers=3)
    graphs = graphs_of(model, training=False)
    shared, tables, personal = parameters(model)
    rows = tables["items"][graphs.segment, graphs.items]
    own_items = model.own_items(shared, rows, graphs)
    own_users = model.own_users(shared, own_items, personal, graphs)
    for u in EVERYONE:
        alone = OneUser(model, u, sides)
        expected = [alone.item(number) for number in alone.trained_on]
        if expected:
            torch.testing.assert_close(own_items[graphs.segment == u], torch.stack(expected), **CLOSE)
        hidden = one_user(alone.user, expected, 3, torch.zeros(0, DIM))
        torch.testing.assert_close(own_users[u], hidden, **CLOSE)

        alike = {name: value[u] for name, value in shared.items()}
        received = ReceivedModel({**alike, "items": tables["items"][u]}, personal, graphs)
        found = model.scorer(received, OF_ITEMS)
        users, items = found.users, found.items
        torch.testing.assert_close(users[u], hidden, **CLOSE)
        torch.testing.assert_close(items, torch.stack([alone.item(k) for k in range(ITEMS)]), **CLOSE)


def test_a_user_without_training_items_has_no_gradients() -> None:
    model = model_of("users items", layers=2)
    graphs = graphs_of(model, [2], with_neighbours=True)
    found = step(model, graphs, [2], train_neighbours=True)
    assert found.loss.tolist() == [0.0]
    assert found.items.shape == (0, DIM)
    assert found.neighbours is not None
    for value in (*found.shared.values(), *found.personal.values(), found.neighbours):
        assert len(value)
        assert not value.any()


def test_the_start_depends_on_the_seed_alone() -> None:
    model = model_of("users items")
    first, again, other = model.initial_of(5), model.initial_of(5), model.initial_of(6)
    assert {name: value.shape for name, value in first.items()} == model.shapes
    assert next(iter(model.shapes)) == "items"
    assert {value.dtype for value in first.values()} == {np.dtype(np.float32)}
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
    assert (first["items"] != other["items"]).all()
    np.testing.assert_array_equal(first["items"], model_of().initial_of(5)["items"])
    wide = LightGCN(LightGCNSettings(name="lightgcn"), 100).initial_of(0)["items"]
    assert wide.std() == pytest.approx(0.1, rel=0.05)  # 6,400 draws
    assert wide.shape == (100, 64)


def test_users_start_differently() -> None:
    model = model_of()
    mine, again, other = model.initial_user(0, 3), model.initial_user(0, 3), model.initial_user(0, 4)
    assert {name: value.shape for name, value in mine.items()} == model.personal_shapes == {"user": (DIM,)}
    np.testing.assert_array_equal(mine["user"], again["user"])
    assert (mine["user"] != other["user"]).all()


def test_attributes_that_are_not_there_are_refused() -> None:
    with pytest.raises(SubflError, match=r"model.attributes: the data set has no attributes of users or items"):
        LightGCN(LightGCNSettings(name="lightgcn", attributes=True), ITEMS)
    unused = LightGCN(LightGCNSettings(name="lightgcn"), ITEMS, USER_SIZES, ITEM_SIZES)
    assert set(unused.shapes) == {"items"}
    model = model_of("users items")
    with pytest.raises(SubflError, match=r"the attributes of items must have \[5\] values by field, .* not \[\]"):
        model.local_graphs(RatedUsers(five_users(), user_attributes=OF_USERS))
    with pytest.raises(SubflError, match=r"the attributes of items must have \[5\] values by field, .* not \[2, 3\]"):
        model.local_graphs(RatedUsers(five_users(), user_attributes=OF_USERS, item_attributes=OF_USERS))


def test_it_learns_what_users_have() -> None:
    """Plain steps from the start: the BPR loss falls from log 2 to below half of it."""
    model = model_of(layers=1, embedding_penalty=0.0)
    shared = {name: torch.from_numpy(value) for name, value in model.initial_of(0).items()}
    users = [model.initial_user(0, user) for user in range(len(LENGTHS))]
    personal = {"user": torch.from_numpy(np.stack([own["user"] for own in users]))}
    graphs = graphs_of(model, draws=50)
    losses = []
    for draw in range(150):
        found = model.gradients(ReceivedModel(shared, personal, graphs), draw=draw)
        losses.append(float(found.loss[[0, 3, 4]].mean()))
        shared["items"].index_add_(0, graphs.rows, found.items, alpha=-3.0)
        personal["user"].add_(found.personal["user"], alpha=-3.0)
    assert losses[0] == pytest.approx(np.log(2), rel=0.05)
    assert np.mean(losses[-10:]) < np.log(2) / 2


@pytest.mark.parametrize("sides", ["", "items", "users items"])
def test_a_step_by_one_draw_is_that_of_the_graphs_of_all_draws(sides: str) -> None:
    model = model_of(sides, layers=2, negatives=7)  # of 13 items that are left to a user some are drawn twice
    graphs = graphs_of(model, draws=3, with_neighbours=True)
    for draw in (0, 2, 4):
        whole = step(model, graphs, draw=draw, train_neighbours=True)
        places, drawn = graphs.of_draw(draw)
        alone = step(model, drawn, train_neighbours=True)
        assert len(places) == len(graphs.positives) * 8 and len(torch.unique(places)) < len(places)
        items = torch.zeros_like(whole.items).index_add_(0, places, alone.items)
        torch.testing.assert_close(items, whole.items, **CLOSE)
        untouched = np.setdiff1d(np.arange(len(graphs.items)), places)
        assert len(untouched) and not whole.items[untouched].any()
        torch.testing.assert_close((alone.loss, alone.neighbours), (whole.loss, whole.neighbours), **CLOSE)
        for part, expected in ((alone.shared, whole.shared), (alone.personal, whole.personal)):
            torch.testing.assert_close(part, expected, **CLOSE)


def test_the_graphs_of_one_draw_hold_its_items() -> None:
    graphs = graphs_of(model_of(negatives=2), draws=3)
    places, drawn = graphs.of_draw(5)
    count = len(graphs.positives)
    assert places[:count].tolist() == graphs.positives.tolist()
    assert places[count:].tolist() == graphs.negatives[2].reshape(-1).tolist()
    assert drawn.items[drawn.positives].tolist() == graphs.items[graphs.positives].tolist()
    assert drawn.items[drawn.negatives[0]].tolist() == graphs.items[graphs.negatives[2]].tolist()
    assert drawn.lengths == tuple(3 * length for length in LENGTHS)
    assert drawn.segment.tolist() == graphs.segment[places].tolist()


def test_codes_of_some_entities_in_any_order_and_number() -> None:
    codes = Codes.of(attributes_of([[0, 3], [], [1], [2, 3, 4]], (2, 3)))
    some = codes.of_rows(torch.tensor([3, 1, 0, 3]))
    assert some.values.tolist() == [2, 3, 4, 0, 3, 2, 3, 4]
    assert some.owners.tolist() == [0, 0, 0, 2, 2, 3, 3, 3]
    assert some.starts.tolist() == [0, 3, 3, 5]
    assert len(codes.of_rows(torch.zeros(0, dtype=torch.int64))) == 0

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_cards import toy_card
from safetensors import safe_open
from safetensors.numpy import load_file, save

from subfl_flower.data.graph import TEST, TRAIN, VALIDATION
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import FactorisationSettings, RecommenderSettings
from subfl_flower.recommendation.models.recommender_file import Recommender, RecommenderCard
from subfl_flower.storage.tensor_file import MODEL_FILE
from subfl_flower.subgraphs.models.exported import ExportedModel, read_model

FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
Kind = Literal["gat", "gcn", "ggnn", "none"]
IDS = np.array([4, 7, 9])
SHAPES = {
    "clients": (3,),
    "shared.items": (6, 4),
    "shared.bias": (1,),
    "shared.gnn.item": (3, 3),
    "shared.gnn.rating": (3, 3),
    "shared.gnn.neighbour": (3, 3),
    "shared.gnn.shrinkage": (1,),
    "shared.gnn.gain": (1,),
    "shared.gnn.user_score": (3,),
    "shared.gnn.item_score": (3,),
    "shared.gnn.rating_score": (2,),
    "shared.gnn.neighbour_score": (3,),
    "personal.user": (3, 3),
    "personal.user_bias": (3,),
    "personal.neighbours": (3, 2, 3),
    "personal.num_neighbours": (3,),
}


def card(gnn: Kind = "gat", neighbours: int = 2, **changes: Any) -> RecommenderCard:
    said: dict[str, Any] = dict(
        model=RecommenderSettings(name="recommender", gnn=gnn, dim=3, neighbours=neighbours),
        num_items=6,
        scale=(1.0, 5.0),
        center=3.5,
        spread=1.25,
        dataset="toy",
        method="fedgnn",
        run="2026-01-01",
        round=12,
    )
    return RecommenderCard(**(said | changes))


def recommender(gnn: Kind = "gat", ids: np.ndarray = IDS, neighbours: int = 2, seed: int = 0) -> Recommender:
    """Random arrays; the users have 2, 0, 1, 2, 0, ... neighbours."""
    said = card(gnn, neighbours)
    rng = np.random.default_rng(seed)

    def drawn(shapes: dict[str, tuple[int, ...]], *leading: int) -> dict[str, np.ndarray]:
        return {name: rng.normal(size=(*leading, *shape)).astype(np.float32) for name, shape in shapes.items()}

    personal = drawn(said.recommender.personal_shapes, len(ids))
    if neighbours:
        personal |= drawn({"neighbours": (neighbours, 3)}, len(ids))
        personal["num_neighbours"] = np.resize(np.array([2, 0, 1], np.float32), len(ids))
    return Recommender(said, drawn(said.recommender.shapes), ids, personal)


def tensors(model: Recommender) -> dict[str, np.ndarray]:
    """As they are called in a file."""
    shared = {f"shared.{name}": values for name, values in model.shared.items()}
    own = {f"personal.{name}": values for name, values in model.personal.items()}
    return {"clients": model.client_ids, **shared, **own}


def with_tensors(model: Recommender, changed: dict[str, np.ndarray]) -> Recommender:
    return Recommender(
        model.card,
        {name[7:]: values for name, values in changed.items() if name.startswith("shared.")},
        changed["clients"],
        {name[9:]: values for name, values in changed.items() if name.startswith("personal.")},
    )


def same(one: Recommender, other: Recommender) -> None:
    assert one.card == other.card
    left, right = tensors(one), tensors(other)
    assert set(left) == set(right)
    for name, values in left.items():
        np.testing.assert_array_equal(values, right[name])
        assert values.dtype == right[name].dtype


def written(path: Path, content: dict[str, np.ndarray], said: str | None) -> Path:
    path.write_bytes(save(content, None if said is None else {"card": said}))
    return path


def refused(path: Path, *words: str) -> None:
    with pytest.raises(SubflError) as found:
        Recommender.read(path)
    assert all(word in str(found.value) for word in words), str(found.value)


def test_a_factorisation_comes_back_as_one(tmp_path: Path) -> None:
    said = card("none", model=FactorisationSettings(name="factorisation", dim=3))
    arrays = recommender("none", neighbours=0)
    path = tmp_path / "users.safetensors"
    Recommender(said, arrays.shared, arrays.client_ids, arrays.personal).write(path)
    found = Recommender.read(path).card.model
    assert found == said.model and isinstance(found, FactorisationSettings)


def test_a_recommender_comes_back_from_its_file(tmp_path: Path) -> None:
    model = recommender()
    path = tmp_path / "users" / "node-0000-of-0001.safetensors"
    turned = {name: np.asfortranarray(values) for name, values in model.shared.items()}
    Recommender(model.card, turned, model.client_ids, model.personal).write(path)
    same(Recommender.read(path), model)
    assert {name: values.shape for name, values in load_file(path).items()} == SHAPES
    with safe_open(path, framework="numpy") as file:
        said = json.loads(file.metadata()["card"])
    assert said.pop("model").items() >= {"name": "recommender", "gnn": "gat", "dim": 3, "neighbours": 2}.items()
    assert said == {
        "kind": "recommender", "schema": 2, "num_items": 6, "scale": [1.0, 5.0], "center": 3.5, "spread": 1.25,
        "dataset": "toy", "data": None, "method": "fedgnn", "run": "2026-01-01", "round": 12,
    }  # fmt: skip


@pytest.mark.parametrize("gnn", ["gcn", "ggnn", "none"])
def test_every_kind_comes_back_with_and_without_neighbours(tmp_path: Path, gnn: Kind) -> None:
    for neighbours in (0, 2):
        model = recommender(gnn, neighbours=neighbours)
        model.write(tmp_path / "m.safetensors")
        same(Recommender.read(tmp_path / "m.safetensors"), model)


def test_a_users_file_holds_that_user_alone(tmp_path: Path) -> None:
    model = recommender()
    model.of_users([7]).write(tmp_path / "own.safetensors")
    found = load_file(tmp_path / "own.safetensors")
    assert found["clients"].tolist() == [7]
    for name, values in model.personal.items():
        np.testing.assert_array_equal(found[f"personal.{name}"], values[1:2])
    content = (tmp_path / "own.safetensors").read_bytes()
    assert model.personal["user"][1].tobytes() in content
    assert all(model.personal["user"][other].tobytes() not in content for other in (0, 2))


def test_users_come_in_the_order_in_which_they_are_asked_for() -> None:
    model = recommender()
    chosen = model.of_users([9, 4])
    assert chosen.client_ids.tolist() == [9, 4] and chosen.client_ids.dtype == np.int64
    np.testing.assert_array_equal(chosen.personal["user"], model.personal["user"][[2, 0]])
    np.testing.assert_array_equal(chosen.personal["num_neighbours"], [1, 2])
    with pytest.raises(SubflError, match="knows nothing of client 5, only of 3 clients from 4 to 9"):
        model.of_users([4, 5])
    with pytest.raises(SubflError, match="knows nothing of client 4, only of client 9"):
        model.of_users([9]).of_users([4])


def test_a_failure_leaves_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.safetensors"
    recommender(seed=1).write(path)

    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(
            SubflError, match=r"a recommender cannot be written to .*/m.safetensors: No space left on device"
        ):
            recommender(seed=2).write(path)
    same(Recommender.read(path), recommender(seed=1))
    assert [file.name for file in tmp_path.iterdir()] == ["m.safetensors"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shared.items": np.ones((6, 3), np.float32)}, "shared.items is float32 [6, 3], not float32 [6, 4]"),
        ({"shared.bias": np.ones(1)}, "shared.bias is float64 [1]"),
        ({"shared.gnn.gain": np.full(1, np.inf, np.float32)}, "shared.gnn.gain holds values that are not finite"),
        ({"shared.gnn.more": np.ones(1, np.float32)}, "holds shared.gnn.more, which the recommender"),
        ({"personal.user": np.ones((2, 3), np.float32)}, "personal.user is float32 [2, 3], not float32 [3, 3]"),
        ({"personal.neighbours": np.ones((3, 1, 3), np.float32)}, "personal.neighbours is float32 [3, 1, 3]"),
        ({"personal.num_neighbours": np.array([2, 3, 0], np.float32)}, "whole numbers of 0 to 2"),
        ({"personal.num_neighbours": np.array([2, -1, 0], np.float32)}, "whole numbers of 0 to 2"),
        ({"personal.num_neighbours": np.array([2, 0.5, 0], np.float32)}, "whole numbers of 0 to 2"),
        ({"clients": np.array([4, 7, 4])}, "different numbers of 0 or more"),
        ({"clients": np.array([4, -7, 9])}, "different numbers of 0 or more"),
        ({"clients": np.array([4.0, 7.0, 9.0])}, "clients must be int64 [users]"),
        ({"clients": np.zeros(0, np.int64)}, "one user at least"),
    ],
)
def test_arrays_that_are_not_the_cards_are_refused(tmp_path: Path, change: dict[str, np.ndarray], words: str) -> None:
    changed = tensors(recommender()) | change
    refused(written(tmp_path / "m.safetensors", changed, card().as_json()), "m.safetensors", words)
    with pytest.raises(SubflError):
        with_tensors(recommender(), changed).write(tmp_path / "users" / "m.safetensors")
    assert not (tmp_path / "users").exists()


def test_users_need_not_have_been_told_of_neighbours(tmp_path: Path) -> None:
    model = recommender()
    fewer = {name: values for name, values in model.personal.items() if "neighbours" not in name}
    Recommender(model.card, model.shared, model.client_ids, fewer).write(tmp_path / "m.safetensors")
    found = Recommender.read(tmp_path / "m.safetensors")
    assert set(found.personal) == {"user", "user_bias"}
    none_counts = Recommender(
        model.card, model.shared, model.client_ids, model.personal | {"num_neighbours": np.zeros(3, np.float32)}
    )
    np.testing.assert_allclose(found.scores(ratings()), none_counts.scores(ratings()), rtol=1e-6)
    assert np.abs(np.array(found.scores(ratings())) - model.scores(ratings())).max() > 0.01


@pytest.mark.parametrize(
    "name", ["clients", "shared.items", "personal.user_bias", "personal.num_neighbours", "personal.neighbours"]
)
def test_an_array_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    fewer = tensors(recommender())
    del fewer[name]
    refused(written(tmp_path / "m.safetensors", fewer, card().as_json()), "m.safetensors", name)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (None, "does not hold a recommender: it does not say what it is (no 'card'"),
        ("not JSON", "card: Invalid JSON"),
        (
            card().as_json().replace('"schema":2', '"schema":3'),
            "a newer version wrote it (schema 3, this version reads the schema 2)",
        ),
        (card().as_json().replace('"spread":1.25', '"spread":0'), "card.spread"),
        (card().as_json().replace("[1.0,5.0]", "[5.0,1.0]"), "card.scale"),
        (card().as_json().replace("[1.0,5.0]", "[1.0,Infinity]"), "card.scale"),
        (card().as_json().replace('"center":3.5', '"center":NaN'), "card.center"),
        (card().as_json().replace('"gnn":"gat"', '"gnn":"gin"'), "card.model.gnn"),
        (card().as_json().replace('"dim":3', '"dim":1000000000000'), "shared.items"),
        (card().as_json().replace('"neighbours":2', '"neighbours":1000000000000'), "personal.neighbours"),
        (card().as_json().replace('"run":', '"walk":'), "card.run: Field required"),
    ],
)
def test_a_card_that_says_nothing_is_refused(tmp_path: Path, said: str | None, words: str) -> None:
    refused(written(tmp_path / "m.safetensors", tensors(recommender()), said), "m.safetensors", words)


def test_a_missing_damaged_or_other_file_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "absent", "absent does not exist")
    refused(tmp_path, "does not exist")
    path = tmp_path / "m.safetensors"
    recommender().write(path)
    with pytest.raises(
        SubflError, match=r"m.safetensors does not hold a model of a graph: its card is of the kind 'recom"
    ):
        read_model(path)
    path.write_bytes(path.read_bytes()[:-1])
    refused(path, "m.safetensors does not hold a recommender: it is not a whole safetensors file")
    of_nodes = toy_card()
    values = {name: np.ones(shape, np.float32) for name, shape in of_nodes.gnn.shapes.items()}
    ExportedModel(values, of_nodes).write_with_card(tmp_path / "gcn" / MODEL_FILE)
    refused(
        tmp_path / "gcn" / "model.safetensors", "its card is of the kind 'graph_model', where 'recommender' belongs"
    )


def sigmoid(values: np.ndarray) -> np.ndarray:
    logistic: np.ndarray = 1 / (1 + np.exp(-values))
    return logistic


def by_hand(model: Recommender, row: int, items: list[int], values: list[float]) -> np.ndarray:
    """Predictions of all items for the user in a row, who trained on these ratings: the formulas, in float64."""
    kind, said = model.card.model.gnn, model.card
    shared = {name: values.astype(np.float64) for name, values in model.shared.items()}
    net = {name[4:]: values for name, values in shared.items() if name.startswith("gnn.")}
    user, own_bias = model.personal["user"][row].astype(np.float64), float(model.personal["user_bias"][row])
    embeddings, biases = shared["items"][:, :-1], shared["items"][:, -1] + shared["bias"][0] + own_bias
    hidden = user
    if kind != "none":
        messages, weights = [], []

        def add(message: np.ndarray, score: float) -> None:
            raised = score + user @ net["user_score"] if kind == "gat" else 0.0
            messages.append(message)
            weights.append(np.exp(np.clip(max(raised, 0.2 * raised), -5, 5)) if kind == "gat" else 1.0)

        for item, value in zip(items, values, strict=True):
            x, rho = embeddings[item], (value - said.center) / said.spread - biases[item]
            score = x @ net["item_score"] + net["rating_score"] @ [rho, abs(rho)] if kind == "gat" else 0.0
            add(x @ net["item"] + rho * (x @ net["rating"]), score)
        for x in model.personal["neighbours"][row][: int(model.personal["num_neighbours"][row])].astype(np.float64):
            add(x @ net["neighbour"], x @ net["neighbour_score"] if kind == "gat" else 0.0)
        total = sum((w * m for w, m in zip(weights, messages, strict=True)), np.zeros(3))
        aggregate = total / (np.exp(net["shrinkage"][0]) + sum(weights))
        if kind == "ggnn":
            given, state = (
                side @ net[f"gate_{name}"] + net[f"gate_{name}_bias"]
                for side, name in ((aggregate, "input"), (user, "state"))
            )
            reset, update = sigmoid(given[:3] + state[:3]), sigmoid(given[3:6] + state[3:6])
            hidden = (1 - update) * np.tanh(given[6:] + reset * state[6:]) + update * user
        else:
            hidden = user + np.exp(net["gain"][0]) * aggregate
    predictions: np.ndarray = (embeddings @ hidden + biases) * said.spread + said.center
    return predictions


RATED: dict[int, tuple[list[int], list[float]]] = {9: ([0, 2, 5], [5, 1, 3]), 4: ([1], [4]), 7: ([], [])}


def ratings() -> Ratings:
    """Of the clients 9, 4 and 7 in this order: what `RATED` says to train on, and ratings that must not matter."""
    return Ratings(
        user_ids=np.array([9, 4, 7]),
        offsets=np.array([0, 5, 7, 8]),
        items=np.array([0, 2, 3, 4, 5, 0, 1, 3]),
        values=np.array([5, 1, 5, 1, 3, 1, 4, 5], np.float32),
        roles=np.array([TRAIN, TRAIN, VALIDATION, TEST, TRAIN, TEST, TRAIN, VALIDATION], np.int8),
        num_items=6,
        scale=(1.0, 5.0),
    )


@pytest.mark.parametrize("gnn", ["gat", "gcn", "ggnn", "none"])
def test_predictions_are_the_formulas_in_rating_units(gnn: Kind) -> None:
    model = recommender(gnn)
    rows = {client: row for row, client in enumerate(IDS.tolist())}
    expected = [by_hand(model, rows[client], *RATED[client]) for client in (9, 4, 7)]
    assert any(((values < 1) | (values > 5)).any() for values in expected)
    np.testing.assert_allclose(model.scores(ratings()), expected, rtol=1e-4, atol=1e-4)
    found = model.predict(ratings())
    assert all(values.dtype == np.float32 for values in found)
    np.testing.assert_allclose(found, np.clip(expected, 1, 5), rtol=1e-4, atol=1e-4)
    some = model.predict(ratings(), [np.array([3]), np.array([], dtype=np.int64), np.array([5, 0])])
    assert [len(values) for values in some] == [1, 0, 2]
    np.testing.assert_allclose(some[0], found[0][[3]], rtol=1e-5)
    np.testing.assert_allclose(some[2], found[2][[5, 0]], rtol=1e-5)


def test_many_users_are_predicted_as_one_by_one() -> None:
    ids = np.arange(130)[::-1].copy()
    model = recommender(ids=ids)
    rng = np.random.default_rng(3)
    counts = rng.integers(0, 6, size=130)
    many = Ratings(
        user_ids=np.arange(130),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        items=np.concatenate([np.sort(rng.choice(6, size=count, replace=False)) for count in counts]),
        values=rng.integers(1, 6, size=counts.sum()).astype(np.float32),
        roles=np.full(counts.sum(), TRAIN, np.int8),
        num_items=6,
        scale=(1.0, 5.0),
    )
    found = model.scores(many)
    for client in (0, 63, 64, 65, 127, 128, 129):
        own = many.of_users([client])
        expected = by_hand(model, 129 - client, own.items.tolist(), own.values.tolist())
        np.testing.assert_allclose(found[client], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_users_in_several_parts_are_each_given_their_own_items(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subfl_flower.recommendation.models.trained_users._USERS_AT_ONCE", at_once)
    model, asked = recommender(), [np.array([3]), np.array([1, 5, 0]), np.array([2, 4])]
    everything = model.scores(ratings())
    found = model.scores(ratings(), asked)
    for own, items, of_all in zip(found, asked, everything, strict=True):
        np.testing.assert_allclose(own, of_all[items], rtol=1e-6)


def test_ratings_of_other_items_or_users_are_refused() -> None:
    with pytest.raises(SubflError, match="the recommender has 6 items, and the ratings 7"):
        recommender().predict(Ratings(**{**vars(ratings()), "num_items": 7}))
    with pytest.raises(SubflError, match="knows nothing of client 9"):
        recommender().of_users([4, 7]).predict(ratings())


@FUZZ
@given(
    changes=st.dictionaries(
        st.sampled_from(["schema", "model", "num_items", "scale", "center", "spread", "round", "x"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.lists(st.floats(), max_size=3)
        | st.fixed_dictionaries({"name": st.just("recommender"), "dim": st.integers(), "neighbours": st.integers()}),
    )
)  # fmt: skip
def test_any_card_is_read_or_refused_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]
) -> None:
    said = json.dumps(json.loads(card().as_json()) | changes)
    path = written(tmp_path_factory.mktemp("fuzz") / "m.safetensors", tensors(recommender()), said)
    try:
        found = Recommender.read(path)
    except SubflError:
        return
    assert {name: values.shape for name, values in tensors(found).items()} == SHAPES
    assert found.card.num_items == 6 and found.card.model == card().model and found.card.spread > 0
    assert found.card.scale[0] < found.card.scale[1]


@FUZZ
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7), cut=st.none() | st.integers(0, 10**6))
def test_a_damaged_file_is_refused_or_holds_arrays_of_the_right_shapes(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int, cut: int | None
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "m.safetensors"
    recommender().write(path)
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << bit
    path.write_bytes(content if cut is None else content[: cut % len(content)])
    try:
        found = tensors(Recommender.read(path))
    except SubflError:
        return
    assert cut is None and {name: values.shape for name, values in found.items()} == SHAPES
    assert all(np.isfinite(values).all() for values in found.values())

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save

from subfl_flower.data.graph import TEST, TRAIN
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import LightGCNSettings, RecommenderSettings
from subfl_flower.recommendation.models.mixture import Mixture
from subfl_flower.recommendation.models.ranker_file import Ranker, RankerCard, read_trained
from subfl_flower.recommendation.models.recommender_file import Recommender, RecommenderCard

FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ITEMS, DIM = 6, 3
SHAPES = {
    "clients": (3,),
    "items": (2, ITEMS, DIM),
    "models": (3, 3),
    "users": (3, 3, DIM),
    "weights": (3, 3),
    "own.offsets": (4,),
    "own.items": (3,),
    "own.scores": (3,),
}
SOURCE = dict(num_items=ITEMS, center=3.5, spread=1.25, dataset="toy", method="perfedrec", run="2026-01-01", round=12)


def card(**changes: Any) -> RankerCard:
    return RankerCard(**{"model": LightGCNSettings(name="lightgcn", dim=DIM), **SOURCE, **changes})


def ranker(models: int = 3) -> Ranker:
    """Clients 4, 7 and 9; 4 scores two items by their own, 7 none, 9 one."""
    rng = np.random.default_rng(5)
    return Ranker(
        card(),
        Mixture(
            client_ids=np.array([4, 7, 9]),
            tables=rng.normal(size=(2, ITEMS, DIM)).astype(np.float32),
            models=np.array([[0, 1, 1], [0, 0, 0], [0, 1, 1]])[:, -models:],
            users=rng.normal(size=(3, models, DIM)).astype(np.float32),
            weights=np.full((3, models), 1 / models, np.float32),
            offsets=np.array([0, 2, 2, 3]),
            own_items=np.array([1, 4, 0]),
            own_scores=np.array([0.5, -0.25, 2.0], np.float32),
        ),
    )


def ratings() -> Ratings:
    """Of the clients 9, 4 and 7 in this order."""
    return Ratings(
        user_ids=np.array([9, 4, 7]),
        offsets=np.array([0, 2, 4, 4]),
        items=np.array([0, 2, 3, 4]),
        values=np.full(4, 3, np.float32),
        roles=np.array([TRAIN, TEST, TRAIN, TRAIN], np.int8),
        num_items=ITEMS,
        scale=(1.0, 5.0),
    )


def written(path: Path, content: dict[str, np.ndarray], said: str | None = None) -> Path:
    path.write_bytes(save(content, {"card": card().as_json() if said is None else said}))
    return path


def refused(path: Path, *words: str) -> None:
    with pytest.raises(SubflError) as found:
        Ranker.read(path)
    assert all(word in str(found.value) for word in words), str(found.value)


@pytest.mark.parametrize("models", [1, 3])
def test_a_ranker_comes_back_from_its_file(tmp_path: Path, models: int) -> None:
    written_one = ranker(models)
    path = tmp_path / "users" / "node-0000-of-0001.safetensors"
    written_one.write(path)
    for found in (Ranker.read(path), read_trained(path)):
        assert isinstance(found, Ranker) and found.card == written_one.card
        for name, values in vars(written_one.mixture).items():
            np.testing.assert_array_equal(getattr(found.mixture, name), values)
            assert getattr(found.mixture, name).dtype == values.dtype
    shapes = {name: values.shape for name, values in load_file(path).items()}
    assert shapes == (SHAPES if models == 3 else SHAPES | {"models": (3, 1), "users": (3, 1, DIM), "weights": (3, 1)})


def test_a_users_file_holds_that_user_alone(tmp_path: Path) -> None:
    whole = ranker()
    whole.of_users([7]).write(tmp_path / "own.safetensors")
    found = load_file(tmp_path / "own.safetensors")
    assert found["clients"].tolist() == [7] and found["items"].shape == (1, ITEMS, DIM)
    content = (tmp_path / "own.safetensors").read_bytes()
    mixture = whole.mixture
    assert mixture.users[1].tobytes() in content and mixture.tables[0].tobytes() in content
    others = (mixture.users[0], mixture.users[2], mixture.tables[1], mixture.own_scores)
    assert all(values.tobytes() not in content for values in others)
    with pytest.raises(SubflError, match="knows nothing of client 5, only of 3 clients from 4 to 9"):
        whole.of_users([4, 5])


def test_scores_are_of_the_users_and_items_that_are_asked_for() -> None:
    model = ranker()
    of_all = dict(zip(model.clients.tolist(), model.mixture.scores(), strict=True))
    assert of_all[4][1] == pytest.approx(
        (model.mixture.users[0, 0] @ model.mixture.tables[0, 1] + model.mixture.users[0, 1] @ model.mixture.tables[1, 1]
         + 0.5) / 3, abs=1e-6
    )  # fmt: skip
    for client, own in zip((9, 4, 7), model.scores(ratings()), strict=True):
        np.testing.assert_allclose(own, of_all[client], atol=1e-6)
    some = model.scores(ratings(), [np.array([3]), np.array([], dtype=np.int64), np.array([5, 0])])
    assert [values.tolist() for values in some] == [
        pytest.approx(of_all[client][items].tolist(), abs=1e-6) for client, items in ((9, [3]), (4, []), (7, [5, 0]))
    ]
    with pytest.raises(SubflError, match="the recommender has 6 items, and the ratings 7"):
        model.scores(Ratings(**{**vars(ratings()), "num_items": 7}))
    with pytest.raises(SubflError, match="knows nothing of client 9"):
        model.of_users([4, 7]).scores(ratings())


def test_many_users_are_scored_as_one_by_one() -> None:
    count = 130
    rng = np.random.default_rng(1)
    many = Ranker(
        card(),
        Mixture(
            np.arange(count), rng.normal(size=(3, ITEMS, DIM)).astype(np.float32), rng.integers(3, size=(count, 1)),
            rng.normal(size=(count, 1, DIM)).astype(np.float32), np.ones((count, 1), np.float32),
            np.zeros(count + 1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32),
        ),
    )  # fmt: skip
    none = np.zeros(0, np.int64)
    values, roles = none.astype(np.float32), none.astype(np.int8)
    unrated = Ratings(np.arange(count), np.zeros(count + 1, np.int64), none, values, roles, ITEMS, (1.0, 5.0))
    found = many.scores(unrated)
    for user in (0, 63, 64, 129):
        expected = many.mixture.tables[many.mixture.models[user, 0]] @ many.mixture.users[user, 0]
        np.testing.assert_allclose(found[user], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"items": np.ones((2, 5, 3), np.float32)}, "items is float32 [2, 5, 3], not float32 [2, 6, 3]"),
        ({"items": np.ones(3, np.float32)}, "items is float32 [3], not float32 [3, 6, 3]"),
        ({"items": np.ones((0, 6, 3), np.float32)}, "models must be whole numbers of 0 to -1"),
        ({"users": np.ones((3, 3, 3))}, "users is float64"),
        ({"users": np.full((3, 3, 3), np.nan, np.float32)}, "users holds values that are not finite"),
        ({"models": np.zeros((3, 2), np.int64)}, "a user has one model or three, not 2"),
        ({"models": np.zeros(3, np.int64)}, "models is int64 [3], which has too few axes"),
        ({"models": np.full((3, 3), 2)}, "models must be whole numbers of 0 to 1"),
        ({"models": np.full((3, 3), -1)}, "models must be whole numbers of 0 to 1"),
        ({"models": np.zeros((3, 3), np.int32)}, "models is int32 [3, 3], not int64 [3, 3]"),
        ({"weights": np.full((3, 3), 0.5, np.float32)}, "weights must be 0 or more and sum to 1"),
        ({"weights": np.tile(np.array([-1, 1, 1], np.float32), (3, 1))}, "weights must be 0 or more"),
        ({"own.offsets": np.array([0, 2, 1, 3])}, "own.offsets must rise from 0 to 3"),
        ({"own.offsets": np.array([1, 2, 2, 3])}, "own.offsets must rise from 0 to 3"),
        ({"own.offsets": np.array([0, 2, 2, 4])}, "own.offsets must rise from 0 to 3"),
        ({"own.items": np.array([4, 1, 0])}, "own.items must be different numbers of 0 to 5, ascending"),
        ({"own.items": np.array([1, 1, 0])}, "own.items must be different numbers"),
        ({"own.items": np.array([1, 6, 0])}, "own.items must be different numbers of 0 to 5"),
        ({"own.items": np.array([-1, 4, 0])}, "own.items must be different numbers of 0 to 5"),
        ({"own.scores": np.ones(2, np.float32)}, "own.scores is float32 [2], not float32 [3]"),
        ({"more": np.ones(2, np.float32)}, "holds more, which a recommender that ranks items does not have"),
        ({"clients": np.array([4, 7, 4])}, "different numbers of 0 or more"),
        ({"clients": np.zeros(0, np.int64)}, "one user at least"),
    ],
)
def test_arrays_that_are_no_ranker_are_refused(tmp_path: Path, change: dict[str, np.ndarray], words: str) -> None:
    refused(written(tmp_path / "m.safetensors", ranker().tensors() | change), "m.safetensors", words)


def test_what_is_not_sound_is_not_written(tmp_path: Path) -> None:
    model = ranker()
    model.mixture.weights[:] = 1
    with pytest.raises(SubflError, match="weights must be 0 or more and sum to 1"):
        model.write(tmp_path / "users" / "m.safetensors")
    assert not (tmp_path / "users").exists()


@pytest.mark.parametrize("name", SHAPES)
def test_an_array_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    fewer = ranker().tensors()
    del fewer[name]
    refused(written(tmp_path / "m.safetensors", fewer), "m.safetensors", name)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"schema":2', '"schema":3', "a newer version wrote it (schema 3, "),
        (f'"dim":{DIM}', '"dim":0', "card.model.dim"),
        (f'"dim":{DIM}', '"dim":1000000000000', "items"),
        ('"spread":1.25', '"spread":0', "card.spread"),
        ('"run":', '"walk":', "card.run: Field required"),
        ('"round":12', '"round":12,"scale":[1,5]', "card.scale"),
    ],
)
def test_a_card_that_says_nothing_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    said = card().as_json().replace(old, new)
    assert said != card().as_json()
    refused(written(tmp_path / "m.safetensors", ranker().tensors(), said), "m.safetensors", words)


def test_either_kind_of_file_is_read_for_what_it_is(tmp_path: Path) -> None:
    ranker().write(tmp_path / "ranks.safetensors")
    said = RecommenderCard(
        model=RecommenderSettings(name="recommender", gnn="none", dim=DIM), scale=(1.0, 5.0), **SOURCE
    )  # type: ignore[arg-type]
    shapes = said.recommender.shapes, said.recommender.personal_shapes
    shared = {name: np.ones(shape, np.float32) for name, shape in shapes[0].items()}
    own = {name: np.ones((1, *shape), np.float32) for name, shape in shapes[1].items()}
    Recommender(said, shared, np.array([3]), own).write(tmp_path / "rates.safetensors")
    assert isinstance(read_trained(tmp_path / "ranks.safetensors"), Ranker)
    assert isinstance(read_trained(tmp_path / "rates.safetensors"), Recommender)
    refused(tmp_path / "rates.safetensors", "its card is of the kind 'recommender', where 'ranker' belongs")
    other = (
        r"ranks.safetensors does not hold a recommender: its card is of the kind 'ranker', where 'recommender' belongs"
    )
    with pytest.raises(SubflError, match=other):
        Recommender.read(tmp_path / "ranks.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes((tmp_path / "ranks.safetensors").read_bytes()[:-1])
    for name, words in (("damaged", "is not a whole safetensors file"), ("absent", "does not exist")):
        with pytest.raises(SubflError, match=words):
            read_trained(tmp_path / f"{name}.safetensors")


@FUZZ
@given(
    name=st.sampled_from(sorted(set(SHAPES) - {"clients"})),
    shape=st.lists(st.integers(0, 4), max_size=4),
    fill=st.integers(-2, 8),
    dtype=st.sampled_from(["float32", "int64"]),
)
def test_any_array_is_read_or_refused_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, name: str, shape: list[int], fill: int, dtype: str
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "m.safetensors"
    written(path, ranker().tensors() | {name: np.full(shape, fill, dtype)})
    try:
        found = Ranker.read(path)
    except SubflError:
        return
    assert [values.shape for values in found.scores(ratings())] == [(ITEMS,)] * 3
    assert all(np.isfinite(values).all() for values in found.scores(ratings()))


@FUZZ
@given(
    changes=st.dictionaries(
        st.sampled_from(["schema", "model", "num_items", "center", "spread", "round", "x"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
        | st.fixed_dictionaries({"name": st.just("lightgcn"), "dim": st.integers(), "layers": st.integers()}),
    )
)  # fmt: skip
def test_any_card_is_read_or_refused_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]
) -> None:
    said = json.dumps(json.loads(card().as_json()) | changes)
    path = written(tmp_path_factory.mktemp("fuzz") / "m.safetensors", ranker().tensors(), said)
    try:
        found = read_trained(path)
    except SubflError:
        return
    assert isinstance(found, Ranker) and found.card.num_items == ITEMS and found.card.model.dim == DIM

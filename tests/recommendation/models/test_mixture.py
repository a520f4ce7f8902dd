from __future__ import annotations

import numpy as np
import pytest
import torch

from subfl_flower.recommendation.models.mixture import Mixture, MixtureScores, OwnScores, Scorer

ITEMS, DIM = 5, 3


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def own_scores() -> OwnScores:
    """Of three users: of items 1 and 4, of none, and of item 0."""
    return OwnScores(torch.tensor([0, 0, 2]), torch.tensor([1, 4, 0]), torch.tensor([7.0, -8.0, 9.0]))


def test_a_model_scores_by_products_and_own_items_by_their_own() -> None:
    users, items = drawn(1, 3, DIM), drawn(2, ITEMS, DIM)
    expected = np.array([[float(sum(u * e)) for e in items] for u in users])
    np.testing.assert_allclose(Scorer(users, items).scores(), expected, atol=1e-6)
    expected[0, 1], expected[0, 4], expected[2, 0] = 7, -8, 9
    np.testing.assert_allclose(Scorer(users, items, own_scores()).scores(), expected, atol=1e-6)


def test_the_mixture_is_the_weighted_sum() -> None:
    one, two, three = (drawn(seed, 2, ITEMS).numpy() for seed in (1, 2, 3))
    weights = np.array([[0.2, 0.3, 0.5], [0.0, 0.0, 1.0]])
    expected = [0.2 * one[0] + 0.3 * two[0] + 0.5 * three[0], three[1]]
    np.testing.assert_allclose(MixtureScores(one, two, three).mixed(weights), expected, atol=1e-6)


@pytest.mark.parametrize("weights", [(1 / 3, 1 / 3, 1 / 3), (0.1, 0.2, 0.7), (1.0, 0.0, 0.0)])
def test_three_equal_models_give_exactly_what_one_gives(weights: tuple[float, float, float]) -> None:
    scores = drawn(1, 4, 50).numpy()
    mixed = MixtureScores(scores, scores.copy(), scores.copy()).mixed(np.tile(weights, (4, 1)))
    np.testing.assert_array_equal(mixed, scores)


def three_users() -> Mixture:
    """Clients 9, 4 and 6, whose own models start from the cluster's."""
    everyone, start = drawn(1, ITEMS, DIM), drawn(2, ITEMS, DIM)
    scorers = [Scorer(drawn(seed, 3, DIM), items) for seed, items in ((3, everyone), (4, start))]
    weights = np.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    return Mixture.of(np.array([9, 4, 6]), [*scorers, Scorer(drawn(5, 3, DIM), start, own_scores())], weights)


def two_users() -> Mixture:
    """Clients 1 and 2, who start from the global model of the other three, without own items."""
    everyone = drawn(1, ITEMS, DIM)
    scorers = [Scorer(drawn(seed, 2, DIM), everyone.clone()) for seed in (6, 7, 8)]
    return Mixture.of(np.array([1, 2]), scorers, np.full((2, 3), 1 / 3))


def by_hand(mixture: Mixture, position: int) -> np.ndarray:
    """One user's scores, in float64, item by item."""
    first, after = mixture.offsets[position : position + 2].tolist()
    own = dict(zip(mixture.own_items[first:after].tolist(), mixture.own_scores[first:after].tolist(), strict=True))
    found = np.zeros(ITEMS)
    last = mixture.models.shape[1] - 1
    for item in range(ITEMS):
        for place, (model, weight) in enumerate(
            zip(mixture.models[position].tolist(), mixture.weights[position].tolist(), strict=True)
        ):
            score = float(mixture.users[position, place].astype(float) @ mixture.tables[model, item].astype(float))
            found[item] += weight * (own.get(item, score) if place == last else score)
    return found


def test_a_table_that_two_models_share_is_held_once() -> None:
    mixture = three_users()
    assert mixture.tables.shape == (2, ITEMS, DIM) and mixture.models.tolist() == [[0, 1, 1]] * 3
    assert mixture.users.shape == (3, 3, DIM) and mixture.offsets.tolist() == [0, 2, 2, 3]
    types = {name: values.dtype for name, values in vars(mixture).items()}
    integers = {"client_ids", "models", "offsets", "own_items"}
    assert types == {name: np.int64 if name in integers else np.float32 for name in types}


def test_users_score_by_their_mixture() -> None:
    for mixture in (three_users(), two_users()):
        users = range(len(mixture.client_ids))
        np.testing.assert_allclose(mixture.scores(), [by_hand(mixture, user) for user in users], atol=1e-5)
    assert three_users().scores()[2, 0] == pytest.approx(9, abs=1e-5)  # the own model is all


def test_one_model_is_a_mixture_of_one() -> None:
    users, items = drawn(1, 3, DIM), drawn(2, ITEMS, DIM)
    for own in (None, own_scores()):
        scorer = Scorer(users, items, own)
        mixture = Mixture.of(np.array([3, 5, 8]), [scorer])
        np.testing.assert_array_equal(mixture.scores(), scorer.scores())
        assert mixture.weights.tolist() == [[1.0]] * 3 and mixture.models.tolist() == [[0]] * 3


def test_parts_are_joined_with_each_table_once() -> None:
    parts = [three_users(), two_users()]
    joined = Mixture.joined(iter(parts))
    assert joined.client_ids.tolist() == [9, 4, 6, 1, 2] and joined.offsets.tolist() == [0, 2, 2, 3, 3, 3]
    assert joined.tables.shape == (2, ITEMS, DIM) and joined.models.tolist() == [[0, 1, 1]] * 3 + [[0, 0, 0]] * 2
    np.testing.assert_allclose(joined.scores(), np.concatenate([part.scores() for part in parts]), atol=1e-6)


def test_some_users_come_with_their_own_tables_alone() -> None:
    joined = Mixture.joined([two_users(), three_users()])
    whole = joined.scores()
    for positions, tables in (([4, 0], 2), ([1], 1), ([0, 1], 1), ([3, 2, 4], 2)):
        part = joined.at(positions)
        assert len(part.tables) == tables and part.client_ids.tolist() == joined.client_ids[positions].tolist()
        np.testing.assert_allclose(part.scores(), whole[positions], atol=1e-6)
    start = joined.tables[1]
    assert start.tobytes() not in joined.at([0]).tables.tobytes()

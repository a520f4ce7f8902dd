from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import ndcg_score, top_k_accuracy_score

from subfl_flower.data.graph import TEST, TRAIN, VALIDATION
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.recommendation.tasks.ranking_metrics import (
    Candidates,
    draw_candidates,
    hit_rate,
    ndcg,
    ranks,
    user_figures,
    validation_ranks,
)
from subfl_flower.tasks.choices import Ranking

GAIN = [1 / math.log2(rank + 2) for rank in range(8)]  # 1, 0.6309, 0.5, ..
NAN = float("nan")
TASK = Ranking(name="ranking", cutoffs=(1, 2), negatives=2)


def rated(num_items: int, *users: dict[int, int]) -> Ratings:
    """Users 10, 11, .. from the role of each item that they rated."""
    return Ratings(
        user_ids=10 + np.arange(len(users)),
        offsets=np.cumsum([0, *map(len, users)]),
        items=np.array([item for user in users for item in sorted(user)], dtype=np.int64),
        values=np.ones(sum(map(len, users)), dtype=np.float32),
        roles=np.array([user[item] for user in users for item in sorted(user)], dtype=np.int8),
        num_items=num_items,
        scale=(1.0, 5.0),
    )


def test_ranks_of_a_few_items_by_hand() -> None:
    positive = np.array([2.0, 2.0, 2.0, NAN, -np.inf, np.inf])
    others = np.array([[1, 3, 0], [2, 3, 2], [NAN, 1, 2], [0, 0, NAN], [-np.inf, 0, NAN], [1, np.inf, 0]])
    above, tied = ranks(positive, others)
    assert above.tolist() == [1, 1, 1, 3, 2, 0]  # what is not a number stands above, and below all as the positive one
    assert tied.tolist() == [0, 2, 1, 0, 1, 1]


def test_items_that_do_not_compete_are_not_counted() -> None:
    others = np.array([[3.0, 2.0, 1.0, NAN], [3.0, 2.0, 1.0, NAN]])
    above, tied = ranks(np.array([2.0, 2.0]), others, np.array([[False, True, True, False], [True, False, True, True]]))
    assert (above.tolist(), tied.tolist()) == ([0, 2], [1, 0])


@pytest.mark.parametrize(
    ("above", "tied", "k", "hits", "gain"),
    [
        (0, 0, 1, 1, 1),
        (1, 0, 1, 0, 0),
        (1, 0, 2, 1, GAIN[1]),
        (2, 0, 2, 0, 0),
        (0, 1, 1, 1 / 2, 1 / 2),  # first in one of two orders
        (1, 2, 3, 2 / 3, (GAIN[1] + GAIN[2]) / 3),  # ranks 1, 2 and 3, of which two are in the list
        (1, 2, 8, 1, (GAIN[1] + GAIN[2] + GAIN[3]) / 3),
        (5, 4, 3, 0, 0),
    ],
)
def test_hit_rate_and_ndcg_by_hand(above: int, tied: int, k: int, hits: float, gain: float) -> None:
    found = np.array([above]), np.array([tied]), k
    assert hit_rate(*found).tolist() == pytest.approx([hits])
    assert ndcg(*found).tolist() == pytest.approx([gain])


def test_a_model_that_scores_all_alike_is_right_as_often_as_a_draw() -> None:
    above, tied = ranks(np.zeros(1), np.zeros((1, 100)))
    assert hit_rate(above, tied, 10).tolist() == pytest.approx([10 / 101])
    draws = np.random.default_rng(0).integers(0, 101, 200_000)
    mean, error = _mean_and_error(np.where(draws < 10, 1 / np.log2(draws + 2), 0))
    assert abs(ndcg(above, tied, 10)[0] - mean) < 4 * error


def test_ties_are_worth_the_mean_over_random_orders() -> None:
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 4, 30).astype(float)
    above, tied = ranks(scores[:1], scores[None, 1:])
    assert tied[0] > 2 and above[0] > 2
    orders = np.array([np.lexsort((rng.random(30), -scores)) for _ in range(20_000)])
    places = np.argmax(orders == 0, axis=1)
    for k in (5, int(above[0]) + 2, 30):
        for figure, sampled in ((hit_rate, places < k), (ndcg, np.where(places < k, 1 / np.log2(places + 2), 0))):
            mean, error = _mean_and_error(sampled)
            assert abs(figure(above, tied, k)[0] - mean) <= 4 * error + 1e-12


def _mean_and_error(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))


@pytest.mark.parametrize("levels", [3, 8, 10_000])
@pytest.mark.parametrize("k", [1, 5, 10, 40])
def test_ndcg_is_that_of_scikit_learn_which_averages_over_ties(levels: int, k: int) -> None:
    scores = np.random.default_rng(levels).integers(0, levels, (50, 40)).astype(float)
    truth = np.zeros_like(scores)
    truth[:, 0] = 1
    own = ndcg(*ranks(scores[:, 0], scores[:, 1:]), k)
    expected = [ndcg_score(truth[row : row + 1], scores[row : row + 1], k=k) for row in range(50)]
    np.testing.assert_allclose(own, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("k", [1, 5, 10])
def test_hit_rate_is_the_top_k_accuracy_of_scikit_learn(k: int) -> None:
    rng = np.random.default_rng(k)
    scores, truth = rng.random((200, 40)), rng.integers(0, 40, 200)
    of_others = np.array([np.delete(row, item) for row, item in zip(scores, truth, strict=True)])
    own = hit_rate(*ranks(scores[np.arange(200), truth], of_others), k)
    assert own.mean() == pytest.approx(top_k_accuracy_score(truth, scores, k=k, labels=np.arange(40)))


USERS = rated(
    30,
    {0: TRAIN, 4: TRAIN, 5: VALIDATION, 29: TEST},
    {item: TRAIN for item in range(27)} | {27: TEST},
    {item: TRAIN for item in range(30)},
    {},
)


def test_candidates_are_different_items_that_the_user_never_rated() -> None:
    found = draw_candidates(USERS, 10, seed=3)
    assert found.validation.shape == found.test.shape == (4, 10)
    for drawn in (found.validation, found.test):
        assert len(set(drawn[0].tolist())) == len(set(drawn[3].tolist())) == 10
        assert set(drawn[0].tolist()) <= set(range(30)) - {0, 4, 5, 29}
        assert set(drawn[3].tolist()) <= set(range(30))
        assert set(drawn[1, :2].tolist()) == {28, 29}  # all that are left
        assert drawn[1, 2:].tolist() == [-1] * 8 and drawn[2].tolist() == [-1] * 10
    assert set(found.validation[3].tolist()) != set(found.test[3].tolist())


def test_candidates_of_a_user_do_not_depend_on_who_else_is_there() -> None:
    whole = draw_candidates(USERS, 10, seed=3)
    alone = draw_candidates(USERS.of_users([3, 0]), 10, seed=3)
    for drawn, of_two in ((whole.validation, alone.validation), (whole.test, alone.test)):
        np.testing.assert_array_equal(of_two, drawn[[3, 0]])
    chosen = whole.of_users([3, 0])
    np.testing.assert_array_equal(chosen.test, alone.test)
    other = draw_candidates(USERS, 10, seed=4)
    assert not np.array_equal(other.test[0], whole.test[0])


def test_candidates_do_not_depend_on_the_roles_of_what_is_rated() -> None:
    trained = replace(USERS, roles=np.zeros_like(USERS.roles))
    np.testing.assert_array_equal(draw_candidates(trained, 10, 3).test, draw_candidates(USERS, 10, 3).test)


def test_every_unrated_item_is_drawn_as_often_as_another() -> None:
    users = rated(12, *[{2: TRAIN, 3: TEST, 11: TRAIN}] * 4000)
    drawn = draw_candidates(users, 3, seed=0)
    for found in (drawn.validation, drawn.test):
        counts = np.bincount(found.ravel(), minlength=12)
        assert counts[[2, 3, 11]].tolist() == [0, 0, 0]
        expected = 4000 * 3 / 9
        assert abs(np.delete(counts, [2, 3, 11]) - expected).max() < 5 * math.sqrt(expected)


def test_figures_of_two_users_by_hand() -> None:
    ratings = rated(
        7,
        {0: TRAIN, 1: TRAIN, 2: VALIDATION, 3: TEST},
        {5: TRAIN, 6: TEST},
    )
    scores = np.array([[9, 8, 4, 3, 5, 1, 2], [1, 2, 3, 4, 5, 9, 4]], dtype=np.float32)
    candidates = Candidates(validation=np.array([[4, 5], [0, 1]]), test=np.array([[5, 6], [3, -1]]))
    found = user_figures(scores, ratings, TASK, candidates)
    expected = {
        # item 2 (score 4) after item 4 (5); among all but 0 and 1 the same
        "validation.hr@1": [0, NAN],
        "validation.ndcg@1": [0, NAN],
        "validation.hr@2": [1, NAN],
        "validation.ndcg@2": [GAIN[1], NAN],
        "validation.full_hr@1": [0, NAN],
        "validation.full_ndcg@1": [0, NAN],
        "validation.full_hr@2": [1, NAN],
        "validation.full_ndcg@2": [GAIN[1], NAN],
        # item 3 (score 3) before 5 and 6; among all but 0, 1 and now 2 as well only item 4 is before it.
        # item 6 (score 4) level with item 3; among all but 5 after item 4 and level with item 3
        "test.hr@1": [1, 1 / 2],
        "test.ndcg@1": [1, 1 / 2],
        "test.hr@2": [1, 1],
        "test.ndcg@2": [1, (1 + GAIN[1]) / 2],
        "test.full_hr@1": [0, 0],
        "test.full_ndcg@1": [0, 0],
        "test.full_hr@2": [1, 1 / 2],
        "test.full_ndcg@2": [GAIN[1], GAIN[1] / 2],
        "validation": [0, NAN],
        "test": [1, 1 / 2],
    }
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].dtype == np.float64
        np.testing.assert_allclose(found[name], values, rtol=1e-12, err_msg=name)
    chosen = user_figures(scores, ratings, TASK.model_copy(update={"choose_by": "ndcg", "cutoffs": (2, 1)}), candidates)
    np.testing.assert_array_equal(chosen["test"], found["test.ndcg@2"])
    np.testing.assert_array_equal(chosen["validation"], found["validation.ndcg@2"])


def random_users(num_users: int, num_items: int) -> Ratings:
    rng = np.random.default_rng(7)
    users = []
    for _ in range(num_users):
        items = rng.permutation(num_items)[: rng.integers(3, num_items // 2)].tolist()
        users.append({item: TRAIN for item in items[2:]} | {items[0]: VALIDATION, items[1]: TEST})
    return rated(num_items, *users)


def test_figures_are_those_of_sorting_every_users_candidates() -> None:
    task, ratings = Ranking(name="ranking", cutoffs=(5, 10), negatives=20), random_users(40, 60)
    scores = np.random.default_rng(8).random((40, 60)).astype(np.float32)
    candidates = draw_candidates(ratings, 20, task.seed)
    found = user_figures(scores, ratings, task)
    for user in range(40):
        own = ratings.of_users([user])
        items = {role: set(own.items[own.roles == role].tolist()) for role in (TRAIN, VALIDATION, TEST)}
        unseen = set(range(60)) - items[TRAIN]
        for role, name, drawn, among_all in (
            (VALIDATION, "validation", candidates.validation[user], unseen),
            (TEST, "test", candidates.test[user], unseen - items[VALIDATION]),
        ):
            (positive,) = items[role]
            for prefix, pool in (("", {positive, *drawn[drawn >= 0].tolist()}), ("full_", among_all)):
                place = sorted(pool, key=lambda item: -scores[user, item]).index(positive)
                for k in (5, 10):
                    gain = 1 / math.log2(place + 2) if place < k else 0
                    assert found[f"{name}.{prefix}hr@{k}"][user] == float(place < k)
                    assert found[f"{name}.{prefix}ndcg@{k}"][user] == pytest.approx(gain)


def test_figures_are_the_same_in_chunks_of_users() -> None:
    task, ratings = Ranking(name="ranking"), random_users(12, 60)
    scores = np.random.default_rng(9).random((12, 60)).astype(np.float32)
    whole = user_figures(scores, ratings, task)
    for chunk in ([0, 1, 2], [7], [11, 5]):
        part = user_figures(scores[chunk], ratings.of_users(chunk), task)
        for name, values in part.items():
            np.testing.assert_array_equal(values, whole[name][chunk])


def test_a_diverged_model_hits_nothing() -> None:
    ratings = random_users(5, 60)
    found = user_figures(np.full((5, 60), np.nan, dtype=np.float32), ratings, Ranking(name="ranking"))
    assert all(values.tolist() == [0] * 5 for values in found.values())


def test_of_several_held_out_items_a_figure_is_the_mean_and_recall_among_all_items() -> None:
    rng = np.random.default_rng(3)
    users = []
    for held_out in (1, 4, 0, 9):
        items = rng.permutation(60)[: 6 + 2 * held_out].tolist()
        roles = [TRAIN] * 6 + [VALIDATION] * held_out + [TEST] * held_out
        users.append(dict(zip(items, roles, strict=True)))
    ratings, task = rated(60, *users), Ranking(name="ranking", cutoffs=(5, 10), negatives=20)
    scores = rng.random((4, 60)).astype(np.float32)
    found, drawn = user_figures(scores, ratings, task), draw_candidates(ratings, 20, task.seed)
    for user, roles in enumerate(users):
        by_role = [{item for item, role in roles.items() if role == of} for of in (TRAIN, VALIDATION, TEST)]
        pools = {"validation": set(range(60)) - by_role[0], "test": set(range(60)) - by_role[0] - by_role[1]}
        for role, own, among in (
            ("validation", by_role[1], drawn.validation[user]),
            ("test", by_role[2], drawn.test[user]),
        ):
            if not own:
                assert math.isnan(found[f"{role}.hr@5"][user]) and math.isnan(found[f"{role}.full_ndcg@5"][user])
                continue
            for k in (5, 10):
                best = sorted(pools[role], key=lambda item: -scores[user, item])[:k]
                assert found[f"{role}.full_hr@{k}"][user] == pytest.approx(len(own & set(best)) / len(own))
                gains = [1 / math.log2(place + 2) for place, item in enumerate(best) if item in own]
                assert found[f"{role}.full_ndcg@{k}"][user] == pytest.approx(sum(gains) / len(own))
                above = [int(np.sum(scores[user, among[among >= 0]] > scores[user, item])) for item in own]
                assert found[f"{role}.hr@{k}"][user] == pytest.approx(np.mean(np.array(above) < k))
    places = [
        [sorted(set(range(60)) - {i for i in roles if roles[i] == TRAIN}, key=lambda item: -scores[user, item]).index(i)
         for i in roles if roles[i] == VALIDATION]
        for user, roles in enumerate(users)
    ]  # fmt: skip
    assert validation_ranks(scores, ratings).tolist() == pytest.approx([np.mean(own) if own else 0 for own in places])


def test_scores_of_another_catalogue_are_refused() -> None:
    with pytest.raises(ValueError, match=r"scores must be \[4, 30\], not \[4, 29\]"):
        user_figures(np.zeros((4, 29), dtype=np.float32), USERS, TASK)

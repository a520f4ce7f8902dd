"""Local graphs for implicit feedback: what they hold, and that a user's negatives are its own affair."""

from __future__ import annotations

import numpy as np
import pytest
from lightgcn_by_hand import attributes_of
from scipy.stats import chisquare

from subfl_flower.data.graph import TEST, TRAIN, VALIDATION
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.recommendation.models.user_graphs import Codes, RankingGraphs
from subfl_flower.seeding import client_generator

OWN = ((1, 4), (), (0, 1, 2, 3, 4, 5), (5,))
"""Training items of four users, of 6 items."""


@pytest.fixture
def ratings() -> Ratings:
    return Ratings(
        user_ids=np.array([4, 7, 9, 11]),
        offsets=np.array([0, 4, 5, 11, 13]),
        items=np.array([0, 1, 3, 4, 2, 0, 1, 2, 3, 4, 5, 1, 5]),
        values=np.ones(13, dtype=np.float32),
        roles=np.array([VALIDATION, TRAIN, TEST, TRAIN, TEST, *[TRAIN] * 6, VALIDATION, TRAIN], dtype=np.int8),
        num_items=6,
        scale=(1.0, 5.0),
    )


def generators(ratings: Ratings, seed: int = 0) -> list[np.random.Generator]:
    return [client_generator(seed, user, 1, "negatives") for user in ratings.user_ids.tolist()]


def sampled(graphs: RankingGraphs) -> np.ndarray:
    """The numbers of the negatives' items, [draws, E, m]."""
    return graphs.items[graphs.negatives].numpy()


def test_graphs_hold_training_items_and_sampled_ones(ratings: Ratings) -> None:
    graphs = RankingGraphs.build(ratings, generators(ratings), draws=3, per_positive=2)
    assert graphs.client_ids == (4, 7, 9, 11)
    assert graphs.counts.tolist() == [2, 0, 0, 1]
    assert graphs.items[graphs.positives].tolist() == [1, 4, 5]
    assert graphs.positive_segment.tolist() == [0, 0, 3]
    assert graphs.negatives.shape == (3, 3, 2)
    numbers = sampled(graphs)
    for user, owned in ((0, [0, 1]), (3, [2])):
        drawn = set(numbers[:, owned].reshape(-1).tolist())
        own = slice(sum(graphs.lengths[:user]), sum(graphs.lengths[: user + 1]))
        assert graphs.items[own].tolist() == sorted(drawn | set(OWN[user]))
        assert not drawn & set(OWN[user])
    assert graphs.lengths[1] == graphs.lengths[2] == 0
    assert graphs.segment.tolist() == np.repeat(np.arange(4), graphs.lengths).tolist()
    assert graphs.rows.tolist() == graphs.items.tolist()
    assert graphs.targets.tolist() == [0.0] * len(graphs.items)
    assert (graphs.segment[graphs.negatives] == graphs.positive_segment[:, None]).all()


def test_negatives_are_a_choice_of_what_a_user_does_not_have(ratings: Ratings) -> None:
    """The generator's rth of the others, wherever the user's own items stand between them."""
    numbers = sampled(RankingGraphs.build(ratings, generators(ratings), draws=50, per_positive=4))
    for user, owned in ((0, [0, 1]), (3, [2])):
        others = np.setdiff1d(np.arange(6), OWN[user])
        again = generators(ratings)[user].integers(len(others), size=(50, len(owned), 4))
        np.testing.assert_array_equal(numbers[:, owned], others[again])


def test_negatives_are_uniform_over_items_that_are_not_trained_on(ratings: Ratings) -> None:
    """Items for validation (0) and test (3) are among them."""
    first = sampled(RankingGraphs.build(ratings, generators(ratings), draws=500, per_positive=4))[:, :2]
    counts = np.bincount(first.reshape(-1), minlength=6)
    assert counts[[1, 4]].tolist() == [0, 0]
    assert chisquare(counts[[0, 2, 3, 5]]).pvalue > 1e-3


def test_a_user_draws_the_same_whoever_is_beside_it(ratings: Ratings) -> None:
    together = RankingGraphs.build(ratings, generators(ratings), draws=2, per_positive=3)
    for positions in ([0], [3], [3, 0], [1, 3]):
        part = ratings.of_users(positions)
        alone = RankingGraphs.build(part, generators(part), draws=2, per_positive=3)
        own = np.concatenate([np.flatnonzero(together.positive_segment == user) for user in positions])
        np.testing.assert_array_equal(sampled(alone), sampled(together)[:, own])


def test_further_passes_leave_the_first_as_it_is(ratings: Ratings) -> None:
    one = RankingGraphs.build(ratings, generators(ratings), draws=1, per_positive=3)
    many = RankingGraphs.build(ratings, generators(ratings), draws=4, per_positive=3)
    np.testing.assert_array_equal(sampled(one)[0], sampled(many)[0])
    assert (sampled(many)[0] != sampled(many)[1]).any()


def test_graphs_for_evaluation_hold_training_items_alone(ratings: Ratings) -> None:
    graphs = RankingGraphs.build(ratings)
    assert graphs.lengths == (2, 0, 6, 1)
    assert graphs.counts.tolist() == [2, 0, 6, 1]
    assert graphs.items.tolist() == [1, 4, 0, 1, 2, 3, 4, 5, 5]
    assert graphs.positives.tolist() == list(range(9))
    assert graphs.positive_segment.tolist() == graphs.segment.tolist() == [0, 0, 2, 2, 2, 2, 2, 2, 3]
    assert len(graphs.negatives) == 0


def test_users_without_anything_to_learn_from(ratings: Ratings) -> None:
    part = ratings.of_users([1, 2])
    graphs = RankingGraphs.build(part, generators(part), draws=2, per_positive=3)
    assert graphs.lengths == (0, 0)
    assert graphs.counts.tolist() == [0, 0]
    assert graphs.negatives.shape == (2, 0, 3)


def test_neighbours_are_tied_to_their_users(ratings: Ratings) -> None:
    graphs = RankingGraphs.build(ratings).with_neighbours([np.full((n, 2), n, dtype=np.float32) for n in (2, 0, 0, 1)])
    assert isinstance(graphs, RankingGraphs)
    assert graphs.neighbour_segment.tolist() == [0, 0, 3]
    assert graphs.neighbours.tolist() == [[2, 2], [2, 2], [1, 1]]


def test_attributes_follow_users_and_rows(ratings: Ratings) -> None:
    of_users = attributes_of([[0], [1, 2], [], [0, 2]], (3,))
    of_items = attributes_of([[], [0, 1], [1], [], [0], [2]], (2, 1))
    graphs = RankingGraphs.build(ratings, user_attributes=of_users, item_attributes=of_items)
    assert graphs.user_codes is not None and graphs.item_codes is not None
    assert len(graphs.user_codes) == 4
    assert graphs.user_codes.values.tolist() == [0, 1, 2, 0, 2]
    assert graphs.user_codes.owners.tolist() == [0, 1, 1, 3, 3]
    # The rows' items are 1, 4 | 0, 1, 2, 3, 4, 5 | 5.
    assert graphs.item_codes.values.tolist() == [0, 1, 0, 0, 1, 1, 0, 2, 2]
    assert graphs.item_codes.owners.tolist() == [0, 0, 1, 3, 3, 4, 6, 7, 8]
    assert graphs.item_codes.starts.tolist() == [0, 2, 3, 3, 5, 6, 6, 7, 8]
    assert len(Codes.of(of_items)) == 6

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from subfl_flower.errors import SubflError
from subfl_flower.recommendation.user_clusters import (
    UserClusters,
    cluster_users,
    projection,
    proportional,
    relabelled,
    representatives,
)

SQUARE = np.array([[0, 0], [0, 1], [10, 0], [10, 1], [0, 21]], dtype=np.float32)


def groups(per_group: int = 40, k: int = 5, width: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Users around k far places, shuffled: embeddings and their places."""
    draw = np.random.default_rng(seed)
    place = draw.permutation(np.repeat(np.arange(k), per_group))
    centres = 20 * np.eye(k, width)
    return (centres[place] + draw.normal(size=(len(place), width))).astype(np.float32), place


# k-means ------------------------------------------------------------------------------------------------------------


def test_clusters_centroids_and_distances_of_five_users_are_known() -> None:
    clusters = cluster_users(SQUARE, 3, seed=0, unit=False)
    left, right, above = clusters.labels[[0, 2, 4]]
    np.testing.assert_array_equal(clusters.labels, [left, left, right, right, above])
    assert clusters.labels.dtype == np.int64 and {left, right, above} == {0, 1, 2}
    np.testing.assert_allclose(clusters.centroids[[left, right, above]], [[0, 0.5], [10, 0.5], [0, 21]])
    np.testing.assert_allclose(clusters.distances, [0.5, 0.5, 0.5, 0.5, 0])


def test_groups_far_apart_are_found_and_the_first_time_is_the_best_of_ten_starts() -> None:
    embeddings, place = groups()
    clusters = cluster_users(embeddings, 5, seed=3, unit=False)
    assert adjusted_rand_score(place, clusters.labels) == 1
    fuzzy = np.random.default_rng(1).normal(size=(300, 6)).astype(np.float32)
    clusters = cluster_users(fuzzy, 7, seed=3, unit=False)
    reference = KMeans(7, n_init=10, random_state=3).fit(fuzzy.astype(np.float64))
    np.testing.assert_allclose((clusters.distances**2).sum(), reference.inertia_)
    assert reference.inertia_ < KMeans(7, n_init=1, random_state=3).fit(fuzzy.astype(np.float64)).inertia_


def test_the_same_seed_gives_the_same_clusters() -> None:
    fuzzy = np.random.default_rng(1).normal(size=(500, 6)).astype(np.float32)
    one, two = (cluster_users(fuzzy, 7, seed=3, unit=False) for _ in range(2))
    np.testing.assert_array_equal(one.labels, two.labels)
    np.testing.assert_array_equal(one.centroids, two.centroids)


def test_a_later_clustering_starts_from_the_previous_centroids_and_keeps_their_numbers() -> None:
    embeddings, place = groups()
    moved = 20 * np.eye(5, 8)[[3, 1, 4, 0, 2]] + 0.5
    clusters = cluster_users(embeddings, 5, seed=0, previous=moved, unit=False)
    np.testing.assert_array_equal(clusters.labels, np.argsort([3, 1, 4, 0, 2])[place])
    # From these two the four corners of a flat rectangle are halved along their long side, a local optimum.
    corners = np.array([[0, 0], [0, 1], [4, 0], [4, 1]], dtype=np.float32)
    poor = cluster_users(corners, 2, seed=0, previous=np.array([[2.0, 0.0], [2.0, 1.0]]), unit=False)
    np.testing.assert_array_equal(poor.labels, [0, 1, 0, 1])
    np.testing.assert_array_equal(poor.centroids, [[2, 0], [2, 1]])
    assert adjusted_rand_score([0, 0, 1, 1], cluster_users(corners, 2, seed=0, unit=False).labels) == 1


def test_scaled_to_length_one_directions_count_alone_and_zero_rows_stay() -> None:
    rows = np.array([[1, 0], [1e-30, 0], [0, 5], [0, 1e30], [0, 0]], dtype=np.float32)
    clusters = cluster_users(rows, 3, seed=0, unit=True)
    east, north, zero = clusters.labels[[0, 2, 4]]
    np.testing.assert_array_equal(clusters.labels, [east, east, north, north, zero])
    np.testing.assert_allclose(clusters.centroids[[east, north, zero]], [[1, 0], [0, 1], [0, 0]], atol=1e-12)
    np.testing.assert_allclose(clusters.distances, 0, atol=1e-12)


def test_with_few_different_rows_each_is_a_cluster_and_the_others_lie_at_the_mean() -> None:
    rows = np.array([[3, 0], [0, 0], [3, 0], [-0.0, 0]])
    clusters = cluster_users(rows, 4, seed=0, unit=False)
    np.testing.assert_array_equal(clusters.labels, [1, 0, 1, 0])
    np.testing.assert_array_equal(clusters.centroids, [[0, 0], [3, 0], [1.5, 0], [1.5, 0]])
    np.testing.assert_array_equal(clusters.distances, 0)
    alone = cluster_users(rows[:1], 2, seed=0, unit=False)
    np.testing.assert_array_equal(alone.labels, [0])
    np.testing.assert_array_equal(alone.centroids, [[3, 0], [3, 0]])


def test_few_different_rows_go_to_near_previous_centroids_and_empty_clusters_keep_theirs() -> None:
    previous = np.array([[9.0, 9.0], [4.0, 0.0], [-7.0, 0.0], [1.0, 0.0]])
    kept = previous.copy()
    clusters = cluster_users(np.array([[3, 0], [0, 0], [3, 0]]), 4, seed=0, previous=previous, unit=False)
    np.testing.assert_array_equal(clusters.labels, [1, 3, 1])
    np.testing.assert_array_equal(clusters.centroids, [[9, 9], [3, 0], [-7, 0], [0, 0]])
    np.testing.assert_array_equal(previous, kept)


def test_previous_centroids_of_which_two_are_one_point_are_no_start() -> None:
    embeddings, place = groups(k=3)
    few = cluster_users(embeddings[:1], 3, seed=0, unit=False)
    clusters = cluster_users(embeddings, 3, seed=0, previous=few.centroids, unit=False)
    assert adjusted_rand_score(place, clusters.labels) == 1
    np.testing.assert_array_equal(clusters.labels, cluster_users(embeddings, 3, seed=0, unit=False).labels)


def test_a_cluster_that_no_user_is_near_any_more_gets_users_again() -> None:
    embeddings, place = groups(k=3)
    previous = np.array([*(20 * np.eye(3, 8)[:2]), np.full(8, 1e4)])
    clusters = cluster_users(embeddings, 3, seed=0, previous=previous, unit=False)
    assert adjusted_rand_score(place, clusters.labels) == 1
    np.testing.assert_array_equal(clusters.labels, place)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_named_by_its_row(bad: float) -> None:
    rows = SQUARE.copy()
    rows[3, 1] = bad
    for call in (lambda: cluster_users(rows, 2, 0, unit=True), lambda: projection(rows, unit=False)):
        with pytest.raises(SubflError, match=r"must be finite, and row 3 \(counted from 0\) is not"):
            call()
    for previous in (np.full((2, 2), bad), np.zeros((3, 2)), np.zeros((2, 3))):
        with pytest.raises(SubflError, match=r"previous centroids must be finite and of shape \(2, 2\)"):
            cluster_users(SQUARE, 2, 0, previous=previous, unit=False)
    for empty in (np.zeros((0, 2)), np.zeros(3)):
        with pytest.raises(SubflError, match="one row a user"):
            cluster_users(empty, 2, 0, unit=False)


# Numbers ------------------------------------------------------------------------------------------------------------


def numbered(labels: list[int], k: int) -> UserClusters:
    """Clusters whose centroids tell their number, users' distances their position."""
    return UserClusters(np.array(labels), np.arange(k, dtype=float)[:, None] + 100, np.arange(len(labels), dtype=float))


def test_most_users_keep_their_label() -> None:
    # New against old: cluster 0 has 3 of old 0 and 2 of old 1, cluster 1 has 4 of old 0, cluster 2 has 1 of old 2.
    # Greedily 1 -> 0 keeps 4 and then 0 -> 1 keeps 2: 7 with old 2's; 0 -> 0 would keep 3 + 0 + 1.
    labels = [0, 0, 0, 0, 0, 1, 1, 1, 1, 2]
    before = np.array([0, 0, 0, 1, 1, 0, 0, 0, 0, 2])
    renamed = relabelled(numbered(labels, 3), before)
    np.testing.assert_array_equal(renamed.labels, [1, 1, 1, 1, 1, 0, 0, 0, 0, 2])
    np.testing.assert_array_equal(renamed.centroids, [[101], [100], [102]])
    np.testing.assert_array_equal(renamed.distances, np.arange(10))


def test_what_is_best_for_all_is_not_what_is_best_for_one_cluster() -> None:
    # Overlaps [[5, 4], [4, 0]]: 5 + 0 by the largest first, 4 + 4 the other way.
    labels = [0] * 9 + [1] * 4
    before = np.array([0] * 5 + [1] * 4 + [0] * 4)
    assert (relabelled(numbered(labels, 2), before).labels == before).sum() == 8


def test_a_permutation_is_undone_and_users_without_a_label_do_not_count() -> None:
    draw = np.random.default_rng(0)
    before, order = draw.integers(6, size=200), np.array([4, 2, 0, 5, 1, 3])
    renamed = relabelled(numbered(order[before].tolist(), 6), before)
    np.testing.assert_array_equal(renamed.labels, before)
    assert renamed.labels.dtype == np.int64
    np.testing.assert_array_equal(renamed.centroids[:, 0] - 100, order)
    partly = np.where(draw.random(200) < 0.5, -1, before)
    np.testing.assert_array_equal(relabelled(numbered(order[before].tolist(), 6), partly).labels, before)


def test_where_nothing_speaks_for_another_number_clusters_keep_theirs() -> None:
    for before in ([-1] * 6, [0, 1, 2, 1, 2, 0], [3, 3, 3, 3, 3, 3]):  # none, all overlaps alike, an empty cluster
        renamed = relabelled(numbered([0, 0, 1, 1, 2, 2], 4), np.array(before))
        assert (renamed.labels == relabelled(numbered([0, 0, 1, 1, 2, 2], 4), np.array(before)).labels).all()
        if before[0] != 3:
            np.testing.assert_array_equal(renamed.labels, [0, 0, 1, 1, 2, 2])


# Who trains ---------------------------------------------------------------------------------------------------------


def drawn(seed: int = 0, **changes: object) -> list[int]:
    """Ten users in clusters of 6, 3 and 1, nearest first by their position, and two without a label."""
    arguments = {
        "distances": np.array([*np.arange(10.0), np.nan, np.nan]),
        "labels": np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 2, -1, -1]),
        "count": 5,
        "share": 1.0,
        "available": np.arange(12),
        "taken": np.zeros(12, dtype=np.int64),
    }
    return representatives(generator=np.random.default_rng(seed), **(arguments | changes)).tolist()  # type: ignore[arg-type]


def test_each_cluster_is_represented_in_proportion_by_the_nearest() -> None:
    # 5 of 10: quotas 3, 1.5 and 0.5; whole seats 3, 1 and 0; the last goes to either of two equal remainders.
    assert {tuple(drawn(seed)) for seed in range(20)} == {(0, 1, 2, 6, 7), (0, 1, 2, 6, 9)}
    # 4 of 10: 2.4, 1.2 and 0.4; the last seat by lot between 0.4 and 0.4.
    assert {tuple(drawn(seed, count=4)) for seed in range(20)} == {(0, 1, 2, 6), (0, 1, 6, 9)}
    # 7 of 10: 4.2, 2.1 and 0.7.
    assert drawn(count=7) == [0, 1, 2, 3, 6, 7, 9]


def test_the_rest_is_drawn_from_all_others() -> None:
    counts = Counter(user for seed in range(3000) for user in drawn(seed, share=0.6))  # 3 representatives: 0, 1, 6
    assert [counts[user] for user in (0, 1, 6)] == [3000] * 3
    others = np.array([counts[user] for user in (2, 3, 4, 5, 7, 8, 9, 10, 11)])
    expected = 3000 * 2 / 9
    assert others.sum() == 6000 and ((others - expected) ** 2 / expected).sum() < 26.1  # chi-square, 8, p = 0.001
    everyone = Counter(user for seed in range(600) for user in drawn(seed, share=0.0, count=1))
    assert set(everyone) == set(range(12))


def test_who_was_taken_least_comes_first_and_in_time_all_of_a_cluster_represent_it() -> None:
    taken = np.array([2, 1, 1, 1, 1, 1, 0, 3, 1, 5, 0, 0])
    assert drawn(count=7, taken=taken) == [1, 2, 3, 4, 6, 8, 9]
    taken = np.zeros(12, dtype=np.int64)
    for _ in range(10):
        taken[drawn(count=6, taken=taken)] += 1  # quotas 3.6, 1.8 and 0.6: 3 or 4, 2 and 0 or 1
    assert taken[:6].max() - taken[:6].min() <= 1 and taken[6:9].max() - taken[6:9].min() <= 1
    assert taken[10:].sum() == 0 and taken.sum() == 60


def test_only_those_who_are_available_count_and_take_part() -> None:
    available = np.array([3, 4, 8, 10])
    assert drawn(count=3, available=available) == [3, 4, 8]  # 2 and 1 of the three with a label
    assert drawn(count=4, available=available) == available.tolist()
    assert drawn(count=50, available=available) == available.tolist()
    assert drawn(count=2, available=np.array([10, 11])) == [10, 11]
    assert drawn(count=3, available=np.array([], dtype=np.int64)) == [] == drawn(count=0)
    assert drawn(count=12) == list(range(12))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_as_many_different_users_as_asked_the_same_by_the_same_generator(share: float) -> None:
    draw = np.random.default_rng(7)
    for _ in range(30):
        size = int(draw.integers(1, 60))
        arguments = {
            "distances": draw.random(size),
            "labels": draw.integers(-1, 8, size),
            "count": int(draw.integers(0, 70)),
            "available": np.flatnonzero(draw.random(size) < 0.7),
            "taken": draw.integers(0, 4, size),
            "share": share,
        }
        found = drawn(5, **arguments)
        available = arguments["available"]
        assert len(found) == min(arguments["count"], len(available))  # type: ignore[arg-type, call-overload]
        assert found == sorted(set(found)) and set(found) <= set(available.tolist())  # type: ignore[attr-defined]
        assert found == drawn(5, **arguments)


def test_by_size_each_cluster_has_its_seats_and_all_its_users_the_same_chance() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [-1])
    counts: Counter[int] = Counter()
    for seed in range(3000):
        found = proportional(labels, 7, np.random.default_rng(seed), available=np.arange(10))
        assert np.array_equal(np.unique(labels[found], return_counts=True)[1], [1, 4, 2])  # of 0.7, 4.2 and 2.1
        assert (np.diff(found) > 0).all()
        counts.update(found.tolist())
    assert counts[9] == 3000
    for users, expected in ((range(6), 2000), (range(6, 9), 2000)):
        assert max(abs(counts[user] - expected) for user in users) < 4.5 * (3000 * 2 / 9) ** 0.5


def test_by_size_only_those_who_are_available() -> None:
    labels = np.array([0, 0, 1, 1, -1])
    generator = np.random.default_rng(0)
    assert proportional(labels, 9, generator, available=np.array([1, 2, 4])).tolist() == [1, 2, 4]
    assert proportional(labels, 3, generator, available=np.array([], dtype=np.int64)).tolist() == []
    assert proportional(labels, 0, generator, available=np.arange(5)).tolist() == []


# The plane ----------------------------------------------------------------------------------------------------------


def test_the_plane_is_that_of_the_two_largest_singular_values() -> None:
    rows = np.random.default_rng(0).normal(size=(300, 20)) * np.linspace(3, 0.1, 20)
    points = projection(rows.astype(np.float32), unit=False)
    assert points.dtype == np.float32 and points.shape == (300, 2)
    centred = rows.astype(np.float32).astype(np.float64)
    centred -= centred.mean(0)
    loadings = np.linalg.svd(centred, full_matrices=False)[2][:2]
    loadings *= np.sign(loadings[np.arange(2), np.abs(loadings).argmax(1)])[:, None]
    np.testing.assert_allclose(points, centred @ loadings.T, rtol=1e-4, atol=1e-4)


def test_points_on_a_line_have_one_coordinate_that_grows_with_the_largest_loading() -> None:
    points = projection(np.array([[1.0, -3.0], [2.0, -6.0], [3.0, -9.0]]), unit=False)
    np.testing.assert_allclose(points, [[10**0.5, 0], [0, 0], [-(10**0.5), 0]], atol=1e-6)
    np.testing.assert_allclose(projection(np.array([[1.0], [4.0]]), unit=False), [[-1.5, 0], [1.5, 0]])


@pytest.mark.filterwarnings("error")
def test_users_who_are_all_alike_are_one_point() -> None:
    for rows in (np.ones((1, 4)), np.ones((5, 4)), np.zeros((3, 1))):
        np.testing.assert_array_equal(projection(rows, unit=False), np.zeros((len(rows), 2)))
    np.testing.assert_array_equal(projection(np.array([[2.0, 0.0], [5.0, 0.0]]), unit=True), np.zeros((2, 2)))

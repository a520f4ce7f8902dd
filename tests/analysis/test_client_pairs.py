import numpy as np
import pytest
from scipy.stats import rankdata

from subfl_flower.analysis.functional import averaging_similarity
from subfl_flower.analysis.pairs import linear_correlation, most_and_least_similar, pair_values, rank_correlation


def symmetric(*above: float) -> np.ndarray:
    """A matrix with these entries above the diagonal, by row, and a diagonal that would disturb."""
    size = round((1 + (1 + 8 * len(above)) ** 0.5) / 2)
    matrix = np.full((size, size), 99.0)
    matrix[np.triu_indices(size, k=1)] = above
    return np.triu(matrix) + np.triu(matrix, k=1).T


def test_pairs_are_taken_once_and_without_the_diagonal() -> None:
    np.testing.assert_array_equal(pair_values(symmetric(1, 2, 3)), [1, 2, 3])


def test_rank_correlation_worked_out_by_hand() -> None:
    first = symmetric(0.1, 0.2, 0.3)
    assert rank_correlation(first, symmetric(1, 10, 100)) == pytest.approx(1)
    assert rank_correlation(first, symmetric(3, 2, 1)) == pytest.approx(-1)
    # ranks 1 2 3 against 2 1 3: 1 - 6 * (1 + 1 + 0) / (3 * 8)
    assert rank_correlation(first, symmetric(5, 4, 6)) == pytest.approx(0.5)


def test_ties_share_a_rank() -> None:
    values, others = [3, 1, 1, 2, 2, 2], [0.5, 0.1, 0.7, 0.7, 0.2, 0.3]
    expected = np.corrcoef(rankdata(values), rankdata(others))[0, 1]
    assert rank_correlation(symmetric(*values), symmetric(*others)) == pytest.approx(expected)


def test_pairs_that_one_side_does_not_know_are_left_out() -> None:
    first = symmetric(1, 2, 3, 4, 5, 6)
    assert rank_correlation(first, symmetric(np.nan, 30, 20, np.nan, 10, np.nan)) == pytest.approx(-1)


@pytest.mark.parametrize(
    ("first", "second"), [((1.0,), (2.0,)), ((1, 2, 3), (4, 4, 4)), ((1, 2, 3), (np.nan, 1, 2)), ((7, 7, 7), (1, 2, 3))]
)
def test_without_an_order_there_is_no_correlation(first: tuple[float, ...], second: tuple[float, ...]) -> None:
    assert np.isnan(rank_correlation(symmetric(*first), symmetric(*second)))


def test_the_most_and_the_least_similar_are_others_and_the_first_of_equals() -> None:
    most, least = most_and_least_similar(symmetric(0.9, 0.2, 0.2, -0.5, 0.4, 0.4))
    # rows without the diagonal: 0: .9 .2 .2; 1: .9 -.5 .4; 2: .2 -.5 .4; 3: .2 .4 .4
    assert most.tolist() == [1, 0, 3, 1] and least.tolist() == [2, 2, 1, 0]
    most, least = most_and_least_similar(symmetric(-0.3))
    assert most.tolist() == least.tolist() == [1, 0]


def test_linear_correlation_is_over_ordered_pairs_without_the_diagonal() -> None:
    first, second = symmetric(1, 2, 3), symmetric(2, 4, 6)
    assert linear_correlation(first, second) == pytest.approx(1)
    first[0, 1] = -np.inf  # left out; by hand of what is left: 2 3 1 2 3 against 4 6 2 4 6
    assert linear_correlation(first, second) == pytest.approx(1)
    assert linear_correlation(symmetric(1, 2, 3), symmetric(1, 3, 2)) == pytest.approx(0.5)
    assert np.isnan(linear_correlation(symmetric(1, 1, 1), second))


def test_the_similarity_is_found_again_in_a_softmax() -> None:
    similarity = symmetric(0.9, 0.1, 0.4)
    np.fill_diagonal(similarity, 1)
    weights = np.exp(3 * similarity)
    found = averaging_similarity(weights / weights.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found, 3 * (similarity - 1))

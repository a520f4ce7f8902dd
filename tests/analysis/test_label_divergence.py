import math

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from subfl_flower.analysis.labels import jensen_shannon_divergence, label_distribution


def test_shares_are_of_the_labelled_nodes() -> None:
    np.testing.assert_allclose(label_distribution(np.array([0, 1, -1, 1, -1]), 3), [1 / 3, 2 / 3, 0])
    assert np.isnan(label_distribution(np.array([-1, -1]), 3)).all()


def test_divergence_of_three_distributions_worked_out_by_hand() -> None:
    found = jensen_shannon_divergence(np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]))
    # m = (3/4, 1/4): half of log2(4/3), and half of 1/2 log2(2/3) + 1/2 log2(2)
    half = 0.5 * math.log2(4 / 3) + 0.5 * (0.5 * math.log2(2 / 3) + 0.5)
    np.testing.assert_allclose(found, [[0, 1, half], [1, 0, half], [half, half, 0]], atol=1e-12)


def test_it_is_the_square_of_scipys_distance_in_bits() -> None:
    distributions = np.random.default_rng(0).dirichlet(np.full(7, 0.3), size=9)
    found = jensen_shannon_divergence(distributions)
    for i in range(9):
        for j in range(9):
            expected = 0.0 if i == j else jensenshannon(distributions[i], distributions[j], base=2) ** 2
            assert found[i, j] == pytest.approx(expected, abs=1e-12)


def test_a_client_without_labels_is_comparable_to_none() -> None:
    found = jensen_shannon_divergence(np.array([[1.0, 0.0], [np.nan, np.nan], [1.0, 0.0]]))
    assert np.isnan(found[1]).all() and np.isnan(found[:, 1]).all()
    assert found[0, 2] == 0

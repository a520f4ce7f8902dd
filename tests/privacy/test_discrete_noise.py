from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from subfl_flower.privacy.discrete_noise import discrete_gaussian, discrete_laplace, uniform
from subfl_flower.seeding import system_words, words_of

COUNT = 200_000


def words(seed: int):  # type: ignore[no-untyped-def]
    return words_of(np.random.default_rng(seed))


def expected_counts(exponent, reach: int) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Expected number of each value from -reach to reach, and of all others in the last entry."""
    everything = np.exp(-exponent(np.arange(-4000, 4001)))
    inside = np.exp(-exponent(np.arange(-reach, reach + 1))) / everything.sum()
    return COUNT * np.append(inside, 1 - inside.sum())


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.5, 5.7, 40.0])
@pytest.mark.parametrize("law", ["laplace", "gaussian"])
def test_every_integer_is_as_likely_as_its_law_says(law: str, scale: float) -> None:
    """Blocks of one, two, four and more integers."""
    if law == "laplace":
        drawn, exponent = discrete_laplace(scale, COUNT, words(1)), lambda x: np.abs(x) / scale
    else:
        drawn, exponent = discrete_gaussian(scale, COUNT, words(2)), lambda x: x**2 / (2 * scale**2)
    reach = max(1, int(2.5 * scale))
    expected = expected_counts(exponent, reach)
    found = np.array([(drawn == value).sum() for value in range(-reach, reach + 1)])
    found = np.append(found, COUNT - found.sum())
    enough = expected > 5
    chi = ((found - expected) ** 2 / expected)[enough].sum()
    assert stats.chi2.sf(chi, enough.sum() - 1) > 1e-3


@pytest.mark.parametrize("scale", [2.0**18, 400_001.5, 2.0**19 - 1, 2.0**21 * 1.3])
def test_large_scales_have_the_law_of_real_noise_and_even_low_bits(scale: float) -> None:
    for drawn, law in (
        (discrete_laplace(scale, COUNT, words(3)), stats.laplace(scale=scale)),
        (discrete_gaussian(scale, COUNT, words(4)), stats.norm(scale=scale)),
    ):
        assert stats.kstest(drawn, law.cdf).pvalue > 1e-3
        low = np.bincount(drawn & 15, minlength=16)
        assert stats.chisquare(low).pvalue > 1e-3


def test_tails_reach_beyond_a_block() -> None:
    drawn = np.abs(discrete_laplace(1000.0, COUNT, words(5)))
    for scales in (1, 3, 6):
        expected = COUNT * np.exp(-scales)
        assert abs((drawn > scales * 1000).sum() - expected) < 5 * np.sqrt(expected)


def test_draws_follow_from_their_words_and_those_of_the_system_differ() -> None:
    np.testing.assert_array_equal(discrete_laplace(9.0, 50, words(6)), discrete_laplace(9.0, 50, words(6)))
    assert (discrete_laplace(1e5, 50, system_words) != discrete_laplace(1e5, 50, system_words)).any()


def test_uniform_numbers_are_below_one() -> None:
    drawn = uniform(COUNT + 1, words(7))
    assert drawn.shape == (COUNT + 1,) and drawn.min() >= 0 and drawn.max() < 1
    assert stats.kstest(drawn, "uniform").pvalue > 1e-3

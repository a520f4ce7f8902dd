"""Attack on a printed epsilon: the low bits of what is sent tell which of two uploads it was made of."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from subfl_flower.privacy.accountant import user_level_epsilon
from subfl_flower.privacy.mechanism import LdpSettings, protect
from subfl_flower.seeding import system_words

TRIALS, VALUES, EPSILON = 200, 60_000, 0.01

MECHANISMS = {
    "laplace_l1": LdpSettings(mechanism="laplace_l1", clip=1.0, epsilon=EPSILON),
    "gaussian_l2": LdpSettings(mechanism="gaussian_l2", clip=1.0, noise_multiplier=1000.0, delta=1e-5),
    "laplace_linf": LdpSettings(mechanism="laplace_linf", clip=1.0, noise=1.2e5),
}
"""All with an epsilon of about 0.01 for a whole upload."""


def candidates() -> tuple[np.ndarray, np.ndarray]:
    """Two uploads, whose values are no multiples of the float32 spacing of large numbers."""
    rng = np.random.default_rng(0)
    one, other = (rng.standard_normal(VALUES) for _ in range(2))
    return tuple((values / np.abs(values).sum()).astype(np.float32) for values in (one, other))  # type: ignore[return-value]


def share_possible(seen: np.ndarray, candidate: np.ndarray, scale: float) -> float:
    """Share of the values seen that are possible under a candidate.

    A float32 variate times the scale has a mantissa of 24 bits. A value to which it was added lies on a grid for its
    magnitude, so that among small ones some differences are no product of a variate and the scale.
    """
    small = np.abs(seen) < scale * 2.0**-6
    noise = seen[small].astype(np.float64) - candidate[small]
    variates = np.float32(noise / scale)
    possible = (np.float32(scale) * variates).astype(np.float32) + candidate[small]
    return float((possible == seen[small]).mean())


@pytest.mark.parametrize("name", MECHANISMS)
def test_attack_low_bits_tell_no_more_than_epsilon(name: str) -> None:
    """The attacker is right at most as often as epsilon allows, with the odds of chance at 1 in 1,000.

    With epsilon and delta, no test of two candidates that are equally likely is right more often than
    (e^epsilon + delta) / (1 + e^epsilon).
    """
    settings = MECHANISMS[name]
    epsilon = user_level_epsilon(settings, 1, settings.delta, VALUES)
    assert epsilon < 3 * EPSILON
    pair = candidates()
    rng = np.random.default_rng(1)
    right = 0
    for _ in range(TRIALS):
        truth = int(rng.integers(2))
        (seen,) = protect([pair[truth]], settings, system_words)
        scores = [share_possible(seen, candidate, settings.noise_scale) for candidate in pair]
        guess = int(rng.integers(2)) if scores[0] == scores[1] else int(scores[1] > scores[0])
        right += guess == truth
    allowed = (math.exp(epsilon) + settings.delta) / (1 + math.exp(epsilon))
    assert right <= stats.binom.ppf(0.999, TRIALS, allowed)

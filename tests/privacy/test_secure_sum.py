from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from scipy import stats

from subfl_flower.errors import SubflError
from subfl_flower.privacy.derived_keys import derived_key
from subfl_flower.privacy.secure_sum import masked, quantise, unmask_sum

KEY = bytes(range(32))
ROUND = b"run 7, round 3"
BITS = 24


def summed(uploads: list[np.ndarray]) -> np.ndarray:
    return np.stack(uploads).sum(0, dtype=np.uint64)


def test_fixed_point_numbers_are_rounded_to_the_nearest() -> None:
    np.testing.assert_array_equal(quantise(np.array([1.0, -0.3, 0.125, 0.0]), 2), [4, -1, 0, 0])
    np.testing.assert_array_equal(quantise(np.float32([[-2.75]]), 8), [[-704]])


def test_what_would_overflow_is_refused() -> None:
    assert quantise(np.array([2.0**23 - 1]), BITS)[0] == (2**23 - 1) * 2**24
    for value in (2.0**23, -(2.0**23), np.nan, np.inf):
        with pytest.raises(SubflError, match="finite and below"):
            quantise(np.array([0.0, value]), BITS)


@pytest.mark.parametrize("participants", [[4, 9], [9, 4, 31], [3, 40, 7, 12, 5], list(range(100, 0, -3))])
@pytest.mark.parametrize("degree", [2, 4, 100])
def test_the_sum_of_masked_values_is_the_sum(participants: list[int], degree: int) -> None:
    rng = np.random.default_rng(0)
    values = {client: 50 * rng.standard_normal((6, 3)) for client in participants}
    uploads = [masked(quantise(own, BITS), client, participants, KEY, ROUND, degree) for client, own in values.items()]
    total = unmask_sum(summed(uploads), BITS)
    np.testing.assert_allclose(total, sum(values.values()), atol=len(values) * 2.0**-BITS / 2, rtol=0)
    np.testing.assert_array_equal(total, sum(quantise(own, BITS) for own in values.values()) / 2**BITS)


def test_sums_at_the_limit_do_not_overflow() -> None:
    most = quantise(np.array([-(2.0**23) + 1]), BITS)
    participants = range(300)
    uploads = [masked(most, client, participants, KEY, ROUND, 2) for client in participants]
    assert unmask_sum(summed(uploads), BITS)[0] == 300 * (-(2.0**23) + 1)


def test_an_upload_alone_is_uniform_noise() -> None:
    upload = masked(np.zeros(50_000, dtype=np.int64), 2, range(6), KEY, ROUND, 2)
    assert stats.kstest(upload / 2.0**64, stats.uniform.cdf).pvalue > 0.01
    low = (upload & np.uint64(255)).astype(np.int64)
    assert stats.chisquare(np.bincount(low, minlength=256)).pvalue > 0.01


def test_sums_of_some_uploads_are_noise() -> None:
    zeros = np.zeros(20_000, dtype=np.int64)
    uploads = [masked(zeros, client, range(6), KEY, ROUND, 2) for client in range(6)]
    assert not summed(uploads).any()
    for missing in range(6):
        rest = summed(uploads[:missing] + uploads[missing + 1 :])
        assert stats.kstest(rest / 2.0**64, stats.uniform.cdf).pvalue > 0.001


def test_masks_are_the_keystreams_of_pairs_on_a_ring() -> None:
    """Of the ring 2, 5, 8, 11, 30 client 8 has, with degree 2, the neighbours 5 (taken off) and 11 (added)."""

    def stream(low: int, high: int) -> int:
        pair = ROUND + low.to_bytes(8, "little") + high.to_bytes(8, "little")
        key = derived_key(KEY, "masks of a sum", pair)
        first = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(8))
        return int.from_bytes(first, "little")

    upload = masked(np.array([7]), 8, [30, 8, 5, 11, 2], KEY, ROUND, 2)
    assert int(upload[0]) == (7 + stream(8, 11) - stream(5, 8)) % 2**64


def test_masks_differ_by_round_and_key() -> None:
    zeros = np.zeros(4, dtype=np.int64)
    own = masked(zeros, 1, range(4), KEY, ROUND, 2)
    assert (masked(zeros, 1, range(4), KEY, b"run 7, round 4", 2) != own).all()
    assert (masked(zeros, 1, range(4), KEY[::-1], ROUND, 2) != own).all()


@pytest.mark.parametrize(
    ("client", "participants", "degree", "reason"),
    [
        (9, [1, 2, 3], 2, "client 9 one of them"),
        (1, [1, 2, 2], 2, "distinct"),
        (1, [1], 2, "alone"),
        (1, [1, 2, 3], 0, "at least 2, not 0"),
        (1, [1, 2, 3], 3, "even and at least 2, not 3"),
    ],
)
def test_sums_that_would_protect_nobody_are_refused(
    client: int, participants: list[int], degree: int, reason: str
) -> None:
    with pytest.raises(SubflError, match=reason):
        masked(np.zeros(1, dtype=np.int64), client, participants, KEY, ROUND, degree)

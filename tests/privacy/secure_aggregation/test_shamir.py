"""Shares of a secret: any few of them give it back, fewer fit every secret alike."""

from __future__ import annotations

import itertools
import secrets

import pytest

from subfl_flower.privacy.secure_aggregation.shamir import PRIME, SHARE_BYTES, combine, split


def test_any_three_of_five_shares_give_the_secret_back() -> None:
    secret = secrets.token_bytes(32)
    shares = dict(zip((2, 3, 5, 9, 11), split(secret, 3, (2, 3, 5, 9, 11)), strict=True))
    for points in itertools.combinations(shares, 3):
        assert combine({point: shares[point] for point in points}, 3) == secret
    assert combine(shares, 3) == secret
    with pytest.raises(ValueError, match="there are 2 shares, and 3 are needed"):
        combine({2: shares[2], 3: shares[3]}, 3)


def test_shares_are_values_of_a_polynomial_whose_constant_is_the_secret() -> None:
    """With a threshold of two they are a line: s(2) - s(1) = s(3) - s(2), and 2 s(1) - s(2) is the secret."""
    secret = bytes(range(32))
    one, two, three = (int.from_bytes(share, "little") for share in split(secret, 2, (1, 2, 3)))
    assert (two - one) % PRIME == (three - two) % PRIME
    assert (2 * one - two) % PRIME == int.from_bytes(secret, "little")


def test_too_few_shares_fit_any_secret() -> None:
    """For two of three needed shares and any other secret there is a third share that gives that secret."""
    shares = dict(zip((1, 2), split(b"\1" * 32, 3, (1, 2, 3))[:2], strict=True))
    other = int.from_bytes(b"\7" * 32, "little")
    one, two = (int.from_bytes(share, "little") for share in shares.values())
    third = (other - 3 * one + 3 * two) % PRIME  # third differences of a parabola at 0, 1, 2, 3 are zero
    assert combine({**shares, 3: third.to_bytes(SHARE_BYTES, "little")}, 3) == b"\7" * 32


def test_shares_of_one_secret_are_drawn_again_each_time() -> None:
    assert split(bytes(32), 2, (1, 2)) != split(bytes(32), 2, (1, 2))


@pytest.mark.parametrize(("points", "threshold"), [((1, 1), 1), ((0, 1), 1), ((1, 2), 3), ((1, 2), 0), ((), 1)])
def test_points_that_cannot_hold_a_secret_are_refused(points: tuple[int, ...], threshold: int) -> None:
    with pytest.raises(ValueError, match="cannot hold a secret"):
        split(bytes(32), threshold, points)
    with pytest.raises(ValueError, match="a secret has 32 bytes, not 16"):
        split(bytes(16), 1, (1,))


def test_shares_of_different_secrets_are_noticed_most_of_the_time_by_a_value_above_the_secrets() -> None:
    """A false share moves the result anywhere below the prime; the caller compares a digest."""
    shares = split(bytes(32), 2, (1, 2))
    wrong = combine_or_none({1: shares[0], 2: split(bytes(32), 2, (1, 2))[1]})
    assert wrong != bytes(32)


def combine_or_none(shares: dict[int, bytes]) -> bytes | None:
    try:
        return combine(shares, 2)
    except ValueError:
        return None

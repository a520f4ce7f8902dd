"""Shamir's secret sharing (Communications of the ACM, 1979) over the integers modulo a prime above 2^256.

A secret of 32 bytes is one element of the field. (PyCryptodome shares 16 bytes at a time, and takes some hundred times
as long: 30 ms for 33 shares, which a round with a hundred users cannot afford.)
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from functools import lru_cache

PRIME = 2**256 + 297
SECRET_BYTES = 32
SHARE_BYTES = 33


def split(secret: bytes, threshold: int, points: Sequence[int]) -> list[bytes]:
    """Shares of a secret at some points, in their order; any `threshold` of them give it back, fewer tell nothing.

    Args:
        secret: 32 bytes.
        threshold: number of shares that are needed.
        points: one for each holder, distinct, at least 1.

    Raises:
        ValueError: the points are not distinct and positive, or fewer than the threshold; or the secret has another
            length.
    """
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"a secret has {SECRET_BYTES} bytes, not {len(secret)}")
    if len(set(points)) < len(points) or min(points, default=0) < 1 or not 1 <= threshold <= len(points):
        raise ValueError(f"{len(points)} points cannot hold a secret that {threshold} of them give back")
    coefficients = [secrets.randbelow(PRIME) for _ in range(threshold - 1)] + [int.from_bytes(secret, "little")]
    shares = []
    for point in points:
        value = 0
        for coefficient in coefficients:
            value = (value * point + coefficient) % PRIME
        shares.append(value.to_bytes(SHARE_BYTES, "little"))
    return shares


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """The secret, from shares by their points; of more than `threshold` the first ones count.

    Raises:
        ValueError: there are too few shares, or they are of no common secret.
    """
    if len(shares) < threshold:
        raise ValueError(f"there are {len(shares)} shares, and {threshold} are needed")
    points = tuple(sorted(shares)[:threshold])
    values = [int.from_bytes(shares[point], "little") for point in points]
    secret = sum(weight * value for weight, value in zip(_weights_at_zero(points), values, strict=True)) % PRIME
    if secret >> (8 * SECRET_BYTES):
        raise ValueError("the shares are of no common secret")
    return secret.to_bytes(SECRET_BYTES, "little")


@lru_cache(maxsize=1024)
def _weights_at_zero(points: tuple[int, ...]) -> tuple[int, ...]:
    """Lagrange's weights of the values at some points for the value at 0."""
    weights = []
    for point in points:
        above = below = 1
        for other in points:
            if other != point:
                above = above * other % PRIME
                below = below * (other - point) % PRIME
        weights.append(above * pow(below, -1, PRIME) % PRIME)
    return tuple(weights)

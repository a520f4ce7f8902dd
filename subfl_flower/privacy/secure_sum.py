"""Secure sums: the server sees only the sum of uploads, by additive masks that cancel.

Two participants of a round who are neighbours on a ring derive the same stream of masks; one adds it, the other
subtracts it. An upload is then uniform noise without the key, and the sum of all uploads is exact (Bonawitz et al.,
CCS 2017, without their recovery from dropouts, on a sparse graph as of Bell et al., CCS 2020).

It protects against a server that follows the protocol and does not have the clients' shared key, not against one that
has the key from a client. If a participant's upload is missing, its masks remain and the sum is noise. The round must
then be repeated among the present participants, *as another round*, since two uploads under the same masks reveal
their difference.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from subfl_flower.errors import SubflError
from subfl_flower.privacy.derived_keys import derived_key

VALUE_BITS = 47


def quantise(values: np.ndarray, bits: int) -> np.ndarray:
    """Fixed-point numbers: multiples of 2^-bits, rounded to the nearest, as int64.

    Args:
        values: float, finite, below 2^(47 - bits) in magnitude, so that 2^16 of them add up without overflow.
        bits: bits after the point, 0 to 46.

    Raises:
        SubflError: a value is too large or not finite.
    """
    limit = 2.0 ** (VALUE_BITS - bits)
    if not np.abs(values).max(initial=0.0) < limit:
        raise SubflError(
            f"values to add up under masks must be finite and below {limit:g} with {bits} bits after the point"
        )
    return np.rint(np.asarray(values, dtype=np.float64) * 2.0**bits).astype(np.int64)


def masked(
    values: np.ndarray, client: int, participants: Sequence[int], key: bytes, context: bytes, degree: int
) -> np.ndarray:
    """A client's upload under its masks.

    Args:
        values: int64, as of `quantise`.
        client: the client's id.
        participants: the ids of all clients that upload, distinct, in any order.
        key: secret that the clients share and the server does not have.
        context: run and round, never the same for two uploads of one client.
        degree: number of others with whom a client shares masks, even and at least 2; all where there are fewer.

    Returns:
        uint64 of the same shape: the values plus masks, modulo 2^64.

    Raises:
        SubflError: the client is not a participant or the only one, a participant comes twice, or the degree is odd
            or too small.
    """
    result = values.astype(np.uint64).reshape(-1)
    for other in _neighbours(client, participants, degree):
        mask = _mask(client, other, key, context, result.size)
        if client < other:
            result += mask
        else:
            result -= mask
    return result.reshape(values.shape)


def _neighbours(client: int, participants: Sequence[int], degree: int) -> list[int]:
    """Participants with whom a client shares masks: the nearest on the ring of sorted ids, half on either side."""
    ring = sorted(participants)
    if len(set(ring)) < len(ring) or client not in ring:
        raise SubflError(f"participants of a masked sum must be distinct and client {client} one of them")
    if len(ring) < 2:
        raise SubflError(f"a sum over client {client} alone would show its upload")
    if degree < 2 or degree % 2:
        raise SubflError(f"the degree of a masked sum must be even and at least 2, not {degree}")
    if degree >= len(ring) - 1:
        return [other for other in ring if other != client]
    place = ring.index(client)
    half = degree // 2
    return [ring[(place + step) % len(ring)] for step in range(-half, half + 1) if step]


def _mask(client: int, other: int, key: bytes, context: bytes, size: int) -> np.ndarray:
    """The stream of a pair, uint64 `[size]`: ChaCha20 under a key of the pair and context, used once."""
    pair = b"".join(one.to_bytes(8, "little") for one in sorted((client, other)))
    pair_key = derived_key(key, "masks of a sum", context + pair)
    stream = Cipher(ChaCha20(pair_key, nonce=bytes(16)), mode=None).encryptor().update(bytes(8 * size))
    return np.frombuffer(stream, dtype="<u8")


def unmask_sum(total: np.ndarray, bits: int) -> np.ndarray:
    """The sum of the values, float64, from the sum (modulo 2^64) of *all* participants' uploads.

    Args:
        total: uint64.
        bits: as in `quantise`.
    """
    return total.view(np.int64) / 2.0**bits

"""The server's half of a secure sum: remove the masks of the sum, and of nothing but the sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256

import numpy as np

from subfl_flower.errors import SubflError
from subfl_flower.privacy.secure_aggregation.masks import pair_mask, public_of, self_mask
from subfl_flower.privacy.secure_aggregation.roll import Roll
from subfl_flower.privacy.secure_aggregation.shamir import combine

Revealed = Mapping[int, Mapping[int, bytes]]
"""Shares by their holder and their owner."""


def opened(
    total: np.ndarray,
    roll: Roll,
    sharing: Sequence[int],
    survivors: Sequence[int],
    revealed: Revealed,
    context: bytes,
) -> np.ndarray:
    """The sum of the survivors' values, uint64 `[size]` modulo 2^64.

    Args:
        total: the sum of the survivors' masked uploads, uint64 `[size]`, modulo 2^64.
        roll: the members.
        sharing: the members who shared their secrets.
        survivors: the members whose uploads are in the total.
        revealed: the shares that survivors revealed.
        context: of the sum (`roll.sum_context`).

    Raises:
        SubflError: there are too few shares of a secret, or wrong ones.
    """
    found = total.copy()
    for client in survivors:
        seed = _secret(client, roll, revealed)
        if sha256(seed).digest() != roll.advert(client).seed_digest:
            raise SubflError(f"the shares of client {client}'s self-mask are wrong")
        found -= self_mask(seed, context, found.size)
    remaining = set(survivors)
    for lost in sorted(set(sharing) - remaining):
        if not (others := remaining.intersection(roll.neighbours(lost))):
            continue
        key = _secret(lost, roll, revealed)
        if public_of(key) != roll.advert(lost).masks:
            raise SubflError(f"the shares of client {lost}'s mask key are wrong")
        for other in sorted(others):
            mask = pair_mask(key, roll.advert(other).masks, (lost, other), context, found.size)
            if other < lost:  # the survivor has added it
                found -= mask
            else:
                found += mask
    return found


def _secret(owner: int, roll: Roll, revealed: Revealed) -> bytes:
    shares = {roll.point(holder): of[owner] for holder, of in revealed.items() if owner in of}
    try:
        return combine(shares, roll.shares_needed(owner))
    except ValueError as error:
        raise SubflError(f"the masks of client {owner} cannot be removed: {error}") from None

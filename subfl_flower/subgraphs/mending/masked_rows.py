"""Rows that several clients sum under masks, so that the server sees only the sums.

Rows that have the same contributors are a group, and masked as one (`subfl_flower.privacy.secure_sum`). A group's sum
can be read where every member's rows are there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from subfl_flower.errors import SubflError
from subfl_flower.privacy.secure_sum import masked, quantise


def masked_rows(
    rows: np.ndarray,
    tokens: np.ndarray,
    group: np.ndarray,
    members: Sequence[Sequence[int]],
    client: int,
    key: bytes,
    context: bytes,
    bits: int,
) -> np.ndarray:
    """A client's rows under its masks.

    Args:
        rows: float `[R, W]`.
        tokens: uint8 `[R, 16]`, the node of each row; in a group every member has the same ones in the same order.
        group: int `[R]`, the group of each row.
        members: ids of all contributors to each group, the client among them.
        client: its id.
        key: secret that the clients share and the server does not have.
        context: different for two uploads of different rows of the same tokens.
        bits: fractional bits of the fixed-point numbers.

    Returns:
        uint64 `[R, W]`.

    Raises:
        SubflError: a group has only this client or lacks it, a row's group does not exist, or a number is too large.
    """
    if len(group) != len(rows) or (len(group) and not 0 <= group.min() <= group.max() < len(members)):
        raise SubflError(f"{len(rows)} rows to add up under masks must each be of one of {len(members)} groups")
    fixed, result = quantise(rows, bits), np.empty(rows.shape, dtype=np.uint64)
    for number, participants in enumerate(members):
        chosen = np.flatnonzero(group == number)
        bound = context + hashlib.blake2b(tokens[chosen].tobytes(), digest_size=32).digest()
        every = 2 * len(participants)  # with each of the others
        result[chosen] = masked(fixed[chosen], client, participants, key, bound, every)
    return result

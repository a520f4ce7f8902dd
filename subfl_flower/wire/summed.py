"""Names and forms of what travels in a secure sum.

A sum has three phases in addition to the round's message to train: two before it, and one after it. The message to
train then has the entries `NONCE`, `ADVERTS` and `SHARING`, and the upload is one array, `MASKED`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.payload import ArraySpec

KEYS, SHARES, REVEAL = "sum_keys", "sum_shares", "sum_reveal"
SUM_PHASES = (KEYS, SHARES, REVEAL)
"""The phases: clients give public keys; they share secrets; they reveal what opens the sum."""

NONCE, ADVERTS, SHARING, SURVIVORS = "sum_nonce", "sum_adverts", "sum_sharing", "sum_survivors"
"""Entries of the run's record: the sum's own value, all clients' keys, and who shared secrets, or is left."""

ADVERT, CLIENTS, BOXES = "advert", "clients", "boxes"
"""Arrays of the phases: a client's keys; encrypted or revealed shares, and whom each is for or from."""

MASKED = "masked_sum"
"""Name of the array that a client uploads: everything that is summed, under masks."""

WEIGHT = "weight"
"""The last summand: the weight by which a client has multiplied the others."""

Layout = Mapping[str, tuple[int, ...]]
"""Shapes of what is summed, by name, in their order in the masked vector."""


def masked_upload(layout: Layout) -> dict[str, ArraySpec]:
    """The contract's uploads of a round with a secure sum."""
    size = sum(math.prod(shape) for shape in layout.values())
    return {MASKED: ArraySpec((size,), "uint64", bounded=False)}


def cut(values: np.ndarray, layout: Layout) -> Stack:
    """The arrays of a summed vector, by name."""
    found: Stack = {}
    start = 0
    for name, shape in layout.items():
        size = math.prod(shape)
        found[name] = values[start : start + size].reshape(shape)
        start += size
    return found


def ids_bytes(clients: Sequence[int]) -> bytes:
    """Clients' ids as an entry of the run's record."""
    return np.array(sorted(clients), dtype="<i8").tobytes()


def ids_of(entry: Any) -> list[int]:
    """The ids in an entry of `ids_bytes`; none where it is missing or no such entry."""
    if not isinstance(entry, bytes) or len(entry) % 8:
        return []
    found: list[int] = np.frombuffer(entry, dtype="<i8").tolist()
    return found

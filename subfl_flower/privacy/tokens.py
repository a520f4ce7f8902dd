"""Tokens: keyed hashes that show a third party that two users have a common item, without revealing it.

Without the key a token cannot be matched with a guessed item. A token does not hide its frequency: a party that sees
the tokens of many users sees the items' popularity ranks (`subfl_flower.privacy.leakage.popularity_matching`).
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np

from subfl_flower.privacy.derived_keys import derived_key

TOKEN_BYTES = 16


def item_tokens(items: np.ndarray, key: bytes, context: bytes) -> np.ndarray:
    """Tokens of items: keyed BLAKE2b of the ids, under a key for this purpose and context; equal for all users.

    Args:
        items: int `[n]`, ids.
        key: secret that the clients share and neither server nor third party has; at least 16 bytes.
        context: for instance the run; tokens of two contexts cannot be matched.

    Returns:
        uint8 `[n, 16]`, in the order of `items`; read-only.

    Raises:
        SubflError: the key is too short.
    """
    own = derived_key(key, "item tokens", context)
    ids = (item.to_bytes(8, "little", signed=True) for item in items.tolist())
    digests = b"".join(hashlib.blake2b(number, key=own, digest_size=TOKEN_BYTES).digest() for number in ids)
    return np.frombuffer(digests, dtype=np.uint8).reshape(-1, TOKEN_BYTES)


def comparable(tokens: np.ndarray) -> np.ndarray:
    """Tokens uint8 `[n, 16]` as `[n]` scalars of sixteen bytes, which NumPy compares as a whole."""
    return np.ascontiguousarray(tokens).view(f"V{TOKEN_BYTES}").reshape(-1)


@lru_cache(maxsize=4)
def token_table(num_items: int, key: bytes, context: bytes) -> np.ndarray:
    """The tokens of the items 0 .. num_items - 1, uint8 `[num_items, 16]`, read-only; computed once."""
    return item_tokens(np.arange(num_items), key, context)

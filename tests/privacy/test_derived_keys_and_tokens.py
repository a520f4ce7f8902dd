from __future__ import annotations

import hashlib
import hmac
import struct

import numpy as np
import pytest

from subfl_flower.errors import SubflError
from subfl_flower.privacy.derived_keys import derived_key
from subfl_flower.privacy.tokens import item_tokens, token_table

KEY = bytes(range(32))


def hkdf_by_hand(secret: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 with SHA-256 and no salt."""
    extracted = hmac.digest(bytes(32), secret, "sha256")
    result, block = b"", b""
    while len(result) < length:
        block = hmac.digest(extracted, block + info + bytes([len(result) // 32 + 1]), "sha256")
        result += block
    return result[:length]


def test_a_derived_key_is_hkdf_of_purpose_and_context() -> None:
    expected = hkdf_by_hand(KEY, b"\x04\x00maskrun 1", 48)
    assert derived_key(KEY, "mask", b"run 1", 48) == expected


def test_purpose_and_context_are_kept_apart() -> None:
    keys = {derived_key(KEY, *what) for what in [("ab", b"c"), ("a", b"bc"), ("abc", b""), ("ab", b"d")]}
    assert len(keys) == 4


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(SubflError, match="has 8 bytes"):
        derived_key(b"12345678", "mask")


def test_a_token_is_a_keyed_hash_of_the_item() -> None:
    items = np.array([5, 0, 2**40])
    own = hkdf_by_hand(KEY, b"\x0b\x00item tokensrun 1", 32)
    expected = [hashlib.blake2b(struct.pack("<q", item), key=own, digest_size=16).digest() for item in items.tolist()]
    assert [row.tobytes() for row in item_tokens(items, KEY, b"run 1")] == expected


def test_tokens_match_within_a_context_alone() -> None:
    mine, yours = item_tokens(np.array([1, 2, 3]), KEY, b"run 1"), item_tokens(np.array([9, 3]), KEY, b"run 1")
    np.testing.assert_array_equal(mine[2], yours[1])
    for key, context in ((KEY, b"run 2"), (KEY[::-1], b"run 1")):
        assert not (item_tokens(np.array([3]), key, context) == mine[2]).all()


def test_a_table_holds_the_tokens_of_all_items() -> None:
    table = token_table(50, KEY, b"run 1")
    np.testing.assert_array_equal(table, item_tokens(np.arange(50), KEY, b"run 1"))
    assert token_table(50, KEY, b"run 1") is table
    assert not table.flags.writeable


def test_no_items_have_no_tokens() -> None:
    assert item_tokens(np.zeros(0, dtype=np.int64), KEY, b"").shape == (0, 16)

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from subfl_flower.errors import SubflError
from subfl_flower.privacy.sealed_box import (
    MatcherKey,
    ReplayGuard,
    new_reply_key,
    open_box,
    open_reply,
    pad,
    seal,
    seal_reply,
    unpad,
)

ROUND_1 = b"run 7, round 1, request"
ROUND_2 = b"run 7, round 2, request"


@pytest.fixture(scope="module")
def key() -> MatcherKey:
    return MatcherKey.generate()


def test_the_owner_opens_what_was_sealed(key: MatcherKey) -> None:
    box = seal(b"what I rated", key.public, ROUND_1)
    assert open_box(box, key, ROUND_1) == b"what I rated"
    assert len(box) == 12 + 48
    assert b"rated" not in box


def test_two_boxes_of_one_text_have_nothing_in_common(key: MatcherKey) -> None:
    first, second = seal(bytes(200), key.public, ROUND_1), seal(bytes(200), key.public, ROUND_1)
    assert sum(a == b for a, b in zip(first, second, strict=True)) < 12  # about one in 256


def test_a_box_opens_with_its_key_and_round_alone(key: MatcherKey) -> None:
    box = seal(b"what I rated", key.public, ROUND_1)
    for other_key, context in ((key, ROUND_2), (MatcherKey.generate(), ROUND_1)):
        with pytest.raises(SubflError, match="changed on its way, or is not of this key, round or run"):
            open_box(box, other_key, context)


def test_no_byte_of_a_box_can_be_changed(key: MatcherKey) -> None:
    box = seal(b"abc", key.public, ROUND_1)
    for place in range(len(box)):
        for bit in (0x01, 0x80):
            changed = bytearray(box)
            changed[place] ^= bit
            with pytest.raises(SubflError, match="changed on its way"):
                open_box(bytes(changed), key, ROUND_1)


def test_boxes_that_are_none_are_refused(key: MatcherKey) -> None:
    for box in (b"", bytes(10), bytes(48), bytes(100), seal(b"abc", key.public, ROUND_1)[:-1]):
        with pytest.raises(SubflError, match="changed on its way"):
            open_box(box, key, ROUND_1)


def test_a_key_survives_its_bytes(key: MatcherKey) -> None:
    copy = MatcherKey.from_bytes(key.to_bytes())
    assert copy.public == key.public
    assert open_box(seal(b"abc", key.public, ROUND_1), copy, ROUND_1) == b"abc"
    assert key.to_bytes().hex() not in repr(key)


def test_keys_that_are_none_are_refused() -> None:
    with pytest.raises(SubflError, match="has 31 bytes"):
        MatcherKey.from_bytes(bytes(31))
    for public in (bytes(31), bytes(32)):  # too short; a point of low order
        with pytest.raises(SubflError, match="point of Curve25519"):
            seal(b"abc", public, ROUND_1)


def test_an_answer_opens_with_its_key_and_round_alone() -> None:
    reply_key = new_reply_key()
    box = seal_reply(b"your neighbours", reply_key, ROUND_1)
    assert open_reply(box, reply_key, ROUND_1) == b"your neighbours"
    changed = box[:-1] + bytes([box[-1] ^ 1])
    for answer, own, context in (
        (box, new_reply_key(), ROUND_1),
        (box, reply_key, ROUND_2),
        (changed, reply_key, ROUND_1),
        (box[:5], reply_key, ROUND_1),
        (b"", reply_key, ROUND_1),
    ):
        with pytest.raises(SubflError, match="a sealed answer was changed on its way"):
            open_reply(answer, own, context)


def test_an_answer_under_one_key_is_never_under_one_nonce() -> None:
    reply_key = new_reply_key()
    boxes = [seal_reply(b"your neighbours", reply_key, ROUND_1) for _ in range(2)]
    assert boxes[0][:12] != boxes[1][:12]
    with pytest.raises(InvalidTag):
        ChaCha20Poly1305(reply_key).decrypt(boxes[0][:12], boxes[1][12:], ROUND_1)


@given(st.binary(max_size=300), st.integers(1, 64))
def test_padding_comes_off_and_leaves_powers_of_two(plain: bytes, multiple: int) -> None:
    padded = pad(plain, multiple)
    assert unpad(padded) == plain
    sizes = [multiple * 2**power for power in range(10)]
    assert len(padded) == min(size for size in sizes if size >= len(plain) + 4)


def test_padding_that_is_none_is_refused() -> None:
    for padded in (b"", b"\0\0\0", b"\5\0\0\0abc", b"\2\0\0\0abcd"):
        with pytest.raises(ValueError, match="padding"):
            unpad(padded)


def test_a_box_is_opened_once(key: MatcherKey) -> None:
    guard = ReplayGuard()
    box, other = (seal(b"abc", key.public, ROUND_1) for _ in range(2))
    guard.check(box)
    guard.check(other)
    with pytest.raises(SubflError, match="sent a second time"):
        guard.check(box)
    with pytest.raises(SubflError, match="sent a second time"):
        ReplayGuard(guard.remembered()).check(other)
    ReplayGuard(guard.remembered()).check(seal(b"abc", key.public, ROUND_1))


def test_no_more_boxes_are_opened_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subfl_flower.privacy.sealed_box.MOST_BOXES", 2)
    guard = ReplayGuard(bytes(32) + b"\1" * 32)
    with pytest.raises(SubflError, match="more than 2 sealed boxes"):
        guard.check(b"\2" * 40)

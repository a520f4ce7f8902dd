"""Sealed boxes: messages that a server carries and cannot open.

To the third party they are HPKE (RFC 9180: X25519, HKDF-SHA256, ChaCha20-Poly1305) under its public key. Back they are
ChaCha20-Poly1305 under a key that came in the box. The context of a message (run, round, phase) is not sent with it,
and a message opens only with the same context: a box of another round or run is refused like a forged one.

A public key that a server hands out could be the server's. Against a server that lies, clients must get the third
party's key from elsewhere.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from subfl_flower.errors import SubflError

KEY_BYTES = 32
NONCE_BYTES = 12
LENGTH_BYTES = 4
MOST_BOXES = 2**22
SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


@dataclass(frozen=True)
class MatcherKey:
    """The key pair of the party to which boxes are sealed."""

    private: X25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> MatcherKey:
        """A new key pair."""
        return cls(X25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, private: bytes) -> MatcherKey:
        """The key pair of a private key of 32 bytes.

        Raises:
            SubflError: not 32 bytes.
        """
        if len(private) != KEY_BYTES:
            raise SubflError(f"the matcher's private key has {len(private)} bytes, and must have {KEY_BYTES}")
        return cls(X25519PrivateKey.from_private_bytes(private))

    def to_bytes(self) -> bytes:
        """The private key, 32 bytes."""
        return self.private.private_bytes_raw()

    @property
    def public(self) -> bytes:
        """The public key, 32 bytes."""
        return self.private.public_key().public_bytes_raw()


def seal(plain: bytes, public_key: bytes, context: bytes) -> bytes:
    """A box that only the owner of `public_key` opens, and only with the same context; 48 bytes longer than `plain`.

    Raises:
        SubflError: not a public key.
    """
    try:
        return SUITE.encrypt(plain, X25519PublicKey.from_public_bytes(public_key), info=context)
    except ValueError:
        raise SubflError(f"the matcher's public key must be {KEY_BYTES} bytes, a point of Curve25519") from None


def open_box(box: bytes, key: MatcherKey, context: bytes) -> bytes:
    """Open a box; return its content.

    Raises:
        SubflError: it was changed in transit, or sealed for another key, round or run.
    """
    try:
        return SUITE.decrypt(box, key.private, info=context)
    except InvalidTag:
        raise SubflError("a sealed box was changed on its way, or is not of this key, round or run") from None


def new_reply_key() -> bytes:
    """32 random bytes under which an answer is sealed; sent in the box that asks."""
    return secrets.token_bytes(KEY_BYTES)


def seal_reply(plain: bytes, reply_key: bytes, context: bytes) -> bytes:
    """An answer that only the holder of `reply_key` opens, with the same context; 28 bytes longer than `plain`."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + ChaCha20Poly1305(reply_key).encrypt(nonce, plain, context)


def open_reply(box: bytes, reply_key: bytes, context: bytes) -> bytes:
    """Open an answer; return its content.

    Raises:
        SubflError: it was changed in transit, or answers another request, round or run.
    """
    try:
        return ChaCha20Poly1305(reply_key).decrypt(box[:NONCE_BYTES], box[NONCE_BYTES:], context)
    except (InvalidTag, ValueError):
        raise SubflError("a sealed answer was changed on its way, or is not to this request, round or run") from None


def pad(plain: bytes, multiple: int) -> bytes:
    """Pad to the least of `multiple`, 2 `multiple`, 4 `multiple`, ... bytes that holds `plain` and its length."""
    size = multiple
    while size < LENGTH_BYTES + len(plain):
        size *= 2
    return (len(plain).to_bytes(LENGTH_BYTES, "little") + plain).ljust(size, b"\0")


def unpad(padded: bytes) -> bytes:
    """Content of a padded message.

    Raises:
        ValueError: `padded` is not a result of `pad`.
    """
    end = LENGTH_BYTES + int.from_bytes(padded[:LENGTH_BYTES], "little")
    if len(padded) < LENGTH_BYTES or end > len(padded) or padded[end:].strip(b"\0"):
        raise ValueError("padding that is cut off, or not zero")
    return padded[LENGTH_BYTES:end]


class ReplayGuard:
    """Record of opened boxes, which refuses to open one twice.

    A box is identified by its first 32 bytes, the ephemeral public key, which no two sealed boxes share.

    Args:
        remembered: the record of an earlier process of the same run.
    """

    def __init__(self, remembered: bytes = b"") -> None:
        self._opened = {remembered[start : start + KEY_BYTES] for start in range(0, len(remembered), KEY_BYTES)}

    def remembered(self) -> bytes:
        """The whole record: 32 bytes for every box."""
        return b"".join(sorted(self._opened))

    def check(self, box: bytes) -> None:
        """Record an opened box.

        Raises:
            SubflError: it was opened before, or more than `MOST_BOXES` were opened in this run.
        """
        ephemeral = box[:KEY_BYTES]
        if ephemeral in self._opened:
            raise SubflError("a sealed box was sent a second time")
        if len(self._opened) >= MOST_BOXES:
            raise SubflError(f"more than {MOST_BOXES} sealed boxes in one run, as many as are remembered")
        self._opened.add(ephemeral)

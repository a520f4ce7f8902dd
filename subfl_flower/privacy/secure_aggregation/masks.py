"""Streams of masks, uint64, each under a key that is used once."""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from subfl_flower.errors import SubflError
from subfl_flower.privacy.derived_keys import derived_key


def stream(key: bytes, size: int) -> np.ndarray:
    """ChaCha20's stream under a key of 32 bytes that is used for nothing else: uint64 `[size]`."""
    drawn = Cipher(ChaCha20(key, nonce=bytes(16)), mode=None).encryptor().update(bytes(8 * size))
    return np.frombuffer(drawn, dtype="<u8")


def self_mask(seed: bytes, context: bytes, size: int) -> np.ndarray:
    """A client's self-mask, which the server removes where the client's upload has arrived."""
    return stream(derived_key(seed, "self-mask of a secure sum", context), size)


def pair_mask(private: bytes, public: bytes, clients: tuple[int, int], context: bytes, size: int) -> np.ndarray:
    """The mask that two clients share, the same whichever of them makes it.

    Args:
        private: one's private key.
        public: the other's public key.
        clients: both ids, in any order.
        context: of the sum.
        size: number of values.
    """
    pair = _ids(*sorted(clients))
    return stream(derived_key(agreed(private, public), "pair mask of a secure sum", context + pair), size)


def channel_key(private: bytes, public: bytes, sender: int, receiver: int, context: bytes) -> bytes:
    """The key under which one client encrypts shares to another: 32 bytes."""
    return derived_key(agreed(private, public), "shares of a secure sum", context + _ids(sender, receiver))


def agreed(private: bytes, public: bytes) -> bytes:
    """The secret that two X25519 key pairs agree on: 32 bytes.

    Raises:
        SubflError: the public key is none.
    """
    try:
        return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise SubflError("a public key of a secure sum is no point of Curve25519 of large order") from None


def public_of(private: bytes) -> bytes:
    """The public key of an X25519 private key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def _ids(*clients: int) -> bytes:
    return b"".join(client.to_bytes(8, "little", signed=True) for client in clients)

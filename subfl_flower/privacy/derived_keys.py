"""Keys derived from a secret."""

from __future__ import annotations

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from subfl_flower.errors import SubflError

LEAST_SECRET_BYTES = 16


def derived_key(secret: bytes, purpose: str, context: bytes = b"", length: int = 32) -> bytes:
    """A key for one purpose, from which neither the secret nor the key of another purpose follows (HKDF, RFC 5869).

    Args:
        secret: at least 16 bytes, known only to the parties that may have the key.
        purpose: purpose of the key.
        context: further value that the key is bound to, such as the run.
        length: length of the key, in bytes.

    Raises:
        SubflError: the secret is too short.
    """
    if len(secret) < LEAST_SECRET_BYTES:
        raise SubflError(f"a secret to derive keys from has {len(secret)} bytes, and must have {LEAST_SECRET_BYTES}")
    name = purpose.encode()
    info = len(name).to_bytes(2, "little") + name + context
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(secret)

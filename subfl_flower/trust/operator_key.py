"""The operator's key pair: an Ed25519 key in OpenSSH's format."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from subfl_flower.errors import SubflError

OPERATOR_KEY = "SUBFL_OPERATOR_KEY"
"""Environment variable of the SuperLink, and so of the ServerApps that it starts: path of the private key."""


def read_operator_key(path: Path) -> Ed25519PrivateKey:
    """The private key in a file that `subfl deploy operator-key` has written.

    Raises:
        SubflError: the file cannot be read, or holds no such key.
    """
    content = _content(path)
    try:
        key = serialization.load_ssh_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise SubflError(
            f"--operator-key {path}: it must be the operator's private key, as subfl deploy operator-key wrote it"
        )
    return key


def read_operator_public_key(path: Path) -> bytes:
    """The 32 bytes of the public key in a file that `subfl deploy operator-key` has written.

    Raises:
        SubflError: the file cannot be read, or holds a private key or none.
    """
    content = _content(path)
    if b"PRIVATE KEY" in content:
        raise SubflError(
            f"--operator-key {path}: a private key, which stays with the operator; a site is given {path.name}.pub"
        )
    try:
        key = serialization.load_ssh_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise SubflError(
            f"--operator-key {path}: it must be the operator's public key, as subfl deploy operator-key wrote it"
        )
    return raw(key)


def raw(key: Ed25519PublicKey) -> bytes:
    """The 32 bytes of a public key."""
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def fingerprint(public: bytes) -> str:
    """Fingerprint of a public key, as `ssh-keygen -lf FILE` prints it.

    Args:
        public: its 32 bytes.
    """
    key = Ed25519PublicKey.from_public_bytes(public)
    line = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return fingerprint_of_line(line.decode())


def fingerprint_of_line(line: str) -> str:
    """Fingerprint of a public key, given as a line of OpenSSH's format."""
    digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SubflError(f"--operator-key {path}: {error.strerror}; it must be a file that can be read") from error

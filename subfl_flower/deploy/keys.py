"""Key pairs in OpenSSH's format: of a SuperNode (P-384, as Flower reads it) and of the operator (Ed25519)."""

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from subfl_flower.deploy.files import PRIVATE, PUBLIC, make_folder, read_file, write_file
from subfl_flower.errors import SubflError


def make_key(path: Path) -> Path:
    """Write a new private key of a SuperNode to `path`, and its public key to the same folder; see `_write_pair`."""
    return _write_pair(path, ec.generate_private_key(ec.SECP384R1()), "a node is known by its key")


def make_operator_key(path: Path) -> Path:
    """Write a new private key of the operator to `path`, and its public key to the same folder; see `_write_pair`."""
    return _write_pair(path, Ed25519PrivateKey.generate(), "sites have pinned its public half")


def _write_pair(path: Path, key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey, why: str) -> Path:
    """Write a private key, readable by its owner alone, and its public key.

    Args:
        path: of the private key.
        key: the pair.
        why: reason why no other key may take the place of an existing one.

    Returns:
        The public key's path: `path` with `.pub` appended.

    Raises:
        SubflError: one of the files is there already, or cannot be written.
    """
    public_path = path.with_name(f"{path.name}.pub")
    for existing in (path, public_path):
        if existing.exists():
            raise SubflError(f"{existing} is there already, and {why}: choose another file")
    make_folder(path.parent)
    openssh = serialization.PrivateFormat.OpenSSH
    private = key.private_bytes(serialization.Encoding.PEM, openssh, serialization.NoEncryption())
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    write_file(path, private, PRIVATE)
    write_file(public_path, public + b"\n", PUBLIC)
    return public_path


def check_private_key(path: Path) -> None:
    """Check that `flower-supernode` can read its private key.

    Raises:
        SubflError: the file cannot be read or holds no such key.
    """
    content = read_file(path, "--key")
    try:
        key = serialization.load_ssh_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SubflError(f"--key {path}: it must be a private key that subfl deploy key has written")


def check_public_key(path: Path) -> None:
    """Check that a file to register holds a public key.

    Raises:
        SubflError: the file cannot be read, or holds a private key or none.
    """
    content = read_file(path, "public key")
    if b"PRIVATE KEY" in content:
        raise SubflError(f"{path} is a private key, which must not leave its node: register {path.name}.pub")
    try:
        key = serialization.load_ssh_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise SubflError(f"{path}: it must be a public key that subfl deploy key has written")

"""Members of a federation by their keys: the clients that each registered node may host.

Flower's SuperLink authenticates a node by its key, and tells the ServerApp the key of each node. A file on the
SuperLink's machine says whose clients are whose. `subfl deploy register --client` writes it, and the ServerApp reads it
again when it has changed, so a site that joins during a run is admitted by the same rule.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from subfl_flower.errors import SubflError
from subfl_flower.storage.durable_files import write_durably
from subfl_flower.trust.operator_key import fingerprint_of_line

MEMBERS = "SUBFL_MEMBERS"
"""Environment variable of the SuperLink, and so of the ServerApps that it starts: path of the members' file."""

_DAMAGED = "it must be a file that subfl deploy register --client has written"


class Member(BaseModel):
    """One registered node.

    Attributes:
        name: of its public key's file, for people.
        key: public key, as one line of OpenSSH's format without a comment.
        clients: ids of the clients that it may host; none for a matcher.
        matcher: True for a node that may be the matcher.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    key: str
    clients: tuple[Annotated[int, Field(ge=0)], ...] = ()
    matcher: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({fingerprint_of_line(self.key)})"


class Members(BaseModel):
    """All members of a federation; each client is one node's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nodes: tuple[Member, ...] = ()

    @model_validator(mode="after")
    def _one_node_a_client(self) -> Self:
        clients = [client for node in self.nodes for client in node.clients]
        keys = [node.key for node in self.nodes]
        if len(set(clients)) < len(clients) or len(set(keys)) < len(keys):
            raise ValueError("a client, or a key, is there twice")
        return self

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file.

        Raises:
            SubflError: it cannot be read, or is damaged.
        """
        try:
            return cls.model_validate_json(path.read_bytes(), strict=False)
        except OSError as error:
            raise SubflError(f"--members {path}: {error.strerror}; {_DAMAGED}") from None
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            place = ".".join(map(str, problem["loc"])) or "the file"
            raise SubflError(f"--members {path}: {place}: {problem['msg']}; {_DAMAGED}") from None

    def write(self, path: Path) -> None:
        """Replace a file.

        Raises:
            SubflError: it cannot be written.
        """
        try:
            write_durably(path, json.dumps(self.model_dump(mode="json"), indent=1).encode() + b"\n")
        except OSError as error:
            raise SubflError(f"--members {path}: {error.strerror}; it must be in a folder to write in") from None

    def owner(self, client: int) -> Member | None:
        """The member to which a client is bound; None for one that is bound to none."""
        return next((node for node in self.nodes if client in node.clients), None)

    def bound(self, member: Member, replace: bool = False) -> Members:
        """The members with one more, in the place of an earlier entry of its key.

        Args:
            member: the new one.
            replace: take its clients from others to which they are bound, as where a site has a new key.

        Raises:
            SubflError: a client is bound to another node.
        """
        others = [node for node in self.nodes if node.key != member.key]
        for node in others:
            taken = sorted(set(node.clients) & set(member.clients))
            if taken and not replace:
                raise SubflError(
                    f"client {taken[0]} is bound to {node}, and cannot be bound to {member}, too; --replace takes it "
                    "from the former"
                )
        kept = [node.model_copy(update={"clients": _without(node.clients, member.clients)}) for node in others]
        return Members(nodes=(*(node for node in kept if node.clients or node.matcher), member))


def _without(clients: Sequence[int], taken: Sequence[int]) -> tuple[int, ...]:
    return tuple(client for client in clients if client not in taken)


class Admission:
    """Decision on the clients that a connected node offers.

    Args:
        path: of the members' file.
        keys: gives the public key of each connected node, as Flower has it (PEM).
    """

    def __init__(self, path: Path, keys: Callable[[], Mapping[int, bytes]]) -> None:
        self._path, self._keys = path, keys
        self._known: dict[int, str] = {}
        self._read_at: tuple[int, int] | None = None
        self._members = Members.read(path)

    def refusal(self, node_id: int, clients: Sequence[int], matcher: bool = False) -> str | None:
        """The reason for which a node may not host some clients, or be the matcher; None where it may.

        Raises:
            SubflError: the file is damaged.
        """
        members, key = self._current(), self._key(node_id)
        member = next((node for node in members.nodes if node.key == key), None)
        who = f"node {node_id} ({'without a key' if key is None else fingerprint_of_line(key)})"
        if member is not None:
            who = f"node {node_id}, {member},"
        if matcher:
            allowed = member is not None and member.matcher
            return None if allowed else f"{who} is not registered as the matcher"
        for client in clients:
            owner = members.owner(client)
            if owner is None or owner is not member:
                whose = "bound to no node" if owner is None else f"bound to {owner}"
                return f"{who} offers client {client}, which is {whose} in {self._path.name}"
        return None if member is not None else f"{who} is not in {self._path.name}"

    def _current(self) -> Members:
        """The members as the file has them now."""
        try:
            status = self._path.stat()
        except OSError:
            return Members.read(self._path)
        now = (status.st_mtime_ns, status.st_ino)
        if now != self._read_at:
            self._members, self._read_at = Members.read(self._path), now
        return self._members

    def _key(self, node_id: int) -> str | None:
        """A node's key; a node keeps its number and its key for as long as it is registered."""
        if node_id not in self._known:
            for node, pem in self._keys().items():
                if (key := _of_pem(pem)) is not None:
                    self._known[node] = key
        return self._known.get(node_id)


def read_node_key(path: Path) -> str:
    """The public key in a node's `.pub`, as one line without a comment.

    Raises:
        SubflError: the file cannot be read, or holds no such key.
    """
    try:
        key = serialization.load_ssh_public_key(path.read_bytes())
    except OSError as error:
        raise SubflError(f"{path}: {error.strerror}; it must be a file that can be read") from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, EllipticCurvePublicKey):
        raise SubflError(f"{path}: it must be a public key that subfl deploy key has written")
    return _line(key)


def _of_pem(pem: bytes) -> str | None:
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        return None
    return _line(key) if isinstance(key, EllipticCurvePublicKey) else None


def _line(key: EllipticCurvePublicKey) -> str:
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()

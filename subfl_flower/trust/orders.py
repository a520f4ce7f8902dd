"""Orders that are signed with the operator's key.

Flower delivers a message of any registered node to any other one, and a node cannot tell it from the server's. So the
ServerApp signs each message, and a site takes only messages that a key which it has pinned has signed.

The signature covers all records, the message's type, the node that it is for, and Flower's number of the run. The
record ``run`` among them names the run, its attempt and the round. A further record, ``order``, holds the signature and
the order's number. Numbers grow strictly within an attempt, and each start or resume of a run opens a higher attempt,
so an order is carried out once (`subfl_flower.trust.site_records`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from flwr.app import ConfigRecord, Message

from subfl_flower.errors import SubflError
from subfl_flower.trust.content_digest import content_digest, encoded
from subfl_flower.trust.operator_key import fingerprint, raw

ORDER = "order"
"""Name of the record with a message's signature."""

RUN = "run"
"""Name of the record that describes the run."""

ATTEMPT = "attempt"
"""Entry of the record ``run``: 1 at a run's start, and one more each time that the run is resumed."""

_FORM = "subfl-flower order 1"


@dataclass(frozen=True)
class Order:
    """Place of a message among all orders of the operator.

    Attributes:
        run_id: of the run, the same after a resume.
        attempt: of the run, from 1.
        number: among the orders of the attempt, from 1.
    """

    run_id: str
    attempt: int
    number: int


def sign(message: Message, key: Ed25519PrivateKey, number: int) -> None:
    """Add the record ``order`` to a message.

    Args:
        message: to a node.
        key: the operator's.
        number: of the order.
    """
    signature = key.sign(_statement(message, message.metadata.dst_node_id, number))
    message.content[ORDER] = ConfigRecord(
        {"number": number, "key": raw(key.public_key()), "signature": signature},
    )


def verified(message: Message, node_id: int, pinned: Collection[bytes]) -> Order:
    """The place of an order, whose signature is valid.

    Args:
        message: as it arrived.
        node_id: of this node.
        pinned: public keys of operators, 32 bytes each.

    Raises:
        SubflError: it is not signed, or not with a pinned key, or it was changed or is for another node.
    """
    kind = message.metadata.message_type
    if ORDER not in message.content.config_records:
        raise SubflError(
            f"this site carries out signed orders alone, and a message of type {kind} came without signature; "
            "the server signs with subfl deploy superlink --operator-key"
        )
    order = message.content.config_records[ORDER]
    number, public, signature = (order.get(name) for name in ("number", "key", "signature"))
    if not (isinstance(number, int) and isinstance(public, bytes) and isinstance(signature, bytes)):
        raise SubflError(f"the signature of a message of type {kind} is malformed")
    if public not in pinned:
        named = f" ({fingerprint(public)})" if len(public) == 32 else ""
        raise SubflError(f"a message of type {kind} is signed with a key{named} that this site has not pinned")
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, _statement(message, node_id, number))
    except (InvalidSignature, ValueError, TypeError):
        raise SubflError(
            f"the operator has not signed this message of type {kind} for this node: it was changed, or it is another's"
        ) from None
    run = message.content.config_records.get(RUN, ConfigRecord())
    run_id, attempt = run.get("id"), run.get(ATTEMPT)
    if not (isinstance(run_id, str) and run_id.isascii() and run_id.isalnum() and isinstance(attempt, int)):
        raise SubflError(f"a message of type {kind} names no run and attempt; does the server run this version?")
    return Order(run_id, attempt, number)


def _statement(message: Message, node_id: int, number: int) -> bytes:
    """The bytes that are signed."""
    metadata = message.metadata
    digest = content_digest(message.content, ORDER)
    return encoded(_FORM, metadata.run_id, node_id, metadata.message_type, number, digest)

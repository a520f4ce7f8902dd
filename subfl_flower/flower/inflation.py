"""Bound of what a node's reply may take when Flower unpacks it.

Flower stores an array as a list of references to chunks of bytes, and a reference may stand there as often as its
sender likes: a reply of four megabytes can unpack to as many gigabytes before anybody sees it. References are counted
here after the objects have arrived and before they are unpacked.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from flwr.app import Error, Message, Metadata
from flwr.common.constant import ErrorCode
from flwr.common.serde_utils import metadata_from_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_object_head_values_from_object_content

from subfl_flower.errors import SubflError

MOST_REPEATED = 1 << 26
"""Bytes that a reply may take in addition to those that arrived, for chunks that are alike."""

_UNPACKS = "inflate_object_from_contents"


def bound_inflation(grid: Grid, most_repeated: int = MOST_REPEATED) -> None:
    """Have a grid over the network hand out an error for a reply that cannot be unpacked, or is too large for it.

    Only the function by which the grid's module unpacks is wrapped. A grid whose module has none is not changed.
    """
    module = sys.modules[type(grid).__module__]
    unpack = getattr(module, _UNPACKS, None)
    if unpack is not None and not hasattr(unpack, "bounded"):
        setattr(module, _UNPACKS, _bounded(unpack, most_repeated))


def _bounded(unpack: Callable[..., Any], most_repeated: int) -> Callable[..., Any]:
    @wraps(unpack)
    def bounded(object_id: str, object_contents: dict[str, bytes], **rest: Any) -> Any:
        content = object_contents.get(object_id, b"")
        try:
            require_few_repeats(object_contents, most_repeated)
            reply = unpack(object_id, object_contents, **rest)
            if not isinstance(reply, Message):
                raise SubflError("it is no message")
            return reply
        except Exception as error:  # a node writes all objects, so that their parsers may raise anything
            return _refusal(content, error)

    bounded.bounded = True  # type: ignore[attr-defined]
    return bounded


def require_few_repeats(contents: Mapping[str, bytes], most_repeated: int) -> None:
    """Require that arrays take at most so many bytes more than have arrived.

    Args:
        contents: Flower's objects, by id.
        most_repeated: bytes.

    Raises:
        SubflError: they take more, or objects contradict each other.
    """
    arrived, unpacked = sum(map(len, contents.values())), 0
    for content in contents.values():
        kind, children, length = get_object_head_values_from_object_content(content)
        if kind != "Array":
            continue
        sizes = [_length(contents, child) for child in children]
        unpacked += sum(sizes[int(place)] for place in json.loads(content[len(content) - length :])["arraychunk_ids"])
        if unpacked > arrived + most_repeated:
            raise SubflError(f"its arrays repeat {arrived} bytes until they take more than {arrived + most_repeated}")


def _length(contents: Mapping[str, bytes], child: str) -> int:
    """Bytes of a chunk."""
    if child not in contents:
        raise SubflError("it lacks an object that an array refers to")
    return len(contents[child])


def _refusal(content: bytes, error: Exception) -> Message:
    """An error in the place of a reply.

    Args:
        content: Flower's object of the message, whose metadata say what it replies to.
        error: the reason.
    """
    try:
        _, _, length = get_object_head_values_from_object_content(content)
        metadata = metadata_from_proto(ProtoMessage.FromString(content[len(content) - length :]).metadata)
    except Exception:  # it says not even what it replies to
        metadata = Metadata(0, "", 0, 0, "", "", time.time(), 0.0, "system")
    why = str(error) if isinstance(error, SubflError) else f"it cannot be unpacked ({type(error).__name__}: {error})"
    reason = Error(ErrorCode.UNKNOWN, f"its node's reply is refused: {why}")
    return Message(metadata=metadata, error=reason)  # type: ignore[call-overload]

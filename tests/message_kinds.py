"""Kinds of messages to a node."""

from __future__ import annotations

from flwr.app import Message


def domain_of(message: Message) -> str:
    """``train``, ``query.roster`` and the like; of a question to clients or to the matcher, the name of its phase."""
    kind = message.metadata.message_type
    return f"query.{message.content.config_records['run']['phase']}" if kind == "query.ask" else kind

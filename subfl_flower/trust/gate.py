"""The gate of a site: installed code that looks at a message before the app's code is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from flwr.app import Message
from pydantic import BaseModel, ConfigDict

from subfl_flower.errors import SubflError
from subfl_flower.trust.orders import ORDER, verified
from subfl_flower.trust.site_records import SiteRecords

SITE = "SUBFL_SITE"
"""Environment variable of a SuperNode, and so of its messages' processes: `SiteSettings` as JSON."""


class SiteSettings(BaseModel):
    """Settings of a site that its operator alone decides on.

    Attributes:
        operators: public keys whose orders are carried out, as 64 hexadecimal digits each.
        state: folder for the site's records.
        warm: fork the processes of messages; False starts a program for each.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    operators: tuple[str, ...] = ()
    state: Path
    warm: bool = True

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self | None:
        """The settings in a process's environment; None where there are none."""
        return cls.model_validate_json(environment[SITE]) if SITE in environment else None


class Gate:
    """The gate of one site.

    Args:
        settings: of the site.
    """

    def __init__(self, settings: SiteSettings) -> None:
        self._pinned = frozenset(bytes.fromhex(key) for key in settings.operators)
        self._records = SiteRecords(settings.state / "orders")

    def admit(self, message: Message, node_id: int) -> None:
        """Let a message pass once; its signature does not go further.

        Args:
            message: as it arrived.
            node_id: of this node.

        Raises:
            SubflError: the message is refused, with the reason.
        """
        if not message.has_content():
            raise SubflError("this site was sent an error in the place of an order")
        order = verified(message, node_id, self._pinned)
        with self._records.locked():
            self._records.keep(order.run_id, self._records.of(order.run_id).after(order))
        del message.content[ORDER]

"""The gate of a site: installed code that looks at a message before the app's code is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from flwr.app import Message
from pydantic import BaseModel, ConfigDict

from subfl_flower.errors import SubflError
from subfl_flower.trust.app_code import ANY, AppCode
from subfl_flower.trust.orders import ORDER, verified
from subfl_flower.trust.policy import Policy, Request, refusal
from subfl_flower.trust.site_records import SiteRecords

SITE = "SUBFL_SITE"
"""Environment variable of a SuperNode, and so of its messages' processes: `SiteSettings` as JSON."""


class SiteSettings(BaseModel):
    """Settings of a site that its operator alone decides on.

    Attributes:
        operators: public keys whose orders are carried out, as 64 hexadecimal digits each; none takes all orders.
        state: folder for the site's records.
        warm: fork the processes of messages; False starts a program for each.
        policy: of the site; None allows everything.
        clients: dotted paths of clients' classes, by the methods that the policy allows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    operators: tuple[str, ...] = ()
    state: Path
    warm: bool = True
    policy: Policy | None = None
    clients: dict[str, tuple[str, ...]] = {}

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self | None:
        """The settings in a process's environment; None where there are none."""
        return cls.model_validate_json(environment[SITE]) if SITE in environment else None

    @property
    def code(self) -> AppCode:
        """Code that the site has let in."""
        return AppCode(self.state, ANY if self.policy is None else self.policy.code)


@dataclass(frozen=True)
class Arrival:
    """A message that has reached a node, before the app's code is loaded.

    Attributes:
        message: as it arrived.
        node_id: of this node.
        bundle: Flower's bundle of the app.
    """

    message: Message
    node_id: int
    bundle: bytes


class Gate:
    """The gate of one site.

    Args:
        settings: of the site.
    """

    def __init__(self, settings: SiteSettings) -> None:
        self._settings = settings
        self._pinned = frozenset(bytes.fromhex(key) for key in settings.operators)
        self._records = SiteRecords(settings.state / "orders")

    def admit(self, arrival: Arrival) -> None:
        """Let a message pass once; its signature does not go further.

        Raises:
            SubflError: the message is refused, with the reason.
        """
        message, policy = arrival.message, self._settings.policy
        if not message.has_content():
            raise SubflError("this site was sent an error in the place of an order")
        order = verified(message, arrival.node_id, self._pinned) if self._pinned else None
        request = Request.of(message)
        with self._records.locked():
            self._settings.code.let_in(arrival.bundle)
            heard = self._records.of(request.run_id)
            if order is not None:
                heard = heard.after(order)
            if policy is not None:
                all_heard = {**self._records.all(), request.run_id: heard}
                if reason := refusal(policy, self._settings.clients, request, all_heard):
                    raise SubflError(f"the site's policy refuses this run: {reason}")
            self._records.keep(request.run_id, request.counted_in(heard))
        message.content.pop(ORDER, None)

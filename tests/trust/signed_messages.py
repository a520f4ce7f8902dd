"""Messages as a SuperLink's ServerApp signs them, and a site that receives them, in this process."""

from __future__ import annotations

import copy
import io
import itertools
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from subfl_flower.flower.inline_grid import InlineGrid
from subfl_flower.trust.gate import Arrival, Gate, SiteSettings
from subfl_flower.trust.operator_key import raw
from subfl_flower.trust.orders import RUN, sign

NODE = 1


def bundle(**files: str) -> bytes:
    """An app as Flower packs it; a double underscore in a name stands for a dot."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "."), text)
    return packed.getvalue()


BUNDLE = bundle(pyproject__toml="", client_app__py="x = 1")


CONFIG: dict[str, Any] = {
    "seed": 0,
    "federation": {"rounds": 10},
    "method": {"name": "fedavg", "client": "subfl_flower.clients.subgraphs.subgraph.SubgraphClient", "masking": True},
    "privacy": {"mechanism": "laplace_l1", "clip": 1.0, "epsilon": 0.5},
    "wire": {"dtype": "float32"},
}


class Operator:
    """An operator, and the orders that its server sends; numbers of orders begin at 1.

    Args:
        attempt: of the run.
    """

    def __init__(self, attempt: int = 1, run_id: str = "ab12", key: Ed25519PrivateKey | None = None) -> None:
        self.key = Ed25519PrivateKey.generate() if key is None else key
        self.about: dict[str, Any] = {"id": run_id, "attempt": attempt, "config": json.dumps(CONFIG)}
        self._numbers: Iterator[int] = itertools.count(1)

    @property
    def public(self) -> str:
        return raw(self.key.public_key()).hex()

    def order(self, kind: str = "train", node: int = NODE, server_round: int = 1, **about: Any) -> Message:
        """A signed message with every kind of record and value."""
        message = unsigned(kind, node, {**self.about, "round": server_round, **about})
        sign(message, self.key, next(self._numbers))
        return delivered(message)


def unsigned(kind: str, node: int, about: dict[str, Any]) -> Message:
    run = {**about, "clients": [0, 2], "nobody": [], "share": 0.25, "keep": True, "words": ["a", "b"], "raw": b"\0"}
    arrays = {"w": Array(np.arange(6, dtype=np.float32).reshape(2, 3)), "b": Array(np.ones(3, np.float32))}
    figures = MetricRecord({"loss": 0.5, "steps": 3, "each": [0.1, 0.2]})
    content = RecordDict({RUN: ConfigRecord(run), "arrays": ArrayRecord(arrays), "figures": figures})
    return Message(content, node, kind)


def delivered(message: Message) -> Message:
    """The message as Flower transports it: taken to pieces, and put together from them."""
    pieces = {name: part.deflate() for name, part in get_all_nested_objects(message).items()}
    found = inflate_object_from_contents(message.object_id, pieces)
    assert isinstance(found, Message)
    return found


def site(folder: Path, *operators: str, **settings: Any) -> Gate:
    """A site's gate; a second one of the same folder is the same site in another process."""
    return Gate(SiteSettings(operators=operators, state=folder, **settings))


class Gated(InlineGrid):
    """Nodes of an app with a gate in front of each.

    Attributes:
        passed: copies of the messages that were sent to nodes, as they were sent.
    """

    def __init__(self, app: ClientApp, gates: dict[int, Gate]) -> None:
        self.passed: list[Message] = []

        def admitted(message: Message, context: Context) -> Message:
            self.passed.append(copy.deepcopy(message))
            gates[context.node_id].admit(Arrival(message, context.node_id, BUNDLE))
            return app(message=message, context=context)

        super().__init__(admitted, len(gates))  # type: ignore[arg-type]

"""Single clients and strategies of a simulation, for programs with Flower's own loop."""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Sequence

from flwr.app import ConfigRecord
from flwr.serverapp import Grid

from subfl_flower.composition import composed_config
from subfl_flower.node.client import CohortClient
from subfl_flower.node.domain import domain_of
from subfl_flower.node.node import compute_device
from subfl_flower.node.run_context import run_context
from subfl_flower.node.shared_key import SharedKey
from subfl_flower.node.state import MemoryStore, StateStore
from subfl_flower.registry import client_class, strategy_class
from subfl_flower.server.membership import Membership
from subfl_flower.server.run_schema import run_schema
from subfl_flower.server.strategy import CohortStrategy
from subfl_flower.wire.roster import Shape


def make_client(overrides: Sequence[str], client_ids: Sequence[int], store: StateStore | None = None) -> CohortClient:
    """Make the object that trains some clients of a prepared data set: a Flower ``NumPyClient``.

    Args:
        overrides: as on the command line, such as ``["method=fedavg", "dataset=cora"]``.
        client_ids: the clients.
        store: keeps personal state, such as Adam's moments; None: in this process, as long as the object lives.

    Raises:
        SubflError: an override is wrong, or the data cannot be prepared.
    """
    config, _ = composed_config(overrides)
    kind = domain_of(config)
    prepared, device = kind.prepare(config), compute_device(config.runtime.device)
    key = SharedKey(config.data.cache / "clients.key", create=True)
    about = kind.about(prepared)
    run = run_context(config, Shape(*(about[name] for name in Shape._fields)), run_id="")
    cohort = kind.cohort(config, prepared, client_ids, device, key)
    return client_class(config.method)(run, cohort, MemoryStore(device) if store is None else store)


def make_strategy(overrides: Sequence[str], grid: Grid) -> tuple[CohortStrategy, ConfigRecord]:
    """Make a method's strategy for the nodes of a simulation that run `subfl_flower.client_app.app`.

    Args:
        overrides: as on the command line.
        grid: the connection to the nodes.

    Returns:
        The strategy, and the record that describes the run: ``train_config`` and ``evaluate_config`` of the strategy's
        ``start``.

    Raises:
        SubflError: an override is wrong, the data cannot be prepared, or a node does not answer.
    """
    config, _ = composed_config(["runtime=ray", *overrides])
    prepared = domain_of(config).prepare(config)
    run_id, directory = secrets.token_hex(8), tempfile.mkdtemp(prefix="subfl-")
    about = ConfigRecord({"config": json.dumps(config.plain()), "id": run_id, "directory": directory})
    patience = config.runtime.node_timeout
    schema = run_schema(config, prepared)
    membership = Membership(grid, about, config.dataset.name, schema, tolerant=False, patience=patience)
    roster = membership.gather()
    context = run_context(config, roster.shape, run_id)
    contract = client_class(config.method).contract(context)
    return strategy_class(config.method)(context, roster, contract), about

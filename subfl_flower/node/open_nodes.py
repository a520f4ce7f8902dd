"""The nodes of this process.

Flower creates a ClientApp for every message. This module keeps what does not change between messages (data, operators,
the client object) for as long as the process works for the same run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Context

from subfl_flower.code_folder import adopt
from subfl_flower.config import Config
from subfl_flower.doors import only_packages
from subfl_flower.errors import SubflError
from subfl_flower.node.hosts import DeployedNode, SimulatedNode
from subfl_flower.node.matcher import ContextMemory, FolderMemory, MatcherNode
from subfl_flower.node.node import Node
from subfl_flower.privacy.expansion import MatchBounds
from subfl_flower.registry import needs_matcher, validate
from subfl_flower.wire.roster import MATCHER

AnyNode = Node | MatcherNode

_open_nodes: dict[tuple[str, str, str], AnyNode] = {}


def open_clients(run: ConfigRecord, context: Context) -> Node:
    """The node that a message to clients is for.

    Raises:
        SubflError: see `open_node`; or the node hosts no clients.
    """
    return open_node(run, context).of_clients()


def open_node(run: ConfigRecord, context: Context) -> AnyNode:
    """The node that a message is for; data of an earlier run in this process are dropped.

    Raises:
        SubflError: the node was not started for such a run, or its clients' data cannot be read.
    """
    text, run_id, directory = str(run["config"]), str(run["id"]), str(run["directory"])
    if not run_id.isalnum():
        raise SubflError(f"the server sent the run id {run_id!r}, which is none")  # it names a folder
    if any(other_id != run_id for _, other_id, _ in _open_nodes):
        forget_nodes()
    key = (text, run_id, json.dumps(dict(context.node_config), sort_keys=True))
    if key not in _open_nodes:
        node = _new_node(_plain(text), run_id, directory, context, str(run.get("code", "")))
        if not node.lasts:
            return node
        _open_nodes[key] = node
    return _open_nodes[key]


def _new_node(plain: dict[str, Any], run_id: str, directory: str, context: Context, code: str) -> AnyNode:
    here = context.node_config
    if "partition-id" not in here:
        # A server elsewhere names no folder to import from, and no package that the operator did not allow.
        with only_packages([name for name in str(here.get("allow-packages", "")).split(",") if name]):
            return _deployed(validate(plain), run_id, here)
    if code:
        adopt(Path(code))
    config = validate(plain)
    if config.runtime.deployed:
        raise SubflError("runtime=deploy is for SuperNodes on machines of their own, and this one is a simulation's")
    position, num_nodes = int(here["partition-id"]), int(here["num-partitions"])
    if needs_matcher(config):
        num_nodes -= 1  # the last one is the matcher
        if not num_nodes:
            raise SubflError("with a matcher a simulation needs two nodes or more: one of them hosts no clients")
        if position == num_nodes:
            return MatcherNode(config, run_id, ContextMemory(context.state))
    return SimulatedNode(config, run_id, Path(directory), position, num_nodes)


def _deployed(config: Config, run_id: str, here: Mapping[str, Any]) -> AnyNode:
    """Open a deployed SuperNode, of clients or of the matcher."""
    if not config.runtime.deployed:
        raise SubflError(f"runtime={config.runtime.name} is a simulation, and this node is none; use runtime=deploy")
    state = Path(str(here["state"])) if "state" in here else None
    role = str(here.get("role", "client"))
    if role == MATCHER:
        if state is None:
            raise SubflError(
                'the matcher keeps its key in a folder; start it with --node-config \'role="matcher" state="FOLDER"\''
            )
        return MatcherNode(config, run_id, FolderMemory(state, run_id), _match_bounds(config, here))
    if role != "client":
        raise SubflError(f"this SuperNode's role is {role!r}; --node-config 'role' must be client or {MATCHER}")
    if "client" not in here:
        raise SubflError("this SuperNode names no client; start it with --node-config 'client=\"FOLDER\"'")
    folders = [Path(part) for part in str(here["client"]).split(",")]
    key = bytes.fromhex(str(here["matcher-key"])) if "matcher-key" in here else None
    limit = float(here["epsilon-limit"]) if "epsilon-limit" in here else None
    node = DeployedNode(config, run_id, folders, state, key, bool(here.get("keep-embeddings", False)), limit)
    node.forget_finished_runs()
    return node


def _match_bounds(config: Config, here: Mapping[str, Any]) -> MatchBounds:
    """Bounds of what a deployed matcher answers: those of its operator, whatever the server's configuration says."""
    stated = config.data_schema.client_ids
    users = int(here["most-users"]) if "most-users" in here else None if stated is None else len(stated)
    most = None if users is None else 2 * users  # a round is repeated after a resume
    bounds = MatchBounds(int(here.get("least-users", 5)), int(here.get("least-common", 3)), most)
    if min(bounds.least_users, bounds.least_common) < 1:
        raise SubflError("this matcher's least-users and least-common, of --node-config, must be at least 1")
    return bounds


def forget_nodes() -> None:
    """Drop the data and states that this process holds."""
    _open_nodes.clear()


def _plain(text: str) -> dict[str, Any]:
    values = json.loads(text)
    if not isinstance(values, dict):
        raise SubflError("the server sent a configuration that is not a mapping")
    return values

"""One node's side of a federation: which clients it hosts, and the object that trains them.

Flower calls a ClientApp anew for every message. What does not change between messages (data, operators, the client
object) is kept in this module for as long as the process works for the same run.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from flwr.app import ConfigRecord, Context

from subfl_flower.config import Config, Inline, Ray, load_class, settings_of, validate
from subfl_flower.data.prepared import PreparedPartition, prepare
from subfl_flower.errors import SubflError
from subfl_flower.runtime.cohort import Cohort
from subfl_flower.runtime.cohort_client import CohortClient
from subfl_flower.runtime.memory import keep_freed_memory
from subfl_flower.runtime.shared_key import SharedKey
from subfl_flower.runtime.state import ContextStore, MappedStore, MemoryStore, StateStore


class Node:
    """A node of a simulation: of P nodes, node p hosts the clients c with c mod P = p.

    Args:
        config: of the run.
        directory: the run directory.
        position: p.
        num_nodes: P.
    """

    def __init__(self, config: Config, directory: Path, position: int, num_nodes: int) -> None:
        keep_freed_memory()
        self.config = config
        self.directory = directory
        self.position = position
        self.num_nodes = num_nodes
        self.partition: PreparedPartition = prepare(
            config.dataset, config.partition, config.data.root, config.data.cache, config.task.needs_labels
        )
        self.client_ids = list(range(position, self.partition.num_clients, num_nodes))
        self._client: CohortClient | None = None

    @cached_property
    def cohort(self) -> Cohort:
        """This node's clients, with their data read."""
        config = self.config
        key = SharedKey(config.data.cache / "clients.key", create=True)
        device = compute_device(config.runtime.device)
        return Cohort.load(self.partition, self.client_ids, device, config.runtime.chunk, config.task, key)

    def client(self, context: Context) -> CohortClient:
        """The object that trains this node's clients, with their state at hand."""
        if self._client is None:
            config = self.config
            family = load_class(config.method.client, CohortClient, "method.client")
            torch.set_num_threads(num_threads(config))
            self._client = family(
                cohort=self.cohort,
                settings=settings_of(family, config.method),
                model=config.model,
                optimizer=config.optimizer,
                seed=config.seed,
                store=self._store(self.cohort.device),
            )
        if _travels_with_messages(self.config):
            self._client.store = ContextStore(context.state)
        return self._client

    def _store(self, device: torch.device) -> StateStore:
        if isinstance(self.config.runtime, Inline):
            return MemoryStore(device)
        return MappedStore(self.directory / "state" / f"{self.position:04d}-of-{self.num_nodes:04d}")


_open_nodes: dict[tuple[str, int], Node] = {}


def open_node(run: ConfigRecord, context: Context) -> Node:
    """The node that a message is for; what an earlier run left in this process is dropped."""
    position = int(context.node_config["partition-id"])
    num_nodes = int(context.node_config["num-partitions"])
    text, directory = str(run["config"]), Path(str(run["directory"]))
    if any(other.directory != directory for other in _open_nodes.values()):
        forget_nodes()
    key = (text, position)
    if key not in _open_nodes:
        _open_nodes[key] = Node(validate(_plain(text)), directory, position, num_nodes)
    return _open_nodes[key]


def forget_nodes() -> None:
    """Drop the data and states that this process holds."""
    _open_nodes.clear()


def compute_device(name: str) -> torch.device:
    """The device that ``runtime.device`` names; ``auto`` takes a GPU that is visible, else the CPU.

    Raises:
        SubflError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SubflError(f"runtime.device: {name!r} cannot be used here ({reason}); use auto, cpu or cuda") from None
    return device


def num_threads(config: Config) -> int:
    """PyTorch's threads in a process that trains clients."""
    if config.runtime.threads != "auto":
        return config.runtime.threads
    if isinstance(config.runtime, Ray):
        return max(1, int(config.runtime.num_cpus))
    return torch.get_num_threads()


def _travels_with_messages(config: Config) -> bool:
    """Whether actors may sit on machines that share no disk, so that state must travel with messages."""
    return isinstance(config.runtime, Ray) and config.runtime.address is not None


def _plain(text: str) -> dict[str, Any]:
    values = json.loads(text)
    if not isinstance(values, dict):
        raise SubflError("the server sent a configuration that is not a mapping")
    return values

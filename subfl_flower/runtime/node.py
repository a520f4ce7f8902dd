"""One node's side of a federation: which clients it hosts, and the object that trains them.

Flower calls a ClientApp anew for every message. What does not change between messages (data, operators, the client
object) is kept in this module for as long as the process works for the same run.
"""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ConfigRecord, Context

from subfl_flower.config import Config, Deploy, Inline, Ray, load_class, settings_of, validate
from subfl_flower.data.client_folder import open_client_folders
from subfl_flower.data.prepared import PreparedPartition, prepare
from subfl_flower.errors import SubflError
from subfl_flower.models.exported import CARD, ModelCard, write_model
from subfl_flower.runtime.cohort import Cohort
from subfl_flower.runtime.cohort_client import CohortClient
from subfl_flower.runtime.memory import keep_freed_memory
from subfl_flower.runtime.run_directory import RunDirectory
from subfl_flower.runtime.shared_key import SharedKey
from subfl_flower.runtime.state import ContextStore, DurableStore, MappedStore, MemoryStore, StateStore


class Node(ABC):
    """A node and its clients.

    Args:
        config: of the run.
        run_id: of the run.

    Attributes:
        client_ids: whom it hosts, ascending.
        about: what the roster says of the data set that the clients' data are of.
    """

    client_ids: list[int]
    about: dict[str, Any]

    def __init__(self, config: Config, run_id: str) -> None:
        keep_freed_memory()
        self.config = config
        self.run_id = run_id
        self._client: CohortClient | None = None

    @cached_property
    @abstractmethod
    def cohort(self) -> Cohort:
        """This node's clients, with their data read."""

    @abstractmethod
    def store(self, run: ConfigRecord, context: Context) -> StateStore:
        """Where clients' states are, as they were before the round that a message is about."""

    @abstractmethod
    def write_model(self, client_id: int, tensors: dict[str, np.ndarray], card: ModelCard) -> None:
        """Write a client's best model where it belongs."""

    def client(self, run: ConfigRecord, context: Context) -> CohortClient:
        """The object that trains this node's clients, with their state at hand."""
        store = self.store(run, context)
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
                store=store,
            )
        self._client.store = store
        return self._client

    def export(self, run: ConfigRecord, context: Context) -> None:
        """Write every client's best model."""
        config, cohort = self.config, self.cohort
        client = self.client(run, context)
        validation = client.best_validation()
        for client_id, tensors in client.best_models().items():
            card = ModelCard(
                model=config.model,
                task=config.task,
                num_features=cohort.num_features,
                num_classes=cohort.num_classes,
                dataset=config.dataset.name,
                client=client_id,
                method=config.method.name,
                run=self.run_id,
                round=int(run.get("round", 1)) - 1,  # type: ignore[arg-type]
                validation=validation.get(client_id),
                row_normalize=config.dataset.row_normalize,
            )
            self.write_model(client_id, tensors, card)


class SimulatedNode(Node):
    """A node of a simulation: of P nodes, node p hosts the clients c with c mod P = p.

    Args:
        config: of the run.
        run_id: of the run.
        directory: the run directory.
        position: p.
        num_nodes: P.
    """

    def __init__(self, config: Config, run_id: str, directory: Path, position: int, num_nodes: int) -> None:
        super().__init__(config, run_id)
        self._directory = directory
        self._place = f"{position:04d}-of-{num_nodes:04d}"
        self._partition: PreparedPartition = prepare(
            config.dataset, config.partition, config.data.root, config.data.cache, config.task.needs_labels
        )
        self.client_ids = list(range(position, self._partition.num_clients, num_nodes))
        self.about = {
            "dataset": config.dataset.name,
            "partition": self._partition.key,
            "num_clients": self._partition.num_clients,
            "num_features": self._partition.num_features,
            "num_classes": self._partition.num_classes,
            "overlapping": self._partition.overlapping,
        }

    @cached_property
    def cohort(self) -> Cohort:
        """This node's clients, with their data read from the prepared partition."""
        config = self.config
        key = SharedKey(config.data.cache / "clients.key", create=True)
        device = compute_device(config.runtime.device)
        return Cohort.load(self._partition, self.client_ids, device, config.runtime.chunk, config.task, key)

    @cached_property
    def _working_store(self) -> StateStore:
        if isinstance(self.config.runtime, Inline):
            return MemoryStore(self.cohort.device)
        return MappedStore(self._directory / "state" / self._place)

    def store(self, run: ConfigRecord, context: Context) -> StateStore:
        """States live where the runtime wants them, and as files beside the server's checkpoint where there is one."""
        store = ContextStore(context.state) if _travels_with_messages(self.config) else self._working_store
        if not self.config.checkpoint_every:
            return store
        folder = RunDirectory(self._directory).checkpoint_folder / "clients"

        def folder_of(client_id: int) -> Path:
            return folder / (f"{client_id:04d}" if client_id >= 0 else "central")

        return _durable(store, folder_of, run, keep=bool(run.get("keep", False)))

    def write_model(self, client_id: int, tensors: dict[str, np.ndarray], card: ModelCard) -> None:
        """Into the run directory."""
        RunDirectory(self._directory).write_client_model(client_id, tensors, {CARD: card.as_json()})


class DeployedNode(Node):
    """A SuperNode on a machine of its own, which holds the folders of its clients.

    A folder gets a folder ``runs/<run>`` for each run: the client's state while the run goes on, and its best model at
    the end.

    Args:
        config: of the run.
        run_id: of the run.
        folders: of the clients.
        state: where a folder ``client-<id>/runs`` is made for each; None for in the clients' own folders.
    """

    def __init__(self, config: Config, run_id: str, folders: Sequence[Path], state: Path | None) -> None:
        super().__init__(config, run_id)
        opened = open_client_folders(folders)
        ids = [folder.description.client_id for folder in opened]
        self._folders = dict(zip(ids, opened, strict=True))
        self._runs = {
            client_id: (folder.path if state is None else state / f"client-{client_id:02d}") / "runs"
            for client_id, folder in self._folders.items()
        }
        self.client_ids = ids
        first = opened[0].description
        self.about = {
            "dataset": first.dataset,
            "partition": first.partition,
            "num_clients": first.num_clients or 0,
            "num_features": first.num_features,
            "num_classes": first.num_classes,
            "overlapping": any(folder.description.overlapping for folder in opened),
        }

    @cached_property
    def cohort(self) -> Cohort:
        """This node's clients, with their data read from their folders."""
        config, folders = self.config, list(self._folders.values())
        return Cohort(
            graphs=tuple(folder.graph() for folder in folders),
            num_features=self.about["num_features"],
            num_classes=self.about["num_classes"],
            device=compute_device(config.runtime.device),
            chunk=config.runtime.chunk,
            task=config.task,
            shared_key=SharedKey(folders[0].key_path),
        )

    def store(self, run: ConfigRecord, context: Context) -> StateStore:
        """States are read from their files for every message: this process may be the first of many, or resumed."""

        def folder_of(client_id: int) -> Path:
            return self._runs[client_id] / self.run_id / "state"

        return _durable(MemoryStore(self.cohort.device), folder_of, run, keep=True)

    def write_model(self, client_id: int, tensors: dict[str, np.ndarray], card: ModelCard) -> None:
        """Into the client's folder of the run."""
        write_model(self._runs[client_id] / self.run_id, tensors, card)

    def forget_finished_runs(self) -> None:
        """Remove the states of other runs that have left their models; the models stay."""
        for runs in self._runs.values():
            for run in runs.glob("*"):
                if run.name != self.run_id and (run / "model.json").is_file():
                    shutil.rmtree(run / "state", ignore_errors=True)


def _durable(store: StateStore, folder_of: Callable[[int], Path], run: ConfigRecord, keep: bool) -> DurableStore:
    """States in `store` and in files, for the round that a message is about."""
    server_round, checkpoint = (int(run.get(key, default)) for key, default in (("round", 1), ("checkpoint", 0)))  # type: ignore[arg-type]
    return DurableStore(store, folder_of, server_round, checkpoint, keep)


_open_nodes: dict[tuple[str, str, str], Node] = {}


def open_node(run: ConfigRecord, context: Context) -> Node:
    """The node that a message is for; what an earlier run left in this process is dropped.

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
        _open_nodes[key] = _new_node(validate(_plain(text)), run_id, directory, context)
    return _open_nodes[key]


def _new_node(config: Config, run_id: str, directory: str, context: Context) -> Node:
    here = context.node_config
    if isinstance(config.runtime, Deploy):
        if "client" not in here:
            raise SubflError("this SuperNode names no client; start it with --node-config 'client=\"FOLDER\"'")
        folders = [Path(part) for part in str(here["client"]).split(",")]
        state = Path(str(here["state"])) if "state" in here else None
        node = DeployedNode(config, run_id, folders, state)
        node.forget_finished_runs()
        return node
    if "partition-id" not in here:
        raise SubflError(f"runtime={config.runtime.name} is a simulation, and this node is none; use runtime=deploy")
    position, num_nodes = int(here["partition-id"]), int(here["num-partitions"])
    return SimulatedNode(config, run_id, Path(directory), position, num_nodes)


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

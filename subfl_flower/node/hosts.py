"""Nodes with clients: on a prepared partition of a simulation, or on folders of a deployed machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from flwr.app import ConfigRecord, Context

from subfl_flower.config import Config
from subfl_flower.errors import SubflError
from subfl_flower.node.client import CohortClient, Hosted
from subfl_flower.node.domain import ClientModel, NodeSecrets, UsersModel, domain_of
from subfl_flower.node.durable_store import DurableStore
from subfl_flower.node.node import Node, compute_device
from subfl_flower.node.shared_key import SharedKey
from subfl_flower.node.state import ContextStore, MappedStore, MemoryStore, StateStore
from subfl_flower.privacy.ledger import PrivacyLedger
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.runs.files import parse_object, read_file, write_whole
from subfl_flower.storage.tensor_file import MODEL_FILE
from subfl_flower.wire.batch import Result


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
        kind = domain_of(config)
        self._prepared = kind.prepare(config)
        self.client_ids = list(range(position, self._prepared.num_clients, num_nodes))
        self.about = {"dataset": config.dataset.name, **kind.about(self._prepared)}

    @cached_property
    def cohort(self) -> Hosted:
        """Read this node's clients from the prepared data."""
        config = self.config
        key = SharedKey(config.data.cache / "clients.key", create=True)
        device = compute_device(config.runtime.device)
        return domain_of(config).cohort(config, self._prepared, self.client_ids, device, key)

    @cached_property
    def _working_store(self) -> StateStore:
        if self.config.runtime.one_process:
            return MemoryStore(self.cohort.device)
        return MappedStore(self._directory / "state" / self._place)

    def store(self, run: ConfigRecord, context: Context, phase: str) -> StateStore:
        """Open the runtime's store; where the server writes checkpoints, states are also kept in files.

        Where checkpoints have their times instead of their rounds, files are written when the server asks for it, and
        read in a resumed run.
        """
        store = ContextStore(context.state) if self.config.runtime.state_travels else self._working_store
        every = self.config.checkpoint_every
        if every == 0 or (every is None and not run.get("keep") and not run.get("resumed")):
            return store
        folder = RunDirectory(self._directory).checkpoint_folder / "clients"

        def folder_of(client_id: int) -> Path:
            return folder / (f"{client_id:04d}" if client_id >= 0 else "central")

        return _durable(store, folder_of, run, phase, self.phases, keep=bool(run.get("keep", False)))

    def write_model(self, client_id: int, model: ClientModel) -> None:
        """Write the model to the run directory."""
        model.write(RunDirectory(self._directory).client_file(client_id))

    def write_recommender(self, trained: UsersModel) -> None:
        """Write the recommender to the run directory, a file a node."""
        trained.write(RunDirectory(self._directory).recommender_folder / f"node-{self._place}.safetensors")


class DeployedNode(Node):
    """A deployed SuperNode, which holds the folders of its clients.

    A folder gets a folder ``runs/<run>`` for each run: the client's state while the run goes on, and its best model at
    the end.

    Args:
        config: of the run.
        run_id: of the run.
        folders: of the clients.
        state: where a folder ``client-<id>/runs`` is made for each; None: in the clients' own folders.
        matcher_key: the only public key that clients seal to; None: the matcher's key as the server sends it.
        keep_embeddings: never send the server an embedding to be clustered by.
        epsilon_limit: largest epsilon that uploads of a client's data may reach in all runs together; None: no limit.
    """

    def __init__(
        self,
        config: Config,
        run_id: str,
        folders: Sequence[Path],
        state: Path | None,
        matcher_key: bytes | None = None,
        keep_embeddings: bool = False,
        epsilon_limit: float | None = None,
    ) -> None:
        super().__init__(config, run_id)
        kind = domain_of(config)
        opened = kind.open_folders(folders)
        ids = [folder.description.client_id for folder in opened]
        self._folders = dict(zip(ids, opened, strict=True))
        self._runs = {
            client_id: (folder.path if state is None else state / f"client-{client_id:02d}") / "runs"
            for client_id, folder in self._folders.items()
        }
        places = {client: runs.parent for client, runs in self._runs.items()}
        self._secrets = NodeSecrets(run_id, places, matcher_key, keep_embeddings)
        self._ledgers = {client_id: PrivacyLedger(place, epsilon_limit) for client_id, place in places.items()}
        self.client_ids = ids
        digests = [folder.fingerprint for folder in opened]
        self.about = {
            "dataset": opened[0].description.dataset,
            "fingerprints": digests,
            **kind.about_folders(opened),
        }

    @cached_property
    def cohort(self) -> Hosted:
        """Read this node's clients from their folders, and keep the data's facts in the folders of their states.

        Raises:
            SubflError: a folder is damaged, or holds other data than at the beginning of the run.
        """
        for client_id in self.client_ids:
            self._keep_data(client_id)
        device = compute_device(self.config.runtime.device)
        return domain_of(self.config).cohort_of_folders(
            self.config, list(self._folders.values()), device, self._secrets
        )

    def _keep_data(self, client_id: int) -> None:
        folder, path = self._folders[client_id], self._runs[client_id] / self.run_id / "data.json"
        if path.exists():
            before = parse_object(read_file(path))
            if before is None or before.get("fingerprint") != folder.fingerprint:
                raise SubflError(
                    f"{folder.path} holds other data than at the beginning of run {self.run_id}; the run goes on only "
                    "with the same data"
                )
            return
        facts = {**domain_of(self.config).facts(folder), "fingerprint": folder.fingerprint}
        write_whole(path, json.dumps(facts, indent=1).encode() + b"\n")

    def store(self, run: ConfigRecord, context: Context, phase: str) -> StateStore:
        """Open the states from their files for every message: this process may be the first of many, or resumed."""

        def folder_of(client_id: int) -> Path:
            return self._runs[client_id] / self.run_id / "state"

        return _durable(MemoryStore(self.cohort.device), folder_of, run, phase, self.phases, keep=True)

    def accounted(self, client: CohortClient, result: Result) -> Result:
        """The result without the uploads that a client's ledger does not allow; the others are written down in it."""
        values, failures = client.protected_values(result), {}
        for row, client_id in enumerate(result.clients):
            try:
                ledger = self._ledgers[client_id]
                ledger.require_protection(client.run.privacy.mechanism, values is not None)
                if values is not None:
                    fingerprint = self._folders[client_id].fingerprint
                    ledger.spend(self.run_id, fingerprint, client.run.privacy, int(values[row]))
            except SubflError as error:
                failures[client_id] = str(error)
        return result.without(failures) if failures else result

    def write_model(self, client_id: int, model: ClientModel) -> None:
        """Write the model and its card to the client's folder of the run."""
        model.write_with_card(self._runs[client_id] / self.run_id / MODEL_FILE)

    def write_recommender(self, trained: UsersModel) -> None:
        """Write to each client's folder of the run a recommender with no data of other clients."""
        for client_id in trained.clients.tolist():
            trained.of_users([client_id]).write(self._runs[client_id] / self.run_id / MODEL_FILE)

    def forget_finished_runs(self) -> None:
        """Remove the states of other runs that have written their models; the models stay."""
        for runs in self._runs.values():
            for run in runs.glob("*"):
                if run.name != self.run_id and (run / MODEL_FILE).is_file():
                    shutil.rmtree(run / "state", ignore_errors=True)


def _durable(
    store: StateStore,
    folder_of: Callable[[int], Path],
    run: ConfigRecord,
    phase: str,
    phases: Sequence[str],
    keep: bool,
) -> DurableStore:
    """Open states in `store` and in files, for the round and phase of a message."""
    server_round, checkpoint = (int(run.get(key, default)) for key, default in (("round", 1), ("checkpoint", 0)))  # type: ignore[arg-type]
    return DurableStore(store, folder_of, server_round, checkpoint, keep, phase, phases)

"""Base of every node of a federation: some clients, and the object that trains them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from flwr.app import ConfigRecord, Context

from subfl_flower.config import Config
from subfl_flower.errors import SubflError
from subfl_flower.node.client import CohortClient, Hosted
from subfl_flower.node.cores import cores_of, shared_among
from subfl_flower.node.cross_measured import CrossMeasuredClients
from subfl_flower.node.domain import ClientModel, UsersModel, domain_of
from subfl_flower.node.durable_store import EVALUATE, TRAIN, DurableStore
from subfl_flower.node.masking.summing import SummingClients
from subfl_flower.node.run_context import run_context
from subfl_flower.node.state import CurrentStore, StateStore
from subfl_flower.registry import client_class
from subfl_flower.wire.batch import Batch, Result
from subfl_flower.wire.memory import keep_freed_memory
from subfl_flower.wire.roster import Shape


class Node(ABC):
    """A node and its clients.

    Args:
        config: of the run.
        run_id: of the run.

    Attributes:
        client_ids: ids of the clients that it hosts, ascending.
        about: facts on the clients' data set, for the roster.
    """

    lasts: ClassVar[bool] = True
    """True where a process keeps the node between two messages."""

    client_ids: list[int]
    about: dict[str, Any]

    def __init__(self, config: Config, run_id: str) -> None:
        keep_freed_memory()
        self.config = config
        self.run_id = run_id

    @cached_property
    @abstractmethod
    def cohort(self) -> Hosted:
        """Read this node's clients."""

    @abstractmethod
    def store(self, run: ConfigRecord, context: Context, phase: str) -> StateStore:
        """Open the store of clients' states, as they were before the round and phase of a message."""

    @abstractmethod
    def write_model(self, client_id: int, model: ClientModel) -> None:
        """Write a client's best model to its place."""

    @abstractmethod
    def write_recommender(self, trained: UsersModel) -> None:
        """Write a recommender for this node's users to its place."""

    def of_clients(self) -> Self:
        """The node itself, as one that hosts clients."""
        return self

    def hosted(self, clients: Sequence[int]) -> tuple[int, ...]:
        """The clients that a message names.

        Raises:
            SubflError: it names one twice, or one that is not hosted here.
        """
        if strange := set(clients).difference(self.client_ids):
            raise SubflError(f"client {min(strange)} is not hosted here")
        if len(set(clients)) < len(clients):
            raise SubflError("the server named a client twice in one message")
        return tuple(clients)

    def roster(self) -> ConfigRecord:
        """The answer to ``query.roster``: the hosted clients, and facts on their data."""
        return ConfigRecord({"clients": self.client_ids, **self.cohort.sizes, **self.about})

    def client(self, run: ConfigRecord, context: Context, phase: str = TRAIN) -> CohortClient:
        """The object that trains this node's clients, with their state as it was before a phase of a round."""
        self._store.now = self.store(run, context, phase)
        client = self._client
        torch.set_num_threads(self._share.inner)  # nodes of one process may differ
        return client

    def answerer(
        self, run: ConfigRecord, context: Context, phase: str
    ) -> CohortClient | SummingClients | CrossMeasuredClients:
        """The object that answers questions: the one that trains the clients, or their part in what any run may ask."""
        client = self.client(run, context, phase)
        if phase in CrossMeasuredClients.phases:
            return CrossMeasuredClients(client)
        return SummingClients(client, dict(run)) if phase in SummingClients.phases else client

    def accounted(self, client: CohortClient, result: Result) -> Result:
        """The result of training, once the privacy that it costs is written down: by default nothing is.

        Args:
            client: the object that trained.
            result: what it made.
        """
        return result

    def keep(self, run: ConfigRecord, context: Context) -> None:
        """Write the states of all clients, as they are after a round, to where a resumed run looks for them.

        Raises:
            SubflError: the node has no such place, or a file cannot be written.
        """
        client, store = self.client(run, context, EVALUATE), self._store.now
        if not isinstance(store, DurableStore):
            raise SubflError("this node keeps no states for a checkpoint")
        states = client.all_states()
        if missed := self._store.opened - {state.client_ids for state in states}:
            raise SubflError(f"{type(client).__name__}.all_states leaves out the state of the clients {min(missed)}")
        for state in states:
            store.keep(state)

    def export(self, client: CohortClient, last: Batch) -> None:
        """Write the best model of some clients.

        Args:
            client: of this node.
            last: the clients, the last round, and the part of their models that the server has.
        """
        domain_of(self.config).export(self, client, last)

    @property
    def phases(self) -> tuple[str, ...]:
        """The phases of a round, in their order."""
        return *client_class(self.config.method).phases, TRAIN, EVALUATE

    @cached_property
    def _store(self) -> CurrentStore:
        return CurrentStore()

    @cached_property
    def _client(self) -> CohortClient:
        shape = Shape(*(self.about[name] for name in Shape._fields))
        made = client_class(self.config.method)(run_context(self.config, shape, self.run_id), self.cohort, self._store)
        made.precision = self.config.runtime.precision
        made.iterate = self._share = shared_among(cores_of(self.config.runtime), made.side_by_side)
        return made


def compute_device(name: str) -> torch.device:
    """The device that ``runtime.device`` names; ``auto`` takes a visible GPU, else the CPU.

    Raises:
        SubflError: this machine has no such device.
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

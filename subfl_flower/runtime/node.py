"""What every node of a federation is: some clients, and the object that trains them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

import numpy as np
import torch
from flwr.app import ConfigRecord, Context

from subfl_flower.config import Config, Ray
from subfl_flower.doors import load_class
from subfl_flower.errors import SubflError
from subfl_flower.models.exported import ModelCard
from subfl_flower.models.trained_users import TrainedUsers
from subfl_flower.registry import settings_of
from subfl_flower.runtime.cohort_client import CohortClient, Hosted
from subfl_flower.runtime.exchange import announced_in
from subfl_flower.runtime.kinds import kind_of
from subfl_flower.runtime.memory import keep_freed_memory
from subfl_flower.runtime.messages import Choice
from subfl_flower.runtime.state import TRAIN, StateStore


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
    def cohort(self) -> Hosted:
        """This node's clients, with their data read."""

    @abstractmethod
    def store(self, run: ConfigRecord, context: Context, phase: str) -> StateStore:
        """Where clients' states are, as they were before the round and phase that a message is about."""

    @abstractmethod
    def write_model(self, client_id: int, tensors: dict[str, np.ndarray], card: ModelCard) -> None:
        """Write a client's best model where it belongs."""

    @abstractmethod
    def write_recommender(self, trained: TrainedUsers) -> None:
        """Write what the users whom this node hosts need for recommendations where it belongs."""

    def client(self, run: ConfigRecord, context: Context, phase: str = TRAIN) -> CohortClient:
        """The object that trains this node's clients, with their state at hand as it was before a phase of a round."""
        store = self.store(run, context, phase)
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
            self._client.privacy = config.privacy
        self._client.store = store
        self._client.announced = announced_in(run)
        return self._client

    def export(self, run: ConfigRecord, context: Context, received: Choice) -> None:
        """Write the best model of every client that a message names; `received` is what of it the server has."""
        last_round = int(run.get("round", 1)) - 1  # type: ignore[arg-type]
        clients = [int(client_id) for client_id in run["clients"]]  # type: ignore[union-attr]
        kind_of(self.config).export(self, self.client(run, context), last_round, clients, received)


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

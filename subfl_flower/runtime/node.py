"""What every node of a federation is: some clients, and the object that trains them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

import numpy as np
import torch
from flwr.app import ConfigRecord, Context

from subfl_flower.config import Config, Ray, load_class, settings_of
from subfl_flower.errors import SubflError
from subfl_flower.models.exported import ModelCard
from subfl_flower.runtime.cohort import Cohort
from subfl_flower.runtime.cohort_client import CohortClient
from subfl_flower.runtime.memory import keep_freed_memory
from subfl_flower.runtime.state import StateStore


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

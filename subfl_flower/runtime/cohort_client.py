"""What the runtime expects of a client family: a ``NumPyClient`` for all clients of a node at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flwr.client import NumPyClient
from pydantic import BaseModel, ConfigDict

from subfl_flower.errors import SubflError
from subfl_flower.models.settings import ModelSettings, OptimizerSettings
from subfl_flower.runtime.cohort import Cohort
from subfl_flower.runtime.messages import Stack
from subfl_flower.runtime.state import StateStore


class CohortClient(NumPyClient, ABC):
    """Trains and evaluates the clients of one node; every array has a leading client axis.

    Args:
        cohort: the clients and their data.
        settings: the family's knobs.
        model: the model's knobs.
        optimizer: the local optimiser's knobs.
        seed: of everything random in local training.
        store: keeps what is personal between rounds.
    """

    class Settings(BaseModel):
        """No knobs."""

        model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def __init__(
        self,
        cohort: Cohort,
        settings: Settings,
        model: ModelSettings,
        optimizer: OptimizerSettings,
        seed: int,
        store: StateStore,
    ) -> None:
        self.cohort = cohort
        self.settings = settings
        self.model_settings = model
        self.optimizer = optimizer
        self.seed = seed
        self.store = store

    @property
    @abstractmethod
    def parameter_names(self) -> Sequence[str]:
        """Names of the arrays that `fit` receives, in their order."""

    @property
    def extra_uploads(self) -> tuple[str, ...]:
        """Names of the arrays that `fit` returns after the parameters."""
        return ()

    @abstractmethod
    def fit(
        self, parameters: list[np.ndarray], config: Mapping[str, Any]
    ) -> tuple[list[np.ndarray], int, dict[str, Any]]:
        """Train some clients of the cohort for one round.

        Args:
            parameters: one array for each of `parameter_names`, each [clients, ...].
            config: ``clients`` (their ids, in the order of the rows), ``round``, ``local_epochs``, and what the method
                announces.

        Returns:
            Arrays named by `parameter_names` and `extra_uploads`, with a row for each client that succeeded; the
            number of training examples of these; metrics, each a list over them. Among the metrics ``clients`` lists
            their ids and ``failures`` maps the other ids to reasons, as JSON.
        """

    def answer(self, action: str, client_id: int) -> Stack:
        """What a client answers in a phase outside of rounds (``query.<action>``): arrays by name, any shape.

        Raises:
            SubflError: this family takes no part in such a phase.
        """
        raise SubflError(f"{type(self).__name__} has no answer to query.{action}")

    @abstractmethod
    def best_models(self) -> dict[int, dict[str, np.ndarray]]:
        """Each client's model at its best validation round, by client id."""

    def best_validation(self) -> dict[int, float]:
        """The validation figures that `best_models` were chosen by, by client id; none where none is known."""
        return {}

"""What the runtime expects of a client family: a ``NumPyClient`` for all clients of a node at once."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from flwr.client import NumPyClient
from pydantic import BaseModel, ConfigDict

from subfl_flower.errors import SubflError
from subfl_flower.models.mixture import Mixture
from subfl_flower.models.settings import OptimizerSettings
from subfl_flower.privacy.mechanism import LdpSettings
from subfl_flower.runtime.messages import Choice, Stack
from subfl_flower.runtime.ragged import Ragged
from subfl_flower.runtime.state import StateStore


class Hosted(Protocol):
    """The clients of a node and their data, of whatever kind."""

    @property
    def client_ids(self) -> tuple[int, ...]:
        """The clients, by position."""

    @property
    def num_examples(self) -> tuple[int, ...]:
        """Training examples of each client."""

    @property
    def sizes(self) -> dict[str, list[float]]:
        """What the roster tells of each client's data, by name."""

    @property
    def device(self) -> torch.device:
        """Where models are trained."""


@dataclass(frozen=True)
class Question:
    """What some clients are asked outside of rounds.

    Attributes:
        action: the phase's name, without ``query.``.
        received: arrays that each of them is sent, by client id.
        about: what else the message says: the run's ``id``, the ``round`` that the phase comes before, and what the
            method adds.
    """

    action: str
    received: Mapping[int, Stack]
    about: Mapping[str, Any]

    @property
    def server_round(self) -> int:
        """The round that the phase comes before."""
        return int(self.about["round"])


class CohortClient(NumPyClient, ABC):
    """Trains and evaluates the clients of one node; every array has a leading client axis.

    A family is written for one kind of data, with its own cohort and model settings.

    Args:
        cohort: the clients and their data, a `Hosted`.
        settings: the family's knobs.
        model: the model's knobs.
        optimizer: the local optimiser's knobs.
        seed: of everything random in local training.
        store: keeps what is personal between rounds.
    """

    kind: ClassVar[Literal["graph", "ratings"]] = "graph"
    """Of which data its clients are."""

    protects_uploads: ClassVar[bool] = False
    """Whether its clients do to their uploads what `privacy` says."""

    uses_edge_weights: ClassVar[bool] = True
    """True where clients compute with the weights of a graph; else weighted graphs are refused."""

    class Settings(BaseModel):
        """No knobs."""

        model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    takes_choices: ClassVar[bool] = False
    """Whether its clients are sent rows that many share: `fit` is then given all rows [M, ...] of a message, and as
    ``models`` in the configuration which of them each client is sent [clients, r]."""

    def __init__(
        self,
        cohort: Any,
        settings: Settings,
        model: Any,
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
        self.announced: Mapping[str, Any] = {}
        """What came with the message that is being handled beside arrays."""
        self.privacy = LdpSettings()
        """What is done to an upload before it leaves a client."""

    @classmethod
    def check_model(cls, model: Any, method: str) -> None:
        """Refuse a model that the family cannot train.

        Args:
            model: its settings, of the family's kind.
            method: its name, for the error.

        Raises:
            SubflError: it is none.
        """
        return

    @property
    @abstractmethod
    def parameter_names(self) -> Sequence[str]:
        """Names of the arrays that `fit` receives, in their order."""

    @property
    def uploaded_parameters(self) -> Sequence[str]:
        """Names of the arrays that `fit` returns first: what it received, trained."""
        return self.parameter_names

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

    @property
    def ragged_uploads(self) -> tuple[str, ...]:
        """Names of what `fit` returns last, in rows of each client's own number: for each rows, then lengths [A]."""
        return ()

    def evaluate(self, parameters: list[np.ndarray], config: Mapping[str, Any]) -> tuple[float, int, dict[str, Any]]:
        """Figures of some clients at what the server sent, without training.

        Args:
            parameters: as for `fit`.
            config: as for `fit`.

        Returns:
            The mean loss over clients, the number of examples that were evaluated, and metrics as `fit` gives them.

        Raises:
            SubflError: this family evaluates where it trains.
        """
        raise SubflError(f"{type(self).__name__} evaluates where it trains")

    def answer(self, question: Question, client_id: int) -> Stack:
        """What a client answers in a phase outside of rounds (``query.<action>``): arrays by name, any shape.

        Raises:
            SubflError: this family takes no part in such a phase.
        """
        raise SubflError(f"{type(self).__name__} has no answer to query.{question.action}")

    def answers(self, question: Question) -> tuple[dict[int, Stack], dict[int, str]]:
        """What the clients of a question answer, by id, and reasons of those that cannot: each by `answer`."""
        found: dict[int, Stack] = {}
        failures: dict[int, str] = {}
        for client_id in question.received:
            try:
                found[client_id] = self.answer(question, client_id)
            except Exception as error:
                failures[client_id] = (
                    str(error) if isinstance(error, SubflError) else f"{type(error).__name__}: {error}"
                )
        return found, failures

    @abstractmethod
    def best_models(self) -> dict[int, dict[str, np.ndarray]]:
        """Each client's model at its best validation round, by client id."""

    def best_mixture(self, clients: Sequence[int], received: Choice) -> Mixture | None:
        """What clients score items by at their best validation round, where they are users with a model that ranks.

        Args:
            clients: their ids.
            received: what of their models the server has.
        """
        return None

    def mended(self, client_id: int) -> bool:
        """Whether a client's model is trained on, and measured by, more than the graph that the client holds."""
        return False

    def best_validation(self) -> dict[int, float]:
        """The validation figures that `best_models` were chosen by, by client id; none where none is known."""
        return {}


@dataclass(frozen=True, eq=False)
class Worked:
    """What a chunk of clients came to.

    Attributes:
        positions: of the clients in the cohort.
        uploads: by name, each [clients, ...].
        ragged: by name, of these clients.
        metrics: by name, each [clients].
    """

    positions: list[int]
    uploads: Mapping[str, np.ndarray]
    ragged: dict[str, Ragged]
    metrics: Mapping[str, np.ndarray]


def work_in_chunks(
    chunks: Sequence[list[int]], work: Callable[[list[int]], Worked], client_ids: Sequence[int]
) -> tuple[list[Worked], dict[int, str]]:
    """Work chunk by chunk; one that fails is repeated client by client, to find out whose failure it was.

    Returns:
        What succeeded, in order, and reasons by client id for the others.
    """
    pending = list(chunks)
    parts: list[Worked] = []
    failures: dict[int, str] = {}
    while pending:
        chosen = pending.pop(0)
        try:
            parts.append(work(chosen))
        except Exception as error:
            if len(chosen) > 1:
                pending = [[position] for position in chosen] + pending
            else:
                failures[client_ids[chosen[0]]] = f"{type(error).__name__}: {error}"
    return parts, failures


def merged_metrics(parts: Sequence[Worked], failures: Mapping[int, str], client_ids: Sequence[int]) -> dict[str, Any]:
    """The metrics of a reply: lists over the clients that succeeded, their ids, and the other ids' reasons as JSON."""
    merged: dict[str, Any] = {
        name: np.concatenate([part.metrics[name] for part in parts]).tolist()
        for name in (parts[0].metrics if parts else ())
    }
    merged["clients"] = [client_ids[position] for part in parts for position in part.positions]
    merged["failures"] = json.dumps(failures)
    return merged

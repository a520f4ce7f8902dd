"""Base of every client: a Flower ``NumPyClient`` for all clients of a node at once.

A method's clients work on batches of named arrays: `CohortClient.train`, `CohortClient.measure` and
`CohortClient.answer`. ``fit`` and ``evaluate``, which Flower's own strategies call on a ``NumPyClient``, are built on
these.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from flwr.client import NumPyClient

from subfl_flower.errors import SubflError
from subfl_flower.models.settings import OptimizerSettings
from subfl_flower.node.iteration import Iteration, in_chunks
from subfl_flower.node.shared_key import SharedKey
from subfl_flower.node.state import CohortState, Shapes, StateStore
from subfl_flower.tasks.metric import COUNT, Metric
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Answers, Batch, Question, Result
from subfl_flower.wire.contract import Contract, Declared, MethodSettings, RunContext, arrays_of
from subfl_flower.wire.payload import ArraySpec
from subfl_flower.wire.summed import WEIGHT, Layout

if TYPE_CHECKING:
    from subfl_flower.recommendation.models.mixture import Mixture


class Hosted(Protocol):
    """The clients of a node and their data, of any kind."""

    @property
    def client_ids(self) -> tuple[int, ...]:
        """The clients, by position."""

    @property
    def num_examples(self) -> tuple[int, ...]:
        """Training examples of each client."""

    @property
    def sizes(self) -> dict[str, list[float]]:
        """Sizes of each client's data for the roster, by name."""

    @property
    def device(self) -> torch.device:
        """Device on which models are trained."""

    @property
    def shared_key(self) -> SharedKey | None:
        """The key that all clients share and the server does not have, where the node has it."""


class CohortClient(NumPyClient, ABC):
    """Train and evaluate the clients of one node; every array has a leading client axis.

    A family is written for one kind of data. It must define `chunks`, `train_chunk` and `models`; it may override the
    declarations (`Settings`, `phases`, `downloads`, `uploads`, `metrics`), `measure_chunk`, `answer_of` and
    `side_by_side`. It inherits the loops over a node's clients, and the adapter to Flower's own strategies.

    Args:
        run: facts of the run.
        cohort: the clients and their data, a `Hosted`.
        store: keeps personal state between rounds.
        iterate: the order in which clients are worked.
    """

    kind: ClassVar[Literal["graph", "ratings"]] = "graph"
    """The kind of data that its clients hold."""

    protects_uploads: ClassVar[bool] = False
    """True where its clients protect their uploads as `privacy` says."""

    audited: ClassVar[bool] = False
    """True where `record.audit` can ask what its clients' uploads give away."""

    keeps_last: ClassVar[bool] = False
    """True where clients can keep their last models for `record.evaluation_modes`."""

    uses_edge_weights: ClassVar[bool] = True
    """True where clients compute with the weights of a graph; else weighted graphs are refused."""

    trains_mixed: ClassVar[bool] = False
    """True where training steps can compute with a `precision` below float32."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the products of matrices in training steps; the node sets it as `runtime.precision` says."""

    # The contract -----------------------------------------------------------------------------------------------------

    class Settings(MethodSettings):
        """Settings without knobs."""

    models_sent: int = 1
    """Largest number of models that one client is sent at once."""

    phases: ClassVar[tuple[str, ...]] = ()
    """Names of the questions that its clients answer outside of rounds, in their order before a round."""

    @classmethod
    def downloads(cls, run: RunContext) -> Declared:
        """The arrays that clients are sent: the whole model."""
        return {name: ArraySpec.like(value) for name, value in run.initial.items()}

    @classmethod
    def uploads(cls, run: RunContext) -> Declared:
        """The arrays that clients send after training: the received ones, trained."""
        return cls.downloads(run)

    @classmethod
    def metrics(cls, run: RunContext) -> dict[str, Metric]:
        """The figures that clients send: the task's, the training loss, and the number of training examples."""
        return {
            **({} if run.task is None else run.task.metrics),
            "train_loss": Metric(by_client=True, averaged=True),
            "num_examples": Metric(COUNT.low, COUNT.high, needed=True),
        }

    @classmethod
    def contract(cls, run: RunContext) -> Contract:
        """The contract of a run; without figures of test examples where the run records none."""
        metrics = {name: metric for name, metric in cls.metrics(run).items() if run.reports(name)}
        return Contract(cls.downloads(run), cls.uploads(run), metrics, cls.phases, cls.summed(run))

    @classmethod
    def summed(cls, run: RunContext) -> Layout:
        """Shapes of the arrays that a secure sum adds up over clients, the weight last: by default all uploads."""
        return {**{name: spec.shape for name, spec in arrays_of(cls.uploads(run)).items()}, WEIGHT: ()}

    @classmethod
    def check_model(cls, model: Any, method: str) -> None:
        """Refuse a model that the family cannot train.

        Args:
            model: its settings, of the family's kind.
            method: the method's name, for the error.

        Raises:
            SubflError: the family cannot train it.
        """
        return

    @classmethod
    def check_skipping(cls, model: Any, settings: Any, optimizer: OptimizerSettings, method: str) -> None:
        """Refuse ``wire.absent_features=skip`` where the family has no rows that it could leave out.

        Args:
            model: settings of the model.
            settings: of the method.
            optimizer: settings of the clients' optimiser.
            method: the method's name, for the error.

        Raises:
            SubflError: it has none.
        """
        raise SubflError(
            f"wire.absent_features: models of method={method} have no rows of features; only send is allowed"
        )

    def __init__(self, run: RunContext, cohort: Any, store: StateStore, iterate: Iteration = in_chunks) -> None:
        self.run = run
        self.settings = run.settings
        self.cohort = cohort
        self.optimizer = run.optimizer
        self.seed = run.seed
        self.store = store
        self.iterate = iterate

    def in_precision(self) -> AbstractContextManager[Any]:
        """Compute products of matrices in the block with `precision`; what they are made of stays float32."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.cohort.device.type, dtype=torch.bfloat16)

    # The work of a node -----------------------------------------------------------------------------------------------

    def train(self, batch: Batch) -> Result:
        """Train some clients for one round: chunk by chunk, each by `train_chunk`."""
        state = self.open_state()
        result = self.iterate(self.chunks(batch), lambda part: self.train_chunk(part, state))
        self.store.commit(state)
        return result

    def measure(self, batch: Batch) -> Result:
        """Measure some clients at the received model, without training: chunk by chunk, each by `measure_chunk`."""
        state = self.open_state()
        result = self.iterate(self.chunks(batch), lambda part: self.measure_chunk(part, state))
        self.store.commit(state)
        return result

    def answer(self, question: Question) -> Answers:
        """Have some clients answer a question: client by client, each by `answer_of`."""
        if question.phase not in self.phases:
            raise SubflError(f"{type(self).__name__} has no answer to query.{question.phase}")
        answers = Answers()
        for client_id in question.received:
            try:
                answers.arrays[client_id] = self.answer_of(client_id, question)
            except Exception as error:
                known = isinstance(error, SubflError)
                answers.failures[client_id] = str(error) if known else f"{type(error).__name__}: {error}"
        return answers

    def compared_with(self, batch: Batch, result: Result) -> Stack:
        """Arrays that clients were sent, from which their uploads differ by their updates: [A, ...], by name.

        Empty where uploads are updates.
        """
        place_of = {client_id: place for place, client_id in enumerate(batch.clients)}
        received = batch.take([place_of[client_id] for client_id in result.clients]).stack
        return {name: received[name] for name in result.arrays if name in received}

    def summands(self, result: Result, row: int) -> Stack:
        """One client's part of each sum of `summed`: by default its uploads times its weight, and the weight.

        The weight is FedAvg's: the number of training examples, or 1 with ``weighting=uniform``.
        """
        uniform = getattr(self.settings, "weighting", "examples") == "uniform"
        weight = np.float64(1.0 if uniform else result.metrics["num_examples"][row])
        parts = {name: weight * np.asarray(values[row], dtype=np.float64) for name, values in result.arrays.items()}
        return {**{name: parts[name] for name in self.summed(self.run) if name in parts}, WEIGHT: np.asarray(weight)}

    def protected_values(self, result: Result) -> np.ndarray | None:
        """Numbers of values [A] that `privacy` protects in the uploads of a result; None where it protects none."""
        return None

    @property
    def state_shapes(self) -> Shapes:
        """The personal state of a client between rounds: shapes by name."""
        return {}

    @property
    def side_by_side(self) -> int:
        """Largest number of clients that are worked at the same time, in as many threads.

        1 on a GPU, which works a chunk at a time. The work on a chunk may change the rows of its clients in the state,
        and nothing that other chunks see; a family for which this is too much returns 1.
        """
        return len(self.cohort.client_ids) if self.cohort.device.type == "cpu" else 1

    @abstractmethod
    def chunks(self, batch: Batch) -> list[Batch]:
        """Cut a batch into batches of clients that are worked at once."""

    @abstractmethod
    def train_chunk(self, batch: Batch, state: CohortState) -> Result:
        """Train the clients of one chunk, and change their rows of the state."""

    def measure_chunk(self, batch: Batch, state: CohortState) -> Result:
        """Measure the clients of one chunk.

        Raises:
            SubflError: this family only measures in training.
        """
        raise SubflError(f"{type(self).__name__} evaluates where it trains")

    def answer_of(self, client_id: int, question: Question) -> Stack:
        """One client's answer to a question of one of the `phases`: named arrays of any shape."""
        raise NotImplementedError(f"{type(self).__name__} declares query.{question.phase}, and does not answer it")

    @abstractmethod
    def models(self, batch: Batch) -> dict[int, dict[str, np.ndarray]]:
        """Each client's model at its best validation round, by client id.

        Args:
            batch: the clients, and the part of their models that the server has.
        """

    def best_mixture(self, batch: Batch) -> Mixture | None:
        """Scorer of items for each client at its best validation round, where they are users with a ranker."""
        return None

    def mended(self, client_id: int) -> bool:
        """True where a client's model is trained and measured on more than the client's local graph."""
        return False

    def best_validation(self) -> dict[int, float]:
        """The validation figures by which `models` were chosen, by client id; without clients that have none."""
        return {}

    def last_model(self, client_id: int) -> Stack:
        """The model of a client after its last training, personal parts included, without client axis; {} before it."""
        raise NotImplementedError(f"{type(self).__name__} keeps no last models")

    def test_outputs(self, models: Mapping[int, Stack]) -> dict[int, Stack]:
        """Outputs and truth of clients' test examples under a given model for each client, by client id.

        Args:
            models: of the form of `last_model`.

        Returns:
            for each client ``outputs`` [T, any] and ``truth`` [T].
        """
        raise NotImplementedError(f"{type(self).__name__} measures no given models")

    def open_state(self) -> CohortState:
        """The state of all clients of this node."""
        return self.store.open(self.cohort.client_ids, self.state_shapes)

    def all_states(self) -> list[CohortState]:
        """Everything that clients of this node keep in states: that of `open_state`, and further ones of a family."""
        return [self.open_state()]

    @cached_property
    def position_of(self) -> dict[int, int]:
        """Position of each client in the cohort, by client id; a SubflError for one that this node does not host."""
        return _Positions((client_id, position) for position, client_id in enumerate(self.cohort.client_ids))

    # Flower's own strategies ------------------------------------------------------------------------------------------

    def get_parameters(self, config: Mapping[str, Any]) -> list[np.ndarray]:
        """The initial model in the form of Flower's strategies: one array a parameter, without a client axis."""
        return [self.run.initial[name] for name in self._plain_names]

    def fit(
        self, parameters: list[np.ndarray], config: Mapping[str, Any]
    ) -> tuple[list[np.ndarray], int, dict[str, Any]]:
        """Train this node's clients from one model, for Flower's own strategies.

        Args:
            parameters: the model, one array a parameter in the order of `get_parameters`, without a client axis.
            config: ``round`` (1) and ``local_epochs`` (the run's), where given.

        Returns:
            The trained model, a mean by training examples where the node has several clients; training examples;
            mean figures.

        Raises:
            SubflError: the parameters are not the model's, or a client failed.
        """
        batch = self._plain_batch(parameters, config)
        result = self.train(batch)
        examples, metrics = _plain_metrics(result)
        trained = self.trained_models(batch, result)
        weights = result.metrics["num_examples"] / max(examples, 1)
        return [np.tensordot(weights.astype(value.dtype), value, 1) for value in trained.values()], examples, metrics

    def evaluate(self, parameters: list[np.ndarray], config: Mapping[str, Any]) -> tuple[float, int, dict[str, Any]]:
        """Measure this node's clients at one model, for Flower's own strategies.

        Args:
            parameters: as for `fit`.
            config: as for `fit`.

        Returns:
            The mean training loss, or, where that is not measured, the validation error: the metric, or 1 - the metric
            where more is better; training examples; mean figures.

        Raises:
            SubflError: as for `fit`.
        """
        examples, metrics = _plain_metrics(self.measure(self._plain_batch(parameters, config)))
        if "train_loss" in metrics:
            return metrics["train_loss"], examples, metrics
        validation = metrics.get("validation", float("nan"))
        more_is_better = self.run.task is not None and self.run.task.higher_is_better
        return 1 - validation if more_is_better else validation, examples, metrics

    def trained_models(self, batch: Batch, result: Result) -> Stack:
        """Each client's trained model [A, ...], by name, from the client's upload."""
        return {name: result.arrays[name] for name in self._plain_names}

    @property
    def _plain_names(self) -> list[str]:
        """Names of the model's parameters that travel, in their order."""
        return [name for name in self.downloads(self.run) if name in self.run.initial]

    def _plain_batch(self, parameters: Sequence[np.ndarray], config: Mapping[str, Any]) -> Batch:
        declared = arrays_of(self.downloads(self.run))
        names = self._plain_names
        if len(parameters) != len(names):
            raise SubflError(f"the server sent {len(parameters)} arrays, where {', '.join(names)} belong")
        model: Stack = {}
        for name, value in zip(names, parameters, strict=True):
            model[name] = np.asarray(value, dtype=declared[name].dtype)
            if not declared[name].allows(model[name].shape, declared[name].dtype):
                raise SubflError(f"the server sent {name} as {ArraySpec.like(value)}, where {declared[name]} belongs")
        epochs = int(config.get("local_epochs", self.run.local_epochs))
        server_round = int(config.get("round", 1))
        return Batch.for_all(self.cohort.client_ids, model, server_round=server_round, local_epochs=epochs)


class _Positions(dict[int, int]):
    """Positions by client id."""

    def __missing__(self, client_id: int) -> int:
        raise SubflError(f"client {client_id} is not hosted here")


def _plain_metrics(result: Result) -> tuple[int, dict[str, Any]]:
    """Examples of all clients together, and means of their figures.

    Raises:
        SubflError: a client failed.
    """
    if result.failures:
        client, reason = min(result.failures.items())
        raise SubflError(f"client {client} failed: {reason}")
    means = {name: float(np.nanmean(values)) for name, values in result.metrics.items() if not np.isnan(values).all()}
    return int(result.metrics["num_examples"].sum()), means

r"""A cohort of users who train a recommender on their own ratings.

Every user is a client. Shared parameters (item rows, GNN weights, biases) are the server's: a user uploads the gradient
of the loss of its ratings by them. Personal parameters (its embedding and bias) stay with it and are never sent. Many
users are worked at once; each upload is one user's own (`UserModel`).

A round of a user has the same steps for all methods; a method's client names the part for each step:

1. expand the local graph by what the user knows of neighbours (`Neighbours`),
2. work on its own data (`Work`),
3. change the upload before it leaves, one change after the other (`Transforms`).

Outside of training a user predicts (`Predictor`), and answers questions (`Exchanges` and `Neighbours`).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from torch import Tensor

from subfl_flower.clients.recommendation.one_model import OneModel
from subfl_flower.clients.recommendation.recommender_models import model_of
from subfl_flower.clients.recommendation.summed_biases import BIASES
from subfl_flower.clients.recommendation.upload_transforms import MASKED, dense_rows
from subfl_flower.clients.recommendation.user_parts import (
    IDS,
    ITEMS,
    ROWS,
    UPLOADS,
    AskedUsers,
    Neighbourhood,
    Prediction,
    Upload,
    UploadTransform,
    UserPart,
    UserWork,
)
from subfl_flower.clients.recommendation.user_settings import GradientSettings, StepSettings
from subfl_flower.clients.recommendation.user_states import UserStates
from subfl_flower.clients.recommendation.user_work import GradientWork
from subfl_flower.clients.recommendation.users import Chunk, Users
from subfl_flower.data.graph import TRAIN
from subfl_flower.errors import SubflError
from subfl_flower.node.client import CohortClient
from subfl_flower.node.iteration import Iteration, in_chunks
from subfl_flower.node.state import CohortState, Shapes, StateStore
from subfl_flower.recommendation.cohort import UserCohort
from subfl_flower.recommendation.models.mixture import Mixture
from subfl_flower.recommendation.models.user_graphs import UserGraphs
from subfl_flower.tasks.metric import Metric
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Answers, Batch, Question, Result, tensor_of
from subfl_flower.wire.contract import Declared, RunContext
from subfl_flower.wire.payload import ArraySpec
from subfl_flower.wire.ragged import Ragged, RaggedSpec
from subfl_flower.wire.summed import WEIGHT, Layout


class RecommenderClient(CohortClient):
    """Users of a recommender, composed of parts.

    A method overrides the parts and `Settings`, which must have the knobs of all of its parts. Its `phases` name the
    questions that its parts answer. By default a user takes one gradient step of its personal parameters, and hides
    nothing.

    Attributes:
        Neighbours: the users' knowledge of neighbours.
        Work: the local work.
        Transforms: changes of an upload, in their order.
        Exchanges: further parts that answer questions outside of rounds.
        Predictor: the model, or models, that users predict by.
    """

    kind: ClassVar[Literal["graph", "ratings"]] = "ratings"

    class Settings(GradientSettings, StepSettings):
        """Knobs of a user's step, and of the server's."""

    Neighbours: ClassVar[type[Neighbourhood]] = Neighbourhood
    Work: ClassVar[type[UserWork]] = GradientWork
    Transforms: ClassVar[tuple[type[UploadTransform], ...]] = ()
    Exchanges: ClassVar[tuple[type[UserPart], ...]] = ()
    Predictor: ClassVar[type[Prediction]] = OneModel

    settings: Any
    cohort: UserCohort

    # The contract -----------------------------------------------------------------------------------------------------

    @classmethod
    def part_types(cls) -> tuple[type[UserPart], ...]:
        """The classes of all parts."""
        return (cls.Neighbours, cls.Work, *cls.Transforms, *cls.Exchanges, cls.Predictor)

    @classmethod
    def downloads(cls, run: RunContext) -> Declared:
        """The shared parameters, and the downloads of parts."""
        declared: Declared = {name: ArraySpec.like(value) for name, value in run.initial.items()}
        for part in cls.part_types():
            declared = part.downloads(declared, run)
        return declared

    @classmethod
    def uploads(cls, run: RunContext) -> Declared:
        """Gradients of all parameters but the item table, and of the table's rows that concern a user."""
        num_items, width = run.initial[ITEMS].shape
        declared: Declared = {
            **{name: ArraySpec.like(value) for name, value in run.initial.items() if name != ITEMS},
            IDS: RaggedSpec((), "int32", num_items, below=num_items),
            ROWS: RaggedSpec((width,), "float32", num_items, like=IDS),
        }
        for part in cls.part_types():
            declared = part.uploads(declared, run)
        return declared

    @classmethod
    def metrics(cls, run: RunContext) -> dict[str, Metric]:
        """The task's figures, and those of parts."""
        declared = super().metrics(run)
        for part in cls.part_types():
            declared = part.metrics(declared, run)
        return declared

    @classmethod
    def summed(cls, run: RunContext) -> Layout:
        """Shapes of what a secure sum adds up: all gradients, in a whole item table, and how many send each row."""
        shapes = {name: value.shape for name, value in run.initial.items()}
        return {**shapes, UPLOADS: shapes[ITEMS][:1], WEIGHT: ()}

    def compared_with(self, batch: Batch, result: Result) -> Stack:
        """Give nothing: uploads are gradients, or changes."""
        return {}

    def summands(self, result: Result, row: int) -> Stack:
        """One user's part of each sum of `summed`; every user counts once."""
        ids, num_items = result.rows[IDS].of(row), self.model.shapes[ITEMS][0]
        sent = np.zeros(num_items)
        sent[ids] = 1
        found = {**{name: values[row] for name, values in result.arrays.items()}, UPLOADS: sent, WEIGHT: np.ones(())}
        found[ITEMS] = dense_rows(ids, result.rows[ROWS].of(row), num_items)
        return {name: found[name] for name in self.summed(self.run)}

    def __init__(self, run: RunContext, cohort: UserCohort, store: StateStore, iterate: Iteration = in_chunks) -> None:
        super().__init__(run, cohort, store, iterate)
        self.models_sent = self.Predictor.models_sent
        self.model = model_of(cohort, run.model)
        self.users = Users(run, cohort, self.model, store)
        self.neighbourhood = self.Neighbours(self.users)
        self.work = self.Work(self.users, self.neighbourhood)
        self.transforms = [transform(self.users) for transform in self.Transforms]
        exchanges = [exchange(self.users) for exchange in self.Exchanges]
        self.prediction = self.Predictor(self.users, self.neighbourhood)
        self.parts: list[UserPart] = [
            *(self.neighbourhood, self.work, *self.transforms, *exchanges, self.prediction),
        ]
        kept, further = (
            {name: shape for shapes in of_parts for name, shape in shapes.items()}
            for of_parts in ([part.kept for part in self.parts], [part.state for part in self.parts])
        )
        self.states = UserStates(self.users, kept, further)

    @property
    def state_shapes(self) -> Shapes:
        """Personal parameters, their moments, state of parts, and what a user predicted with at the best round."""
        return self.states.shapes

    # A round ----------------------------------------------------------------------------------------------------------

    def chunks(self, batch: Batch) -> list[Batch]:
        """Chunks of users who are sent the same models, by their positions in the cohort."""
        place_of = {self.position_of[client_id]: place for place, client_id in enumerate(batch.clients)}
        groups: dict[tuple[int, ...], list[int]] = {}
        for position in sorted(place_of):
            groups.setdefault(tuple(batch.sent.rows[place_of[position]].tolist()), []).append(position)
        return [
            batch.take([place_of[position] for position in positions])
            for group in groups.values()
            for positions in self.cohort.chunks(group)
        ]

    def received(self, batch: Batch) -> list[dict[str, Tensor]]:
        """The models that all users of a chunk were sent: shared parameters by name, without a client axis."""
        device = self.cohort.device
        return [
            {
                name: tensor_of(values[row]).to(device)
                for name, values in batch.sent.values.items()
                if name in self.model.shapes
            }
            for row in batch.sent.rows[0].tolist()
        ]

    def train_chunk(self, batch: Batch, state: CohortState) -> Result:
        """One upload of each user."""
        (shared,) = self.received(batch)
        positions = self._positions(batch)
        ratings = self.cohort.ratings.of_users(positions)
        with self.states.of(state, positions, batch.announced).working() as own:
            chunk = Chunk(positions, ratings, own, BIASES in batch.announced)
            graphs, items = self._training_graphs(shared, chunk, batch)
            trained = self.work.work(shared, items, self.neighbourhood.expanded(graphs, own), chunk)
            for part in self.parts:
                part.take_note(trained, own)
            told = trained.told
            lengths = np.array(graphs.lengths, dtype=np.int64)
            upload = Upload(
                {name: value.cpu().numpy() for name, value in told.shared.items()},
                {
                    IDS: Ragged(graphs.items.cpu().numpy().astype(np.int32), lengths),
                    ROWS: Ragged(told.items.cpu().numpy(), lengths),
                },
            )
            for transform in self.transforms:
                upload = transform(upload, chunk, batch)
        metrics = {"num_examples": ratings.counts(TRAIN).astype(float)}
        if self.run.privacy.mechanism == "none":  # a loss tells of a user's ratings, and nothing hides it
            metrics["train_loss"] = told.loss.cpu().numpy().astype(float)
        return Result(batch.clients, upload.arrays, upload.rows, metrics)

    def protected_values(self, result: Result) -> np.ndarray | None:
        """Number of values in each user's upload, where noise is among the transforms."""
        if self.run.privacy.mechanism == "none" or not self.protects_uploads:
            return None
        rows = result.rows[ROWS]
        single = sum(value[0].size for value in result.arrays.values() if len(value))
        counted: np.ndarray = rows.lengths * rows.values.shape[1] + single
        return counted

    def _training_graphs(self, shared: dict[str, Tensor], chunk: Chunk, batch: Batch) -> tuple[UserGraphs, Tensor]:
        """Users' local graphs, with negative items where the model samples any, and the item rows that they index."""
        samplers = None
        if self.run.model.samples_items:
            samplers = self.users.generators(chunk.ratings, batch.server_round, "sampled items")
        graphs, items = self.users.graphs(chunk, samplers, self.work.draws), shared.get(ITEMS)
        for part in self.parts:
            graphs, items = part.received_items(graphs, items, chunk, batch)
        assert items is not None, "the contract has checked that the table or rows came"
        return graphs, items

    def _positions(self, batch: Batch) -> list[int]:
        return [self.position_of[client_id] for client_id in batch.clients]

    # Evaluation -------------------------------------------------------------------------------------------------------

    def measure_chunk(self, batch: Batch, state: CohortState) -> Result:
        """Each user's figures on validation and test ratings; some `Work` solves for personal parameters first."""
        models, positions = self.received(batch), self._positions(batch)
        ratings = self.cohort.ratings.of_users(positions)
        rows = self.states.of(state, positions, batch.announced)
        held = BIASES in batch.announced
        chunk = Chunk(positions, ratings, rows.copied(), held)
        if refitted := self.work.refitted(models[0], chunk):
            with rows.working() as own:
                own.update(refitted)
            chunk = Chunk(positions, ratings, rows.copied(), held)
        figures = self.prediction.figures(models, chunk)
        return Result(batch.clients, metrics={"num_examples": ratings.counts(TRAIN).astype(float), **figures})

    # Questions --------------------------------------------------------------------------------------------------------

    def answer(self, question: Question) -> Answers:
        """Answers of all users to a question, by the part that has them."""
        part = next((part for part in self.parts if question.phase in part.phases), None)
        if part is None:
            raise SubflError(f"{type(self).__name__} has no answer to query.{question.phase}")
        clients = tuple(question.received)
        positions = [self.position_of[client_id] for client_id in clients]
        state = self.open_state()
        rows = self.states.of(state, positions, question.announced)
        answers = part.answer(question, AskedUsers(clients, positions, rows))
        self.store.commit(state)
        return answers

    # What is kept -----------------------------------------------------------------------------------------------------

    def models(self, batch: Batch) -> dict[int, dict[str, np.ndarray]]:
        """Personal parameters of each user as they were at the best round, by client id."""
        best = self.states.predicting(self.states.best(self.open_state(), batch.announced))
        return {
            client_id: {name: values[position] for name, values in best.items()}
            for position, client_id in enumerate(self.cohort.client_ids)
        }

    def best_mixture(self, batch: Batch) -> Mixture | None:
        """Scorer of items for each user as it was measured at the best round; None where the model rates."""
        best = self.states.best(self.open_state(), batch.announced)
        parts = []
        for part in self.chunks(batch):
            positions = self._positions(part)
            chunk = Chunk(positions, self.cohort.ratings.of_users(positions), self.states.copied(best, positions))
            found = self.prediction.mixture(self.received(part), chunk)
            if found is None:
                return None
            parts.append(found)
        joined = Mixture.joined(parts)
        return joined.at(np.argsort(joined.client_ids))

    # Flower's own strategies ------------------------------------------------------------------------------------------

    def trained_models(self, batch: Batch, result: Result) -> Stack:
        """Each user's model, received - upload [A, ...] by name; for gradients, that of a plain step of length 1.

        Raises:
            SubflError: uploads are masked, so that only their sum is one of models.
        """
        if MASKED in result.arrays:
            raise SubflError("Flower's own strategies cannot read masked uploads: method.masks must be false")
        place_of = {client_id: place for place, client_id in enumerate(batch.clients)}
        received = batch.take([place_of[client_id] for client_id in result.clients]).stack
        ids, rows, num_items = result.rows[IDS], result.rows[ROWS], self.model.shapes[ITEMS][0]
        uploaded = dict(result.arrays)
        tables = [dense_rows(ids.of(row), rows.of(row), num_items) for row in range(len(result.clients))]
        uploaded[ITEMS] = np.stack(tables)
        return {name: received[name] - uploaded[name] for name in self._plain_names}

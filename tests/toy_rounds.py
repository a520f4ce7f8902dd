"""Rosters, strategies and replies of two or three toy clients, made by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from subfl_flower.aggregation.settings import AggregationSettings
from subfl_flower.clients.subgraphs.description import EMBEDDING, LABELS
from subfl_flower.clients.subgraphs.fedpub import FedPUBClient
from subfl_flower.models.settings import ModelSettings
from subfl_flower.server.exchange import ASK, answer_record, read_question
from subfl_flower.server.strategy import CohortStrategy
from subfl_flower.server.updates import Updates
from subfl_flower.strategies.subgraphs.mixing import MixingStrategy
from subfl_flower.strategies.subgraphs.similarity import SimilarityWeights
from subfl_flower.subgraphs.models.gcn import StackedGCN
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Answers, Question
from subfl_flower.wire.contract import Contract, RunContext
from subfl_flower.wire.payload import ArraySpec
from subfl_flower.wire.roster import Roster, Shape

Strategy = TypeVar("Strategy", bound=CohortStrategy)


def toy_roster(*num_examples: int, overlapping: bool = False) -> Roster:
    clients = tuple(range(len(num_examples)))
    sizes = np.array(num_examples, dtype=float)
    return Roster(clients, clients, sizes, 5 * sizes, 20 * sizes, 2, 2, overlapping)


def replies(positions: Sequence[int], clients: int, **arrays: Any) -> Updates:
    """One round in which the clients at `positions` sent the rows of `arrays`."""
    return Updates(
        server_round=1,
        positions=np.array(positions),
        arrays={name.replace("__", "."): np.array(rows, dtype=np.float32) for name, rows in arrays.items()},
        metrics={"num_examples": np.ones(len(positions))},
        failures={},
        bytes_up=np.zeros(clients, dtype=np.int64),
        bytes_down=np.zeros(clients, dtype=np.int64),
        client_seconds=0.0,
    )


def strategy_of(
    family: type[Strategy],
    roster: Roster,
    initial: Mapping[str, np.ndarray],
    settings: Mapping[str, Any] | None = None,
    contract: Contract | None = None,
    **facts: Any,
) -> Strategy:
    """A strategy with some settings, for a GCN of width 2; `facts` are others of the run, and further ones."""
    chosen = family.Settings(**(settings or {}))
    network = StackedGCN(ModelSettings(name="gcn", layers=1, hidden=2), num_features=2, num_outputs=2)
    # Replies made by hand are far from each other.
    unbounded = AggregationSettings(norm_bound=None)
    known: dict[str, Any] = {"shape": Shape(2, 2), "network": network, "aggregation": unbounded, **facts}
    return family(RunContext(chosen, initial=initial, **known), roster, contract)


class SimilarityAlone(MixingStrategy):
    """Plain models, mixed by `SimilarityWeights` and nothing else."""

    Settings = FedPUBClient.Settings

    def __init__(self, run: RunContext, roster: Roster, contract: Contract | None = None) -> None:
        plain = {name: ArraySpec.like(value) for name, value in run.initial.items()}
        plain = {name: spec for name, spec in plain.items() if name.split(".")[0] not in run.settings.personal_layers}
        compared = {"functional": EMBEDDING, "label": LABELS}.get(run.settings.similarity)
        described = {} if compared is None else {compared: ArraySpec((2,), "float32", remembered=True)}
        super().__init__(run, roster, Contract(plain, {**plain, **described}))
        self.similarity = SimilarityWeights(self.settings, roster, self.remembered)

    def mixing_matrix(self, updates: Updates) -> np.ndarray:
        """softmax(τ S)."""
        return self.similarity.matrix(updates, self.parameters, self.roster.num_examples)


def answering(answer: Callable[[Question, int], Stack]) -> ClientApp:
    """An app for nodes that host a client each, which gives this answer; an OSError is its failure."""
    app = ClientApp()

    @app.query(ASK)
    def ask(message: Message, context: Context) -> Message:
        question = read_question(message.content)
        (client,) = question.received
        try:
            answers = Answers({client: answer(question, client)})
        except OSError as error:
            answers = Answers(failures={client: str(error)})
        return Message(answer_record(answers), reply_to=message)

    return app

"""FedGNN on subgraphs: clients whose graphs are extended by similar nodes of other clients. FED-PUB's paper compares
with it (Baek et al., ICML 2023, App. B.2).

In ``query.representations`` a client shows its nodes' representations: the first convolution's output before its ReLU,
over the client's graph, under parameters that all clients are sent. The order of nodes is drawn again each time, and
kept secret. Each node's representation is protected on its own where `privacy` says so. In ``query.mend`` the client is
sent similar nodes of other clients, and which of its nodes they are joined with. It trains on the extended graph until
the next exchange. A client that was sent none trains on its local graph as it is.

The new nodes have no features at this client. Its first convolution is therefore over its local graph, as for the
representations. Later convolutions are over the extended graph, where the new nodes enter with the representations that
the client was sent.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, field_validator

from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.data.graph import ClientGraph
from subfl_flower.errors import SubflError
from subfl_flower.node.kept_arrays import Arrays
from subfl_flower.privacy.discrete_noise import Words
from subfl_flower.privacy.mechanism import protect
from subfl_flower.seeding import client_generator, system_words, words_of
from subfl_flower.subgraphs.mending.similar_nodes import (
    ORDER,
    require_similar_nodes,
    with_similar_nodes,
    with_zero_rows,
)
from subfl_flower.subgraphs.models.local_graph import LocalGraph
from subfl_flower.subgraphs.models.stacked_gnn import StackedGNN
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Question
from subfl_flower.wire.contract import RunContext

FIRST = "conv1"
"""The layer whose output is the representations."""

SHOW, MEND = "representations", "mend"
"""The phases' names."""

SHOWN_ORDER, SIMILAR_NODES = "shown_order", "similar_nodes"
"""State keys: the nodes of the rows that a client showed last in their order, and the similar nodes it was sent."""


class SimilarNodesClient(SubgraphClient):
    """Train on the own graph and on similar nodes of others. `privacy` protects representations, not parameters."""

    class Settings(SubgraphClient.Settings):
        """Knobs of the exchanges.

        Attributes:
            weighting: as in FedAvg.
            threshold: lower bound of a similar node's cosine.
            max_neighbours: largest number of similar nodes that a node is joined with.
            exchange_start: the round before which the first exchange is; its representations are the initial model's
                where it is 1.
            exchange_every: rounds between two exchanges; 0: the first one is the only one.
        """

        weighting: Literal["examples", "uniform"] = "examples"
        threshold: float = Field(default=0.5, ge=0, lt=1)
        max_neighbours: int = Field(default=1, ge=1)
        exchange_start: int = Field(default=1, ge=1)
        exchange_every: int = Field(default=10, ge=0)

        @field_validator("personal_layers")
        @classmethod
        def _representations_can_be_compared(cls, value: tuple[str, ...]) -> tuple[str, ...]:
            if FIRST in value:
                raise ValueError(f"{FIRST} makes the representations that clients are compared by, and must be shared")
            return value

    settings: Settings
    model: StackedGNN

    networks = ("gcn", "sage", "decoupled")
    """Stacked networks, whose first convolution gives the representations."""

    phases = (SHOW, MEND)
    graph_patch_name = SIMILAR_NODES
    uses_edge_weights = False
    """Edges to similar nodes have no weights."""

    @classmethod
    def protects_update(cls, run: RunContext) -> bool:
        """False: `privacy` protects the representations."""
        return False

    @classmethod
    def check_model(cls, model: Any, method: str) -> None:
        """Refuse a model in which other clients' nodes have no effect.

        Raises:
            SubflError: it has a single convolution, or is no stacked network.
        """
        super().check_model(model, method)
        if model.layers < 2:
            raise SubflError(
                f"model.layers: with method={method} the second convolution is the first to hear other clients' nodes; "
                f"must be at least 2 (found {model.layers})"
            )

    def patched_graph(self, own: ClientGraph, kept: Arrays) -> LocalGraph:
        """The client's graph, and the similar nodes that it was sent last."""
        alone, told = self.model.local_graph(own), kept["representations"]
        if not len(told):
            return alone
        mended = self.model.local_graph(with_similar_nodes(own, len(told), kept["edges"]), num_own=own.num_nodes)
        return replace(mended, inputs=with_zero_rows(alone.inputs, len(told)), told=told)

    def answer_of(self, client_id: int, question: Question) -> Stack:
        """One client's answer to ``query.representations`` or ``query.mend``.

        Raises:
            SubflError: what it was sent cannot be used.
        """
        try:
            return {SHOW: self._shown, MEND: self._mended}[question.phase](question, client_id)
        except (KeyError, ValueError) as error:
            raise SubflError(f"what the server sent with query.{question.phase} cannot be used: {error}") from None

    def _shown(self, question: Question, client_id: int) -> Stack:
        """Representations of all nodes, float32 [n, hidden], in a secret random order."""
        position = self.position_of[client_id]
        parameters = {}
        for name in ("conv1.weight", "conv1.bias"):
            values = question.received[client_id][name]
            if values.dtype != np.float32 or values.shape != self.model.shapes[name]:
                raise ValueError(f"{name} must be float32 {list(self.model.shapes[name])}")
            parameters[name] = torch.from_numpy(values).to(self.cohort.device).unsqueeze(0)
        # Alone and never in a chunk of several, so that it is the same wherever the client runs.
        chunk = self.model.chunk([self.cohort.visible[position]], self.cohort.device)
        with torch.no_grad():
            hidden = self.model.first_convolution(parameters, chunk)[0].cpu().numpy()
        order = self._generator(question, client_id, ORDER).permutation(len(hidden))
        self.store.kept.put(client_id, SHOWN_ORDER, question.server_round, {"order": order})
        shown = hidden[order]
        if self.run.privacy.mechanism != "none":
            words = self._noise_words(question, client_id)
            shown = np.concatenate([protect([row], self.run.privacy, words)[0][None] for row in shown])
        return {"representations": shown}

    def _mended(self, question: Question, client_id: int) -> Stack:
        """An empty answer; the client keeps what it was sent, by its nodes' local ids."""
        if self.store.kept.round_of(client_id, SHOWN_ORDER) != question.server_round:
            raise SubflError(f"client {client_id} has shown no representations before round {question.server_round}")
        order = self.store.kept.get(client_id, SHOWN_ORDER)["order"]
        told = question.received[client_id]
        representations, edges = told["representations"], told["edges"]
        require_similar_nodes(representations, edges, len(order), self.model.widest)
        local = np.stack([order[edges[0]], edges[1]])
        kept = {"representations": representations, "edges": local}
        self.store.kept.put(client_id, SIMILAR_NODES, question.server_round, kept)
        return {}

    def _noise_words(self, question: Question, client_id: int) -> Words:
        """Random words for the noise on a client's representations: on a deployed node the operating system's."""
        if self.cohort.whole is None:
            return system_words
        return words_of(client_generator(self.seed, client_id, question.server_round, "noise on representations"))

    def _generator(self, question: Question, client_id: int, purpose: str) -> np.random.Generator:
        """Generator of a client's secrets. In a simulation it follows from the run's seed: repeatable, and no secret.

        On a deployed node, which has no graph but its clients', it is never the same twice.
        """
        if self.cohort.whole is None:
            return np.random.default_rng()
        return client_generator(self.seed, client_id, question.server_round, purpose)

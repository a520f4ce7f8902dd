"""Clients whose graphs are extended by other clients' nodes that are similar to their own: FedGNN on subgraphs, as
FED-PUB compares with (Baek et al., ICML 2023, App. B.2).

A client shows its nodes' representations (``query.representations``): the first convolution's output before its ReLU,
over its own graph, under parameters that all clients are sent. It does so in an order that it draws anew each time and
keeps to itself, and protects each node's representation by itself where `privacy` says so. It is told those of other
clients' nodes that are similar, and which of its own they are joined with (``query.mend``), and trains on the extended
graph until it is told others. One that was told nothing trains on its own graph.

The new nodes have no features there. The first convolution is therefore over the client's own graph, as that of the
representations was; later ones are over the extended graph, and find the new nodes with the representations that were
told.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, field_validator

from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.data.graph import ClientGraph
from subfl_flower.errors import SubflError
from subfl_flower.node.kept_arrays import Arrays
from subfl_flower.privacy.mechanism import protect
from subfl_flower.seeding import client_generator
from subfl_flower.subgraphs.mending.similar_nodes import (
    ORDER,
    require_similar_nodes,
    with_similar_nodes,
    with_zero_rows,
)
from subfl_flower.subgraphs.models.local_graph import LocalGraph
from subfl_flower.subgraphs.models.stacked_gnn import StackedGNN
from subfl_flower.wire.batch import Question
from subfl_flower.wire.payload import Stack

FIRST = "conv1"
"""The layer that makes representations."""

SHOW, MEND = "representations", "mend"
"""The phases."""

SHOWN_ORDER, SIMILAR_NODES = "shown_order", "similar_nodes"
"""Names of what a client keeps: which node each row was of that it showed last, and what it was told."""


class SimilarNodesClient(SubgraphClient):
    """Trains on its graph and on nodes of others. `privacy` is done to representations, not to parameters."""

    class Settings(SubgraphClient.Settings):
        """The exchanges.

        Attributes:
            weighting: as in FedAvg.
            threshold: cosine that a similar node's must be larger than.
            max_neighbours: similar nodes that a node is joined with at most.
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
    """Representations are the outputs of a stacked network's first convolution."""

    protects_uploads: ClassVar[bool] = True
    phases = (SHOW, MEND)
    graph_patch_name = SIMILAR_NODES
    uses_edge_weights = False
    """Edges to similar nodes have none."""

    @classmethod
    def check_model(cls, model: Any, method: str) -> None:
        """Refuse a model that would never hear other clients' nodes.

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
        """The client's own graph, and the similar nodes that it was told of last."""
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
        """Representations of all nodes, float32 [n, hidden], in an order of the client's own."""
        position = self.position_of[client_id]
        parameters = {}
        for name in ("conv1.weight", "conv1.bias"):
            values = question.received[client_id][name]
            if values.dtype != np.float32 or values.shape != self.model.shapes[name]:
                raise ValueError(f"{name} must be float32 {list(self.model.shapes[name])}")
            parameters[name] = torch.from_numpy(values).to(self.cohort.device).unsqueeze(0)
        # By itself and never in a chunk of several, so that it is the same wherever the client runs.
        chunk = self.model.chunk([self.cohort.visible[position]], self.cohort.device)
        with torch.no_grad():
            hidden = self.model.first_convolution(parameters, chunk)[0].cpu().numpy()
        order = self._generator(question, client_id, ORDER).permutation(len(hidden))
        self.store.kept.put(client_id, SHOWN_ORDER, question.server_round, {"order": order})
        shown = hidden[order]
        if self.run.privacy.mechanism != "none":
            noise = self._generator(question, client_id, "noise on representations")
            shown = np.concatenate([protect([row], self.run.privacy, noise)[0][None] for row in shown])
        return {"representations": shown}

    def _mended(self, question: Question, client_id: int) -> Stack:
        """Nothing; the client keeps what it was told, by its nodes' local ids."""
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

    def _generator(self, question: Question, client_id: int, purpose: str) -> np.random.Generator:
        """What a client draws secrets from: the run's seed in a simulation, which is repeatable and hides nothing.

        On a machine of its own, which has no graph but its clients', it is never the same twice.
        """
        if self.cohort.whole is None:
            return np.random.default_rng()
        return client_generator(self.seed, client_id, question.server_round, purpose)

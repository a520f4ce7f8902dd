r"""SubPFed: Li, Bao and Tong, "SubPFed: a personalized federated learning approach with subgraphs", CMC 2026, 88(1):34.

Clients are alike if their models answer alike on a random graph, and if they lie close to each other through the nodes
that both hold. The mixing matrix adds the two (eq. 6),

.. math:: M = \psi\, W^{\mathrm{structural}} + (1 - \psi)\, W^{\mathrm{functional}},

each part with rows that sum to one: the functional one is FED-PUB's softmax of τ times the cosine, the structural one
a kernel of the distance of eq. 5, measured once, before training. Printed as it stands, eq. 6 takes the distance itself
as a weight, so that the farthest client counts most: ``kernel: literal``, for comparison.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from logging import WARNING
from typing import Annotated, Literal

import numpy as np
from flwr.supercore import log
from pydantic import Field

from strategies.similarity import SimilarityStrategy
from subfl_flower.errors import RunFailure
from subfl_flower.runtime.exchange import Exchange
from subfl_flower.runtime.messages import Stack
from subfl_flower.runtime.strategy import Updates
from subfl_flower.similarity.structural import (
    Structure,
    check_structure,
    structural_distances,
    structural_weights,
)

# A token and three numbers of eight bytes; and room for what describes the four arrays.
_NODE_BYTES, _SLACK = 40, 4096


class SubPFed(SimilarityStrategy):
    """Averages by functional and structural similarity."""

    class Settings(SimilarityStrategy.Settings):
        """The structural part.

        Attributes:
            tau: as in FED-PUB.
            psi: ψ, the structural part's share.
            kernel: from distance D to weight: ``exp``, exp(-γ D/D_max); ``inverse``, 1/(1 + γ D/D_max); ``literal``, D.
            gamma: γ.
            degree_weighted: whether shared nodes count by their degree (ω in eq. 5) or all alike.
        """

        tau: Annotated[float, Field(ge=0)] | Literal["auto"] = 20.0
        psi: float = Field(default=0.5, ge=0, le=1)
        kernel: Literal["exp", "inverse", "literal"] = "exp"
        gamma: float = Field(default=1.0, ge=0)
        degree_weighted: bool = True

    settings: Settings
    distances: np.ndarray
    """Structural distances D [K, K], infinite between clients that share no node."""

    def set_up(self, exchange: Exchange) -> None:
        """Ask every client for its structure, and measure distances.

        Raises:
            RunFailure: a client's answer cannot be used, or a client hashes with another key than the rest.
        """
        num_nodes = np.nan_to_num(self.roster.num_nodes).astype(np.int64)
        decode = partial(_structure, most_nodes=int(num_nodes.max()))
        structures = exchange.ask("structure", decode, (_NODE_BYTES * num_nodes + _SLACK).tolist())
        self._require_one_key(structures)
        self._measured(structural_distances(structures, self.settings.degree_weighted))

    def _measured(self, distances: np.ndarray) -> None:
        self.distances = distances
        self._structural = structural_weights(distances, self.settings.kernel, self.settings.gamma)

    def state(self) -> Stack:
        """Adds the distances, which are measured only once."""
        return {**super().state(), "distances": self.distances}

    def load_state(self, state: Stack) -> None:
        """Adds the distances, which are measured only once."""
        super().load_state(state)
        self._measured(state["distances"])

    def mixing_matrix(self, updates: Updates) -> np.ndarray:
        """Both parts over the replies, the structural one normalised again where clients are absent."""
        functional = super().mixing_matrix(updates)
        structural = self._structural[:, updates.positions]
        total = structural.sum(1, keepdims=True)
        near = total[:, 0] > 0
        matrix = functional
        matrix[near] = self.settings.psi * structural[near] / total[near] + (1 - self.settings.psi) * functional[near]
        # With explicit communities a client's functional row may be zero; structure then counts alone.
        sums = matrix.sum(1, keepdims=True)
        normalised: np.ndarray = matrix / np.where(sums > 0, sums, 1)
        return normalised

    def _require_one_key(self, structures: list[Structure | None]) -> None:
        """A node is shareable because another client has it, too; whom no other client recognises has another key."""
        holders = Counter(token.tobytes() for structure in structures if structure for token in structure.tokens)
        for client_id, structure in zip(self.roster.client_ids, structures, strict=True):
            if structure and len(structure.tokens) and all(holders[token.tobytes()] == 1 for token in structure.tokens):
                problem = (
                    f"no other client knows any of the {len(structure.tokens)} nodes that client {client_id} shares; "
                    "does its node hold the same shared key (clients.key in its folder, or beside a simulation's "
                    "prepared partitions) as the others?"
                )
                if all(structures):
                    raise RunFailure(problem)
                log(WARNING, problem)


def _structure(stack: Stack, most_nodes: int) -> Structure:
    """One client's answer; ValueError where it is none."""
    if set(stack) != {"tokens", "distances", "reach", "degrees"}:
        raise ValueError(f"it holds {', '.join(sorted(stack)) or 'nothing'}")
    structure = Structure(**stack)
    check_structure(structure, "it")
    if (structure.reach > most_nodes).any():
        raise ValueError(f"a node reaches {structure.reach.max()} nodes, and no client has more than {most_nodes}")
    return structure

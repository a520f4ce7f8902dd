r"""SubPFed: Li, Bao and Tong, "SubPFed: a personalized federated learning approach with subgraphs", CMC 2026, 88(1):34.

Two clients are similar if their models have similar outputs on a random graph, and if their subgraphs are close through
the nodes that both hold. The paper's equations on the server's side:

- Eq. 4, the functional embedding, and eq. 7, the local objective: the clients' (`clients/subgraphs/subpfed.py`).
- Eq. 5, the structural distance D, measured once, before training: formula and code in
  `subfl_flower/subgraphs/similarity/structural.py`.
- Eq. 6, the mixing matrix (`SubPFed.mixing_matrix`); client i receives :math:`\sum_j M_{ij} \theta_j`:

.. math:: M = \psi\, W^{\mathrm{structural}} + (1 - \psi)\, W^{\mathrm{functional}} .

The rows of each part sum to one. The functional part is FED-PUB's softmax of τ times the cosine, the structural part a
kernel of D. As printed in the paper, eq. 6 takes the distance itself as a weight, so that the farthest client has the
largest weight, and the cosine divided by its row's sum: ``kernel: literal``, for comparison.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from logging import WARNING

import numpy as np

from subfl_flower.clients.subgraphs.subpfed import STRUCTURE, SubPFedClient
from subfl_flower.errors import RunFailure
from subfl_flower.flower.log import log
from subfl_flower.server.exchange import Exchange
from subfl_flower.server.updates import Updates
from subfl_flower.strategies.subgraphs.mixing import MixingStrategy
from subfl_flower.strategies.subgraphs.similarity import SimilarityWeights
from subfl_flower.subgraphs.similarity.structural import (
    Structure,
    check_structure,
    structural_distances,
    structural_weights,
)
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.contract import Contract, RunContext
from subfl_flower.wire.roster import Roster

# A token and three numbers of eight bytes; and room for the description of the four arrays.
_NODE_BYTES, _SLACK = 40, 4096


class SubPFed(MixingStrategy):
    """Average by functional and structural similarity."""

    Settings = SubPFedClient.Settings
    counterpart = SubPFedClient

    distances: np.ndarray
    """Structural distances D [K, K], infinite between clients that share no node."""

    def __init__(self, run: RunContext, roster: Roster, contract: Contract | None = None) -> None:
        super().__init__(run, roster, contract)
        self.functional = SimilarityWeights(self.settings, roster, self.remembered)

    @property
    def announcements(self) -> dict[str, float]:
        """The size of a random graph that is like the clients' graphs."""
        return self.functional.announcements

    def set_up(self, exchange: Exchange) -> None:
        """Ask every client for its terms of eq. 5, and compute the distances.

        Raises:
            RunFailure: a client's answer cannot be used, or a client hashes with another key than the rest.
        """
        num_nodes = np.nan_to_num(self.roster.num_nodes).astype(np.int64)
        decode = partial(_structure, most_nodes=int(num_nodes.max()))
        structures = exchange.ask(STRUCTURE, decode, (_NODE_BYTES * num_nodes + _SLACK).tolist())
        self._require_one_key(structures)
        self._measured(structural_distances(structures, self.settings.degree_weighted))

    def _measured(self, distances: np.ndarray) -> None:
        self.distances = distances
        self._structural = structural_weights(distances, self.settings.kernel, self.settings.gamma)

    def state(self) -> Stack:
        """The base's state, the distances, which are measured only once, and the rows that clients are compared by."""
        return {**super().state(), **self.functional.state(), "distances": self.distances}

    def load_state(self, state: Stack) -> None:
        """Restore the arrays of `state`."""
        super().load_state(state)
        self.functional.load_state(state)
        self._measured(state["distances"])

    def mixing_matrix(self, updates: Updates) -> np.ndarray:
        """M of eq. 6 [K, A]; the structural part is normalised again over the replies where clients are absent."""
        functional = self.functional.matrix(
            updates,
            self.parameters,
            self.roster.num_examples,
            normalised=shares if self.settings.kernel == "literal" else None,
        )
        structural = self._structural[:, updates.positions]
        total = structural.sum(1, keepdims=True)
        near = total[:, 0] > 0
        matrix = functional
        matrix[near] = self.settings.psi * structural[near] / total[near] + (1 - self.settings.psi) * functional[near]
        # With explicit communities a client's functional row may be zero; only structure has weight then.
        sums = matrix.sum(1, keepdims=True)
        normalised: np.ndarray = matrix / np.where(sums > 0, sums, 1)
        return normalised

    def _require_one_key(self, structures: list[Structure | None]) -> None:
        """Report a client whose shareable nodes no other client knows: it hashes with another key."""
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


def shares(cosines: np.ndarray) -> np.ndarray:
    """Cosines [n, A] divided by their row's sum (eq. 6 as printed); negative ones, which it does not foresee, are zero.

    A row without a positive cosine is zero.
    """
    positive = np.maximum(cosines, 0)
    sums = positive.sum(axis=1, keepdims=True)
    divided: np.ndarray = positive / np.where(sums > 0, sums, 1)
    return divided


def _structure(stack: Stack, most_nodes: int) -> Structure:
    """Decode one client's answer; ValueError where it is malformed."""
    if set(stack) != {"tokens", "distances", "reach", "degrees"}:
        raise ValueError(f"it holds {', '.join(sorted(stack)) or 'nothing'}")
    structure = Structure(**stack)
    check_structure(structure, "it")
    if (structure.reach > most_nodes).any():
        raise ValueError(f"a node reaches {structure.reach.max()} nodes, and no client has more than {most_nodes}")
    return structure

r"""GCFL and GCFL+: Xie et al., "Federated graph classification over non-IID graphs", NeurIPS 2021 (arXiv 2106.13423).

Clients are kept in clusters, at first a single one. Every member of a cluster C gets the cluster's average,
:math:`M_{ij} = n_j / n_C` over the members that took part. With :math:`\Delta_j` the change of client j's parameters in
local training, a cluster is halved when its mean change is small and a member's change is still large:

.. math:: \Big\lVert \sum_{j \in C} \frac{n_j}{n_C} \Delta_j \Big\rVert < \varepsilon_1, \quad
          \max_{j \in C} \lVert \Delta_j \rVert > \varepsilon_2 .

The halves are the minimum cut (Stoer and Wagner, 1997) of the complete graph over the members. GCFL weights its edges
by the similarity of two updates, GCFL+ by that of the sequences of their norms.

The paper's thresholds are norms. They depend on the model, on the optimiser and on the progress of training, so by
default the first is taken relative to the members' norms here; see `GCFL.Settings.relative`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import networkx as nx
import numpy as np
from pydantic import Field

from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.errors import SubflError
from subfl_flower.installed import optional_module
from subfl_flower.privacy.secure_aggregation.settings import SecureSumSettings
from subfl_flower.server.updates import Updates
from subfl_flower.strategies.subgraphs.mixing import MixingStrategy, average_weights, rows
from subfl_flower.subgraphs.similarity.functional import cosine_similarity
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.contract import Contract, RunContext
from subfl_flower.wire.roster import Roster


class GCFL(MixingStrategy):
    """Average within clusters; a cluster is halved along its least similar updates.

    An absent client stays in its cluster, gets its average, and is judged by its last known update. A cluster without
    participants keeps its parameters.
    """

    class Settings(SubgraphClient.Settings):
        """Conditions for halving a cluster.

        Attributes:
            epsilon1: upper bound of the norm of the mean update.
            epsilon2: lower bound of the largest norm of a member's update.
            relative: epsilon1 is a share of the mean of the members' norms, and thus between 0 (they cancel out) and 1
                (they agree; C updates at right angles have 1 / sqrt(C)). False: a norm, as in the paper.
            first_split: 1-based round before which no cluster is halved.
            min_cluster: least number of clients in each half; a cut that leaves fewer is not made.
        """

        epsilon1: float = Field(default=0.45, ge=0)
        epsilon2: float = Field(default=0.0, ge=0)
        relative: bool = True
        first_split: int = Field(default=21, ge=1)
        min_cluster: int = Field(default=1, ge=1)

    settings: Settings

    def __init__(self, run: RunContext, roster: Roster, contract: Contract | None = None) -> None:
        super().__init__(run, roster, contract)
        self._clusters = [list(range(len(roster)))]
        size = sum(value.size for value in self.initial.values())
        self._updates = np.zeros((len(roster), size), dtype=np.float32)
        self._norms = np.full(len(roster), np.nan)

    @property
    def clusters(self) -> list[list[int]]:
        """The clients' positions by cluster: a partition of 0 .. K - 1, each ascending, by their first members."""
        return [list(cluster) for cluster in self._clusters]

    def state(self) -> Stack:
        """The base's state, the clusters as each client's number, and the last updates."""
        cluster_of = np.zeros(len(self.roster), dtype=np.int64)
        for number, cluster in enumerate(self._clusters):
            cluster_of[cluster] = number
        return {**super().state(), "cluster_of": cluster_of, "updates": self._updates, "norms": self._norms}

    def load_state(self, state: Stack) -> None:
        """Restore the arrays of `state`."""
        super().load_state(state)
        self._updates, self._norms = state["updates"], state["norms"]
        clusters = [np.flatnonzero(state["cluster_of"] == number) for number in np.unique(state["cluster_of"])]
        self._clusters = sorted(cluster.tolist() for cluster in clusters)

    @classmethod
    def check_sums(cls, sums: SecureSumSettings, settings: GCFL.Settings, method: str) -> None:
        """Allow secure sums within clusters, from a round on that finds the clusters formed.

        Raises:
            SubflError: clusters are still halved in that round, or may be too small for a sum.
        """
        if sums.from_round <= settings.first_split:
            raise SubflError(
                f"secure_sums.from_round: method={method} forms its clusters by clients' own updates from round "
                f"{settings.first_split} on (method.first_split), and keeps them once uploads are summed; must be "
                f"larger (found {sums.from_round})"
            )
        if settings.min_cluster < sums.min_clients:
            raise SubflError(
                f"method.min_cluster: a cluster's sum needs secure_sums.min_clients={sums.min_clients} clients; must "
                f"not be less (found {settings.min_cluster})"
            )

    def sum_groups(self, positions: Sequence[int]) -> Sequence[Sequence[int]]:
        """The clients at `positions` by their clusters."""
        present = set(positions)
        groups = (sorted(present.intersection(cluster)) for cluster in self._clusters)
        return [group for group in groups if group]

    def mixing_matrix(self, updates: Updates) -> np.ndarray:
        """n_j / n_C over the members that replied, with the clusters as this round's updates leave them."""
        if not self.run.secure_sums.sums(updates.server_round):  # a mean tells nothing of single updates
            self.remember(updates)
            self._clusters = sorted(
                part for cluster in self._clusters for part in self.split(cluster, updates.server_round)
            )
        matrix = np.zeros((len(self.roster), len(updates.positions)))
        for cluster in self._clusters:
            present = np.flatnonzero(np.isin(updates.positions, cluster))
            if len(present):
                examples = self.roster.num_examples[updates.positions[present]]
                matrix[np.ix_(np.array(cluster), present)] = average_weights(examples, "examples")
        return matrix

    def remember(self, updates: Updates) -> None:
        """Keep each client's last update for the next split: the parameters it sent less those it received."""
        present = updates.positions.tolist()
        changes = [updates.arrays[name] - rows(self.parameters[name], present) for name in self.initial]
        self._updates[present] = np.concatenate([change.reshape(len(present), -1) for change in changes], axis=1)
        self._norms[present] = np.linalg.norm(self._updates[present], axis=1)

    def ready(self, cluster: Sequence[int]) -> bool:
        """True where every member of the cluster has a last update."""
        return not np.isnan(self._norms[cluster]).any()

    def weights(self, cluster: Sequence[int]) -> np.ndarray:
        """Weights [C, C] of the edges between a cluster's members: the cosines of their updates, negative ones as zero.

        The paper's weight is the cosine itself, and a minimum cut wants weights that are not negative. The authors'
        public code adds one to it instead; then every pair is held together, and the cheapest cut nearly always cuts
        off a single client.
        """
        similarity: np.ndarray = np.maximum(cosine_similarity(self._updates[cluster]), 0)
        return similarity

    def split(self, cluster: list[int], server_round: int) -> list[list[int]]:
        """The cluster's halves, or the cluster as it is."""
        if len(cluster) <= 2 or server_round < self.settings.first_split or not self.ready(cluster):
            return [cluster]
        share = average_weights(self.roster.num_examples[cluster], "examples").astype(np.float32)
        threshold = self.settings.epsilon1 * (self._norms[cluster].mean() if self.settings.relative else 1)
        at_rest = np.linalg.norm(share @ self._updates[cluster]) < threshold
        if not at_rest or self._norms[cluster].max() <= self.settings.epsilon2:
            return [cluster]
        halves = [sorted(cluster[member] for member in half) for half in minimum_cut(self.weights(cluster))]
        return [cluster] if min(map(len, halves)) < self.settings.min_cluster else halves


class GCFLPlus(GCFL):
    """GCFL whose clusters are halved along the least similar sequences of the updates' norms.

    It stands a level deeper than other strategies because it is GCFL in all but the weights of the cut.
    """

    class Settings(GCFL.Settings):
        """Knobs of GCFL, and of the sequences that are compared.

        Attributes:
            window: length of a sequence, in updates; a cluster is halved only when every member has sent as many since
                the cluster was formed.
            standardize: divide each sequence by its standard deviation, as the authors' public code does.
            standardize: divide each course by its standard deviation, as the authors' public code does.
        """

        window: int = Field(default=5, ge=2)
        standardize: bool = True

    settings: Settings

    def __init__(self, run: RunContext, roster: Roster, contract: Contract | None = None) -> None:
        super().__init__(run, roster, contract)
        self._warping = optional_module("dtaidistance.dtw", "gcfl", "method=gcfl_plus")
        self._courses: list[deque[float]] = [deque(maxlen=self.settings.window) for _ in range(len(roster))]

    def state(self) -> Stack:
        """GCFL's state, and the sequences [K, window], their values at the left; NaN where a sequence is shorter."""
        courses = np.full((len(self.roster), self.settings.window), np.nan)
        for position, course in enumerate(self._courses):
            courses[position, : len(course)] = list(course)
        return {**super().state(), "courses": courses}

    def load_state(self, state: Stack) -> None:
        """Restore the arrays of `state`."""
        super().load_state(state)
        for course, values in zip(self._courses, state["courses"], strict=True):
            course.clear()
            course.extend(values[~np.isnan(values)].tolist())

    def remember(self, updates: Updates) -> None:
        """Append the norms of this round's updates to their clients' sequences."""
        super().remember(updates)
        for position in updates.positions:
            self._courses[position].append(float(self._norms[position]))

    def ready(self, cluster: Sequence[int]) -> bool:
        """True where every member's sequence fills the window."""
        return all(len(self._courses[position]) == self.settings.window for position in cluster)

    def split(self, cluster: list[int], server_round: int) -> list[list[int]]:
        """Halve the cluster as GCFL does; sequences restart, because later norms are those of another model."""
        halves = super().split(cluster, server_round)
        if len(halves) > 1:
            for position in cluster:
                self._courses[position].clear()
        return halves

    def weights(self, cluster: Sequence[int]) -> np.ndarray:
        """Weights [C, C]: the largest distance by dynamic time warping between two sequences, less a pair's own."""
        courses = np.array([self._courses[position] for position in cluster])
        if self.settings.standardize:
            spread = courses.std(axis=1, keepdims=True)
            # A sequence that is constant but for rounding has no scale.
            courses /= np.where(spread > 1e-4 * courses.mean(axis=1, keepdims=True), spread, 1)
        distances = self._warping.distance_matrix(courses)
        similarity: np.ndarray = distances.max() - distances
        return similarity


def minimum_cut(weights: np.ndarray) -> tuple[list[int], list[int]]:
    """The two sides of the minimum cut of a complete graph, by symmetric weights [C, C] that are not negative."""
    graph = nx.Graph()
    graph.add_weighted_edges_from((i, j, weights[i, j]) for i, j in zip(*np.triu_indices(len(weights), 1), strict=True))
    _, (one, other) = nx.stoer_wagner(graph)
    return one, other

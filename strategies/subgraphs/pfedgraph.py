r"""pFedGraph: Ye et al., "Personalized federated learning with inferred collaboration graphs", ICML 2023: the server's
side.

Each row m of the mixing matrix, the weights of client i's collaborators, is the solution of a quadratic program over
the simplex. With :math:`p_j = n_j / n` FedAvg's weights, :math:`\Delta_j` the change of client j's parameters since the
initial model, :math:`s_{ij} = \cos(\Delta_i, \Delta_j)`, and β the weight ``prior``:

.. math:: \min_m \; \beta \lVert m - p \rVert^2 - \sum_j m_j s_{ij}
          \quad \text{with} \quad m_j \ge 0, \; \sum_j m_j = 1 .

**Closed form.** Completing the square gives :math:`\beta \lVert m - (p + s_i / 2\beta) \rVert^2` plus a number without
m. The solution is therefore the point of the simplex nearest to :math:`y = p + s_i / 2\beta`. It is
:math:`m_j = \max(y_j - t, 0)`. Proof: the conditions of Karush, Kuhn and Tucker, which are sufficient because the
program is strictly convex, ask for a t and for :math:`\mu_j \ge 0` with :math:`m_j = y_j - t + \mu_j` and
:math:`\mu_j m_j = 0`. Where m_j > 0 this is y_j - t; where m_j = 0 it asks that y_j ≤ t. As
:math:`\sum_j \max(y_j - t, 0)` falls strictly in t until it is zero, one t alone gives the sum one. If the r largest
entries are the positive ones, then :math:`t = (y_{(1)} + \dots + y_{(r)} - 1) / r`, and r is the largest number with
:math:`y_{(r)} > t` (Held, Wolfe and Crowder, 1974).

With β → ∞ this is FedAvg. With β → 0 a client keeps the models that changed most like its own, which is `local`.
"""

from __future__ import annotations

import numpy as np

from subfl_flower.clients.subgraphs.pfedgraph import PFedGraphClient
from subfl_flower.server.updates import Remembered, Updates
from subfl_flower.strategies.subgraphs.mixing import MixingStrategy, average_weights
from subfl_flower.subgraphs.similarity.functional import cosine_similarity
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.contract import Contract, RunContext
from subfl_flower.wire.roster import Roster

_STATE = "changes."


class PFedGraph(MixingStrategy):
    """Personal averages by a learnt collaboration graph. An absent client is compared by its last upload."""

    Settings = PFedGraphClient.Settings
    counterpart = PFedGraphClient

    def __init__(self, run: RunContext, roster: Roster, contract: Contract | None = None) -> None:
        super().__init__(run, roster, contract)
        self.changes = Remembered(len(roster), (sum(value.size for value in self.initial.values()),))
        """Last changes since the initial model of all clients, flat."""

    def mixing_matrix(self, updates: Updates) -> np.ndarray:
        """M [K, A], the solutions of all clients' programs; the plain average for a client never heard."""
        sent = [np.asarray(updates.arrays[name]) - value for name, value in self.initial.items()]
        flat = np.concatenate([values.reshape(len(values), -1) for values in sent], axis=1)
        self.changes.take_in(updates.positions, flat)
        average = average_weights(self.roster.num_examples[updates.positions])
        similarity = cosine_similarity(self.changes.values)[:, updates.positions].astype(np.float64)
        matrix = nearest_on_simplex(average + similarity / (2 * self.settings.prior))
        matrix[~self.changes.known] = average
        return matrix

    def state(self) -> Stack:
        """Parameters, M, and the clients' last changes."""
        return {**super().state(), **{f"{_STATE}{key}": value for key, value in self.changes.state().items()}}

    def load_state(self, state: Stack) -> None:
        """Parameters, M, and the clients' last changes."""
        super().load_state(state)
        self.changes.load_state({key: state[f"{_STATE}{key}"] for key in ("values", "known")})


def nearest_on_simplex(points: np.ndarray) -> np.ndarray:
    """The nearest point of the simplex to each row of `points` [K, A]: not negative, of sum one."""
    descending = -np.sort(-points, axis=1)
    thresholds = (descending.cumsum(1) - 1) / np.arange(1, points.shape[1] + 1)
    positive = (descending > thresholds).sum(1)
    nearest: np.ndarray = np.maximum(points - thresholds[np.arange(len(points)), positive - 1][:, None], 0)
    return nearest

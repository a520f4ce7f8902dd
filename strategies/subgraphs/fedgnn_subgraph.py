"""FedGNN on subgraphs, as FED-PUB compares with (Baek et al., ICML 2023, App. B.2): FedAvg over graphs that are
extended by similar nodes of other clients.

Only this description is public: a client's graph is extended by those nodes of other clients whose representation is
similar above 0.5 to that of one of its nodes. Local differential privacy may protect representations. The rest is our
reading:

- A representation is the first convolution's output before its ReLU, without dropout, over the client's own graph,
  under the average that all clients are sent next; so those of two clients can be compared. Under the initial model it
  is a random projection of smoothed features, which nearly keeps their cosines.
- Each node is joined with at most `max_neighbours` most similar nodes of other clients.
- What a client is sent stays until the next exchange: representations are constants of its model.
- A node that two clients hold has similarity 1 with itself, and is joined with itself.

Similarity depends on trained numbers. In chunks of other sizes sums are rounded differently, so that exchanges after
the first round may choose the other of two neighbours that are almost equally near.

Noise is on representations alone, each node's protected on its own. The guarantee is for a single node's representation
given the model. A node's features also enter its neighbours' representations, and a node that several clients hold is
shown by each. The parameters that rounds upload are not protected. The server sees representations in a secret order
drawn by each client, and no id, feature or edge.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from subfl_flower.clients.subgraphs.fedgnn_subgraph import FIRST, MEND, SHOW, SimilarNodesClient
from subfl_flower.data.graph import ClientGraph
from subfl_flower.privacy.accountant import privacy_report, require_accountant, user_level_epsilon
from subfl_flower.seeding import client_generator
from subfl_flower.server.exchange import Exchange
from subfl_flower.server.updates import Updates
from subfl_flower.strategies.subgraphs.mixing import MixingStrategy, average_matrix
from subfl_flower.subgraphs.mending.similar_nodes import ORDER, require_representations, similar_nodes
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.contract import Contract, RunContext
from subfl_flower.wire.replies import LARGEST_VALUE
from subfl_flower.wire.roster import Roster

_SLACK = 4096  # bytes of what describes an array
COVERS = (
    "one node's representation in the exchanges, given the model; its neighbours' representations tell of it, too, "
    "and the parameters that rounds upload are not protected"
)


@dataclass(frozen=True, eq=False)
class Joined:
    """Result of an exchange: the edges between nodes of two clients.

    Attributes:
        sizes: int64 [K], rows that each client showed; 0 for a client that gave no answer.
        edges: int32 [2, edges], rows of all clients' stacked representations: of the client that receives the node, and
            of the node that it receives.
    """

    sizes: np.ndarray
    edges: np.ndarray

    @property
    def owners(self) -> np.ndarray:
        """Owners of the rows of `edges`, positions [2, edges]."""
        owners: np.ndarray = np.repeat(np.arange(len(self.sizes)), self.sizes)[self.edges]
        return owners

    def figures(self) -> dict[str, float | None]:
        """Number of clients that showed their nodes, and mean numbers of nodes and edges added to each of them."""
        clients = int(np.count_nonzero(self.sizes))
        nodes = len(np.unique(np.stack([self.owners[0], self.edges[1]]), axis=1).T)
        each = max(clients, 1)
        return {"clients": clients, "nodes": nodes / each, "edges": self.edges.shape[1] / each}


class SubgraphFedGNN(MixingStrategy):
    """Average as FedAvg, and send clients similar nodes before the first round and then at intervals."""

    Settings = SimilarNodesClient.Settings
    counterpart = SimilarNodesClient

    one_average = True

    def mixing_matrix(self, updates: Updates) -> np.ndarray:
        """FedAvg's matrix, n_j / n in every row."""
        return average_matrix(self.roster, updates, self.settings.weighting)

    def __init__(self, run: RunContext, roster: Roster, contract: Contract | None = None) -> None:
        super().__init__(run, roster, contract)
        require_accountant(run.privacy)
        self._width = len(run.initial[f"{FIRST}.bias"])
        self._joined: dict[int, Joined] = {}
        """Results of the exchanges, by the round that they came before."""

    def before_round(self, server_round: int, exchange: Exchange) -> None:
        """Have clients show their nodes, and send them similar ones, in rounds with an exchange."""
        since_start = server_round - self.settings.exchange_start
        every = self.settings.exchange_every
        if since_start == 0 or (since_start > 0 and every and since_start % every == 0):
            self._exchange(server_round, exchange)

    def _exchange(self, server_round: int, exchange: Exchange) -> None:
        first = {name: stack for name, stack in self.parameters.items() if name.split(".")[0] == FIRST}
        sent = {
            position: {name: stack[position] for name, stack in first.items()} for position in range(len(self.roster))
        }
        num_nodes = np.nan_to_num(self.roster.num_nodes).astype(np.int64)
        largest = (np.dtype(np.float32).itemsize * self._width * num_nodes + _SLACK).tolist()
        decode = partial(_representations, width=self._width)
        answers = exchange.ask(SHOW, decode, largest, sent=sent)
        nothing = np.zeros((0, self._width), dtype=np.float32)
        shown = [nothing if answer is None else answer for answer in answers]
        found = similar_nodes(shown, self.settings.threshold, self.settings.max_neighbours)
        everything = np.concatenate(shown)
        told: dict[int, Stack] = {}
        for position, (own, other) in enumerate(found):
            if answers[position] is not None:
                distinct, which = np.unique(other, return_inverse=True)
                edges = np.stack([own, which]).astype(np.int32)
                told[position] = {"representations": everything[distinct], "edges": edges}
        exchange.ask(MEND, _nothing, [0] * len(self.roster), sent=told)
        sizes = np.array([len(rows) for rows in shown])
        starts = np.cumsum(sizes) - sizes
        edges = np.concatenate(
            [pairs + np.array([[start], [0]]) for pairs, start in zip(found, starts, strict=True)], axis=1
        )
        self._joined[server_round] = Joined(sizes, edges.astype(np.int32))

    def state(self) -> Stack:
        """The base's state, and the results of the exchanges."""
        kept = {
            f"exchange.{name}.{server_round}": getattr(joined, name)
            for server_round, joined in self._joined.items()
            for name in ("sizes", "edges")
        }
        return {**super().state(), **kept}

    def load_state(self, state: Stack) -> None:
        """Restore the arrays of `state`."""
        super().load_state(state)
        rounds = sorted(int(name.split(".")[2]) for name in state if name.startswith("exchange.sizes."))
        self._joined = {r: Joined(state[f"exchange.sizes.{r}"], state[f"exchange.edges.{r}"]) for r in rounds}

    # Report ----------------------------------------------------------------------------------------------------------

    def report(self, prepared: Any | None) -> dict[str, Any]:
        """Additions of each exchange to clients' graphs, in a simulation shares of right edges, and the guarantee."""
        rounds = [{"round": server_round, **joined.figures()} for server_round, joined in self._joined.items()]
        if prepared is not None:
            graphs = [prepared.client(client_id) for client_id in self.roster.client_ids]
            for figures, (server_round, joined) in zip(rounds, self._joined.items(), strict=True):
                figures.update(self._shares(server_round, joined, graphs))
        found: dict[str, Any] = {**super().report(prepared), "similar_nodes": rounds}
        releases = sum((joined.sizes > 0).astype(int) for joined in self._joined.values())
        if self.run.privacy.mechanism != "none" and np.any(releases):
            found["privacy"] = {"covers": COVERS, **self._guarantee(int(np.max(releases)))}
        return found

    def _guarantee(self, exchanges: int) -> dict[str, Any]:
        """Guarantee for a node's representation in one exchange, and composed over all of them, both at delta."""
        composed = privacy_report(self.run.privacy, exchanges, self._width)
        once = user_level_epsilon(self.run.privacy, 1, composed.delta, self._width)
        return {**asdict(composed), "exchange_epsilon": once if math.isfinite(once) else None}

    def _shares(self, server_round: int, joined: Joined, graphs: list[ClientGraph]) -> dict[str, float | None]:
        """Shares of the edges within one class, of those that were cut, and of those that join a node with itself."""
        ids, labels, cut = [], [], []
        for graph, size in zip(graphs, joined.sizes.tolist(), strict=True):
            # The orders of a simulation follow from its seed, and are drawn again.
            rng = client_generator(self.run.seed, graph.client_id, server_round, ORDER)
            order = rng.permutation(graph.num_nodes)[:size]
            ids.append(graph.node_ids[order])
            labels.append(np.full(size, -1) if graph.labels is None else graph.labels[order])
            cut.append(_codes(graph.node_ids[graph.cross_edges[0]], graph.cross_edges[1]))
        (one, other), (class_of, other_class) = np.concatenate(ids)[joined.edges], np.concatenate(labels)[joined.edges]
        known = (class_of >= 0) & (other_class >= 0)
        return {
            "same_class": _share((class_of == other_class)[known]),
            "cross_edges": _share(np.isin(_codes(one, other), np.concatenate(cut))),
            "same_node": _share(one == other),
        }


def _codes(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """A number for each ordered pair of node ids below 2^32."""
    pairs: np.ndarray = (one.astype(np.uint64) << np.uint64(32)) | other.astype(np.uint64)
    return pairs


def _share(chosen: np.ndarray) -> float | None:
    return float(chosen.mean()) if len(chosen) else None


def _representations(answer: Stack, width: int) -> np.ndarray:
    """Decode one client's answer; ValueError where it is malformed."""
    if set(answer) != {"representations"}:
        raise ValueError(f"it holds {', '.join(sorted(answer)) or 'nothing'}")
    require_representations(answer["representations"], width, LARGEST_VALUE)
    return answer["representations"]


def _nothing(answer: Stack) -> None:
    if answer:
        raise ValueError("there is nothing to answer")

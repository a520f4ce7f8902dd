r"""FedSage+: Zhang et al., "Subgraph federated learning with missing neighbor generation", NeurIPS 2021
(arXiv 2106.13430).

Clients do not know the neighbours that their nodes have elsewhere. Each client trains a generator of missing neighbours
on own nodes that it hides, and the generators learn from one another (eq. 5). Each client mends its graph by generated
neighbours. Then all train by FedAvg, GraphSAGE or a GCN, on the mended graphs.

To learn from one another, client i sends its decoder and its nodes' embeddings with noise, never features or edges.
Every other client j finds its own nodes nearest to what the decoder generates from these, and answers with gradients of

.. math:: \frac{1}{k} \sum_v \sum_{q \le \tilde n_v} \min_{u \in V_j} d(\tilde x_v^q, x_u)

with respect to the decoder. The server takes their mean (the paper's sum, with a weight that does not depend on the
number of clients). Client i steps along this mean and its own gradients.

What remains visible: the server and all other clients see a decoder and noisy embeddings. They can generate from these,
and so learn the average neighbourhoods of the client. Gradients of a decoder reveal the nodes that were nearest. The
noise is part of the generator and no differential privacy.

Every client's decoder goes to every other client: bytes grow with the square of the number of clients.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from subfl_flower.clients.subgraphs.fedsage_plus import GENERATOR, GRADIENTS, FedSagePlusClient
from subfl_flower.server.exchange import Exchange
from subfl_flower.server.updates import Updates
from subfl_flower.strategies.subgraphs.mixing import MixingStrategy, average_matrix
from subfl_flower.subgraphs.mending.neighbour_generator import NeighbourGenerator
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.contract import Contract, RunContext
from subfl_flower.wire.roster import Roster

_SLACK = 4096
_FIGURES = 5
_IN_FLIGHT = 1 << 28  # bytes that are sent at once to be judged; more go in several phases


class FedSagePlus(MixingStrategy):
    """Train clients' generators on one another's nodes; then average as FedAvg."""

    Settings = FedSagePlusClient.Settings
    counterpart = FedSagePlusClient

    one_average = True

    def mixing_matrix(self, updates: Updates) -> np.ndarray:
        """FedAvg's matrix, n_j / n in every row."""
        return average_matrix(self.roster, updates, self.settings.weighting)

    def __init__(self, run: RunContext, roster: Roster, contract: Contract | None = None) -> None:
        super().__init__(run, roster, contract)
        generator = NeighbourGenerator(self.settings.generator, roster.num_features, 0)
        self._decoder = {name: generator.shapes[name] for name in generator.decoder_names}
        self._figures = np.full((len(roster), _FIGURES), np.nan)

    def set_up(self, exchange: Exchange) -> None:
        """Train the generators in an exchange with all clients.

        Raises:
            RunFailure: a client's answer cannot be used.
        """
        advice: dict[int, Stack] = {}
        for _ in range(self.settings.exchanges):
            advice = self._advice(exchange, self._generators(exchange, advice))
        last = exchange.ask(GENERATOR, _figures, sent=self._advised(advice), about={"last": 1})
        for position, figures in enumerate(last):
            if figures is not None:
                self._figures[position] = figures

    def _generators(self, exchange: Exchange, advice: Mapping[int, Stack]) -> dict[int, Stack]:
        """Every client's decoder and embeddings, after a step with other clients' gradients."""
        num_nodes = np.nan_to_num(self.roster.num_nodes).astype(np.int64)
        latent = self.settings.generator.latent
        most = self._decoder_bytes + num_nodes * (4 * latent + 1) + _SLACK
        decode = partial(
            _generator, shapes=self._decoder, latent=latent, most_neighbours=self.settings.generator.most_neighbours
        )
        answers = exchange.ask(GENERATOR, decode, most.tolist(), sent=self._advised(advice), about={"last": 0})
        return {position: answer for position, answer in enumerate(answers) if answer is not None}

    def _advised(self, advice: Mapping[int, Stack]) -> dict[int, Stack]:
        return {position: advice.get(position, {}) for position in range(len(self.roster))}

    def _advice(self, exchange: Exchange, generators: Mapping[int, Stack]) -> dict[int, Stack]:
        """Mean gradient of the other clients for each generator, by name."""
        advice: dict[int, Stack] = {}
        for batch in self._batches(generators):
            advice |= self._judged(exchange, {position: generators[position] for position in batch})
        return advice

    def _judged(self, exchange: Exchange, generators: Mapping[int, Stack]) -> dict[int, Stack]:
        """Mean gradients for some clients' generators, from one phase."""
        ids = self.roster.client_ids
        sent = {
            judge: {
                f"{ids[p]}/{name}": values for p in generators if p != judge for name, values in generators[p].items()
            }
            for judge in range(len(self.roster))
        }
        decode = partial(_gradients, shapes=self._decoder, of={ids[position]: position for position in generators})
        most = [len(generators) * (self._decoder_bytes + _SLACK)] * len(self.roster)
        asked = {judge: stack for judge, stack in sent.items() if stack}
        said: dict[int, list[Stack]] = {position: [] for position in generators}
        for judge, answer in enumerate(exchange.ask(GRADIENTS, decode, most, asked)):
            for position, gradients in (answer or {}).items():
                if position != judge:
                    said[position].append(gradients)
        return {
            position: {name: np.mean([gradients[name] for gradients in of_all], axis=0) for name in self._decoder}
            for position, of_all in said.items()
            if of_all
        }

    def _batches(self, generators: Mapping[int, Stack]) -> Iterator[list[int]]:
        """Clients whose generators are judged at once; limits the bytes in flight."""
        batch: list[int] = []
        size = 0
        for position, stack in generators.items():
            own = len(self.roster) * sum(values.nbytes for values in stack.values())
            if batch and size + own > _IN_FLIGHT:
                yield batch
                batch, size = [], 0
            batch.append(position)
            size += own
        if batch:
            yield batch

    @property
    def _decoder_bytes(self) -> int:
        return 4 * sum(int(np.prod(shape)) for shape in self._decoder.values())

    def state(self) -> Stack:
        """The base's state, and the generators' quality."""
        return {**super().state(), "generator_figures": self._figures}

    def load_state(self, state: Stack) -> None:
        """Restore the arrays of `state`."""
        super().load_state(state)
        self._figures = state["generator_figures"]

    def report(self, prepared: Any | None) -> dict[str, Any]:
        """Entry ``generator``: ``generated_nodes`` is the mean number of nodes that mend a graph.

        In a simulation also means over clients of Euclidean distances to the nearest of the true neighbours that a node
        has elsewhere: ``distance`` of what was generated, ``distance_of_mean`` of the client's mean feature instead,
        ``distance_of_neighbours`` of the mean of the node's own neighbours.
        """
        measured = self._figures[self._figures[:, 0] > 0]
        added = self._figures[:, 4]
        names = ("distance", "distance_of_mean", "distance_of_neighbours")
        found: dict[str, Any] = {"clients_measured": len(measured)}
        found |= {name: float(measured[:, 1 + i].mean()) if len(measured) else None for i, name in enumerate(names)}
        found["generated_nodes"] = None if np.isnan(added).all() else float(np.nanmean(added))
        return {**super().report(prepared), "generator": found}


def _generator(answer: Stack, shapes: Mapping[str, Sequence[int]], latent: int, most_neighbours: int) -> Stack:
    """Decode a client's decoder and embeddings; ValueError where they are malformed."""
    if set(answer) != {*shapes, "noisy", "counts", "unit"}:
        raise ValueError(f"it holds {', '.join(sorted(answer)) or 'nothing'}")
    counts = answer["counts"]
    if counts.ndim != 1 or counts.dtype != np.uint8 or counts.max(initial=0) > most_neighbours or not len(counts):
        raise ValueError(f"counts must be whole numbers up to {most_neighbours}, one a node")
    _require_finite(answer, {**shapes, "noisy": (len(counts), latent), "unit": (1,)})
    if answer["unit"] <= 0:
        raise ValueError("unit must be more than 0")
    return answer


def _gradients(answer: Stack, shapes: Mapping[str, Sequence[int]], of: Mapping[int, int]) -> dict[int, Stack]:
    """Gradients of decoders by their clients' positions, from arrays ``<client>/<parameter>``.

    Args:
        answer: of a client.
        shapes: of a decoder.
        of: positions by id of the clients whose decoders it may judge.

        Raises:
        ValueError: it names another client, or not a whole decoder.
    """
    names = {client: {name: f"{client}/{name}" for name in shapes} for client in of}
    spoken_of = [client for client in of if any(name in answer for name in names[client].values())]
    expected = {names[client][name]: shape for client in spoken_of for name, shape in shapes.items()}
    if set(answer) != set(expected):
        raise ValueError(f"it does not hold whole decoders: {min(set(answer) ^ set(expected))}")
    _require_finite(answer, expected)
    return {of[client]: {name: answer[full] for name, full in names[client].items()} for client in spoken_of}


def _figures(answer: Stack) -> np.ndarray:
    figures = answer["figures"]
    if figures.shape != (_FIGURES,) or figures.dtype != np.float64:
        raise ValueError(f"figures must be {_FIGURES} numbers")
    return figures


def _require_finite(answer: Stack, shapes: Mapping[str, Sequence[int]]) -> None:
    for name, shape in shapes.items():
        values = answer[name]
        if values.dtype != np.float32 or values.shape != tuple(shape) or not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite float32 {list(shape)}")

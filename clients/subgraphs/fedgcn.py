"""FedGCN's clients (Yao et al., NeurIPS 2023): a GCN whose convolutions see the neighbours that other clients hold.

Before the first round a client takes part in three phases. They name nodes by hashes of their ids under the clients'
own key and the run's id (`subfl_flower.subgraphs.mending.boundary`):

1. ``query.boundary``: the client lists its boundary, the nodes that other clients may list, too, and marks those that
   it holds.
2. ``query.neighbours``: the server names the nodes whose neighbours the client sums, and the own nodes that it counts.
   The client answers with sums of scaled features over the neighbours that it counts, and with degrees. Edge weights,
   where there are any, scale features and enter degrees.
3. ``query.mend``: the client is sent the sums over all clients, and keeps them for all rounds.

Afterwards it trains on its graph as mended by these sums (`subgraphs/mending/neighbour_sums.py`). A client that was
sent none trains on its local graph as it is.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal

import numpy as np
from pydantic import Field

from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.data.graph import ClientGraph
from subfl_flower.errors import SubflError
from subfl_flower.node.kept_arrays import Arrays
from subfl_flower.node.masking.used_contexts import claim
from subfl_flower.privacy.secure_sum import VALUE_BITS
from subfl_flower.subgraphs.mending.boundary import Boundary
from subfl_flower.subgraphs.mending.masked_rows import masked_rows
from subfl_flower.subgraphs.mending.neighbour_sums import (
    NeighbourSums,
    degrees,
    graph_with_mended_inputs,
    mended_graph,
    partial_sums,
)
from subfl_flower.subgraphs.mending.packed_degrees import packed_degrees, unpacked_degrees
from subfl_flower.subgraphs.mending.packed_rows import dense, packed_rows, unpacked_rows
from subfl_flower.subgraphs.models.local_graph import LocalGraph
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Question

SUMS = "neighbour_sums"
_MASKED_ROWS = "masked-rows"
BOUNDARY, NEIGHBOURS, MEND = "boundary", "neighbours", "mend"
"""The phases' names; the module's docstring describes them."""


class FedGCNClient(SubgraphClient):
    """Train on own nodes, with sums over the neighbours that other clients hold."""

    protects_uploads = False

    class Settings(SubgraphClient.Settings):
        """Knobs of the exchange before training.

        Attributes:
            weighting: as in FedAvg.
            hops: 0, no exchange; 1, sums over the neighbours of own nodes; 2, also over the neighbours of those
                elsewhere.
            masking: hide a client's share of a sum from the server.
            fraction_bits: fractional bits of the fixed-point numbers that are summed under masks.
        """

        weighting: Literal["examples", "uniform"] = "examples"
        hops: Literal[0, 1, 2] = 2
        masking: bool = False
        fraction_bits: int = Field(default=24, ge=8, lt=VALUE_BITS)

    settings: Settings

    networks = ("gcn",)
    """Networks whose convolutions are sums, which can be made in parts."""

    phases = (BOUNDARY, NEIGHBOURS, MEND)

    def answer_of(self, client_id: int, question: Question) -> Stack:
        """One client's answer in one of the three phases.

        Raises:
            SubflError: the shared key cannot be read, or what the server sent makes no sense.
        """
        graph, received = self.cohort.visible[self.position_of[client_id]], question.received[client_id]
        if question.phase == BOUNDARY:
            boundary = self._boundary(graph, question)
            return {"tokens": boundary.tokens, "held": boundary.held}
        if question.phase == NEIGHBOURS:
            return self._add(graph, question, received)
        self._keep(graph, question, received)
        return {}

    graph_patch_name = SUMS

    def patched_graph(self, own: ClientGraph, kept: Arrays) -> LocalGraph:
        """The client's graph together with the sums that it was sent."""
        mended = mended_graph if self.settings.hops > 1 else graph_with_mended_inputs
        return mended(own, NeighbourSums.of_arrays(kept, own.num_features))

    # The phases -----------------------------------------------------------------------------------------------------

    def _key(self) -> bytes:
        if self.cohort.shared_key is None:
            raise SubflError("this node has no shared key, which the clients' node ids are hashed with")
        return self.cohort.shared_key.read()

    def _boundary(self, graph: ClientGraph, question: Question) -> Boundary:
        return Boundary.of(graph, self._key(), _context("nodes", question))

    def _add(self, graph: ClientGraph, question: Question, received: Stack) -> Stack:
        """The client's share of the requested sums: z of the nodes that it counts, and their d."""
        boundary = self._boundary(graph, question)
        kept, responsible = (_flags(received, name, len(boundary.tokens)) for name in ("kept", "counted"))
        if (responsible & ~(kept & boundary.held)).any():
            raise SubflError("the server would have a client count a node that it does not hold or add up")
        counted = np.ones(graph.num_nodes, dtype=bool)
        counted[boundary.own[kept & ~responsible & boundary.held]] = False
        sums = partial_sums(graph, boundary, kept, counted)
        known = degrees(graph)[boundary.own[responsible]]
        if not self.settings.masking:
            return {**packed_rows(sums), **({"degrees": packed_degrees(known)} if self.settings.hops > 1 else {})}
        column = np.zeros((len(kept), self.settings.hops - 1))
        column[responsible] = known[:, None]
        group, members = _groups(received)
        rows, tokens = np.hstack([dense(sums), column[kept]]), boundary.tokens[kept]
        context = _context(f"masks {question.about['attempt']}", question)
        asked = b"".join(received[name].tobytes() for name in ("kept", "counted", "groups", "sizes", "members"))
        claim(self.store.kept, [graph.client_id], context, asked)
        hidden = masked_rows(
            rows, tokens, group, members, graph.client_id, self._key(), context, self.settings.fraction_bits
        )
        self._remember_rows(graph.client_id, tokens, group, members, rows)
        return {"masked": hidden}

    def _remember_rows(
        self, client_id: int, tokens: np.ndarray, group: np.ndarray, members: list[list[int]], rows: np.ndarray
    ) -> None:
        """Remember the rows that were masked, and refuse to give others to the same sum in a later attempt.

        The sums are made again where a client was lost, and its sums then have other members. A server that asks for a
        sum of the same members with other nodes counted would see the features of these nodes.

        Raises:
            SubflError: a row is another one than before.
        """
        among = [blake2b(np.sort(each).astype("<i8").tobytes(), digest_size=16).digest() for each in members]
        sums = [token.tobytes() + among[number] for token, number in zip(tokens, group.tolist(), strict=True)]
        values = [blake2b(row.astype("<f8").tobytes(), digest_size=16).digest() for row in rows]
        found = dict(zip(sums, values, strict=True))
        before: dict[bytes, bytes] = {}
        if self.store.kept.round_of(client_id, _MASKED_ROWS) is not None:
            kept = self.store.kept.get(client_id, _MASKED_ROWS)
            before = {row[:32].tobytes(): row[32:].tobytes() for row in kept["rows"]}
        if any(before.get(each, value) != value for each, value in found.items()):
            raise SubflError(
                f"client {client_id} has added to these sums before, with other nodes counted; the server would see "
                "their features"
            )
        together = b"".join(each + value for each, value in {**before, **found}.items())
        kept_rows = np.frombuffer(together, dtype=np.uint8).reshape(-1, 48)
        self.store.kept.put(client_id, _MASKED_ROWS, 0, {"rows": kept_rows})

    def _keep(self, graph: ClientGraph, question: Question, received: Stack) -> None:
        """Check the sums that the client is sent, and keep them."""
        boundary = self._boundary(graph, question)
        told, sent = _flags(received, "told", len(boundary.tokens)), received.get("degrees")
        if sent is None:
            raise SubflError("the server sent no degrees")
        rest = {name: values for name, values in received.items() if name not in ("told", "degrees")}
        mine, theirs = told & boundary.held, told & ~boundary.held
        try:
            sums, known = unpacked_rows(rest, graph.num_features), unpacked_degrees(sent)
        except ValueError as error:
            raise SubflError(f"the server told sums that cannot be used: {error}") from None
        if sums.shape[0] != told.sum() or known.shape != (theirs.sum(),):
            raise SubflError(
                f"the server told {sums.shape[0]} sums of {told.sum()} nodes, "
                f"and {len(known)} degrees of {theirs.sum()}"
            )
        own_first = np.argsort(~boundary.held[told], kind="stable")
        sums = NeighbourSums(boundary.own[mine], boundary.node_ids[theirs], sums[own_first], known)
        self.store.kept.put(graph.client_id, SUMS, question.server_round, sums.arrays())


def _flags(received: Stack, name: str, count: int) -> np.ndarray:
    """Bool [count] from the bits that the server sent."""
    packed = received.get(name)
    if packed is None or packed.dtype != np.uint8 or packed.shape != ((count + 7) // 8,):
        raise SubflError(f"the server sent no {name} for the {count} nodes that were listed")
    return np.unpackbits(packed, count=count).astype(bool)


def _groups(received: Stack) -> tuple[np.ndarray, list[list[int]]]:
    """The group of each sum, and the members of each group."""
    if not {"groups", "sizes", "members"} <= set(received):
        raise SubflError("the server did not say who adds to which sum")
    cuts = np.cumsum(received["sizes"], dtype=np.int64)[:-1]
    return received["groups"], [part.tolist() for part in np.split(received["members"], cuts)]


def _context(purpose: str, question: Question) -> bytes:
    """Context that tokens and masks are bound to."""
    return f"neighbour sums: {purpose} of {question.about['id']}".encode()

r"""FedGCN: Yao, Jin, Ravi and Joe-Wong, "FedGCN: Convergence-Communication Tradeoffs in Federated Training of Graph
Convolutional Networks", NeurIPS 2023.

FedAvg, after one exchange before training by which clients' convolutions see the neighbours that others hold. With
`hops` = 2 and a GCN of two layers, a client's outputs at its own nodes are those that the same parameters give on the
whole graph, as far as its nodes are held by some client. With more layers, or `hops` = 1, they approximate these.

The server sees nodes as hashes of their ids, and sums what clients add for them (`subgraphs/mending/sum_plan.py`).
What stays visible:

- to the server: which clients have one node in their listings, which of them hold it, and so the number of edges
  between clients. Without `masking` it also sees each client's share of a sum (of one neighbour alone: that neighbour's
  features, times the edge's weight, divided by the root of its degree), and the degrees of these nodes, which are sums
  of edge weights where there are any. With `masking` it sees only the sums. A group of two in which one adds nothing,
  such as a second holder, does not hide the other's share.
- to a client: the sums and degrees of its nodes' neighbours elsewhere. By subtracting its own share it learns what
  others add to its own nodes' sums: exact features where that is one node. It does not see who holds a neighbour. With
  `masking` it sees who else adds to a sum.
- no protection against false data: a client can make a sum as wrong as it wants, and under masks nobody sees which
  client did.

Where clients fail and the run goes on without them, the sums are made again among the remaining clients, as if nobody
held the others' nodes. Under masks the server may then see two sums of one node, and so their difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from logging import WARNING
from typing import NamedTuple

import numpy as np

from subfl_flower.clients.subgraphs.fedgcn import BOUNDARY, MEND, NEIGHBOURS, FedGCNClient
from subfl_flower.data.graph import FeatureMatrix
from subfl_flower.flower.log import log
from subfl_flower.privacy.secure_sum import unmask_sum
from subfl_flower.server.exchange import Exchange
from subfl_flower.server.updates import Updates
from subfl_flower.strategies.subgraphs.mixing import MixingStrategy, average_matrix
from subfl_flower.subgraphs.mending.packed_degrees import packed_degrees, unpacked_degrees
from subfl_flower.subgraphs.mending.packed_rows import packed_rows, unpacked_rows
from subfl_flower.subgraphs.mending.sum_plan import Listing, SumPlan, check_listing
from subfl_flower.wire.array_format import Stack

# A token and a flag whether its node is held; and room for the description of the arrays.
_NODE_BYTES, _SLACK = 17, 4096
# A client may list nodes that nobody holds, as many as its edges lead to; a longer listing would fill the memory.
_LISTED_PER_NODE, _LISTED = 64, 1 << 16
# Bound of a number in a sum, so that the sum over all clients is finite.
_LARGEST = 1e33


class Share(NamedTuple):
    """A client's share: rows of the sums that it adds to, [R, ...], and the degrees of nodes that it counts."""

    rows: FeatureMatrix
    degrees: np.ndarray

    @property
    def sizes(self) -> tuple[int, int]:
        """Numbers of rows and of degrees."""
        return self.rows.shape[0], len(self.degrees)


class FedGCN(MixingStrategy):
    """Average as FedAvg, after an exchange of sums over neighbours."""

    Settings = FedGCNClient.Settings
    counterpart = FedGCNClient

    one_average = True

    def mixing_matrix(self, updates: Updates) -> np.ndarray:
        """FedAvg's matrix, n_j / n in every row."""
        return average_matrix(self.roster, updates, self.settings.weighting)

    def set_up(self, exchange: Exchange) -> None:
        """Exchange in three phases the sums over clients' neighbours; no exchange if `hops` is 0.

        Raises:
            RunFailure: a client failed in one phase, and failures are not tolerated.
        """
        if not self.settings.hops:
            return
        nodes = int(np.nan_to_num(self.roster.num_nodes).sum())
        most = _NODE_BYTES * (_LISTED_PER_NODE * nodes + _LISTED) + _SLACK
        answers = exchange.ask(BOUNDARY, _listing, [most] * len(self.roster))
        listings = {position: listing for position, listing in enumerate(answers) if listing is not None}
        self._warn_of_other_keys(listings)
        plan, shares = self._shares(exchange, listings)
        sums, degrees = self._added(plan, shares)
        told = {position: self._told(plan, position, sums, degrees) for position in plan.listings}
        exchange.ask(MEND, _nothing, [_SLACK] * len(self.roster), told)

    def _warn_of_other_keys(self, listings: Mapping[int, Listing]) -> None:
        """Warn of clients that share no node with others, which points to another key."""
        if len(listings) > 1:
            for position in SumPlan(listings).lonely:
                log(
                    WARNING,
                    "no other client knows any of the %d nodes that client %d has to do with; "
                    "does its node hold the same shared key (clients.key) as the others?",
                    len(listings[position].tokens),
                    self.roster.client_ids[position],
                )

    # What clients add -----------------------------------------------------------------------------------------------

    def _shares(self, exchange: Exchange, listings: Mapping[int, Listing]) -> tuple[SumPlan, dict[int, Share]]:
        """All clients' shares and the plan of the sums; asked again without failed clients until none fails."""
        attempt = 0
        while True:
            plan = SumPlan(listings)
            shares = self._asked_shares(exchange, plan, attempt)
            missing = [position for position in plan.adding if position not in shares]
            if not missing:
                return plan, shares
            log(WARNING, "%d clients gave no sums over neighbours; the others' are made anew", len(missing))
            listings = {position: listing for position, listing in listings.items() if position not in missing}
            attempt += 1

    def _asked_shares(self, exchange: Exchange, plan: SumPlan, attempt: int) -> dict[int, Share]:
        """Usable shares of the clients that the plan asks."""
        sent = {position: self._question(plan, position) for position in plan.adding}
        largest = [_SLACK] * len(self.roster)
        for position in sent:
            of_row = (8 if self.settings.masking else 4) * self.roster.num_features + 8 * (self.settings.hops - 1)
            largest[position] += of_row * len(plan.rows(position))
        about = {"attempt": attempt}
        answers = exchange.ask(NEIGHBOURS, self._share, largest, sent, about)
        for position in sent:
            found, sizes = answers[position], self._sizes(plan, position)
            if found is not None and found.sizes != sizes:  # asked alone, its answer is judged as its own
                alone, decode = {position: sent[position]}, partial(self._share, sizes=sizes)
                answers[position] = exchange.ask(NEIGHBOURS, decode, largest, alone, about)[position]
        return {position: share for position, share in enumerate(answers) if share is not None}

    @property
    def _width(self) -> int:
        """Width of a row: the features, and the degree where clients are sent sums of nodes elsewhere."""
        width: int = self.roster.num_features + self.settings.hops - 1
        return width

    def _question(self, plan: SumPlan, position: int) -> Stack:
        """Request for a client's share; under masks also the other clients in each of its sums."""
        asked = {"kept": np.packbits(plan.kept(position)), "counted": np.packbits(plan.counted(position))}
        if not self.settings.masking:
            return asked
        group, members = plan.groups(position)
        ids = [self.roster.client_ids[member] for group_of in members for member in group_of]
        sizes = [len(group_of) for group_of in members]
        return {
            **asked,
            "groups": group.astype(np.uint32),
            "sizes": np.array(sizes, dtype=np.uint32),
            "members": np.array(ids, dtype=np.int64),
        }

    def _sizes(self, plan: SumPlan, position: int) -> tuple[int, int]:
        """The `Share.sizes` expected of a client."""
        told_openly = self.settings.hops > 1 and not self.settings.masking
        return len(plan.rows(position)), int(plan.counted(position).sum()) if told_openly else 0

    def _share(self, stack: Stack, sizes: tuple[int, int] | None = None) -> Share:
        """Decode one client's answer; ValueError where it is malformed, or not of these sizes."""
        if self.settings.masking:
            share = Share(stack.get("masked", np.empty(0)), np.empty(0))
            if set(stack) != {"masked"} or share.rows.dtype != np.uint64 or share.rows.shape[1:] != (self._width,):
                raise ValueError(f"it must hold masked sums alone, uint64 [nodes, {self._width}]")
        else:
            share = self._open_share(dict(stack))
        if sizes is not None and share.sizes != sizes:
            (sums, degrees), (asked_sums, asked_degrees) = share.sizes, sizes
            raise ValueError(f"it has {sums} sums and {degrees} degrees, where {asked_sums} and {asked_degrees} belong")
        return share

    def _open_share(self, stack: Stack) -> Share:
        degrees = unpacked_degrees(stack.pop("degrees", None)) if self.settings.hops > 1 else np.empty(0)
        rows = unpacked_rows(stack, self.roster.num_features)
        if abs(rows).max() > _LARGEST if rows.size else False:
            raise ValueError("a sum is too large to be added to others")
        return Share(rows, degrees)

    # What they are told ---------------------------------------------------------------------------------------------

    def _added(self, plan: SumPlan, shares: Mapping[int, Share]) -> tuple[FeatureMatrix, np.ndarray]:
        """The S sums [S, F], and the degrees of their nodes [S] where clients sent them."""
        if self.settings.masking:
            total = np.zeros((plan.num_sums, self._width), dtype=np.uint64)
            for position, share in shares.items():
                total[plan.rows(position)] += share.rows
            values = unmask_sum(total, self.settings.fraction_bits)
            sums, degrees = np.split(values, [self.roster.num_features], axis=1)
            return sums.astype(np.float32), np.maximum(degrees, 1).reshape(-1)
        degrees = np.ones(plan.num_sums)
        for position, share in shares.items() if self.settings.hops > 1 else ():
            degrees[plan.rows(position)[plan.counted(position)[plan.kept(position)]]] = share.degrees
        rows = {position: share.rows for position, share in shares.items()}
        return plan.added(rows, self.roster.num_features), degrees

    def _told(self, plan: SumPlan, position: int, sums: FeatureMatrix, degrees: np.ndarray) -> Stack:
        """Message to a client: which of its listed nodes have sums, these sums, and the degrees of nodes elsewhere."""
        kept, held = plan.kept(position), plan.listings[position].held
        told = kept if self.settings.hops > 1 else kept & held
        rows, elsewhere = plan.rows(position), ~held[kept]
        return {
            "told": np.packbits(told),
            "degrees": packed_degrees(degrees[rows[told[kept] & elsewhere]]),
            **packed_rows(sums[rows[told[kept]]]),
        }


def _listing(stack: Stack) -> Listing:
    """Decode one client's listing; ValueError where it is malformed."""
    if set(stack) != {"tokens", "held"}:
        raise ValueError(f"it holds {', '.join(sorted(stack)) or 'nothing'}")
    listing = Listing(**stack)
    check_listing(listing)
    return listing


def _nothing(stack: Stack) -> None:
    """Check that the answer of a client that was only sent data is empty."""
    if stack:
        raise ValueError(f"it holds {', '.join(sorted(stack))}")

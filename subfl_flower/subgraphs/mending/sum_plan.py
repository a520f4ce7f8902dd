"""Plan of sums over nodes that several clients list: the client that counts each node, and the sums.

The server knows nodes by tokens alone. A node that several clients hold must be counted once: the first of them counts
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from subfl_flower.data.graph import FeatureMatrix
from subfl_flower.privacy.tokens import TOKEN_BYTES, comparable
from subfl_flower.subgraphs.mending.packed_rows import dense


@dataclass(frozen=True, eq=False)
class Listing:
    """The nodes of a client's boundary.

    Attributes:
        tokens: uint8 `[T, 16]`, distinct.
        held: bool `[T]`, the nodes that the client holds.
    """

    tokens: np.ndarray
    held: np.ndarray


def check_listing(listing: Listing) -> None:
    """Refuse a malformed listing.

    Raises:
        ValueError: wrong shapes or types, or a token twice.
    """
    tokens, held = listing.tokens, listing.held
    if tokens.dtype != np.uint8 or tokens.ndim != 2 or tokens.shape[1] != TOKEN_BYTES:
        raise ValueError(f"tokens must be uint8 [nodes, {TOKEN_BYTES}], not {tokens.dtype} {list(tokens.shape)}")
    if held.dtype != np.bool_ or held.shape != (len(tokens),):
        raise ValueError(f"held must be bool [{len(tokens)}], not {held.dtype} {list(held.shape)}")
    if len(np.unique(comparable(tokens))) < len(tokens):
        raise ValueError("a token comes twice")


class SumPlan:
    """Sums to make from some clients' listings, and each client's part in them.

    A sum is kept where at least two clients list its node and one of them holds it: else no client needs it, or none
    knows the node.

    Args:
        listings: by client, under any numbers for clients.

    Attributes:
        listings: by client, ascending.
        num_sums: number of sums that are kept, S.
        lonely: clients none of whose listed nodes is listed by another client.
    """

    def __init__(self, listings: Mapping[int, Listing]) -> None:
        self.listings = dict(sorted(listings.items()))
        tokens = [comparable(listing.tokens) for listing in self.listings.values()]
        _, joined = np.unique(np.concatenate(tokens) if tokens else [], return_inverse=True)
        cuts = np.cumsum([len(part) for part in tokens])[:-1]
        nodes = dict(zip(self.listings, np.split(joined, cuts), strict=True)) if tokens else {}
        count = int(joined.max(initial=-1)) + 1
        nobody = len(self.listings)
        holder = np.full(count, nobody)  # the first client that holds a node, by its place
        for place, (client, listing) in reversed(list(enumerate(self.listings.items()))):
            holder[nodes[client][listing.held]] = place
        common = np.bincount(joined, minlength=count) >= 2
        summed = common & (holder < nobody)
        row_of = np.cumsum(summed) - 1
        self.num_sums = int(summed.sum())
        self.lonely = [client for client, found in nodes.items() if len(found) and not common[found].any()]
        self._kept = {client: summed[found] for client, found in nodes.items()}
        self._rows = {client: row_of[found[self._kept[client]]] for client, found in nodes.items()}
        self._counted = {
            client: self._kept[client] & (holder[found] == place) for place, (client, found) in enumerate(nodes.items())
        }

    def kept(self, client: int) -> np.ndarray:
        """Bool `[T]`: the nodes of a client's listing whose sums are kept."""
        return self._kept[client]

    def counted(self, client: int) -> np.ndarray:
        """Bool `[T]`: the nodes of its listing that the client must count."""
        return self._counted[client]

    def rows(self, client: int) -> np.ndarray:
        """Int64, the number (of the S sums) of each kept node of a client's listing, in its order."""
        return self._rows[client]

    @property
    def adding(self) -> list[int]:
        """The clients that contribute to a sum, ascending."""
        return [client for client, rows in self._rows.items() if len(rows)]

    @cached_property
    def contributors(self) -> list[tuple[int, ...]]:
        """Clients that list the node of each of the S sums, ascending; they all contribute to it."""
        found: list[list[int]] = [[] for _ in range(self.num_sums)]
        for client, rows in self._rows.items():
            for row in rows.tolist():
                found[row].append(client)
        return [tuple(clients) for clients in found]

    def groups(self, client: int) -> tuple[np.ndarray, list[tuple[int, ...]]]:
        """A client's kept nodes by who else adds to their sums: each node's group, int64, and groups' members."""
        members: dict[tuple[int, ...], int] = {}
        group = [members.setdefault(self.contributors[row], len(members)) for row in self._rows[client].tolist()]
        return np.array(group, dtype=np.int64), list(members)

    def added(self, shares: Mapping[int, FeatureMatrix], width: int) -> FeatureMatrix:
        """The sums of all clients' shares.

        Args:
            shares: of each client of `adding`, float32 with a row for each of its kept nodes.
            width: of a row, F.

        Returns:
            float32 `[S, F]`; CSR where all shares are.
        """
        parts = list(shares.values()) or [np.zeros((0, width), dtype=np.float32)]
        rows = np.concatenate([np.zeros(0, dtype=np.int64), *(self._rows[client] for client in shares)])
        if all(sp.issparse(part) for part in parts):
            stacked = sp.vstack(parts, format="csr")
        else:
            stacked = np.concatenate([dense(part) for part in parts])
        ones = np.ones(len(rows), dtype=np.float32)
        return sp.csr_array((ones, (rows, np.arange(len(rows)))), shape=(self.num_sums, len(rows))) @ stacked

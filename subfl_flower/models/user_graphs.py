"""Users' local graphs, ragged: one row a training rating, one row a neighbour, users one after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from subfl_flower.data.graph import TRAIN
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.errors import SubflError


@dataclass(frozen=True, eq=False)
class UserGraphs:
    """U users' local graphs: each user node with its E rated items and N anonymous neighbour users in all.

    Attributes:
        client_ids: the U users, as clients.
        lengths: ratings of each user, U integers.
        rows: int64 [E], the row of each rated item in the matrix of item rows that the users received.
        targets: float32 [E], ratings, centred and scaled.
        segment: int64 [E], the user (0 .. U - 1) of each rating, ascending.
        counts: float32 [U], `lengths` as numbers to reckon with.
        neighbour_lengths: neighbours of each user, U integers.
        neighbour_segment: int64 [N], the user that each neighbour is tied to, ascending.
        neighbours: float32 [N, dim], the neighbours' embeddings.
    """

    client_ids: tuple[int, ...]
    lengths: tuple[int, ...]
    rows: Tensor
    targets: Tensor
    segment: Tensor
    counts: Tensor
    neighbour_lengths: tuple[int, ...]
    neighbour_segment: Tensor
    neighbours: Tensor

    def __len__(self) -> int:
        """The number of users."""
        return len(self.client_ids)

    @classmethod
    def build(
        cls,
        ratings: Ratings,
        center: float,
        spread: float,
        items: np.ndarray | None = None,
        device: torch.device | str = "cpu",
    ) -> UserGraphs:
        """The graphs of users' training ratings, without neighbours.

        Args:
            ratings: the users'.
            center: what is taken off a rating.
            spread: what a rating is then divided by.
            items: int64, ascending: the items whose rows the users receive; None: all of them.
            device: where the arrays go.

        Raises:
            SubflError: a training rating is of an item that is not among `items`.
        """
        device = torch.device(device)
        training = ratings.roles == TRAIN
        rated = ratings.items[training]
        lengths = ratings.counts(TRAIN)
        targets = (ratings.values[training] - np.float32(center)) / np.float32(spread)
        return cls(
            client_ids=tuple(int(user) for user in ratings.user_ids),
            lengths=tuple(int(length) for length in lengths),
            rows=torch.from_numpy(rated if items is None else _positions(rated, items)).to(device),
            targets=torch.from_numpy(targets.astype(np.float32)).to(device),
            segment=torch.from_numpy(ratings.users()[training]).to(device),
            counts=torch.from_numpy(lengths.astype(np.float32)).to(device),
            neighbour_lengths=(0,) * len(lengths),
            neighbour_segment=torch.zeros(0, dtype=torch.int64, device=device),
            neighbours=torch.zeros(0, 0, device=device),
        )

    def with_neighbours(self, embeddings: Sequence[np.ndarray]) -> UserGraphs:
        """The same graphs, each user tied to the neighbours whose `embeddings` [neighbours, dim] are given for it."""
        lengths = [len(own) for own in embeddings]
        device = self.rows.device
        return replace(
            self,
            neighbour_lengths=tuple(lengths),
            neighbour_segment=torch.repeat_interleave(torch.tensor(lengths)).to(device),
            neighbours=torch.from_numpy(np.concatenate(embeddings).astype(np.float32, copy=False)).to(device),
        )


def _positions(rated: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Where each rated item stands among `items`."""
    positions = np.searchsorted(items, rated)
    missing = np.flatnonzero(items[np.minimum(positions, len(items) - 1)] != rated) if len(items) else rated
    if len(missing):
        raise SubflError(
            f"{len(missing)} training ratings are of items whose rows were not received; "
            "a user's items must be among those that it asks for"
        )
    return positions

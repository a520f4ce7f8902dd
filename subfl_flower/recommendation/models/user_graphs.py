"""Users' local graphs, ragged: a row for each item of a user and for each neighbour, users one after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from subfl_flower.data.graph import TRAIN
from subfl_flower.data.ratings.attributes import Attributes
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.errors import SubflError


@dataclass(frozen=True, eq=False)
class UserGraphs:
    """U users' local graphs: each user node with its T rated items and N anonymous neighbour users in all.

    Attributes:
        client_ids: the U users, as clients.
        lengths: items of each user, U integers.
        rows: int64 [T], the row of each item in the matrix of item rows that the users received.
        items: int64 [T], the number of each item in the data set.
        targets: float32 [T], ratings, centred and scaled.
        segment: int64 [T], the user (0 .. U - 1) of each item, ascending.
        counts: float32 [U], number of training ratings of each user, as floats for calculations.
        neighbour_lengths: neighbours of each user, U integers.
        neighbour_segment: int64 [N], the user that each neighbour is tied to, ascending.
        neighbours: float32 [N, dim], the neighbours' embeddings.
    """

    client_ids: tuple[int, ...]
    lengths: tuple[int, ...]
    rows: Tensor
    items: Tensor
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
            center: subtracted from a rating.
            spread: divisor of a rating after that.
            items: int64, ascending: the items whose rows the users receive; None: all of them.
            device: device of the arrays.

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
            items=torch.from_numpy(rated).to(device),
            targets=torch.from_numpy(targets.astype(np.float32)).to(device),
            segment=torch.from_numpy(ratings.users()[training]).to(device),
            counts=torch.from_numpy(lengths.astype(np.float32)).to(device),
            **_no_neighbours(len(lengths), device),
        )

    def with_neighbours(self, embeddings: Sequence[np.ndarray]) -> Self:
        """These graphs, with each user tied to the neighbours of its `embeddings` [neighbours, dim]."""
        lengths = [len(own) for own in embeddings]
        device = self.rows.device
        return replace(
            self,
            neighbour_lengths=tuple(lengths),
            neighbour_segment=torch.repeat_interleave(torch.tensor(lengths)).to(device),
            neighbours=torch.from_numpy(np.concatenate(embeddings).astype(np.float32, copy=False)).to(device),
        )

    def of_draw(self, draw: int) -> tuple[Tensor, Self]:
        """Positions [T] of the items of one step, and the graphs of these; all items, where none are sampled.

        Args:
            draw: number of the draw of sampled items; numbers beyond the last continue with the first.
        """
        return torch.arange(len(self.rows), device=self.rows.device), self


@dataclass(frozen=True, eq=False)
class Codes:
    """The attributes of R entities, ragged: one row a code, entities one after another.

    Attributes:
        values: int64 [C], codes (`Attributes.codes`).
        owners: int64 [C], the entity (0 .. R - 1) of each, ascending.
        starts: int64 [R], where the codes of each entity begin.
    """

    values: Tensor
    owners: Tensor
    starts: Tensor

    def __len__(self) -> int:
        """The number of entities."""
        return int(self.starts.shape[0])

    @classmethod
    def of(cls, attributes: Attributes, device: torch.device | str = "cpu") -> Codes:
        """Codes of all entities."""
        owners = np.repeat(np.arange(len(attributes)), np.diff(attributes.offsets))
        arrays = (attributes.codes, owners, attributes.offsets[:-1])
        return cls(*(torch.from_numpy(values).to(device) for values in arrays))

    def of_rows(self, rows: Tensor) -> Codes:
        """Codes of some entities, in the order of `rows`, repeated where these repeat."""
        ends = torch.cat([self.starts[1:], self.starts.new_tensor([len(self.values)])])
        lengths = (ends - self.starts).index_select(0, rows)
        starts = lengths.cumsum(0) - lengths
        owners = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), lengths)
        behind = (self.starts.index_select(0, rows) - starts).index_select(0, owners)
        places = torch.arange(len(owners), device=rows.device) + behind
        return Codes(self.values.index_select(0, places), owners, starts)


@dataclass(frozen=True, eq=False)
class RankingGraphs(UserGraphs):
    """Local graphs for implicit feedback: a user's items are its E training items and sampled negative items.

    `lengths`, `rows`, `items` and `segment` are of all T of them, each once, ascending within a user. `targets` are
    zeros, and `counts` are of the training items.

    Attributes:
        positives: int64 [E], the row (of the T) of each training item.
        positive_segment: int64 [E], the user (0 .. U - 1) of each training item, ascending.
        negatives: int64 [draws, E, m], the rows (of the T) of the negatives of each training item, sampled for each of
            `draws` passes; no draws in graphs for evaluation.
        user_codes: attributes of the U users; None where they have none.
        item_codes: attributes of the items of the T rows; None where they have none.
    """

    positives: Tensor
    positive_segment: Tensor
    negatives: Tensor
    user_codes: Codes | None = None
    item_codes: Codes | None = None

    @classmethod
    def build(  # type: ignore[override]  # nothing but the users' ratings is asked for alike
        cls,
        ratings: Ratings,
        generators: Sequence[np.random.Generator] | None = None,
        draws: int = 1,
        per_positive: int = 1,
        device: torch.device | str = "cpu",
        user_attributes: Attributes | None = None,
        item_attributes: Attributes | None = None,
    ) -> RankingGraphs:
        """The graphs of users' training items, without neighbours; their rows are those of the whole item table.

        Negatives are uniform over the items that the user does not have in training. Its validation and test items are
        among them, because training may not know of these. A user who has every item in training has no pair to learn
        from, and is then treated as one without items.

        Args:
            ratings: the users'; all training ratings have the same weight.
            generators: each user's own, for its negatives; None: no negatives, for evaluation.
            draws: number of times that each training item is given negatives.
            per_positive: negatives of a training item, m; some may be the same.
            device: device of the arrays.
            user_attributes: of these users, by position.
            item_attributes: of all items.
        """
        device = torch.device(device)
        num_items, training = ratings.num_items, ratings.roles == TRAIN
        owners, own, counts = ratings.users()[training], ratings.items[training], ratings.counts(TRAIN)
        if generators is not None:
            counts = np.where(counts < num_items, counts, 0)
            learned = counts[owners] > 0
            owners, own = owners[learned], own[learned]
            drawn = _negatives(owners, own, counts, num_items, generators, (draws, per_positive))
        else:
            drawn = np.zeros((0, len(own), per_positive), dtype=np.int64)
        first = owners * num_items
        keys = np.concatenate([first + own, (first[:, None] + drawn).reshape(-1)])
        touched, places = np.unique(keys, return_inverse=True)
        segment, items = np.divmod(touched, num_items)
        lengths = np.bincount(segment, minlength=ratings.num_users)
        numbers = torch.from_numpy(items).to(device)
        return cls(
            client_ids=tuple(int(user) for user in ratings.user_ids),
            lengths=tuple(int(length) for length in lengths),
            rows=numbers,
            items=numbers,
            targets=torch.zeros(len(items), device=device),
            segment=torch.from_numpy(segment).to(device),
            counts=torch.from_numpy(counts.astype(np.float32)).to(device),
            positives=torch.from_numpy(places[: len(own)]).to(device),
            positive_segment=torch.from_numpy(owners).to(device),
            negatives=torch.from_numpy(places[len(own) :].reshape(drawn.shape)).to(device),
            user_codes=None if user_attributes is None else Codes.of(user_attributes, device),
            item_codes=None if item_attributes is None else Codes.of(item_attributes.of(items), device),
            **_no_neighbours(len(lengths), device),
        )

    def of_draw(self, draw: int) -> tuple[Tensor, Self]:
        """The graphs of the training items and of one draw's negatives, for a single step.

        A step by one draw does not change the rows of other draws' items, which are most of them.

        Args:
            draw: number of the draw; numbers beyond the last continue with the first.

        Returns:
            int64 [R], the row (of the T) of each of the graphs' rows, training items first; and the graphs, in which an
            item that was sampled several times has as many rows. They are not ascending.
        """
        drawn = self.negatives[draw % len(self.negatives)]
        places = torch.cat([self.positives, drawn.reshape(-1)])
        count = len(self.positives)
        numbers = torch.arange(len(places), device=places.device)
        return places, replace(
            self,
            lengths=tuple((torch.bincount(self.segment[places], minlength=len(self))).tolist()),
            rows=self.rows[places],
            items=self.items[places],
            targets=self.targets[places],
            segment=self.segment[places],
            positives=numbers[:count],
            negatives=numbers[count:].view(1, *drawn.shape),
            item_codes=None if self.item_codes is None else self.item_codes.of_rows(places),
        )


def _no_neighbours(num_users: int, device: torch.device) -> dict[str, Any]:
    """Fields of graphs without neighbours."""
    return {
        "neighbour_lengths": (0,) * num_users,
        "neighbour_segment": torch.zeros(0, dtype=torch.int64, device=device),
        "neighbours": torch.zeros(0, 0, device=device),
    }


def _negatives(
    owners: np.ndarray,
    own: np.ndarray,
    counts: np.ndarray,
    num_items: int,
    generators: Sequence[np.random.Generator],
    shape: tuple[int, int],
) -> np.ndarray:
    """Items [draws, E, m] that the users `owners` [E], who have the items `own` [E], do not have; `shape`: draws, m.

    A user draws r among the items that it does not have, in one call of its generator. Its jth own item t (from 0)
    stands behind t - j of those, so that the rth of them is r plus the number of own items with t - j <= r.
    """
    draws, per_positive = shape
    ranks = np.concatenate(
        [
            generator.integers(num_items - count, size=(draws, count, per_positive))
            for generator, count in zip(generators, counts.tolist(), strict=True)
        ],
        axis=1,
    )
    first, starts = owners * num_items, (np.cumsum(counts) - counts)[owners]
    behind = first + own - (np.arange(len(own)) - starts)
    return ranks + np.searchsorted(behind, first[:, None] + ranks, side="right") - starts[:, None]


def _positions(rated: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Position of each rated item among `items`."""
    positions = np.searchsorted(items, rated)
    missing = np.flatnonzero(items[np.minimum(positions, len(items) - 1)] != rated) if len(items) else rated
    if len(missing):
        raise SubflError(
            f"{len(missing)} training ratings are of items whose rows were not received; "
            "a user's items must be among those that it asks for"
        )
    return positions

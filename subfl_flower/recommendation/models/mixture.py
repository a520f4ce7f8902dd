r"""Item scores of users: by the embeddings of one model, or by a mixture of three models' scores.

A model's score of item i for user u is :math:`h_u \cdot e_i`. In a user's own model, :math:`e_i` is the user's for
items that it has trained, and for all others that of the model that the training started from. The mixture of a global
model, a cluster's and a user's own with the weights :math:`w_g + w_c + w_l = 1` is taken around the cluster's,

.. math:: s = s_c + w_g (s_g - s_c) + w_l (s_l - s_c),

so that three equal models give exactly what each of them gives (PerFedRec: Luo, Xiao, Song, CIKM 2022).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from subfl_flower.data.ratings.rows import rows_of


@dataclass(frozen=True, eq=False)
class OwnScores:
    """Scores of the items that have an embedding of the user's, ragged: users one after another.

    Attributes:
        owners: int64 [T], the user (0 .. U - 1) of each, ascending.
        items: int64 [T], the item of each; all different within a user.
        scores: [T].
    """

    owners: Tensor
    items: Tensor
    scores: Tensor


@dataclass(frozen=True, eq=False)
class Scorer:
    """Scoring part of one model for U users.

    Attributes:
        users: [U, dim], h_u.
        items: [num_items, dim], e_i.
        own: scores of those items whose e_i is the user's; None where there are none.
    """

    users: Tensor
    items: Tensor
    own: OwnScores | None = None

    def scores(self) -> np.ndarray:
        """Scores of all items for each user, [U, num_items]."""
        scores = self.users @ self.items.T
        if self.own is not None:
            scores[self.own.owners, self.own.items] = self.own.scores
        found: np.ndarray = scores.cpu().numpy()
        return found


@dataclass(frozen=True, eq=False)
class MixtureScores:
    """Scores of all items by three models, and optionally by the mixture of their parameters, [U, num_items] each."""

    of_global: np.ndarray
    of_cluster: np.ndarray
    of_own: np.ndarray
    of_mixed_parameters: np.ndarray | None = None

    def mixed(self, weights: np.ndarray) -> np.ndarray:
        """The mixture by `weights` [U, 3]; exactly a model's scores where all three are the same."""
        of_global, _, of_own = (column[:, None].astype(np.float32) for column in weights.T)
        start = self.of_cluster
        mixed: np.ndarray = start + of_global * (self.of_global - start) + of_own * (self.of_own - start)
        return mixed


@dataclass(frozen=True, eq=False)
class Mixture:
    """Scoring models of U users: one model, or three whose scores are mixed.

    Attributes:
        client_ids: int64 `[U]`, the users as clients, all different.
        tables: float32 `[M, num_items, dim]`, the e_i of M models.
        models: int64 `[U, K]`, numbers of each user's models, K being 1 or 3: the global, the cluster's, the own one.
        users: float32 `[U, K, dim]`, the h_u of these.
        weights: float32 `[U, K]`, the weight of each of them; they sum to 1.
        offsets: int64 `[U + 1]`; the user at position p has the own items `offsets[p]` to `offsets[p + 1]`.
        own_items: int64 `[T]`, the items, ascending within a user, whose e_i in the last of its models is the user's.
        own_scores: float32 `[T]`, this model's scores of them.
    """

    client_ids: np.ndarray
    tables: np.ndarray
    models: np.ndarray
    users: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray
    own_items: np.ndarray
    own_scores: np.ndarray

    @classmethod
    def of(cls, client_ids: np.ndarray, scorers: Sequence[Scorer], weights: np.ndarray | None = None) -> Mixture:
        """The mixture of one or three models of the same users.

        Args:
            client_ids: int64 [U].
            scorers: the models; only the last one may have items of the users'.
            weights: [U, 3]; None where there is one model.
        """
        if weights is None:
            weights = np.ones((len(client_ids), 1))
        tables = list({id(scorer.items): scorer.items for scorer in scorers}.values())
        numbers = [next(m for m, table in enumerate(tables) if table is scorer.items) for scorer in scorers]
        own = scorers[-1].own
        owners = np.zeros(0, dtype=np.int64) if own is None else own.owners.cpu().numpy()
        return cls(
            client_ids=np.asarray(client_ids, dtype=np.int64),
            tables=torch.stack(tables).cpu().numpy(),
            models=np.tile(np.array(numbers, dtype=np.int64), (len(client_ids), 1)),
            users=torch.stack([scorer.users for scorer in scorers], dim=1).cpu().numpy(),
            weights=weights.astype(np.float32),
            offsets=np.searchsorted(owners, np.arange(len(client_ids) + 1)),
            own_items=np.zeros(0, dtype=np.int64) if own is None else own.items.cpu().numpy(),
            own_scores=np.zeros(0, dtype=np.float32) if own is None else own.scores.cpu().numpy(),
        )

    @classmethod
    def joined(cls, parts: Iterable[Mixture]) -> Mixture:
        """Join one or more parts that share no user; equal tables are held once."""
        tables: list[np.ndarray] = []
        found: list[Mixture] = []
        for part in parts:
            numbers = np.array([_number(table, tables) for table in part.tables], dtype=np.int64)
            found.append(replace(part, tables=np.zeros(0), models=numbers[part.models]))
        names = ("client_ids", "models", "users", "weights", "own_items", "own_scores")
        counts = np.concatenate([np.diff(part.offsets) for part in found])
        return cls(
            tables=np.stack(tables),
            offsets=np.concatenate([[0], np.cumsum(counts)]),
            **{name: np.concatenate([getattr(part, name) for part in found]) for name in names},
        )

    def at(self, positions: Sequence[int] | np.ndarray) -> Mixture:
        """The users at some positions, in the order of `positions`, with no table but theirs."""
        chosen = np.asarray(positions, dtype=np.int64)
        needed, models = np.unique(self.models[chosen], return_inverse=True)
        offsets, rows = rows_of(self.offsets, chosen)
        return Mixture(
            client_ids=self.client_ids[chosen],
            tables=self.tables if len(needed) == len(self.tables) else self.tables[needed],
            models=models.reshape(len(chosen), -1),
            users=self.users[chosen],
            weights=self.weights[chosen],
            offsets=offsets,
            own_items=self.own_items[rows],
            own_scores=self.own_scores[rows],
        )

    def scores(self) -> np.ndarray:
        """Scores of all items for each user, float32 [U, num_items]; larger is better."""
        found = np.empty((len(self.client_ids), self.tables.shape[1]), dtype=np.float32)
        alike, group = np.unique(self.models, axis=0, return_inverse=True)
        for number, models in enumerate(alike.tolist()):
            chosen = np.flatnonzero(group.reshape(-1) == number)
            found[chosen] = self._scores(chosen, models)
        return found

    def _scores(self, chosen: np.ndarray, models: Sequence[int]) -> np.ndarray:
        """Scores for the users at the positions `chosen`, who all have the same models."""
        offsets, rows = rows_of(self.offsets, chosen)
        owners = np.repeat(np.arange(len(chosen)), np.diff(offsets))
        arrays = (owners, self.own_items[rows], self.own_scores[rows])
        own = OwnScores(*(torch.from_numpy(values) for values in arrays))
        last = len(models) - 1
        of_models = [
            Scorer(
                torch.from_numpy(self.users[chosen, place]),
                torch.from_numpy(self.tables[model]),
                own if place == last else None,
            ).scores()
            for place, model in enumerate(models)
        ]
        return MixtureScores(*of_models).mixed(self.weights[chosen]) if last else of_models[0]


def _number(table: np.ndarray, tables: list[np.ndarray]) -> int:
    """Number of a table in a list; a new table is appended."""
    for number, known in enumerate(tables):
        if np.array_equal(known, table):
            return number
    tables.append(table)
    return len(tables) - 1

r"""LightGCN (He et al., SIGIR 2020) on the graph of all users and items, for comparison with federations.

Here layers run over the whole bipartite graph,

.. math:: E^{(l + 1)} = D^{-1/2} A D^{-1/2} E^{(l)}, \qquad E = \frac{1}{L + 1} \sum_{l = 0}^{L} E^{(l)},

so that messages pass between users through the items that they share, and items have their own layers. The model is
trained by BPR in mini-batches of training items, with newly sampled negative items in every pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from subfl_flower.clients.recommendation.central_ratings import CENTRAL, CentralRatingsClient
from subfl_flower.clients.recommendation.recommender_models import model_of, require_ranking_model
from subfl_flower.clients.recommendation.user_parts import ITEMS
from subfl_flower.data.graph import TRAIN
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.errors import SubflError
from subfl_flower.models.adam import adam_state_shapes, adam_step
from subfl_flower.models.sparse import SparseMatrix
from subfl_flower.node.iteration import Iteration, in_chunks
from subfl_flower.node.state import CohortState, StateStore
from subfl_flower.recommendation.cohort import UserCohort
from subfl_flower.seeding import client_generator
from subfl_flower.wire.contract import MethodSettings, RunContext

_USERS = "user"


class CentralLightGCNClient(CentralRatingsClient):
    """Train embeddings of all users and items; every training item has the same weight."""

    class Settings(MethodSettings):
        """Knobs of central training.

        Attributes:
            batch_ratings: training items in a mini-batch.
        """

        batch_ratings: int = Field(default=2048, ge=1)

    settings: Settings

    @classmethod
    def check_model(cls, model: Any, method: str) -> None:
        """Refuse a model that does not rank, or that uses attributes."""
        require_ranking_model(model, method)
        if model.attributes:
            raise SubflError(f"model.attributes must be false with method={method}: its layers are over ids alone")

    def __init__(self, run: RunContext, cohort: UserCohort, store: StateStore, iterate: Iteration = in_chunks) -> None:
        super().__init__(run, cohort, store, iterate)
        self.model = model_of(self.cohort, self.run.model)
        width = self.run.model.dim
        trained = {ITEMS: (self.whole.num_items, width), _USERS: (self.whole.num_users, width)}
        self._central_shapes = {**trained, **adam_state_shapes(trained), "started": ()}

    def all_states(self) -> list[CohortState]:
        """The states of the users, and that of the central model."""
        return [*super().all_states(), self._central_state()]

    def _central_state(self) -> CohortState:
        return self.store.open((CENTRAL,), self._central_shapes)

    def train_centrally(self, server_round: int, local_epochs: int) -> dict[str, np.ndarray]:
        """Make `local_epochs` passes over all training items; each user's mean loss in the last one."""
        generator = client_generator(self.seed, CENTRAL, server_round, "batches")
        state = self._central_state()
        with state.rows([0], self.cohort.device) as rows:
            self._begin(rows)
            for _ in range(local_epochs):
                losses = self._pass(rows, generator)
        self.store.commit(state)
        users, _ = self._pairs
        with np.errstate(invalid="ignore"):
            means = np.bincount(users, losses, self.whole.num_users) / self.whole.counts(TRAIN)
        return {"train_loss": np.nan_to_num(means)}

    def figures(self, ratings: Ratings) -> dict[str, np.ndarray]:
        """Ranking figures by the products of users and items after all layers."""
        users, items = self._layers
        chosen = torch.from_numpy(ratings.user_ids).to(users.device)
        return self.cohort.ranking_figures(ratings, (users.index_select(0, chosen) @ items.T).cpu().numpy())

    def _begin(self, rows: Mapping[str, Tensor]) -> None:
        """Set the embeddings that a federation starts from."""
        if rows["started"][0]:
            return
        rows[ITEMS][0] = torch.from_numpy(self.model.initial_of(self.seed)[ITEMS])
        for position, user in enumerate(self.whole.user_ids.tolist()):
            rows[_USERS][0, position] = torch.from_numpy(self.model.initial_user(self.seed, user)["user"])
        rows["started"].fill_(1)

    def _pass(self, rows: Mapping[str, Tensor], generator: np.random.Generator) -> np.ndarray:
        """Make one pass in mini-batches; the loss of each training item before its batch's step."""
        users, items = self._pairs
        losses = np.zeros(len(users))
        order = generator.permutation(len(users))
        for start in range(0, len(order), self.settings.batch_ratings):
            batch = order[start : start + self.settings.batch_ratings]
            others = self._sampled(users[batch], generator)
            triples = (torch.from_numpy(part).to(self.cohort.device) for part in (users[batch], items[batch], others))
            losses[batch] = self._step(rows, *triples)
        return losses

    def _step(self, rows: Mapping[str, Tensor], users: Tensor, items: Tensor, others: Tensor) -> np.ndarray:
        """Step by a batch's mean BPR loss over triples of a user, one of its items and a sampled negative item."""
        start = {name: rows[name][0].detach().requires_grad_() for name in (_USERS, ITEMS)}
        of_users, of_items = self._propagated(start)
        chosen = of_users.index_select(0, users)
        margins = (chosen * (of_items.index_select(0, others) - of_items.index_select(0, items))).sum(1)
        losses = F.softplus(margins)
        squares = (start[_USERS].index_select(0, users).square() + start[ITEMS].index_select(0, items).square()).sum(1)
        squares = squares + start[ITEMS].index_select(0, others).square().sum(1)
        objective = (losses + self.run.model.embedding_penalty * squares).mean()
        gradients = torch.autograd.grad(objective, list(start.values()))
        stacks = {name: found[None] for name, found in zip(start, gradients, strict=True)}
        adam_step({name: rows[name] for name in start}, stacks, rows, self.optimizer)
        found: np.ndarray = losses.detach().double().cpu().numpy()
        return found

    def _propagated(self, start: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The means of all layers of users and of items."""
        layer = torch.cat([start[_USERS], start[ITEMS]])
        total = layer
        for _ in range(self.run.model.layers):
            layer = self._adjacency @ layer
            total = total + layer
        users, items = (total / (self.run.model.layers + 1)).split([self.whole.num_users, self.whole.num_items])
        return users, items

    @property
    def _layers(self) -> tuple[Tensor, Tensor]:
        """Users and items after all layers, at the current parameters."""
        state = self._central_state()
        with torch.no_grad():
            return self._propagated({name: state[name][0].to(self.cohort.device) for name in (_USERS, ITEMS)})

    @cached_property
    def _pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """The users and the items of all training ratings."""
        training = self.whole.roles == TRAIN
        return self.whole.users()[training], self.whole.items[training]

    @cached_property
    def _adjacency(self) -> SparseMatrix:
        """D^-1/2 A D^-1/2 of all users, followed by all items."""
        users, items = self._pairs
        shape = (self.whole.num_users, self.whole.num_items)
        pairs = scipy.sparse.csr_array((np.ones(len(users)), (users, items)), shape=shape)
        whole = scipy.sparse.block_array([[None, pairs], [pairs.T, None]], format="csr")
        scale = scipy.sparse.diags_array(1 / np.sqrt(np.maximum(whole.sum(1), 1)))
        return SparseMatrix(scale @ whole @ scale, self.cohort.device, symmetric=True)

    def _sampled(self, users: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """An item for each user of `users` that it does not train on; any item where it trains on all."""
        pairs = self.whole.num_items * self._pairs[0] + self._pairs[1]  # ascending
        found = generator.integers(self.whole.num_items, size=len(users))
        everything = self.whole.counts(TRAIN)[users] == self.whole.num_items
        while True:
            keys = users * self.whole.num_items + found
            places = np.minimum(np.searchsorted(pairs, keys), len(pairs) - 1)
            known = np.flatnonzero((pairs[places] == keys) & ~everything)
            if not len(known):
                return found
            found[known] = generator.integers(self.whole.num_items, size=len(known))

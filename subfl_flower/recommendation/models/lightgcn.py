r"""LightGCN (He et al., SIGIR 2020) on users' local graphs, for many users at once, trained by BPR.

User u's local graph is a star of the user with embedding e_u and its n items with embeddings e_i, whose edges have the
weight :math:`1 / \sqrt{n \cdot 1}`. LightGCN's layers on it alternate for the user between

.. math:: m_u = \frac{1}{\sqrt n} \sum_i e_i

(odd layers) and e_u (even ones). Where the user has anonymous neighbours, an even layer of 2 or more is the mean of e_u
and their embeddings: users with common items are two edges away. The user is the mean of layers 0 to L, :math:`h_u`,
and an item's score is :math:`h_u \cdot e_i`.

Items are scored by their layer 0. On a star only the user's own items would receive messages, namely the user's
embedding. An item that is to be recommended never does, so that the message would reveal training items. For the same
reason the message of a training item is left out while h_u is measured on that item,

.. math:: m_{u \setminus i} = \frac{1}{\sqrt{n - 1}} \sum_{j \ne i} e_j,

0 for an only item, and the same h_u scores the negative items sampled for it. With m of those the loss of a training
item is (Bayesian personalised ranking: Rendle et al., UAI 2009)

.. math:: \frac{1}{m} \sum_j \mathrm{softplus}(h_u \cdot e_j - h_u \cdot e_i),

and a user's is the mean over its training items. The penalty is the `embedding_penalty` times
:math:`|x_i|^2 + \frac{1}{m} \sum_j |x_j|^2 + |x_u|^2`, where x are the items' rows and the user's own embedding.

Without attributes e is x. With them it is the attention over x and the entity's attributes that
`subfl_flower.recommendation.models.attribute_attention` states, of items, of users or of both, whichever have any.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from subfl_flower.data.ratings.attributes import Attributes
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.errors import SubflError
from subfl_flower.models.segments import segment_sum
from subfl_flower.models.settings import LightGCNSettings
from subfl_flower.recommendation.models.attribute_attention import AttributeAttention
from subfl_flower.recommendation.models.mixture import Scorer
from subfl_flower.recommendation.models.user_graphs import Codes, RankingGraphs, UserGraphs
from subfl_flower.recommendation.models.user_models import (
    Measure,
    Parameters,
    RatedUsers,
    ReceivedModel,
    UserModel,
    expanded,
)
from subfl_flower.seeding import client_generator, shared_generator

_DEVIATION = 0.1  # of embeddings at the start


class LightGCN(UserModel):
    """LightGCN of U users at once, who may hold different shared parameters.

    Args:
        settings: width, layers and penalty.
        num_items: of the whole data set.
        user_values: number of values of each field of the users' attributes.
        item_values: number of values of each field of the items' attributes.

    Attributes:
        shapes: shared parameters, without a user axis: ``items``, and with attributes those of the attention.
        personal_shapes: parameters that never leave the user: ``user`` (embedding).

    Raises:
        SubflError: the settings ask for attributes, and there are none.
    """

    trains_locally: ClassVar[bool] = True

    def __init__(
        self,
        settings: LightGCNSettings,
        num_items: int,
        user_values: Sequence[int] = (),
        item_values: Sequence[int] = (),
    ) -> None:
        if settings.attributes and not (user_values or item_values):
            raise SubflError(
                "model.attributes: the data set has no attributes of users or items; "
                "it must be false with this data set"
            )
        self.settings = settings
        self._users = _attention("user", user_values, settings)
        self._items = _attention("item", item_values, settings)
        self.shapes: dict[str, tuple[int, ...]] = {"items": (num_items, settings.dim)}
        for attention in (self._items, self._users):
            self.shapes |= attention.shapes if attention else {}
        self.personal_shapes: dict[str, tuple[int, ...]] = {"user": (settings.dim,)}

    def initial_of(self, seed: int) -> dict[str, np.ndarray]:
        """Initial shared parameters of all users, float32, without a user axis."""
        rng = shared_generator(seed, "initial model")
        found = {"items": _DEVIATION * rng.standard_normal(self.shapes["items"])}
        for attention in (self._items, self._users):
            found |= attention.initial(rng) if attention else {}
        return {name: value.astype(np.float32) for name, value in found.items()}

    def initial_user(self, seed: int, client_id: int) -> dict[str, np.ndarray]:
        """Initial personal parameters of one user, float32, without a user axis."""
        rng = client_generator(seed, client_id, 0, "user")
        return {"user": (_DEVIATION * rng.standard_normal(self.settings.dim)).astype(np.float32)}

    def local_graphs(
        self,
        users: RatedUsers,
        device: torch.device | str = "cpu",
        generators: Sequence[np.random.Generator] | None = None,
        draws: int = 1,
    ) -> RankingGraphs:
        """The graphs of users' training items, whatever their ratings, and of sampled negative items.

        Raises:
            SubflError: attributes are missing, or are not those that the model was made for.
        """
        return RankingGraphs.build(
            users.ratings,
            generators,
            draws,
            self.settings.negatives,
            device,
            _required(self._users, users.user_attributes, "users"),
            _required(self._items, users.item_attributes, "items"),
        )

    def losses(
        self, stacks: Parameters, items: Tensor, personal: Parameters, graphs: UserGraphs, neighbours: Tensor, draw: int
    ) -> tuple[Tensor, Tensor]:
        """Each user's BPR loss [U], and that with penalties; a training item's score excludes its own message."""
        assert isinstance(graphs, RankingGraphs)
        if not len(graphs.negatives):
            raise ValueError("the local graphs were built for evaluation: no items were sampled beside the users' own")
        segment, positives = graphs.positive_segment, graphs.positives
        negatives = graphs.negatives[draw % len(graphs.negatives)]
        embeddings = self.own_items(stacks, items, graphs)
        positive = embeddings.index_select(0, positives)
        negative = embeddings.index_select(0, negatives.reshape(-1)).view(*negatives.shape, self.settings.dim)
        total = segment_sum(positive, segment, len(graphs))
        others = total.index_select(0, segment) - positive
        hidden = self._hidden(
            self._even_layers(stacks, personal, graphs, neighbours).index_select(0, segment),
            others,
            graphs.counts.index_select(0, segment) - 1,
        )
        margins = (hidden[:, None] * negative).sum(2) - (hidden * positive).sum(1, keepdim=True)
        errors = F.softplus(margins).mean(1)
        norms = items.square().sum(1)
        squares = norms.index_select(0, positives) + norms[negatives].mean(1)
        squares = squares + personal["user"].square().sum(1).index_select(0, segment)
        penalised = errors + self.settings.embedding_penalty * squares
        counts = graphs.counts.clamp(min=1)
        loss, objective = (segment_sum(values, segment, len(graphs)) / counts for values in (errors, penalised))
        return loss, objective

    @torch.no_grad()
    def scorer(self, received: ReceivedModel, item_attributes: Attributes | None = None) -> Scorer:
        """Vectors of users and items: h_u [U, dim] from all of a user's items, and e_i [num_items, dim].

        Args:
            received: the users' model.
            item_attributes: of all items, where the model has attributes of items.

        Raises:
            SubflError: the items' attributes are missing, or are not those that the model was made for.
        """
        items, graphs = received.items, received.graphs
        known = _required(self._items, item_attributes, "items")
        if self._items and known is not None:
            alike = torch.zeros(len(items), dtype=torch.int64, device=items.device)
            items = self._items.embeddings(expanded(received.shared, 1), items, Codes.of(known, items.device), alike)
        stacks = expanded(received.shared, len(graphs))
        users = self.own_users(stacks, items.index_select(0, graphs.rows), received.personal, graphs)
        return Scorer(users, items)

    def measured(self, received: ReceivedModel, ratings: Ratings, measure: Measure) -> dict[str, np.ndarray]:
        """Each user's hit rates and NDCG, by name, each [U]."""
        return measure.ranking_figures(ratings, self.scorer(received, measure.item_attributes).scores())

    def own_items(self, stacks: Parameters, items: Tensor, graphs: UserGraphs) -> Tensor:
        """e_i [T, dim] of the items of the users' graphs, by each user's own parameters.

        Args:
            stacks: shared parameters but ``items``, each [U, ...].
            items: [T, dim], the users' own rows.
            graphs: the users' local graphs.
        """
        if not self._items:
            return items
        assert isinstance(graphs, RankingGraphs) and graphs.item_codes is not None
        return self._items.embeddings(stacks, items, graphs.item_codes, graphs.segment)

    @torch.no_grad()
    def own_users(self, stacks: Parameters, embeddings: Tensor, personal: Parameters, graphs: UserGraphs) -> Tensor:
        """h_u [U, dim] from all of the users' training items, by each user's own parameters.

        Args:
            stacks: shared parameters but ``items``, each [U, ...].
            embeddings: [T, dim], e_i of the items of the users' graphs (`own_items`).
            personal: each [U, ...].
            graphs: the users' local graphs.
        """
        assert isinstance(graphs, RankingGraphs)
        positive = embeddings.index_select(0, graphs.positives)
        total = segment_sum(positive, graphs.positive_segment, len(graphs))
        return self._hidden(self._even_layers(stacks, personal, graphs, graphs.neighbours), total, graphs.counts)

    def _hidden(self, even: Tensor, total: Tensor, counts: Tensor) -> Tensor:
        """The mean of all layers [R, dim], from the sums of the even ones and of `counts` [R] messages."""
        odd = (self.settings.layers + 1) // 2
        return (even + odd * counts.clamp(min=1).rsqrt()[:, None] * total) / (self.settings.layers + 1)

    def _even_layers(self, stacks: Parameters, personal: Parameters, graphs: UserGraphs, neighbours: Tensor) -> Tensor:
        """The sum of layers 0, 2, 4, ... of each user, [U, dim]."""
        users = personal["user"]
        if self._users:
            assert isinstance(graphs, RankingGraphs) and graphs.user_codes is not None
            everyone = torch.arange(len(graphs), device=users.device)
            users = self._users.embeddings(stacks, users, graphs.user_codes, everyone)
        further = self.settings.layers // 2
        if not (further and len(neighbours)):
            return (1 + further) * users
        told = torch.bincount(graphs.neighbour_segment, minlength=len(graphs))
        means = users.index_add(0, graphs.neighbour_segment, neighbours) / (1 + told)[:, None]
        return users + further * means


def _attention(side: str, sizes: Sequence[int], settings: LightGCNSettings) -> AttributeAttention | None:
    """The attention of one side, where it has attributes and the settings ask for them."""
    return AttributeAttention(side, sizes, settings.dim) if settings.attributes and sizes else None


def _required(attention: AttributeAttention | None, given: Attributes | None, whose: str) -> Attributes | None:
    """The given attributes, where they are needed; SubflError where they are missing."""
    if attention is None:
        return None
    found = () if given is None else given.sizes
    if given is None or found != attention.sizes:
        raise SubflError(
            f"the attributes of {whose} must have {list(attention.sizes)} values by field, as the model has, "
            f"not {list(found)}"
        )
    return given

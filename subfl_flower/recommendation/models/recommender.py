r"""The recommender on users' local graphs (FedGNN: Wu et al., Nature Communications 2022), for many users at once.

User u's local graph is a star: the user node with embedding x_u, its rated items with embeddings x_i and, after
expansion, anonymous neighbour users. With y_i a rating in normalised units and b_u, b_i, b the biases,

.. math:: \rho_i = y_i - b - b_u - b_i, \quad m_i = x_i W + \rho_i x_i V, \quad m_v = x_v N,

are the messages of a rated item and of a neighbour (ρ enters as a constant). The user node sums them to

.. math:: a_u = e^g \frac{\sum_j w_j m_j}{e^k + \sum_j w_j}.

In ``gcn`` every w is 1. In ``gat`` it is :math:`\exp(\mathrm{clip}(\mathrm{leakyrelu}(x_u \cdot p + x_j \cdot q +
r \cdot (\rho_j, |\rho_j|))))` (Veličković et al., ICLR 2018, with the weight e^k of an empty message in place of a
self-loop's). The user's hidden state is :math:`h_u = x_u + a_u`, in ``ggnn`` the gated unit GRU(a_u, x_u) with w = 1
(Li et al., ICLR 2016), in ``none`` x_u alone. The prediction is :math:`h_u \cdot x_i + b_u + b_i + b`.

The rating that is predicted must not enter its own prediction. In training, h_u therefore leaves out the message of the
item whose rating is predicted. Its terms are subtracted from the two sums, so that all of a user's items cost one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from subfl_flower.data.graph import TRAIN
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.models.segments import segment_product, segment_sum
from subfl_flower.models.settings import RecommenderSettings
from subfl_flower.recommendation.models.user_graphs import UserGraphs
from subfl_flower.recommendation.models.user_models import (
    Measure,
    Parameters,
    RatedUsers,
    ReceivedModel,
    UserModel,
    expanded,
)
from subfl_flower.seeding import client_generator, shared_generator

_DEVIATION = 0.1  # of embeddings and scores at the start
_SCORE_BOUND = 5.0  # of an attention weight's logarithm, so that float32 sums stay exact without the heaviest message


class _Items(NamedTuple):
    """Embeddings [E, dim] and biases [E] of the rated items."""

    embeddings: Tensor
    biases: Tensor


@dataclass(frozen=True, eq=False)
class _Messages:
    """Weighted messages [E or N, dim] and their weights [E or N]."""

    weighted: Tensor
    weights: Tensor


class StackedRecommender(UserModel):
    """The recommender of U users at once, who all have the same weights (`segment_product`).

    Args:
        settings: kind, width and penalties.
        num_items: of the whole data set.

    Attributes:
        shapes: shared parameters, without a user axis: ``items`` (embedding | bias), ``bias`` and ``gnn.*``.
        personal_shapes: parameters that never leave the user: ``user`` (embedding) and ``user_bias``.
    """

    trains_locally: ClassVar[bool] = False

    def __init__(self, settings: RecommenderSettings, num_items: int) -> None:
        self.settings = settings
        width = settings.dim
        self.shapes: dict[str, tuple[int, ...]] = {"items": (num_items, width + 1), "bias": (1,)}
        self.shapes |= {f"gnn.{name}": shape for name, shape in self._network_shapes().items()}
        self.personal_shapes: dict[str, tuple[int, ...]] = {"user": (width,), "user_bias": ()}

    def _network_shapes(self) -> dict[str, tuple[int, ...]]:
        width, kind = self.settings.dim, self.settings.gnn
        if kind == "none":
            return {}
        shapes: dict[str, tuple[int, ...]] = {"item": (width, width), "rating": (width, width), "shrinkage": (1,)}
        if self.settings.neighbours:
            shapes["neighbour"] = (width, width)
        if kind == "gat":
            shapes |= {"user_score": (width,), "item_score": (width,), "rating_score": (2,)}
            if self.settings.neighbours:
                shapes["neighbour_score"] = (width,)
        if kind == "ggnn":
            shapes |= {"gate_input": (width, 3 * width), "gate_state": (width, 3 * width)}
            shapes |= {"gate_input_bias": (3 * width,), "gate_state_bias": (3 * width,)}
        else:
            shapes["gain"] = (1,)
        return shapes

    def initial_of(self, seed: int) -> dict[str, np.ndarray]:
        """Initial shared parameters of all users, float32, without a user axis."""
        rng = shared_generator(seed, "initial model")
        return {name: self._initial(name, rng).astype(np.float32) for name in self.shapes}

    def _initial(self, name: str, rng: np.random.Generator) -> np.ndarray:
        """Small embeddings and scores, no biases, gain and shrinkage e^0; a message is nearly its item's embedding."""
        shape = self.shapes[name]
        if name == "items":
            return np.pad(_DEVIATION * rng.standard_normal((shape[0], shape[1] - 1)), ((0, 0), (0, 1)))
        if name in ("gnn.user_score", "gnn.item_score", "gnn.neighbour_score"):
            return _DEVIATION * rng.standard_normal(shape)
        if len(shape) == 1:
            return np.zeros(shape)
        drawn = rng.standard_normal(shape) * max(shape) ** -0.5
        return np.eye(len(drawn)) + _DEVIATION * drawn if name == "gnn.rating" else drawn

    def initial_user(self, seed: int, client_id: int) -> dict[str, np.ndarray]:
        """Initial personal parameters of one user, float32, without a user axis."""
        rng = client_generator(seed, client_id, 0, "user")
        user = (_DEVIATION * rng.standard_normal(self.settings.dim)).astype(np.float32)
        return {"user": user, "user_bias": np.zeros((), dtype=np.float32)}

    def local_graphs(
        self,
        users: RatedUsers,
        device: torch.device | str = "cpu",
        generators: Sequence[np.random.Generator] | None = None,
        draws: int = 1,
    ) -> UserGraphs:
        """The graphs of users' training ratings; no negatives are sampled, and attributes are not read."""
        return UserGraphs.build(users.ratings, users.center, users.spread, device=device)

    @torch.no_grad()
    def predict(self, received: ReceivedModel, query_rows: Tensor, query_segment: Tensor) -> Tensor:
        """Predictions in normalised units, [Q], each from the whole local graph of its user.

        Args:
            received: the users' model.
            query_rows: int64 [Q], rows of the table of items.
            query_segment: int64 [Q], the user (0 .. U - 1) of each prediction.
        """
        graphs, personal = received.graphs, received.personal
        stacks = expanded(received.shared, len(graphs))
        hidden = personal["user"]
        if self.settings.gnn != "none":
            items = _items(received.items.index_select(0, graphs.rows))
            _, total, mass = self._aggregated(stacks, items, personal, graphs, graphs.neighbours)
            everyone = torch.arange(len(graphs), device=total.device)
            hidden = self._hidden(stacks, personal["user"], total, mass, everyone, (1,) * len(graphs))
        asked = _items(received.items.index_select(0, query_rows))
        return _predictions(stacks, hidden.index_select(0, query_segment), asked, personal, query_segment)

    def measured(self, received: ReceivedModel, ratings: Ratings, measure: Measure) -> dict[str, np.ndarray]:
        """Each user's errors on validation and test ratings, by name, each [U]."""
        held_out = ratings.roles != TRAIN
        rows, segment = (
            torch.from_numpy(values[held_out]).to(received.items.device) for values in (ratings.items, ratings.users())
        )
        return measure.rating_errors(ratings, self.predict(received, rows, segment))

    def losses(
        self, stacks: Parameters, items: Tensor, personal: Parameters, graphs: UserGraphs, neighbours: Tensor, draw: int
    ) -> tuple[Tensor, Tensor]:
        """Each user's mean squared error [U], and that with penalties; a rating's prediction leaves out its message."""
        own, segment, rated = personal, graphs.segment, _items(items)
        if self.settings.gnn == "none":
            hidden = own["user"].index_select(0, segment)
        else:
            messages, total, mass = self._aggregated(stacks, rated, own, graphs, neighbours)
            others = total.index_select(0, segment) - messages.weighted
            mass_of_others = mass.index_select(0, segment) - messages.weights
            hidden = self._hidden(stacks, own["user"], others, mass_of_others, segment, graphs.lengths)
        errors = _predictions(stacks, hidden, rated, own, segment) - graphs.targets
        squares = errors.square()
        penalised = squares + self._penalties(rated, hidden, own, graphs)
        loss, objective = (segment_sum(values, segment, len(graphs)) for values in (squares, penalised))
        counts = graphs.counts.clamp(min=1)
        return loss / counts, objective / counts

    def _penalties(self, items: _Items, hidden: Tensor, own: Parameters, graphs: UserGraphs) -> Tensor:
        """Penalties beyond the squared error of each rating [E]; constant ones are spread over a user's ratings."""
        settings, segment = self.settings, graphs.segment
        times = 1 + (settings.shrinkage / graphs.counts.clamp(min=1)).index_select(0, segment)
        found = torch.zeros_like(items.biases)
        if settings.embedding_penalty:
            users = own["user"].square().sum(1).index_select(0, segment)
            found = found + settings.embedding_penalty * (items.embeddings.square().sum(1) + times * users)
        if settings.hidden_penalty:
            found = found + settings.hidden_penalty * times * hidden.square().sum(1)
        if settings.bias_penalty:
            biases = own["user_bias"].square().index_select(0, segment)
            found = found + settings.bias_penalty * (items.biases.square() + biases)
        return found

    def _aggregated(
        self, stacks: Parameters, items: _Items, own: Parameters, graphs: UserGraphs, neighbours: Tensor
    ) -> tuple[_Messages, Tensor, Tensor]:
        """The rated items' messages, and the sums of all messages [U, dim] and of their weights [U]."""
        messages = self._item_messages(stacks, items, own, graphs)
        total = segment_sum(messages.weighted, graphs.segment, len(graphs))
        mass = segment_sum(messages.weights, graphs.segment, len(graphs))
        if len(neighbours):
            further = self._neighbour_messages(stacks, neighbours, own, graphs)
            total = total.index_add(0, graphs.neighbour_segment, further.weighted)
            mass = mass.index_add(0, graphs.neighbour_segment, further.weights)
        return messages, total, mass

    def _item_messages(self, stacks: Parameters, items: _Items, own: Parameters, graphs: UserGraphs) -> _Messages:
        embeddings, segment = items.embeddings, graphs.segment
        biases = (stacks["bias"][:, 0] + own["user_bias"]).index_select(0, segment) + items.biases
        residuals = (graphs.targets - biases).detach()
        messages = segment_product(embeddings, stacks["gnn.item"], graphs.lengths)
        messages = messages + residuals[:, None] * segment_product(embeddings, stacks["gnn.rating"], graphs.lengths)
        if self.settings.gnn != "gat":
            return _Messages(messages, torch.ones_like(residuals))
        scores = segment_product(embeddings, stacks["gnn.item_score"][:, :, None], graphs.lengths)[:, 0]
        kinds = stacks["gnn.rating_score"].index_select(0, segment)
        scores = scores + kinds[:, 0] * residuals + kinds[:, 1] * residuals.abs()
        weights = _weights(scores + self._user_scores(stacks, own).index_select(0, segment))
        return _Messages(weights[:, None] * messages, weights)

    def _neighbour_messages(
        self, stacks: Parameters, neighbours: Tensor, own: Parameters, graphs: UserGraphs
    ) -> _Messages:
        lengths, segment = graphs.neighbour_lengths, graphs.neighbour_segment
        messages = segment_product(neighbours, stacks["gnn.neighbour"], lengths)
        if self.settings.gnn != "gat":
            return _Messages(messages, torch.ones_like(messages[:, 0]))
        scores = segment_product(neighbours, stacks["gnn.neighbour_score"][:, :, None], lengths)[:, 0]
        weights = _weights(scores + self._user_scores(stacks, own).index_select(0, segment))
        return _Messages(weights[:, None] * messages, weights)

    def _user_scores(self, stacks: Parameters, own: Parameters) -> Tensor:
        return (own["user"] * stacks["gnn.user_score"]).sum(1)

    def _hidden(
        self,
        stacks: Parameters,
        user: Tensor,
        total: Tensor,
        mass: Tensor,
        segment: Tensor,
        lengths: tuple[int, ...],
    ) -> Tensor:
        """Hidden states [R, dim] of the users `segment` [R], one for each row of `total` [R, dim] and `mass` [R]."""
        shrinkage = stacks["gnn.shrinkage"][:, 0].exp().index_select(0, segment)
        state = user.index_select(0, segment)
        if self.settings.gnn != "ggnn":
            gain = stacks["gnn.gain"][:, 0].exp().index_select(0, segment)
            return state + (gain / (mass + shrinkage))[:, None] * total
        ones = (1,) * len(user)
        aggregate = (1 / (mass + shrinkage))[:, None] * total
        inputs = segment_product(aggregate, stacks["gnn.gate_input"], lengths)
        states = segment_product(user, stacks["gnn.gate_state"], ones) + stacks["gnn.gate_state_bias"]
        inputs = inputs + stacks["gnn.gate_input_bias"].index_select(0, segment)
        return _gated(inputs, states.index_select(0, segment), state)


def _items(rows: Tensor) -> _Items:
    embeddings, biases = rows.split([rows.shape[1] - 1, 1], dim=1)
    return _Items(embeddings.contiguous(), biases[:, 0])


def _weights(scores: Tensor) -> Tensor:
    """Attention weights before normalisation."""
    return F.leaky_relu(scores, 0.2).clamp(-_SCORE_BOUND, _SCORE_BOUND).exp()


def _gated(inputs: Tensor, states: Tensor, state: Tensor) -> Tensor:
    """The gated recurrent unit (Cho et al., 2014) from its three gates' sums [R, 3 dim]: reset, update, candidate."""
    reset_input, update_input, new_input = inputs.chunk(3, dim=1)
    reset_state, update_state, new_state = states.chunk(3, dim=1)
    update = torch.sigmoid(update_input + update_state)
    candidate = torch.tanh(new_input + torch.sigmoid(reset_input + reset_state) * new_state)
    return (1 - update) * candidate + update * state


def _predictions(stacks: Parameters, hidden: Tensor, items: _Items, own: Parameters, segment: Tensor) -> Tensor:
    """h_u · x_i + b_i + b_u + b for rows `hidden` [R, dim] and R `items` of the users `segment` [R]."""
    biases = (stacks["bias"][:, 0] + own["user_bias"]).index_select(0, segment)
    return (hidden * items.embeddings).sum(1) + items.biases + biases

"""A few users and their ratings, and the clients that hold them, for tests of recommendation families."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from subfl_flower.data.graph import TEST, TRAIN, VALIDATION
from subfl_flower.data.ratings.attributes import Attributes
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.models.settings import LightGCNSettings, OptimizerSettings, RecommenderSettings
from subfl_flower.node.client import CohortClient
from subfl_flower.node.shared_key import SharedKey
from subfl_flower.node.state import MemoryStore
from subfl_flower.privacy.mechanism import LdpSettings
from subfl_flower.recommendation.cohort import UserCohort
from subfl_flower.recommendation.models.choices import stacked_user_model
from subfl_flower.seeding import client_generator
from subfl_flower.server.updates import Updates
from subfl_flower.tasks.choices import Ranking, RatingPrediction
from subfl_flower.wire.batch import Batch, Result
from subfl_flower.wire.choice import Choice
from subfl_flower.wire.contract import RunContext
from subfl_flower.wire.roster import Roster

ITEMS, DIM = 20, 3
LENGTHS = (6, 1, 0, 9, 4)
"""Training ratings of users 0 to 4; each has one more that validates and two that test."""
CENTER, SPREAD, SEED = 3.25, 1.5, 5
ITEM_CODES = [None if item % 5 == 0 else item % 4 for item in range(ITEMS)]
USER_CODES = [0, None, 1, 1, 0]
"""The value of the only attribute that an item, or a user, has; most have one."""


def five_users(tests: int = 2) -> Ratings:
    """The users, each with so many ratings that test."""
    rng = np.random.default_rng(3)
    items, roles = [], []
    for length in LENGTHS:
        items.append(np.sort(rng.choice(ITEMS, length + 1 + tests, replace=False)))
        roles.append(rng.permutation([TRAIN] * length + [VALIDATION] + [TEST] * tests))
    counts = [len(own) for own in items]
    return Ratings(
        user_ids=np.arange(len(LENGTHS)),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        items=np.concatenate(items),
        values=rng.integers(1, 6, sum(counts)).astype(np.float32),
        roles=np.concatenate(roles).astype(np.int8),
        num_items=ITEMS,
        scale=(1.0, 5.0),
    )


RATINGS = five_users()
RANKED = five_users(tests=1)
"""Users for rankings, with as many training ratings, and one item more that validates and one that tests."""
TASK = Ranking(name="ranking", negatives=8, cutoffs=(3, 5))


def hosting(
    family: type[CohortClient],
    ids: Sequence[int] = range(len(LENGTHS)),
    *,
    key: Path | None = None,
    chunk: Any = "auto",
    run: str = "",
    with_whole: bool = True,
    gnn: str = "none",
    lr: float = 0.05,
    **knobs: Any,
) -> Any:
    """Make a client of a family that hosts some of the five users.

    `privacy` among the knobs is that of the run, `constant` the model's shrinkage.
    """
    model = {name: knobs.pop(name, 0.0) for name in ("embedding_penalty", "hidden_penalty", "bias_penalty")}
    model["shrinkage"] = knobs.pop("constant", 0.0)
    model |= {name: knobs.pop(name) for name in ("neighbours",) if name in knobs}
    cohort = UserCohort(
        ratings=RATINGS.of_users(ids),
        center=CENTER,
        spread=SPREAD,
        device=torch.device("cpu"),
        chunk=chunk,
        shared_key=None if key is None else SharedKey(key, create=True),
        run=run,
        whole=(lambda: RATINGS) if with_whole else None,
    )
    settings = RecommenderSettings(name="recommender", gnn=gnn, dim=DIM, **model)
    return _client(family, cohort, settings, RatingPrediction(name="rating_prediction"), lr, knobs)


def ranking(
    family: type[CohortClient],
    ids: Sequence[int] = range(len(LENGTHS)),
    *,
    ratings: Ratings = RANKED,
    chunk: Any = "auto",
    with_whole: bool = True,
    lr: float = 0.05,
    attributes: bool = False,
    model: Mapping[str, Any] | None = None,
    **knobs: Any,
) -> Any:
    """A client of a family that ranks items for some users; `lr` is that of the users' own embeddings."""
    cohort = UserCohort(
        ratings=ratings.of_users(ids),
        center=0.0,
        spread=1.0,
        device=torch.device("cpu"),
        chunk=chunk,
        whole=(lambda: ratings) if with_whole else None,
        user_attributes=one_field(USER_CODES).of(list(ids)) if attributes else None,
        item_attributes=one_field(ITEM_CODES) if attributes else None,
        task=TASK,
    )
    settings = LightGCNSettings(name="lightgcn", dim=DIM, attributes=attributes, **(model or {}))
    return _client(family, cohort, settings, TASK, lr, knobs)


def _client(
    family: type[CohortClient], cohort: UserCohort, model: Any, task: Any, lr: float, knobs: Mapping[str, Any]
) -> Any:
    attributes = [() if known is None else known.sizes for known in (cohort.user_attributes, cohort.item_attributes)]
    run = RunContext(
        settings=family.Settings(**{name: value for name, value in knobs.items() if name != "privacy"}),
        model=model,
        optimizer=OptimizerSettings(name="adam", lr=lr, weight_decay=0.0),
        task=task,
        privacy=knobs.get("privacy", LdpSettings()),
        seed=SEED,
        initial=stacked_user_model(model, cohort.ratings.num_items, *attributes).initial_of(SEED),
    )
    return family(run, cohort, MemoryStore())


def to_all(clients: Sequence[int], model: Mapping[str, np.ndarray], server_round: int = 1, **more: Any) -> Batch:
    """The orders of some users who are all sent the same model."""
    return Batch.for_all(clients, model, server_round=server_round, **more)


def of_models(
    clients: Sequence[int], models: Sequence[Mapping[str, np.ndarray]], rows: Sequence[Sequence[int]], **more: Any
) -> Batch:
    """The orders of some users who are sent some of several models; `rows` are numbers of models for each user."""
    values = {name: np.stack([model[name] for model in models]) for name in models[0]}
    return Batch(tuple(clients), sent=Choice(values, np.array(rows, dtype=np.int64)), **more)


def worked(result: Result) -> Result:
    """A result in which nobody failed."""
    assert result.failures == {}, result.failures
    return result


def roster_of(clients: Sequence[int] = range(len(LENGTHS)), num_items: int = ITEMS) -> Roster:
    """A server's list of some users on one node."""
    sizes = np.ones(len(clients))
    return Roster(tuple(clients), tuple(0 for _ in clients), sizes, sizes, sizes, num_items, 0, False)


def updates_of(result: Result, clients: Sequence[int] = range(len(LENGTHS)), server_round: int = 1) -> Updates:
    """A result in the form that a server with these `clients` sees."""
    return Updates(
        server_round=server_round,
        positions=np.searchsorted(list(clients), result.clients),
        arrays=result.arrays,
        ragged=result.rows,
        metrics=result.metrics,
        failures=result.failures,
        bytes_up=np.zeros(len(clients), np.int64),
        bytes_down=np.zeros(len(clients), np.int64),
        client_seconds=0.0,
    )


def normalised(user: int, role: int = TRAIN) -> tuple[np.ndarray, np.ndarray]:
    """The items that a user rated in a role, and its ratings in normalised units."""
    own = RATINGS.of_users([user])
    chosen = own.roles == role
    return own.items[chosen], (own.values[chosen].astype(float) - CENTER) / SPREAD


def table(scale: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """A global bias [1] and an item table [ITEMS, DIM + 1], float32."""
    rng = np.random.default_rng(8)
    return np.array([0.25], np.float32), (scale * rng.standard_normal((ITEMS, DIM + 1))).astype(np.float32)


# Rankings, by hand ----------------------------------------------------------------------------------------------------


def one_field(codes: Sequence[int | None]) -> Attributes:
    """Attributes of which each entity has one value or none."""
    held = [code for code in codes if code is not None]
    return Attributes(
        fields=("field",),
        values=(tuple(f"value {number}" for number in range(max(held) + 1)),),
        offsets=np.cumsum([0, *(code is not None for code in codes)], dtype=np.int64),
        codes=np.array(held, dtype=np.int64),
    )


def items_of(user: int, role: int = TRAIN, ratings: Ratings = RANKED) -> np.ndarray:
    """The items that a user has in a role, ascending."""
    own = ratings.of_users([user])
    return own.items[own.roles == role]


def random_model(shapes: Mapping[str, tuple[int, ...]], seed: int = 0, scale: float = 0.5) -> dict[str, np.ndarray]:
    """Shared parameters without a client axis, float32."""
    rng = np.random.default_rng([8, seed])
    return {name: (scale * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}


def hidden(user: Tensor, items: Tensor, layers: int) -> Tensor:
    """LightGCN's user [DIM] of a star with the `items` [n, DIM]: the mean of all layers, odd ones being the message."""
    message = items.sum(0) / max(len(items), 1) ** 0.5
    return torch.stack([message if layer % 2 else user for layer in range(layers + 1)]).mean(0)


def sampled(user: int, steps: int, negatives: int = 1, *, server_round: int = 1, purpose: str) -> np.ndarray:
    """Negative items of a user for each of the rated ones, [steps, n, negatives], from those that it does not have."""
    own = items_of(user)
    others = np.setdiff1d(np.arange(ITEMS), own)
    rng = client_generator(SEED, user, server_round, purpose)
    return others[rng.integers(len(others), size=(steps, len(own), negatives))]


class UserByHand:
    """One of the five users with a separate whole model, float64, stepped by autograd and PyTorch's Adam."""

    def __init__(
        self, user: int, start: np.ndarray, *, layers: int = 1, lr: float = 0.05, decay: float = 0.0, **more: Any
    ) -> None:
        self.user, self.layers = user, layers
        self.loss: str = more.get("loss", "mean")
        self.penalty: float = more.get("penalty", 1e-3)
        self.attributes: bool = more.get("attributes", False)
        self.own = torch.tensor(start, dtype=torch.float64, requires_grad=True)
        self._adam = torch.optim.Adam([self.own], lr=lr, weight_decay=decay)
        self.last_loss = 0.0

    def train(
        self, received: Mapping[str, np.ndarray], sampled_items: np.ndarray, local_lr: float
    ) -> dict[str, np.ndarray]:
        """All shared parameters after a step with each of the draws [steps, n, m] of sampled items."""
        p = {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in received.items()}
        mine = items_of(self.user).tolist()
        for draw in sampled_items:
            embeddings, user, losses, penalties = self._items(p), self._user(p), [], []
            for place, item in enumerate(mine):
                others = embeddings[[other for other in mine if other != item]]
                mean = hidden(user, others, self.layers)
                margins = mean @ embeddings[item] - embeddings[draw[place]] @ mean
                losses.append(-F.logsigmoid(margins).mean())
                norms = p["items"].square().sum(1)
                penalties.append(norms[item] + norms[draw[place]].mean() + self.own.square().sum())
            count = max(len(mine), 1)
            zero = sum(value.sum() for value in (*p.values(), self.own)) * 0
            loss = sum(losses, zero) / count
            objective = loss + self.penalty * sum(penalties, zero) / count
            found = torch.autograd.grad(objective, [*p.values(), self.own])
            times = len(mine) if self.loss == "sum" else 1
            self.own.grad = times * found[-1]
            self._adam.step()
            with torch.no_grad():
                for (name, value), gradient in zip(p.items(), found, strict=False):
                    value -= local_lr * gradient * (times if name == "items" else 1)
            self.last_loss = float(loss.detach())
        return {name: value.detach().numpy() for name, value in p.items()}

    def scores(self, model: Mapping[str, np.ndarray], own: np.ndarray | None = None) -> np.ndarray:
        """A model's scores of all items [ITEMS], with the user's embedding or another one."""
        p = {name: torch.tensor(value, dtype=torch.float64) for name, value in model.items()}
        embeddings = self._items(p)
        user = self._user(p, self.own.detach() if own is None else torch.tensor(own, dtype=torch.float64))
        found: np.ndarray = (embeddings @ hidden(user, embeddings[items_of(self.user)], self.layers)).numpy()
        return found

    def _items(self, p: Mapping[str, Tensor]) -> Tensor:
        codes: Sequence[int | None] = ITEM_CODES if self.attributes else [None] * ITEMS
        return torch.stack([_entity(row, code, "item", p) for row, code in zip(p["items"], codes, strict=True)])

    def _user(self, p: Mapping[str, Tensor], own: Tensor | None = None) -> Tensor:
        code = USER_CODES[self.user] if self.attributes else None
        return _entity(self.own if own is None else own, code, "user", p)


def _entity(own: Tensor, code: int | None, side: str, p: Mapping[str, Tensor]) -> Tensor:
    """The attention over an own embedding and one attribute value."""
    if code is None:
        return own
    value, probe, bias = (p[f"{side}_{name}"] for name in ("values", "attention", "components"))
    weights = torch.stack([own @ probe + bias[0], value[code] @ probe + bias[1]]).softmax(0)
    return weights[0] * own + weights[1] * value[code]

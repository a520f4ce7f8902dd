"""A few users and their ratings, and the clients that hold them, for tests of recommendation families."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from subfl_flower.data.graph import TEST, TRAIN, VALIDATION
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.models.settings import OptimizerSettings, RecommenderSettings
from subfl_flower.runtime.cohort_client import CohortClient
from subfl_flower.runtime.shared_key import SharedKey
from subfl_flower.runtime.state import MemoryStore
from subfl_flower.runtime.user_cohort import UserCohort

ITEMS, DIM = 20, 3
LENGTHS = (6, 1, 0, 9, 4)
"""Training ratings of users 0 to 4; each has one more that validates and two that test."""
CENTER, SPREAD, SEED = 3.25, 1.5, 5


def five_users() -> Ratings:
    rng = np.random.default_rng(3)
    items, roles = [], []
    for length in LENGTHS:
        items.append(np.sort(rng.choice(ITEMS, length + 3, replace=False)))
        roles.append(rng.permutation([TRAIN] * length + [VALIDATION] + [TEST] * 2))
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
    """A client of a family that hosts some of the five users."""
    model = {name: knobs.pop(name) for name in ("embedding_penalty", "hidden_penalty", "bias_penalty") if name in knobs}
    return family(
        cohort=UserCohort(
            ratings=RATINGS.of_users(ids),
            center=CENTER,
            spread=SPREAD,
            device=torch.device("cpu"),
            chunk=chunk,
            shared_key=None if key is None else SharedKey(key, create=True),
            run=run,
            whole=(lambda: RATINGS) if with_whole else None,
        ),
        settings=family.Settings(**knobs),
        model=RecommenderSettings(name="recommender", gnn=gnn, dim=DIM, **model),
        optimizer=OptimizerSettings(name="adam", lr=lr, weight_decay=0.0),
        seed=SEED,
        store=MemoryStore(),
    )


def asked(clients: Sequence[int], server_round: int = 1, **more: Any) -> dict[str, Any]:
    """What `fit` and `evaluate` are told."""
    return {"clients": list(clients), "round": server_round, "local_epochs": 1, "rows": {}, **more}


def normalised(user: int, role: int = TRAIN) -> tuple[np.ndarray, np.ndarray]:
    """The items that a user rated in a role, and its ratings in normalised units."""
    own = RATINGS.of_users([user])
    chosen = own.roles == role
    return own.items[chosen], (own.values[chosen].astype(float) - CENTER) / SPREAD


def table(scale: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """A global bias [1] and an item table [ITEMS, DIM + 1], float32."""
    rng = np.random.default_rng(8)
    return np.array([0.25], np.float32), (scale * rng.standard_normal((ITEMS, DIM + 1))).astype(np.float32)


def sent(values: np.ndarray, clients: int) -> np.ndarray:
    """What all clients are sent alike."""
    return np.broadcast_to(values, (clients, *values.shape))

"""Neighbours that users are told of: kept with the user, used by the local work, trained where that is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rated_users import DIM, LENGTHS, hosting, random_model, ranking, to_all, worked

from subfl_flower.clients.recommendation.fedavg import FedAvgRatingsClient
from subfl_flower.clients.recommendation.fedgnn import FedGNNClient
from subfl_flower.errors import SubflError
from subfl_flower.wire.batch import Question

EVERYONE = range(len(LENGTHS))
COUNTS = (2, 0, 1, 3, 1)
"""Neighbours of users 0 to 4."""


def told(client: Any) -> np.ndarray:
    """Tell users of neighbours, as an opened box would; their embeddings [users, 3, DIM], zeros behind the last."""
    neighbours = np.random.default_rng(4).standard_normal((len(LENGTHS), 3, DIM)).astype(np.float32)
    neighbours[np.arange(3) >= np.array(COUNTS)[:, None]] = 0
    state = client.open_state()
    rows = client.states.of(state, list(EVERYONE), {})
    with rows.working() as own:
        own["neighbours"].copy_(_tensor(own["neighbours"], neighbours))
        own["num_neighbours"].copy_(_tensor(own["num_neighbours"], np.array(COUNTS)))
    client.store.commit(state)
    return neighbours


def _tensor(like: Any, values: np.ndarray) -> Any:
    return like.new_tensor(values)


def kept(client: Any) -> np.ndarray:
    found: np.ndarray = client.open_state()["neighbours"].numpy().copy()
    return found


@pytest.mark.parametrize("trained", [False, True])
def test_neighbours_are_stepped_by_the_plain_gradient_of_a_users_loss(trained: bool) -> None:
    """The gradient by central differences: of one coordinate at a time, in the loss of a client that steps nothing."""
    knobs: dict[str, Any] = {"gnn": "gcn", "neighbours": 3, "pseudo_items": 0, "user_steps": 1, "loss": "sum"}
    client = hosting(FedGNNClient, train_neighbours=trained, user_lr=0.01, **knobs)
    start = random_model(client.model.shapes)
    before = told(client)
    worked(client.train(to_all(EVERYONE, start)))
    moved = before - kept(client)
    if not trained:
        assert not moved.any()
        return

    def loss(shift: np.ndarray) -> np.ndarray:
        """Each user's mean loss where its neighbours are shifted."""
        other = hosting(FedGNNClient, user_lr=0.01, **knobs)
        told(other)
        state = other.open_state()
        with other.states.of(state, list(EVERYONE), {}).working() as own:
            own["neighbours"].add_(_tensor(own["neighbours"], shift))
        other.store.commit(state)
        found: np.ndarray = worked(other.train(to_all(EVERYONE, start))).metrics["train_loss"]
        return found

    for place, coordinate in ((0, 0), (0, 2), (2, 1)):
        shift = np.zeros_like(before)
        shift[:, place, coordinate] = 1e-2
        slope = (loss(shift) - loss(-shift)) / 2e-2
        real = place < np.array(COUNTS)
        np.testing.assert_allclose(moved[real, place, coordinate], 0.01 * slope[real], rtol=0.02, atol=2e-6)
    assert np.abs(moved).max() > 1e-4 and not moved[1].any()


def test_neighbours_change_what_local_training_uploads() -> None:
    """With two layers; a user without neighbours uploads what it would without an expansion."""
    knobs: dict[str, Any] = {"user_steps": 2, "model": {"layers": 2, "neighbours": 3}}
    alone, expanded = (ranking(FedAvgRatingsClient, **knobs) for _ in range(2))
    told(expanded)
    start = random_model(alone.model.shapes)
    first, second = (worked(client.train(to_all(EVERYONE, start))).rows["item_rows"] for client in (alone, expanded))
    for user, count in enumerate(COUNTS):
        same = np.array_equal(first.of(user), second.of(user))
        assert same == (count == 0 or LENGTHS[user] == 0)


def test_who_has_no_neighbours_has_no_answer() -> None:
    client = hosting(FedGNNClient, gnn="gcn", pseudo_items=0)
    with pytest.raises(SubflError, match=r"query\.expand has no answer: model\.neighbours is 0"):
        client.answer(Question("expand", {0: {}}))

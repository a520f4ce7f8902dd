"""Users who train all of a model on their items, against one user at a time with a separate whole model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rated_users import (
    ITEMS,
    LENGTHS,
    SEED,
    UserByHand,
    items_of,
    random_model,
    ranking,
    roster_of,
    sampled,
    to_all,
    updates_of,
    worked,
)

from subfl_flower.clients.recommendation.fedavg import FedAvgRatingsClient
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import RecommenderSettings
from subfl_flower.privacy.mechanism import LdpSettings
from subfl_flower.strategies.recommendation.fedavg import FedAvgRatings
from subfl_flower.wire.ragged import Ragged

EVERYONE = range(len(LENGTHS))
DRAWN = "sampled items"
PLAIN: dict[str, Any] = {"pseudo_items": 0, "local_lr": 0.3, "user_lr": None, "user_steps": 1, "loss": "mean"}


def local(ids: Sequence[int] = EVERYONE, **more: Any) -> FedAvgRatingsClient:
    client: FedAvgRatingsClient = ranking(FedAvgRatingsClient, ids, **{**PLAIN, **more})
    return client


def by_hand(client: FedAvgRatingsClient, user: int, **more: Any) -> UserByHand:
    return UserByHand(user, client.model.initial_user(SEED, user)["user"], **more)


def round_of(
    client: FedAvgRatingsClient, model: Mapping[str, np.ndarray], ids: Sequence[int] = EVERYONE, server_round: int = 1
) -> tuple[dict[str, np.ndarray], Ragged, Ragged, dict[str, np.ndarray]]:
    """Uploads of users who receive the same model: stacks, item numbers, rows, and their metrics."""
    result = worked(client.train(to_all(ids, model, server_round)))
    return result.arrays, result.rows["item_ids"], result.rows["item_rows"], result.metrics


def embedding_of(client: FedAvgRatingsClient, user: int) -> np.ndarray:
    found: np.ndarray = client.open_state()["user"][client.cohort.client_ids.index(user)].numpy()
    return found


@pytest.mark.parametrize(
    ("steps", "loss", "model", "attributes"),
    [
        (1, "mean", {"layers": 0}, False),
        (1, "sum", {"layers": 1, "embedding_penalty": 0.1}, False),
        (1, "mean", {"layers": 2, "negatives": 3}, False),
        (1, "sum", {"layers": 1}, True),
        (4, "sum", {"layers": 1, "negatives": 2}, False),
        (3, "mean", {"layers": 3, "embedding_penalty": 0.05}, True),
    ],
    ids=lambda value: str(value).replace(" ", ""),
)
def test_uploads_are_by_how_much_a_whole_model_of_ones_own_changes(
    steps: int, loss: str, model: dict[str, Any], attributes: bool
) -> None:
    """Two rounds, so that Adam goes on with the moments that it had."""
    knobs: dict[str, Any] = {"loss": loss, "user_steps": steps, "user_weight_decay": 0.2}
    client = local(model=model, attributes=attributes, **knobs)
    alone = [
        by_hand(
            client,
            user,
            layers=model["layers"],
            decay=0.2,
            loss=loss,
            penalty=model.get("embedding_penalty", 1e-3),
            attributes=attributes,
        )
        for user in EVERYONE
    ]
    for server_round in (1, 2):
        received = random_model(client.model.shapes, server_round)
        stacks, numbers, rows, metrics = round_of(client, received, server_round=server_round)
        assert set(stacks) == set(received) - {"items"}
        for user in EVERYONE:
            draws = sampled(user, steps, model.get("negatives", 1), server_round=server_round, purpose=DRAWN)
            trained = alone[user].train(received, draws, local_lr=0.3)
            assert numbers.of(user).tolist() == np.union1d(items_of(user), draws).tolist()
            change = {name: received[name] - value for name, value in trained.items()}
            np.testing.assert_allclose(rows.of(user), change["items"][numbers.of(user)], atol=2e-6)
            untouched = np.setdiff1d(np.arange(ITEMS), numbers.of(user))
            assert not change["items"][untouched].any()
            for name, value in stacks.items():
                np.testing.assert_allclose(value[user], change[name], atol=2e-6, err_msg=name)
            np.testing.assert_allclose(embedding_of(client, user), alone[user].own.detach().numpy(), atol=2e-6)
            assert metrics["train_loss"][user] == pytest.approx(alone[user].last_loss, abs=1e-6)
    # All have moved by far more than the tolerance.
    assert np.abs(rows.values).max() > 0.01
    assert np.abs(embedding_of(client, 0) - client.model.initial_user(SEED, 0)["user"]).min() > 0.01


def test_a_step_of_an_item_and_one_beside_it_is_that_of_two_rows() -> None:
    """User 1 has a single item, so that without layers its loss is softplus(e_u . (x_j - x_i))."""
    client = local(model={"layers": 0, "embedding_penalty": 0.0})
    model = random_model(client.model.shapes)
    own = client.model.initial_user(SEED, 1)["user"].astype(float)
    (item,) = items_of(1).tolist()
    other = int(sampled(1, 1, purpose=DRAWN)[0, 0, 0])
    slope = 1 / (1 + np.exp(-own @ (model["items"][other] - model["items"][item]).astype(float)))
    _, numbers, rows, _ = round_of(client, model, ids=[1])
    received_less_trained = dict(zip(numbers.of(0).tolist(), rows.of(0), strict=True))
    assert set(received_less_trained) == {item, other}
    np.testing.assert_allclose(received_less_trained[item], -0.3 * slope * own, atol=1e-7)
    np.testing.assert_allclose(received_less_trained[other], 0.3 * slope * own, atol=1e-7)


def test_who_trains_on_nothing_uploads_nothing() -> None:
    client = local(user_steps=3, attributes=True)
    assert LENGTHS[2] == 0
    stacks, numbers, rows, metrics = round_of(client, random_model(client.model.shapes), ids=[2])
    assert numbers.lengths.tolist() == rows.lengths.tolist() == [0] and metrics["train_loss"].tolist() == [0.0]
    assert not any(value.any() for value in stacks.values())
    np.testing.assert_array_equal(embedding_of(client, 2), client.model.initial_user(SEED, 2)["user"])


@pytest.mark.parametrize("attributes", [False, True])
@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_neither_chunks_nor_nodes_change_what_a_user_sends(chunk: int, attributes: bool) -> None:
    knobs: dict[str, Any] = {"user_steps": 3, "pseudo_items": 5, "attributes": attributes, "loss": "sum"}
    whole = local(chunk="all", **knobs)
    received = random_model(whole.model.shapes)
    parts = [local(ids, chunk=chunk, **knobs) for ids in ([0, 3], [1, 2, 4])]
    for server_round in (1, 2):
        stacks, numbers, rows, _ = round_of(whole, received, server_round=server_round)
        for part in parts:
            ids = part.cohort.client_ids
            own_stacks, own_numbers, own_rows, _ = round_of(part, received, ids, server_round)
            for row, user in enumerate(ids):
                assert own_numbers.of(row).tolist() == numbers.of(user).tolist()
                np.testing.assert_allclose(own_rows.of(row), rows.of(user), atol=1e-6)
                for name, value in own_stacks.items():
                    np.testing.assert_allclose(value[row], stacks[name][user], atol=1e-6, err_msg=name)
                np.testing.assert_allclose(embedding_of(part, user), embedding_of(whole, user), atol=1e-6)


@pytest.mark.parametrize("row_average", ["uploads", "participants"])
def test_a_server_that_takes_a_plain_step_of_one_has_the_mean_of_the_models(row_average: str) -> None:
    """Of an item's row the mean over the users who touched it, or over all, of whom others have it as received."""
    client = local(user_steps=2, attributes=True)
    received = random_model(client.model.shapes)
    settings = FedAvgRatings.Settings(row_average=row_average)
    assert settings.server_optimizer == "sgd" and settings.server_lr == 1
    server = FedAvgRatings(replace(client.run, settings=settings, initial=received), roster_of())
    result = worked(client.train(to_all(EVERYONE, received)))
    server.take(updates_of(result))
    stacks = result.arrays
    draws = [sampled(user, 2, purpose=DRAWN) for user in EVERYONE]
    models = [by_hand(client, user, attributes=True).train(received, draws[user], 0.3) for user in EVERYONE]
    for name in stacks:
        expected = np.mean([model[name] for model in models], axis=0)
        np.testing.assert_allclose(server.parameters[name].numpy(), expected, atol=2e-6, err_msg=name)
    for item in range(ITEMS):
        touched = [user for user in EVERYONE if item in items_of(user) or item in draws[user]]
        counted = list(EVERYONE) if row_average == "participants" else touched
        expected = np.mean([models[user]["items"][item] for user in counted] or [received["items"][item]], axis=0)
        np.testing.assert_allclose(server.parameters["items"][item].numpy(), expected, atol=2e-6, err_msg=str(item))


def test_what_hides_gradients_hides_differences() -> None:
    """Pseudo items together with the real ones; values held within the bound, before noise that is none here."""
    plain, hidden = local(loss="sum"), local(loss="sum", pseudo_items=4)
    clipped = local(loss="sum", privacy=LdpSettings(mechanism="laplace_linf", clip=0.01, noise=0.0))
    received = random_model(plain.model.shapes)
    _, numbers, rows, metrics = round_of(plain, received)
    _, more_numbers, more_rows, _ = round_of(hidden, received)
    _, same_numbers, bounded, hidden_metrics = round_of(clipped, received)
    assert np.abs(rows.values).max() > 0.02
    np.testing.assert_array_equal(same_numbers.values, numbers.values)
    np.testing.assert_allclose(bounded.values, np.clip(rows.values, -0.01, 0.01), atol=1e-7)
    assert "train_loss" in metrics and "train_loss" not in hidden_metrics
    for user in EVERYONE:
        real, found = numbers.of(user), more_numbers.of(user)
        assert set(real) <= set(found) and len(found) <= len(real) + 4
        assert not set(found) - set(real) & set(items_of(user))
        np.testing.assert_array_equal(more_rows.of(user)[np.isin(found, real)], rows.of(user))
    assert more_numbers.lengths.sum() > numbers.lengths.sum()


def test_a_model_of_ratings_is_refused_in_words() -> None:
    with pytest.raises(SubflError, match=r"model must be lightgcn with method=fedavg, not recommender; choose task="):
        FedAvgRatingsClient.check_model(RecommenderSettings(name="recommender"), "fedavg")

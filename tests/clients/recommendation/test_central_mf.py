"""Central training against plain PyTorch, and that the hosted users are only measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rated_users import CENTER, DIM, LENGTHS, RATINGS, SEED, SPREAD, hosting, normalised, to_all, worked
from run_outcomes import Outcome, run_inline

from subfl_flower.clients.recommendation.bias_row import BiasRowClient
from subfl_flower.clients.recommendation.central_mf import CentralMFClient
from subfl_flower.composition import composed_job
from subfl_flower.data.graph import TEST, TRAIN, VALIDATION
from subfl_flower.errors import SubflError
from subfl_flower.recommendation.models.bias_row import bias_row
from subfl_flower.recommendation.models.user_models import ReceivedModel
from subfl_flower.seeding import client_generator
from subfl_flower.simulation import simulate

EVERYONE = range(len(LENGTHS))


def central(ids: Sequence[int] = EVERYONE, **more: Any) -> CentralMFClient:
    client: CentralMFClient = hosting(CentralMFClient, ids, **more)
    return client


def parameters_of(client: CentralMFClient) -> dict[str, np.ndarray]:
    state = client.store.open((-1,), client._central_shapes)
    names = (*client.model.shapes, *client.model.personal_shapes)
    return {name: state[name][0].numpy().copy() for name in names}


def rmse(predicted: np.ndarray, values: np.ndarray) -> float:
    given = values * SPREAD + CENTER
    return float(np.sqrt(np.mean((np.clip(predicted * SPREAD + CENTER, 1, 5) - given) ** 2)))


def factorisation(p: Any, user: int, items: Any) -> Any:
    return p["items"][items, :DIM] @ p["user"][user] + p["items"][items, DIM] + p["user_bias"][user] + p["bias"][0]


@pytest.mark.parametrize("batch", [2, 100])
def test_it_trains_as_a_factorisation_in_plain_pytorch(batch: int) -> None:
    client = central(batch_users=batch, embedding_penalty=0.1, bias_penalty=0.02, lr=0.03)
    p = {name: torch.from_numpy(value) for name, value in client.model.initial_of(SEED).items()}
    first = [client.model.initial_user(SEED, user) for user in EVERYONE]
    p |= {name: torch.from_numpy(np.stack([own[name] for own in first])) for name in ("user", "user_bias")}
    for value in p.values():
        value.requires_grad_()
    optimizer = torch.optim.Adam(p.values(), lr=0.03)
    for server_round in (1, 2, 3):
        order = client_generator(SEED, -1, server_round, "batches").permutation(len(LENGTHS))
        for start in range(0, len(order), batch):
            total, count = torch.zeros(()), 0
            for user in order[start : start + batch]:
                rated, values = normalised(user)
                errors = factorisation(p, user, rated) - torch.from_numpy(values)
                rows = p["items"][rated]
                penalties = 0.1 * (rows[:, :DIM].square().sum(1) + p["user"][user].square().sum())
                penalties = penalties + 0.02 * (rows[:, DIM].square() + p["user_bias"][user].square())
                total, count = total + (errors.square() + penalties).sum(), count + len(rated)
            optimizer.zero_grad()
            (total / max(count, 1)).backward()
            optimizer.step()
        worked(client.train(to_all(EVERYONE, {}, server_round)))
    for name, value in parameters_of(client).items():
        np.testing.assert_allclose(value, p[name].detach().numpy(), atol=2e-5, err_msg=name)


@pytest.mark.parametrize("gnn", ["gat", "gcn", "ggnn"])
def test_a_graph_networks_batch_steps_by_the_mean_over_its_ratings(gnn: str) -> None:
    """Adam's first step is the learning rate times the sign of the gradient: that of the sum over all ratings."""
    client = central(gnn=gnn, batch_users=100, lr=1e-3)
    shared = {name: torch.from_numpy(value) for name, value in client.model.initial_of(SEED).items()}
    first = [client.model.initial_user(SEED, user) for user in EVERYONE]
    personal = {name: torch.from_numpy(np.stack([own[name] for own in first])) for name in ("user", "user_bias")}
    users = [client._graphs(RATINGS.of_users([user])) for user in EVERYONE]
    expected = {name: torch.zeros_like(value) for name, value in shared.items()}
    for user, graphs in enumerate(users):
        own = {name: value[user : user + 1] for name, value in personal.items()}
        found = client.model.gradients(ReceivedModel(shared, own, graphs))
        for name, value in found.shared.items():
            expected[name] += value[0] * LENGTHS[user]
        expected["items"].index_add_(0, graphs.rows, found.items * LENGTHS[user])
    worked(client.train(to_all(EVERYONE, {})))
    after = parameters_of(client)
    for name, gradient in expected.items():
        clear = gradient.abs().numpy() > 1e-3
        steps = (after[name] - shared[name].numpy())[clear]
        np.testing.assert_allclose(steps, -1e-3 * np.sign(gradient.numpy()[clear]), rtol=1e-2, err_msg=name)
    assert all(np.abs(expected[name].numpy()).max() > 1e-3 for name in ("items", "bias", "gnn.rating"))


def test_a_graph_networks_weights_decay_and_nothing_else() -> None:
    """Adam's first step is against the sign of every weight, under a decay that outweighs the loss."""
    plain, decayed = (central(gnn="gat", lr=1e-3, network_weight_decay=decay) for decay in (0.0, 1e4))
    first = plain.model.initial_of(SEED)
    for client in (plain, decayed):
        worked(client.train(to_all(EVERYONE, {})))
    for name, value in parameters_of(decayed).items():
        if name.startswith("gnn."):
            large = np.abs(first[name]) > 1e-2
            np.testing.assert_allclose((value - first[name])[large], -1e-3 * np.sign(first[name][large]), rtol=1e-2)
        else:
            np.testing.assert_array_equal(value, parameters_of(plain)[name])
    assert (np.abs(first["gnn.rating"]) > 1e-2).any()


def test_each_hosted_user_is_measured_after_the_round() -> None:
    client = central()
    for server_round in (1, 2):
        result = worked(client.train(to_all(EVERYONE, {}, server_round)))
        p, metrics = parameters_of(client), result.metrics
        for name, role in (("validation", VALIDATION), ("test", TEST)):
            for user in EVERYONE:
                items, values = normalised(user, role)
                assert metrics[name][user] == pytest.approx(rmse(factorisation(p, user, items), values), abs=1e-5)
        assert result.arrays == result.rows == {} and metrics["num_examples"].tolist() == list(LENGTHS)
        assert metrics["validation_examples"].tolist() == [1.0] * 5 and metrics["test_examples"].tolist() == [2.0] * 5
        assert result.clients == tuple(EVERYONE)
    assert client.downloads(client.run) == client.uploads(client.run) == {}
    assert client.models(to_all(EVERYONE, {})) == {}


def test_the_loss_is_that_before_each_users_last_step() -> None:
    client = central(batch_users=100)
    metrics = worked(client.train(to_all(EVERYONE, {}))).metrics
    p = client.model.initial_of(SEED)
    p |= {
        name: np.stack([client.model.initial_user(SEED, u)[name] for u in EVERYONE]) for name in ("user", "user_bias")
    }
    for user in EVERYONE:
        items, values = normalised(user)
        expected = np.mean((factorisation(p, user, items) - values) ** 2) if len(items) else 0.0
        assert metrics["train_loss"][user] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("gnn", ["none", "gat"])
def test_every_node_trains_the_same_model_whomever_it_hosts(gnn: str) -> None:
    together, parts = (
        central(gnn=gnn, batch_users=2),
        [central(ids, gnn=gnn, batch_users=2) for ids in ([0, 3], [1, 2, 4])],
    )
    for server_round in (1, 2):
        metrics = worked(together.train(to_all(EVERYONE, {}, server_round, local_epochs=3))).metrics
        for part in parts:
            ids = part.cohort.client_ids
            own = worked(part.train(to_all(ids, {}, server_round, local_epochs=3))).metrics
            assert own["test"] == pytest.approx(metrics["test"][list(ids)], abs=1e-5)
            for name, value in parameters_of(part).items():
                np.testing.assert_array_equal(value, parameters_of(together)[name])


def test_a_bias_row_is_measured_on_the_hosted_users() -> None:
    row = bias_row(RATINGS, 2.0)
    client = hosting(BiasRowClient, [1, 3, 4], shrinkage=2.0)
    for server_round in (1, 2):
        result = worked(client.train(to_all([3, 1], {}, server_round)))
        assert result.clients == (1, 3) and result.metrics["num_examples"].tolist() == [LENGTHS[1], LENGTHS[3]]
        for place, user in enumerate([1, 3]):
            items, values = normalised(user, TEST)
            predicted = (row.mean + row.user[user] + row.item[items] - CENTER) / SPREAD
            assert result.metrics["test"][place] == pytest.approx(rmse(predicted, values), abs=1e-6)


@pytest.mark.parametrize("family", [CentralMFClient, BiasRowClient])
def test_without_the_ratings_of_all_users_there_is_no_central_training(family: Any) -> None:
    with pytest.raises(SubflError, match="needs the ratings of all users in one place"):
        hosting(family, with_whole=False)


SMALL = (
    "dataset.num_users=40",
    "dataset.num_items=30",
    "dataset.ratings_per_user=12",
    "model.dim=4",
    "federation.rounds=4",
)


@pytest.mark.parametrize("method", ["bias_row", "central_mf", "central_gnn"])
def test_runs_are_the_same_on_one_node_and_on_three(inline_run: Callable[..., Outcome], method: str) -> None:
    one, three = (inline_run(f"method={method}", *SMALL, f"runtime.nodes={nodes}") for nodes in (1, 3))
    for record, other in zip(one.rounds, three.rounds, strict=True):
        assert (record["validation"], record["test"]) == pytest.approx((other["validation"], other["test"]), abs=1e-5)
        assert record["bytes_up"] == record["bytes_down"] == 0
    errors = [record["test"] for record in one.rounds]
    assert len(set(errors)) == (1 if method == "bias_row" else 4)


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_resumed_run_goes_on_with_the_model_that_it_had(tmp_path: Path, nodes: int) -> None:
    overrides = ("method=central_gnn", *SMALL, "record.checkpoint_every=2", f"runtime.nodes={nodes}")
    whole = run_inline(tmp_path / "whole", *overrides)
    run_inline(tmp_path / "parts", *overrides, "federation.rounds=2")
    job = composed_job([f"resume={tmp_path / 'parts'}", "federation.rounds=4"])
    simulate(job.config, job.directory, resume=True)
    found = [(record["round"], record["validation"], record["test"]) for record in Outcome(job.directory).rounds]
    assert found == [(record["round"], record["validation"], record["test"]) for record in whole.rounds]


def test_the_users_of_these_tests_train_on_what_they_should() -> None:
    assert RATINGS.counts(TRAIN).tolist() == list(LENGTHS)


def test_what_is_measured_is_the_average_over_steps() -> None:
    """Weights 1, past, past^2, .. of the last, the last but one, .. parameters after a step, divided by their sum."""
    plain, averaged = (central(batch_users=100, lr=0.1, iterate_average=past) for past in (0.0, 0.7))
    seen: list[dict[str, np.ndarray]] = []
    everything = np.ones(len(RATINGS.items), dtype=bool)
    for server_round in range(1, 5):
        for client in (plain, averaged):
            worked(client.train(to_all(EVERYONE, {}, server_round)))
        seen.append(parameters_of(plain))
        weights = 0.7 ** np.arange(len(seen))[::-1]
        p = {name: np.average([own[name] for own in seen], axis=0, weights=weights) for name in seen[0]}
        ends = zip(RATINGS.offsets[:-1], RATINGS.offsets[1:], strict=True)
        expected = [factorisation(p, user, RATINGS.items[start:end]) for user, (start, end) in enumerate(ends)]
        in_units = np.clip(np.concatenate(expected) * SPREAD + CENTER, 1, 5)
        np.testing.assert_allclose(averaged.predict(RATINGS, everything), in_units, atol=1e-4)
    assert np.abs(averaged.predict(RATINGS, everything) - plain.predict(RATINGS, everything)).max() > 1e-2

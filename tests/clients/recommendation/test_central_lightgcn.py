"""LightGCN on the whole graph, against PyTorch Geometric's layers and plain autograd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rated_users import DIM, ITEMS, LENGTHS, RANKED, SEED, TASK, items_of, ranking, to_all, worked
from torch import Tensor
from torch_geometric.nn.conv import LGConv

from subfl_flower.clients.recommendation.central import CentralLightGCNClient
from subfl_flower.data.graph import TRAIN
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import RecommenderSettings
from subfl_flower.recommendation.tasks.ranking_metrics import user_figures

USERS = len(LENGTHS)
EVERYONE = range(USERS)
PAIRS = [(user, item) for user in EVERYONE for item in items_of(user).tolist()]


def central(ids: Sequence[int] = EVERYONE, **more: Any) -> CentralLightGCNClient:
    client: CentralLightGCNClient = ranking(CentralLightGCNClient, ids, **more)
    return client


def parameters_of(client: CentralLightGCNClient) -> dict[str, np.ndarray]:
    state = client.store.open((-1,), client._central_shapes)
    return {name: state[name][0].numpy().copy() for name in ("user", "items")}


def by_pyg(users: Tensor, items: Tensor, layers: int) -> tuple[Tensor, Tensor]:
    """LightGCN's users and items: the mean of all layers on the graph of all training items."""
    edges = torch.tensor(PAIRS).T + torch.tensor([[0], [USERS]])
    edges = torch.cat([edges, edges.flip(0)], dim=1)
    found = [torch.cat([users, items])]
    for _ in range(layers):
        found.append(LGConv()(found[-1], edges))
    mean = torch.stack(found).mean(0)
    return mean[:USERS], mean[USERS:]


def by_matrix(users: Tensor, items: Tensor, layers: int) -> tuple[Tensor, Tensor]:
    """LightGCN's outputs by a dense matrix, float64."""
    pairs = torch.zeros(USERS, ITEMS, dtype=torch.float64)
    for user, item in PAIRS:
        pairs[user, item] = 1 / (LENGTHS[user] * sum(other == item for _, other in PAIRS)) ** 0.5
    of_users, of_items, u, i = users, items, users, items
    for _ in range(layers):
        u, i = pairs @ i, pairs.T @ u
        of_users, of_items = of_users + u, of_items + i
    return of_users / (layers + 1), of_items / (layers + 1)


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_layers_are_those_of_pytorch_geometric(layers: int) -> None:
    client = central(model={"layers": layers})
    generator = torch.Generator().manual_seed(1)
    users, items = (torch.randn(count, DIM, generator=generator) for count in (USERS, ITEMS))
    found = client._propagated({"user": users, "items": items})
    for values, expected in zip(found, by_pyg(users, items, layers), strict=True):
        torch.testing.assert_close(values, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("batch", "layers"), [(7, 2), (1000, 1), (1000, 0)])
def test_a_round_is_steps_of_plain_autograd(monkeypatch: pytest.MonkeyPatch, batch: int, layers: int) -> None:
    client = central(batch_ratings=batch, lr=0.03, model={"layers": layers, "embedding_penalty": 0.05})
    batches: list[list[tuple[int, int, int]]] = []
    step = client._step

    def recording(rows: Any, *numbers: Tensor) -> np.ndarray:
        batches.append(list(zip(*(part.tolist() for part in numbers), strict=True)))
        return step(rows, *numbers)

    monkeypatch.setattr(client, "_step", recording)
    own = np.stack([client.model.initial_user(SEED, user)["user"] for user in EVERYONE])
    p = {"user": torch.tensor(own).double(), "items": torch.tensor(client.model.initial_of(SEED)["items"]).double()}
    for value in p.values():
        value.requires_grad_()
    optimizer = torch.optim.Adam(p.values(), lr=0.03)
    sampled = set()
    for server_round in (1, 2):
        batches.clear()
        result = worked(client.train(to_all(EVERYONE, {}, server_round, local_epochs=2)))
        metrics = result.metrics
        assert result.arrays == result.rows == {} and metrics["num_examples"].sum() == len(PAIRS)
        a_pass = -(-len(PAIRS) // batch)
        assert len(batches) == 2 * a_pass
        for number in (0, 1):
            losses: list[list[float]] = [[] for _ in EVERYONE]
            of_pass = batches[number * a_pass : (number + 1) * a_pass]
            triples = [triple for chosen in of_pass for triple in chosen]
            assert sorted((user, item) for user, item, _ in triples) == sorted(PAIRS)
            sampled.add(tuple(sorted(triples)))
            for chosen in of_pass:
                users, items = by_matrix(p["user"], p["items"], layers)
                objective = torch.zeros((), dtype=torch.float64)
                for user, item, other in chosen:
                    loss = -F.logsigmoid(users[user] @ items[item] - users[user] @ items[other])
                    squares = p["user"][user].square().sum() + p["items"][[item, other]].square().sum()
                    objective = objective + (loss + 0.05 * squares) / len(chosen)
                    losses[user].append(float(loss.detach()))
                optimizer.zero_grad()
                objective.backward()
                optimizer.step()
        expected = [np.mean(of_user) if of_user else 0.0 for of_user in losses]
        assert metrics["train_loss"] == pytest.approx(expected, abs=1e-5)
    assert len(sampled) == 4  # other negatives in every pass
    for name, value in parameters_of(client).items():
        np.testing.assert_allclose(value, p[name].detach().numpy(), atol=2e-5, err_msg=name)


def test_no_user_is_shown_an_item_of_its_own_as_one_that_it_does_not_have() -> None:
    client = central()
    users = np.repeat(np.arange(USERS), 600)
    found = client._sampled(users, np.random.default_rng(0)).reshape(USERS, 600)
    for user in EVERYONE:
        counts = np.bincount(found[user], minlength=ITEMS)
        assert not counts[items_of(user)].any()
        others = np.delete(counts, items_of(user))
        # Uniform over all others: within five deviations of 600 / their number.
        assert np.abs(others - 600 / len(others)).max() < 5 * np.sqrt(600 / len(others))


def test_a_user_who_has_everything_is_shown_anything() -> None:
    """User 0 trains on all three items, user 1 on the last."""
    everything = Ratings(
        user_ids=np.arange(2),
        offsets=np.array([0, 3, 4]),
        items=np.array([0, 1, 2, 2]),
        values=np.ones(4, np.float32),
        roles=np.full(4, TRAIN, np.int8),
        num_items=3,
        scale=(1.0, 5.0),
    )
    client = central([0, 1], ratings=everything)
    found = client._sampled(np.repeat([0, 1], 50), np.random.default_rng(0)).reshape(2, 50)
    assert set(found[0].tolist()) == {0, 1, 2} and set(found[1].tolist()) == {0, 1}
    metrics = worked(client.train(to_all([0, 1], {}))).metrics
    assert np.isfinite(metrics["train_loss"]).all()
    assert all(np.isfinite(value).all() for value in parameters_of(client).values())


def test_users_are_ranked_for_by_the_products_of_all_layers() -> None:
    client = central(lr=0.1, model={"layers": 2})
    for server_round in (1, 2):
        result = worked(client.train(to_all([3, 0, 4], {}, server_round)))
        p = {name: torch.tensor(value) for name, value in parameters_of(client).items()}
        users, items = by_pyg(p["user"], p["items"], 2)
        expected = user_figures((users @ items.T).numpy(), RANKED, TASK)
        assert result.clients == (0, 3, 4)
        for name, values in expected.items():
            assert result.metrics[name] == pytest.approx(values[[0, 3, 4]], abs=1e-12), name
    assert client.models(to_all([0, 3, 4], {})) == {} and client.downloads(client.run) == {}


def test_every_node_trains_the_same_model_whomever_it_hosts() -> None:
    together, parts = central(batch_ratings=6), [central(ids, batch_ratings=6, chunk=1) for ids in ([0, 3], [1, 2, 4])]
    for server_round in (1, 2):
        metrics = worked(together.train(to_all(EVERYONE, {}, server_round))).metrics
        for part in parts:
            ids = part.cohort.client_ids
            own = worked(part.train(to_all(ids, {}, server_round))).metrics
            for name in ("test", "validation.full_ndcg@5", "train_loss"):
                assert own[name].tolist() == metrics[name][list(ids)].tolist()
            for name, value in parameters_of(part).items():
                np.testing.assert_array_equal(value, parameters_of(together)[name])


def test_what_it_cannot_do_is_said() -> None:
    with pytest.raises(SubflError, match="model must be lightgcn with method=central, not recommender"):
        CentralLightGCNClient.check_model(RecommenderSettings(name="recommender"), "central")
    with pytest.raises(SubflError, match="needs the ratings of all users in one place"):
        central(with_whole=False)

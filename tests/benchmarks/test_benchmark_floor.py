"""The floor does what the app does: the same steps from the same parameters, and as good in the end."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from benchmark_scripts import load_benchmark
from run_outcomes import Outcome

from subfl_flower.composition import composed_config
from subfl_flower.data.prepared.partition import PreparedPartition, prepare
from subfl_flower.errors import SubflError
from subfl_flower.seeding import shared_generator
from subfl_flower.subgraphs.models.gcn import StackedGCN

CLIENTS = 5
OVERRIDES = ("dataset=digits", f"partition.clients={CLIENTS}", "record.client_models=false")


@pytest.fixture(scope="module")
def floor() -> ModuleType:
    return load_benchmark("floor")


@pytest.fixture
def partition() -> PreparedPartition:
    config, _ = composed_config(list(OVERRIDES))
    return prepare(config.dataset, config.partition, config.data.root, config.data.cache)


def app_initial(partition: PreparedPartition, *overrides: str) -> dict[str, np.ndarray]:
    config, _ = composed_config([*OVERRIDES, *overrides])
    model = StackedGCN(config.model, partition.num_features, partition.num_classes)
    return model.initial(shared_generator(config.seed, "initial model"))


@pytest.mark.parametrize("local_epochs", [1, 2])
@pytest.mark.parametrize(("method", "weighting"), [("local", None), ("fedavg", "examples")])
def test_without_dropout_the_floor_takes_the_steps_of_the_app(
    floor: ModuleType,
    partition: PreparedPartition,
    inline_run: Callable[..., Outcome],
    method: str,
    weighting: str | None,
    local_epochs: int,
) -> None:
    rounds = 8
    shared = ("model.dropout=0", "model.hidden=32", f"federation.local_epochs={local_epochs}")
    chosen = () if weighting is None else (f"method.weighting={weighting}",)
    app = inline_run(f"method={method}", *OVERRIDES, *shared, *chosen, f"federation.rounds={rounds}")
    settings = floor.FloorSettings(dropout=0.0, hidden=32, local_epochs=local_epochs)
    seconds, history = floor.run_floor(
        partition, method, rounds, seed=0, settings=settings, initial=app_initial(partition, *shared)
    )

    expected = [record["train_loss"] for record in app.rounds]
    found = [record.train_loss for record in history]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert found[-1] < found[0] - 0.05
    # A node in thousands may lie on the border between two classes.
    np.testing.assert_allclose(
        [record.test for record in history], [record["test"] for record in app.rounds], atol=2e-3
    )
    np.testing.assert_allclose(
        [record.test_as_received for record in history],
        [record["test_as_received"] for record in app.rounds],
        atol=2e-3,
    )
    assert len(seconds) == rounds
    assert min(seconds) > 0


@pytest.mark.parametrize("method", ["local", "fedpub"])
def test_the_floor_is_as_accurate_as_the_app(
    floor: ModuleType, partition: PreparedPartition, inline_run: Callable[..., Outcome], method: str
) -> None:
    small = ("model.hidden=32", "method.random_block_nodes=20") if method == "fedpub" else ("model.hidden=32",)
    settings = floor.FloorSettings(hidden=32, random_block_nodes=20)
    of_app, of_floor = [], []
    for seed in range(4):
        app = inline_run(f"method={method}", *OVERRIDES, *small, "federation.rounds=25", f"seed={seed}")
        of_app.append(np.mean([record["test"] for record in app.rounds[-5:]]))
        _, history = floor.run_floor(partition, method, 25, seed=seed, settings=settings)
        of_floor.append(np.mean([record.test for record in history[-5:]]))

    # Initialisation and dropout are drawn again: the mean of five rounds deviates by 2.5 points from seed to seed.
    assert np.mean(of_floor) == pytest.approx(np.mean(of_app), abs=0.04)


def masked_client(floor: ModuleType, **settings: float | None) -> Any:
    """A client without a graph, whose masks are one but for the first entry of the classifier's."""
    torch.manual_seed(0)
    model = floor.GCN(num_features=2, num_classes=2, hidden=2, dropout=0.0)
    client = floor.FloorClient(None, model, True, floor.FloorSettings(hidden=2, **settings))
    client.masks[-1].data[0, 0] = -0.4
    return client


def test_a_threshold_prunes_small_masks_outside_training_only(floor: ModuleType) -> None:
    client = masked_client(floor, mask_threshold=0.5)
    client.prune(client.upload(), None)
    own = client.shared[list(client.layers)[-1]].detach().numpy()

    np.testing.assert_allclose(
        client.model.train().classifier.weight.detach(), own * [[-0.4, 1.0], [1.0, 1.0]], rtol=1e-6
    )
    np.testing.assert_allclose(client.model.eval().classifier.weight.detach(), own * [[0, 1], [1, 1]], rtol=1e-6)
    assert np.count_nonzero(client.upload()[list(client.layers)[-1]]) == 3


def test_a_share_of_all_weights_is_pruned_by_what_was_received_times_the_mask(floor: ModuleType) -> None:
    client = masked_client(floor)
    received = [torch.ones_like(value) for value in client.upload()]
    first, last = (list(client.layers)[place] for place in (0, -1))
    received[first][0] = torch.tensor([-0.1, 0.5])
    client.prune(received, 2 / 12)  # 0.1 and 0.4 are the smallest of twelve

    assert (client.upload()[first] == 0).tolist() == [[True, False], [False, False]]
    assert (client.upload()[last] == 0).tolist() == [[True, False], [False, False]]


def test_a_pruned_weight_is_averaged_over_the_clients_that_kept_it(floor: ModuleType) -> None:
    clients = [masked_client(floor) for _ in range(2)]
    place = list(clients[0].layers)[-1]
    for client, value in zip(clients, (2.0, 4.0), strict=True):
        client.shared[place].data.fill_(value)
        client.prune(client.upload(), 0.0)
    clients[0].layers[place].pruned = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    alike = [torch.ones(2), torch.ones(2)]
    first, second = (found[place] for found in floor._aggregated("fedpub", clients, torch.ones(2), alike, 3.0))

    np.testing.assert_allclose(first, [[0, 3], [3, 3]])
    np.testing.assert_allclose(second, [[4, 3], [3, 3]])


def test_an_unknown_method_is_refused(floor: ModuleType, partition: PreparedPartition) -> None:
    with pytest.raises(SubflError, match="local, fedavg, fedpub, not 'gcfl'"):
        floor.run_floor(partition, "gcfl", 1, seed=0)

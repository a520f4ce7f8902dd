"""The floor does what the app does: the same steps from the same parameters, and as good in the end."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
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


def test_masks_prune_outside_training_only(floor: ModuleType) -> None:
    weight = floor.torch.tensor([[2.0, 3.0]])
    mask = floor.Mask(weight, threshold=0.5)
    mask.mask.data = floor.torch.tensor([[0.4, -0.6]])

    np.testing.assert_allclose(mask.train()(weight).detach(), [[0.8, -1.8]], rtol=1e-6)
    np.testing.assert_allclose(mask.eval()(weight).detach(), [[0.0, -1.8]], rtol=1e-6)


def test_an_unknown_method_is_refused(floor: ModuleType, partition: PreparedPartition) -> None:
    with pytest.raises(SubflError, match="local, fedavg, fedpub, not 'gcfl'"):
        floor.run_floor(partition, "gcfl", 1, seed=0)

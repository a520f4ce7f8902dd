"""The page on a new method: its method works from a folder outside this project, and computes what it says."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from page_code import blocks, lines_of_code, write_method
from run_outcomes import Outcome, command
from tiny_clients import (
    cohort_of,
    family_of,
    parameters_of,
    tiny_client,
    trained,
)
from toy_rounds import replies, strategy_of, toy_roster

from subfl_flower.strategies.subgraphs.mixing import MixingStrategy

RUN = (
    *("method=fedamp", "dataset=digits", "partition=metis", "partition.clients=4", "model.hidden=16"),
    *("federation.rounds=3", "federation.fraction=0.75", "method.sigma=20"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_method(tmp_path_factory.mktemp("mine"))


@pytest.fixture(scope="module")
def inline(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return command(*RUN, directory=tmp_path_factory.mktemp("inline") / "run", cwd=folder)


@pytest.fixture
def method(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(folder)
    yield importlib.import_module("fedamp")
    sys.modules.pop("fedamp", None)


def test_both_sides_are_sixty_lines_at_most() -> None:
    assert 30 < lines_of_code(blocks("new_method.md", "python")[0]) <= 60


def test_it_trains_inline(inline: Outcome) -> None:
    assert inline.code == 0, inline.stderr
    assert inline.summary["method"] == "fedamp" and inline.summary["status"] == "completed"
    assert [len(record["clients"]["ids"]) for record in inline.rounds] == [3, 3, 3]
    matrix = inline.mixing[3]
    rows = matrix.sum(1)
    assert np.isclose(rows[rows > 0], 1).all() and (matrix >= 0).all()


@pytest.mark.slow
def test_it_trains_alike_under_ray(folder: Path, inline: Outcome, tmp_path: Path) -> None:
    found = command(*RUN, "runtime=ray", directory=tmp_path / "run", cwd=folder)
    assert found.code == 0, found.stderr
    for one, other in zip(inline.rounds, found.rounds, strict=True):
        assert one["clients"]["ids"] == other["clients"]["ids"]
        np.testing.assert_allclose(one["clients"]["train_loss"], other["clients"]["train_loss"], rtol=1e-5)
        assert one["clients"]["bytes_up"] == other["clients"]["bytes_up"]


def test_a_wrong_knob_is_refused_in_one_sentence(folder: Path, tmp_path: Path) -> None:
    found = command(*RUN, "method.sigma=0", directory=tmp_path / "run", cwd=folder)
    assert found.code == 2
    assert "method.sigma: Input should be greater than 0 (found 0)" in found.stderr


def test_its_local_term_pulls_towards_the_cloud_model(method: ModuleType) -> None:
    """λ / (2α) · ‖w - u‖² with λ = 2 and α = 4: its gradient at w = 3 and u = 1 is 2 / 4 · (3 - 1) = 1."""
    settings = {"alpha": 4, "penalty": 2}
    client = family_of(method.FedAMPClient, cohort_of(tiny_client(0, 9), tiny_client(1, 6)), settings)
    chunk = client.graph_chunk([0, 1])
    shared = {"conv1.weight": torch.tensor([[3.0], [1.0]])}
    received = {"conv1.weight": torch.tensor([[1.0], [1.0]])}
    gradients = {"conv1.weight": torch.tensor([[10.0], [20.0]])}
    client.weights.add_penalty_gradients(gradients, shared, {}, received, chunk, 2)
    np.testing.assert_allclose(gradients["conv1.weight"], [[11.0], [20.0]])


def test_a_strong_local_term_keeps_the_trained_model_nearer(method: ModuleType) -> None:
    sent, moved = parameters_of(2), {}
    for penalty in (0.0, 50.0):
        cohort = cohort_of(tiny_client(0, 9), tiny_client(1, 6))
        result = trained(family_of(method.FedAMPClient, cohort, {"penalty": penalty}), sent, epochs=10)
        assert result.failures == {} and set(result.arrays) == set(sent)
        moved[penalty] = sum(((result.arrays[name] - sent[name]) ** 2).sum() for name in sent)
    assert 0 < moved[50.0] < moved[0.0] / 2


def amp(method: ModuleType, **settings: float) -> MixingStrategy:
    initial = {"conv1.weight": np.zeros((2, 1), np.float32)}
    strategy: MixingStrategy = strategy_of(method.FedAMP, toy_roster(1, 1, 1), initial, settings)
    return strategy


MODELS = np.array([[[0.0], [0.0]], [[1.0], [0.0]], [[1.0], [1.0]]])
"""Squared distances 1, 2 and 1."""
HALVING = 1 / math.log(2)
"""With this σ exp(-d / σ) is 2^-d, and A' is 2^-d / σ."""


def test_clients_pass_messages_by_the_derivative_at_their_squared_distance(method: ModuleType) -> None:
    """With α = σ / 2 the weights of others are 2^-d / 2: 1/4 at distance 1, 1/8 at distance 2."""
    strategy = amp(method, sigma=HALVING, alpha=HALVING / 2)
    strategy.take(replies([0, 1, 2], 3, conv1__weight=MODELS))
    np.testing.assert_allclose(strategy.mixing, [[0.625, 0.25, 0.125], [0.25, 0.5, 0.25], [0.125, 0.25, 0.625]])
    received = strategy.instructions(2, [0, 1, 2])["conv1.weight"]
    np.testing.assert_allclose(received[:, :, 0], [[0.375, 0.125], [0.75, 0.25], [0.875, 0.625]])
    # Client 2 is absent, and keeps its cloud model.
    strategy.take(replies([0, 1], 3, conv1__weight=MODELS[:2]))
    np.testing.assert_allclose(strategy.mixing, [[0.75, 0.25, 0], [0.25, 0.75, 0], [0, 0, 0]])
    np.testing.assert_allclose(strategy.instructions(3, [2])["conv1.weight"][0, :, 0], [0.875, 0.625])


def test_weights_of_a_large_step_are_scaled_to_a_sum_of_one(method: ModuleType) -> None:
    """With α = 4σ the others' weights are 2 and 1 of client 0, and 2 and 2 of client 1."""
    strategy = amp(method, sigma=HALVING, alpha=4 * HALVING)
    strategy.take(replies([0, 1, 2], 3, conv1__weight=MODELS))
    np.testing.assert_allclose(strategy.mixing, [[0, 2 / 3, 1 / 3], [0.5, 0, 0.5], [1 / 3, 2 / 3, 0]], atol=1e-12)


def test_with_a_tiny_scale_each_client_is_alone(method: ModuleType) -> None:
    strategy = amp(method, sigma=1e-3)
    strategy.take(replies([0, 1, 2], 3, conv1__weight=MODELS))
    np.testing.assert_allclose(strategy.mixing, np.eye(3), atol=1e-12)

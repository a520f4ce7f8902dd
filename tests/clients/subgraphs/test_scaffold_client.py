"""SCAFFOLD on two quadratics with plain SGD, worked out by hand, and its control variates with Adam."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_clients import cohort_of, family_of, parameters_of, tiny_client, trained

from subfl_flower.clients.subgraphs.local_steps import Model
from subfl_flower.clients.subgraphs.scaffold import ControlledWeights, ScaffoldClient
from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.composition import composed_config
from subfl_flower.errors import SubflError

RATE, STEPS = 0.1, 2
CURVATURES, CENTRES = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [4.0]])
"""f_1(x) = x² / 2 and f_2(x) = 3 (x - 4)² / 2."""


@pytest.fixture
def quadratics(monkeypatch: pytest.MonkeyPatch) -> ScaffoldClient:
    """Clients whose steps are plain SGD on the two functions."""

    def descend(self: Any, model: Model, state: Any, chunk: Any, batch: Any) -> torch.Tensor:
        y = model.shared["x"]
        for _ in range(STEPS):
            gradients = {"x": CURVATURES * (y - CENTRES)}
            self.weights.add_penalty_gradients(gradients, model.shared, model.personal, model.received, chunk, 1)
            y.sub_(RATE * gradients["x"])
            state["steps"].add_(1)
        return torch.zeros(2)

    monkeypatch.setattr(SubgraphClient, "take_steps", descend)
    clients = ScaffoldClient.__new__(ScaffoldClient)
    network: Any = SimpleNamespace(shapes={"x": (1,)}, buffer_shapes={})
    settings: Any = ScaffoldClient.Settings()
    clients.weights = ControlledWeights(network, settings, 0, torch.device("cpu"))
    return clients


def test_with_plain_sgd_it_is_the_papers_algorithm(quadratics: ScaffoldClient) -> None:
    own, steps = torch.zeros(2, 1), torch.zeros(2)
    chunk: Any = None

    def one_round(x: float, c: float) -> tuple[list[float], list[float]]:
        received = {"x": torch.full((2, 1), x), "control.x": torch.full((2, 1), c)}
        shared = {name: value.clone() for name, value in received.items()}
        quadratics.take_steps(Model(shared, {"control.x": own}, received), {"steps": steps}, chunk, chunk)
        sent = quadratics.weights.upload(shared, shared, chunk)
        return (*(torch.as_tensor(sent[name]).flatten().tolist() for name in ("x", "control_change.x")),)

    # Client 1 goes 2, 1.8, 1.62 with gradients 2, 1.8; client 2 goes 2, 2.6, 3.02 with gradients -6, -4.2.
    y, change = one_round(2.0, 0.0)
    np.testing.assert_allclose(y, [1.62, 3.02], rtol=1e-6)
    np.testing.assert_allclose(change, [1.9, -5.1], rtol=1e-6)  # option II: (2 - 1.62) / 0.2, (2 - 3.02) / 0.2
    # x = 2.32 and c = -1.6. Client 1's gradients 2.32, 2.438 are corrected by -1.6 - 1.9; client 2's -5.04, -4.578 by
    # -1.6 + 5.1. Option II gives the same means: 1.9 + 1.6 + (2.32 - 2.5442) / 0.2 = 2.379.
    y, change = one_round(2.32, -1.6)
    np.testing.assert_allclose(y, [2.5442, 2.5818], rtol=1e-6)
    np.testing.assert_allclose(change, [2.379 - 1.9, -4.809 + 5.1], rtol=1e-4)
    np.testing.assert_allclose(own.flatten(), [2.379, -4.809], rtol=1e-5)
    np.testing.assert_allclose(steps, [4, 4])


def test_with_variates_of_zero_a_clients_model_is_fedavgs() -> None:
    graphs = tiny_client(0, 7), tiny_client(1, 9)
    plain, controlled = (family_of(each, cohort_of(*graphs)) for each in (SubgraphClient, ScaffoldClient))
    sent = parameters_of(2)
    nothing = {f"control.{name}": np.zeros_like(value) for name, value in sent.items()}
    expected, found = trained(plain, sent), trained(controlled, {**sent, **nothing})
    for name, value in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], value)
        assert found.arrays[f"control_change.{name}"].any()


def test_rows_of_absent_features_cannot_be_skipped() -> None:
    with pytest.raises(SubflError, match="only send is allowed, because method=scaffold also changes rows"):
        composed_config(["method=scaffold", "wire.absent_features=skip", "optimizer.weight_decay=0"])

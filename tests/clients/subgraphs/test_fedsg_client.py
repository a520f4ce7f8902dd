from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_clients import FEATURES, cohort_of, dense_gcn, dense_operator, family_of, tiny_client
from tiny_clients import trained as round_of

from subfl_flower.clients.subgraphs.fedsg import FedSGClient
from subfl_flower.composition import composed_config
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import DecoupledSettings, ModelSettings, OptimizerSettings
from subfl_flower.seeding import shared_generator
from subfl_flower.subgraphs.models.structure_encoding import structure_encoding
from subfl_flower.subgraphs.similarity.random_graph import stochastic_block_model

SEED = 3
BLOCKS = {"random_blocks": 2, "random_block_nodes": 8, "random_p_in": 0.5, "random_p_out": 0.1}


def client(chunk: int | str = "all", layers: int = 2, **settings: Any) -> FedSGClient:
    return family_of(
        FedSGClient,
        cohort_of(tiny_client(0, 9), tiny_client(1, 6), chunk=chunk),
        {**BLOCKS, **settings},
        model=DecoupledSettings(name="decoupled", hidden=5, layers=layers, dropout=0.0, encoding=8),
        optimizer=OptimizerSettings(name="adam", lr=0.05),
        seed=SEED,
    )


def trained(cohort: FedSGClient) -> dict[str, np.ndarray]:
    """Uploads of two clients after a round from different parameters."""
    rng = np.random.default_rng(0)
    shapes = {name: spec.shape for name, spec in cohort.shared(cohort.run).items()}
    received = {name: rng.standard_normal((2, *shape)).astype(np.float32) for name, shape in shapes.items()}
    result = round_of(cohort, received)
    assert result.failures == {} and list(result.arrays) == [*shapes, "feature_embedding", "topology_embedding"]
    return result.arrays


def mean_output(sent: dict[str, np.ndarray], stem: str, row: int, edges: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """The mean over nodes of an extractor's last convolution before its ReLU, of a dense GCN."""
    own = {name: torch.from_numpy(values[row]) for name, values in sent.items() if name.startswith(stem)}
    own = {name.replace(stem, "conv"): value for name, value in own.items()}
    own |= {"classifier.weight": torch.zeros(5, 1), "classifier.bias": torch.zeros(1)}
    operator = torch.from_numpy(dense_operator(edges, len(inputs))).float()
    return dense_gcn(own, operator, torch.from_numpy(inputs))[1].mean(0).numpy()


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("chunk", [1, "all"])
def test_each_extractor_is_embedded_by_what_it_makes_of_the_shared_random_graph(layers: int, chunk: int | str) -> None:
    sent = trained(client(chunk, layers))
    rng = shared_generator(SEED, "random graph")
    edges = stochastic_block_model(2, 8, 0.5, 0.1, rng)
    features = rng.standard_normal((16, FEATURES), dtype="float32")
    encoding = structure_encoding(edges, 16, 8)
    assert sent["feature_embedding"].shape == sent["topology_embedding"].shape == (2, 5)
    for row in range(2):
        of_features = mean_output(sent, "conv", row, edges, features)
        of_topology = mean_output(sent, "topology", row, edges, encoding)
        np.testing.assert_allclose(sent["feature_embedding"][row], of_features, atol=1e-5)
        np.testing.assert_allclose(sent["topology_embedding"][row], of_topology, atol=1e-5)
        assert np.abs(of_features - of_topology).max() > 0.1


def test_an_extractor_that_is_personal_is_embedded_too() -> None:
    everything, without = trained(client()), trained(client(personal_layers=("topology1", "topology2")))
    assert not any(name.startswith("topology1") for name in without)
    assert without["topology_embedding"].shape == (2, 5) and np.abs(without["topology_embedding"]).max() > 0
    # Personal layers start from the initial model, and not from what was received.
    assert not np.allclose(without["topology_embedding"], everything["topology_embedding"])


def test_a_model_of_one_extractor_is_refused() -> None:
    with pytest.raises(SubflError, match="method=fedsg is for model=decoupled, not for model=gcn"):
        FedSGClient.check_model(ModelSettings(name="gcn"), "fedsg")
    FedSGClient.check_model(DecoupledSettings(name="decoupled"), "fedsg")


def test_the_method_chooses_its_model_and_another_is_refused() -> None:
    config, _ = composed_config(["method=fedsg", "dataset=cora", "model.encoding=10"])
    assert config.model == DecoupledSettings(name="decoupled", encoding=10)
    with pytest.raises(SubflError, match="is for model=decoupled, not for model=sage"):
        composed_config(["method=fedsg", "dataset=cora", "model=sage"])
    with pytest.raises(SubflError, match=r"model\.encoding: .*greater than or equal to 2"):
        composed_config(["method=fedavg", "dataset=cora", "model=decoupled", "model.encoding=1"])

from __future__ import annotations

import numpy as np
import pytest
import torch
from pyg_networks import (
    SIZES,
    Tensors,
    check_that_a_client_computes_the_same_alone,
    check_that_every_client_is,
    classified,
    placed,
    propagated,
)
from tiny_clients import FEATURES, chunk_of, model, tiny_client
from torch_geometric.nn import GCNConv

from subfl_flower.data.graph import ClientGraph
from subfl_flower.subgraphs.models.gcn import StackedGCN

HIDDEN = 5


def pyg_gcn(x: torch.Tensor, edges: torch.Tensor, _: ClientGraph, parameters: Tensors) -> torch.Tensor:
    def layer(number: int, inputs: int) -> torch.nn.Module:
        convolution = placed(GCNConv(inputs, HIDDEN), bias=parameters[f"conv{number}.bias"])
        placed(convolution.lin, weight=parameters[f"conv{number}.weight"].T)
        return convolution

    return classified(propagated(x, edges, len(parameters) // 2 - 1, layer), parameters)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("sparse", [False, True])
def test_every_client_of_a_chunk_is_pygs_gcn(layers: int, sparse: bool) -> None:
    check_that_every_client_is(pyg_gcn, model(layers, HIDDEN), sparse)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_client_computes_the_same_alone_and_beside_larger_ones(sparse: bool) -> None:
    graphs = [tiny_client(c, size, sparse=sparse) for c, size in enumerate(SIZES)]
    check_that_a_client_computes_the_same_alone(model(dropout=0.5), graphs)


def test_dropout_depends_on_the_clients_generator_alone() -> None:
    gcn = model(dropout=0.5, hidden=8)
    graphs = [tiny_client(c, size) for c, size in enumerate(SIZES)]

    def masks(positions: list[int], seed: int = 0) -> torch.Tensor:
        generators = [np.random.default_rng([seed, position]) for position in positions]
        chunk = chunk_of(*(graphs[position] for position in positions))
        return torch.stack(gcn.dropout_masks(chunk, generators, torch.device("cpu")))

    together, reordered = masks([0, 1, 2, 3]), masks([3, 1, 0, 2])
    for position, size in enumerate(SIZES):
        alone = masks([position])[:, 0]
        assert torch.equal(together[:, position, :size], alone)
        assert torch.equal(reordered[:, [3, 1, 0, 2].index(position), :size], alone)
        assert not together[:, position, size:].any()
    assert not torch.equal(masks([0]), masks([0], seed=1))
    assert not torch.equal(masks([3])[0], masks([3])[1])  # the layers' masks differ


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_dropout_keeps_the_mean_and_drops_the_stated_share(rate: float) -> None:
    gcn = model(dropout=rate, hidden=64, layers=2)
    chunk = chunk_of(tiny_client(0, 500))
    masks = torch.stack(gcn.dropout_masks(chunk, [np.random.default_rng(0)], torch.device("cpu")))
    values = masks.unique()
    assert len(values) == 2 and values[0] == 0
    assert values[1].item() == pytest.approx(1 / (1 - rate), rel=1e-4)
    entries = masks.numel()
    assert (masks == 0).double().mean().item() == pytest.approx(rate, abs=5 * (rate * (1 - rate) / entries) ** 0.5)
    assert masks.double().mean().item() == pytest.approx(1.0, abs=5 * (rate / (1 - rate) / entries) ** 0.5)


def test_dropout_is_finite_up_to_the_largest_rate_that_is_allowed() -> None:
    gcn = model(dropout=1 - 1e-6)
    masks = gcn.dropout_masks(chunk_of(tiny_client(0, 4)), [np.random.default_rng(0)], torch.device("cpu"))
    assert all(torch.isfinite(mask).all() for mask in masks)


def test_initial_parameters_have_the_scale_of_glorot_and_of_linear() -> None:
    gcn = model(hidden=400)
    initial = gcn.initial(np.random.default_rng(0))
    assert {name: value.shape for name, value in initial.items()} == gcn.shapes
    for name, (fan_in, fan_out) in {"conv1": (FEATURES, 400), "conv2": (400, 400)}.items():
        bound = (6 / (fan_in + fan_out)) ** 0.5
        weight = initial[f"{name}.weight"]
        assert np.abs(weight).max() <= bound
        assert weight.std() == pytest.approx(bound / 3**0.5, rel=0.05)
        assert not initial[f"{name}.bias"].any()
    assert np.abs(initial["classifier.weight"]).max() <= 400**-0.5
    assert initial["classifier.weight"].std() == pytest.approx((3 * 400) ** -0.5, rel=0.1)
    assert 0 < np.abs(initial["classifier.bias"]).max() <= 400**-0.5


def test_masks_act_on_weight_matrices_and_not_on_biases() -> None:
    assert isinstance(gcn := model(3), StackedGCN)
    assert gcn.weight_matrices == ("conv1.weight", "conv2.weight", "conv3.weight", "classifier.weight")

from __future__ import annotations

from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_clients import (
    FEATURES,
    best_models,
    cohort_of,
    dense_features,
    dense_gcn,
    dense_operator,
    family_of,
    model,
    parameters_of,
    tiny_client,
    trained,
)

from subfl_flower.clients.subgraphs.fedpub import FedPUBClient
from subfl_flower.data.graph import TRAIN, ClientGraph
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import ModelSettings, OptimizerSettings
from subfl_flower.seeding import shared_generator
from subfl_flower.subgraphs.similarity.random_graph import stochastic_block_model
from subfl_flower.wire.payload import pack

SHAPES = model().shapes
MATRICES = model().weight_matrices
LR = 0.05


def client(*hosted: ClientGraph, chunk: int | str = "all", hidden: int = 5, **settings: Any) -> FedPUBClient:
    return family_of(
        FedPUBClient,
        cohort_of(*hosted, chunk=chunk),
        {"random_blocks": 2, "random_block_nodes": 8, "sparsity": None, **settings},
        model=ModelSettings(name="gcn", hidden=hidden, dropout=0.0),
        optimizer=OptimizerSettings(name="adam", lr=LR, weight_decay=0.5),
        seed=3,
    )


def within_two_hops(graph: ClientGraph) -> np.ndarray:
    """Bool [features]: what a node at most two edges from a training node has."""
    network = nx.Graph(graph.edge_index.T.tolist())
    network.add_nodes_from(range(graph.num_nodes))
    sources = np.flatnonzero(graph.roles == TRAIN).tolist()
    near = nx.multi_source_dijkstra_path_length(network, set(sources), cutoff=2)
    return (dense_features(graph)[sorted(near)] != 0).any(0)


def remote_client(client_id: int) -> ClientGraph:
    """A path 0 - 1 - 2 - 3 that trains on node 0; node 3 alone has feature 1, and no node has feature 4."""
    graph = tiny_client(client_id, 4, lacking=[1, 4], roles=[0, 1, 1, 2])
    graph.features[:, [0, 2, 3, 5]] += 0.3
    graph.features[3, 1] = 0.7
    return replace(graph, edge_index=np.array([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]]))


def state(cohort: FedPUBClient, clients: int) -> dict[str, torch.Tensor]:
    """Arrays that the clients keep, by name; rows of features that a client lacks are not kept, and stand as zeros."""
    kept: dict[str, list[np.ndarray]] = {}
    for position, graph in enumerate(cohort.cohort.graphs[:clients]):
        present = (dense_features(graph) != 0).any(0)
        for name, value in cohort.open_state().export_row(position).items():
            if "conv1.weight" in name and len(value) != FEATURES:
                assert len(value) == present.sum()
                whole = np.zeros((FEATURES, *value.shape[1:]), dtype=np.float32)
                whole[present] = value
                value = whole
            kept.setdefault(name, []).append(value)
    return {name: torch.from_numpy(np.stack(values)) for name, values in kept.items()}


def masks(cohort: FedPUBClient, clients: int) -> dict[str, torch.Tensor]:
    kept = state(cohort, clients)
    return {name: kept[f"personal.{name}.mask"] for name in MATRICES}


def objective_gradients(
    graph: ClientGraph,
    theta: dict[str, torch.Tensor],
    mask: dict[str, torch.Tensor],
    start: dict[str, torch.Tensor],
    l1: float,
    proximal: float,
) -> dict[str, torch.Tensor]:
    """Autograd of L(θ ⊙ µ) + λ1 ‖µ‖₁ + λ2 ‖θ - θ̄‖², dense; first-layer rows that training never meets are not
    penalised.
    """
    met = torch.from_numpy(within_two_hops(graph)).unsqueeze(1)
    leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
    leaves |= {f"{name}.mask": value.clone().requires_grad_() for name, value in mask.items()}
    effective = {name: leaves[name] * leaves[f"{name}.mask"] if name in mask else leaves[name] for name in theta}
    operator = torch.from_numpy(dense_operator(graph.edge_index, graph.num_nodes)).float()
    train = torch.from_numpy(graph.roles == TRAIN)
    logits, _ = dense_gcn(effective, operator, torch.from_numpy(dense_features(graph)))
    loss = F.cross_entropy(logits[train], torch.from_numpy(graph.labels)[train])
    loss = loss + l1 * sum(
        (leaves[f"{name}.mask"].abs() * (met if name == "conv1.weight" else 1)).sum() for name in mask
    )
    loss = loss + proximal * sum(((leaves[name] - start[name]) ** 2).sum() for name in theta)
    loss.backward()
    return {name: leaf.grad for name, leaf in leaves.items()}


@pytest.mark.parametrize(
    ("server_round", "variant", "l1", "proximal"),
    [(2, "paper", 0.02, 0.3), (1, "paper", 0.02, 0.0), (2, "released", 0.0, 0.0)],
    ids=["both penalties", "no proximal term in round 1", "released: neither"],
)
def test_gradients_are_those_of_the_whole_objective(
    server_round: int, variant: str, l1: float, proximal: float
) -> None:
    """From Adam's first moment: 0.1 g1 after one step, 0.09 g1 + 0.1 g2 after two."""
    hosted = [tiny_client(0, 9), remote_client(1)]
    settings = {"mask_l1": 0.02, "proximal": 0.3, "mask_threshold": 0.0, "variant": variant}
    sent = parameters_of(2)
    one, two = client(*hosted, **settings), client(*hosted, **settings)
    arrays = trained(one, sent, server_round).arrays
    trained(two, sent, server_round, epochs=2)
    moment, later, mask = state(one, 2), state(two, 2), masks(one, 2)
    names = [*SHAPES, *(f"{name}.mask" for name in MATRICES)]
    for c, graph in enumerate(hosted):
        start = {name: torch.from_numpy(value[c]) for name, value in sent.items()}
        ones = {name: torch.ones(SHAPES[name]) for name in MATRICES}
        if variant == "paper":
            ones["conv1.weight"] *= torch.from_numpy((dense_features(graph) != 0).any(0)).unsqueeze(1)
        first = objective_gradients(graph, start, ones, start, l1, proximal)
        stepped = {name: torch.from_numpy(arrays[name][c]) for name in SHAPES}
        if variant == "paper":  # rows that training never meets are not sent: they are as received
            unmet = ~within_two_hops(graph)
            stepped["conv1.weight"][unmet] = start["conv1.weight"][unmet]
        own = {name: value[c] for name, value in mask.items()}
        second = objective_gradients(graph, stepped, own, start, l1, proximal)
        for name in names:
            found = moment[f"exp_avg.{name}"][c] / 0.1
            torch.testing.assert_close(found, first[name], atol=1e-5, rtol=1e-4)
            found = (later[f"exp_avg.{name}"][c] - 0.9 * moment[f"exp_avg.{name}"][c]) / 0.1
            torch.testing.assert_close(found, second[name], atol=1e-4, rtol=1e-3)


def test_masks_have_their_own_learning_rate() -> None:
    cohort = client(tiny_client(0, 9), mask_lr=0.1, mask_l1=10.0)
    sent = parameters_of(1)
    arrays = trained(cohort, sent).arrays
    for value in masks(cohort, 1).values():
        # Adam's first step is the rate, and the penalty is far the largest gradient.
        torch.testing.assert_close(value, torch.full_like(value, 1 - 0.1 * LR), atol=1e-5, rtol=0)
    assert np.abs(arrays["conv1.weight"] - sent["conv1.weight"]).max() == pytest.approx(LR, rel=1e-3)


def test_features_that_a_client_lacks_never_travel_and_remote_ones_only_down() -> None:
    hosted = [tiny_client(0, 8, lacking=[2]), tiny_client(1, 9), remote_client(2)]
    cohort = client(*hosted, mask_threshold=0.5, mask_l1=1e-4)
    sent = parameters_of(3)
    for server_round in (1, 2, 3):
        arrays = trained(cohort, sent, server_round, epochs=3).arrays
        silent = [np.flatnonzero(~arrays["conv1.weight"][c].any(1)).tolist() for c in range(3)]
        assert silent == [[2], [], [1, 4]]
        wanted = [np.flatnonzero(arrays["wanted_features"][c]).tolist() for c in range(3)]
        assert wanted == [[], [], [1]]  # feature 1 lies beyond the reach of training, and evaluation needs it
        sent = {name: arrays[name] + np.float32(0.1) for name in SHAPES}  # the server fills what was missing


def test_the_row_of_a_remote_feature_stays_as_received_and_is_used() -> None:
    """The client answers by node 3's feature alone: only the received row can tell."""
    cohort = client(remote_client(0), mask_threshold=0.5, proximal=0.1)
    sent = parameters_of(1)
    for server_round in (1, 2):
        trained(cohort, sent, server_round, epochs=3)
    kept, received = best_models(cohort)[0]["conv1.weight"], sent["conv1.weight"][0]
    np.testing.assert_allclose(kept[1], received[1], atol=1e-6)
    assert not kept[4].any() and not np.allclose(kept[0], received[0], atol=1e-3)


def test_the_released_variant_sends_all_weights_and_prunes_what_it_measures() -> None:
    cohort = client(tiny_client(0, 8, lacking=[1, 4]), variant="released", mask_threshold=2.0)
    result = trained(cohort, parameters_of(1))
    assert all(result.arrays[name].all() for name in MATRICES)
    assert result.metrics["sparsity"].tolist() == [1.0] and not result.arrays["wanted_features"].any()


def test_absent_features_cost_no_bytes() -> None:
    """Two clients that differ in which features they lack; a row of the first layer is 64 floats."""
    whole, lacking = tiny_client(0, 8), tiny_client(1, 8, lacking=[0, 2, 3])
    cohort = client(whole, lacking, hidden=64, mask_threshold=0.0)
    rng = np.random.default_rng(0)
    sent = {name: rng.standard_normal((2, *shape)).astype(np.float32) for name, shape in cohort.model.shapes.items()}
    sizes = pack({"conv1.weight": trained(cohort, sent).arrays["conv1.weight"]}).bytes_per_client
    assert sizes.tolist() == [
        FEATURES * 64 * 4,
        3 * 64 * 4 + 1 + 3 * 64 // 8,
    ]  # values, bits of the lines and of their entries


def test_what_is_sent_is_theta_where_the_mask_keeps_it_and_no_mask() -> None:
    hosted = [tiny_client(0, 9), tiny_client(1, 6)]
    cohort = client(*hosted, mask_threshold=0.97, mask_l1=1e-3)
    sent = parameters_of(2)
    theta = trained(client(*hosted, mask_threshold=0.0, mask_l1=1e-3), sent).arrays
    arrays = trained(cohort, sent).arrays
    assert set(arrays) == {*SHAPES, "functional_embedding", "wanted_features"}
    own = masks(cohort, 2)
    for name in SHAPES:
        found, whole = arrays[name], theta[name]
        kept = (own[name].abs() >= 0.97).numpy() if name in own else np.ones_like(whole, dtype=bool)
        assert name not in own or 0 < kept.mean() < 1
        np.testing.assert_array_equal(found, np.where(kept, whole, 0))
    for mask in own.values():
        for array in arrays.values():
            assert array.shape != mask.shape or not np.allclose(array, mask.numpy())


def test_sparsity_is_the_share_of_mask_entries_below_the_threshold() -> None:
    cohort = client(tiny_client(0, 9, lacking=[3]), tiny_client(1, 6), mask_threshold=0.97, mask_l1=1e-3)
    metrics = trained(cohort, parameters_of(2)).metrics
    own = masks(cohort, 2)
    for c in range(2):
        entries = np.concatenate([value[c].numpy().ravel() for value in own.values()])
        assert metrics["sparsity"][c] == pytest.approx((np.abs(entries) < 0.97).mean(), abs=1e-6)
        assert 0 < metrics["sparsity"][c] < 1


@pytest.mark.parametrize(("server_round", "share"), [(1, 0.3904), (4, 0.7936), (5, 0.8), (9, 0.8)])
def test_the_smallest_entries_are_pruned_as_the_schedule_says(server_round: int, share: float) -> None:
    """0.8 (1 - (1 - t)^3) for t of 0.2, 0.8 and 1: ten rounds, of which the first half prunes.

    Masks hardly move here, so that entries rank by what was received.
    """
    hosted = [tiny_client(0, 9, lacking=[3]), tiny_client(1, 6)]
    sent, still = parameters_of(2), {"mask_lr": 1e-6, "mask_threshold": 5.0}
    result = trained(client(*hosted, sparsity=0.8, sparsity_reached=0.5, **still), sent, server_round)
    whole = trained(client(*hosted, sparsity=0.0, **still), sent, server_round).arrays
    total = sum(whole[name][0].size for name in MATRICES)
    for c, graph in enumerate(hosted):
        rows = {"conv1.weight": within_two_hops(graph)}
        assert (rows["conv1.weight"] == (dense_features(graph) != 0).any(0)).all()
        received, kept = (
            np.concatenate([found[name][c][rows.get(name, slice(None))].ravel() for name in MATRICES])
            for found in (sent, result.arrays)
        )
        expected = np.ones(len(received), dtype=bool)
        expected[np.argsort(np.abs(received))[: round(share * total - (total - len(received)))]] = False
        np.testing.assert_array_equal(kept != 0, expected)
        assert result.metrics["sparsity"][c] == pytest.approx(share, abs=0.5 / total)
        for name in ("conv1.bias", "classifier.bias"):
            np.testing.assert_array_equal(result.arrays[name][c], whole[name][c])


def test_the_schedule_needs_the_length_of_the_run() -> None:
    with pytest.raises(SubflError, match=r"^method\.sparsity: .*number of rounds is not known"):
        family_of(FedPUBClient, cohort_of(tiny_client(0, 8)), num_rounds=None)


def test_the_embedding_is_of_the_masked_model_on_the_graph_that_all_share() -> None:
    hosted = [tiny_client(0, 9), tiny_client(1, 6, lacking=[2])]
    cohort = client(*hosted, mask_threshold=0.97, mask_l1=1e-3)
    arrays = trained(cohort, parameters_of(2)).arrays
    rng = shared_generator(3, "random graph")
    edges = stochastic_block_model(2, 8, 0.1, 0.01, rng)
    features = torch.from_numpy(rng.standard_normal((16, FEATURES), dtype="float32"))
    operator = torch.from_numpy(dense_operator(edges, 16)).float()
    own = masks(cohort, 2)
    for c in range(2):
        effective = {name: torch.from_numpy(arrays[name][c]) * (own[name][c] if name in own else 1) for name in SHAPES}
        expected = dense_gcn(effective, operator, features)[1].mean(0).numpy()
        np.testing.assert_allclose(arrays["functional_embedding"][c], expected, atol=1e-5)


def test_evaluation_and_the_kept_model_use_the_pruned_mask() -> None:
    hosted = [tiny_client(0, 30, edge_probability=0.1)]
    cohort = client(*hosted, mask_threshold=0.99, mask_l1=1e-2)
    result = trained(cohort, parameters_of(1))
    own = masks(cohort, 1)
    kept = best_models(cohort)[0]
    for name in SHAPES:
        value = result.arrays[name]
        expected = value[0] * own[name][0].numpy() if name in own else value[0]
        np.testing.assert_allclose(kept[name], expected, atol=1e-7)
    graph = hosted[0]
    operator = torch.from_numpy(dense_operator(graph.edge_index, graph.num_nodes)).float()
    parameters = {name: torch.from_numpy(value) for name, value in kept.items()}
    predicted = dense_gcn(parameters, operator, torch.from_numpy(dense_features(graph)))[0].argmax(1).numpy()
    assert result.metrics["test"][0] == pytest.approx((predicted == graph.labels)[graph.roles == 2].mean(), abs=1e-6)


def test_without_masks_it_is_the_plain_client_with_an_embedding() -> None:
    cohort = client(tiny_client(0, 9), tiny_client(1, 6), masks=False)
    result = trained(cohort, parameters_of(2))
    assert "sparsity" not in result.metrics and result.arrays["conv1.weight"].all()
    assert not result.arrays["wanted_features"].any()
    assert not any("mask" in name for name in cohort.state_shapes)


@pytest.mark.parametrize("chunk", [1, 2])
def test_masks_are_each_clients_own_whatever_the_chunk(chunk: int) -> None:
    hosted = [tiny_client(c, 6 + 2 * c, lacking=[c]) for c in range(3)]
    cohort, whole = client(*hosted, chunk=chunk, mask_l1=1e-3), client(*hosted, chunk="all", mask_l1=1e-3)
    sent = parameters_of(3)
    for server_round in (1, 2):
        arrays, expected = (trained(each, sent, server_round, epochs=2).arrays for each in (cohort, whole))
        for name, values in arrays.items():
            np.testing.assert_allclose(values, expected[name], atol=1e-4)
    for name, value in masks(cohort, 3).items():
        torch.testing.assert_close(value, masks(whole, 3)[name], atol=1e-4, rtol=0)
        assert not torch.equal(value[0], value[1])


def test_weight_decay_is_the_methods_own_unless_null() -> None:
    hosted, sent = [tiny_client(0, 9)], parameters_of(1)
    moments = []
    for settings in ({}, {"weight_decay": 0.5}, {"weight_decay": None}):  # the optimiser says 0.5
        cohort = client(*hosted, mask_l1=0.0, **settings)
        trained(cohort, sent)
        moments.append(state(cohort, 1)["exp_avg.conv2.weight"][0] / 0.1)
    torch.testing.assert_close(
        moments[1] - moments[0], 0.5 * torch.from_numpy(sent["conv2.weight"][0]), atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(moments[1], moments[2])

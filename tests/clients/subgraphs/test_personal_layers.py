from __future__ import annotations

from dataclasses import replace
from typing import Any

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
    kept,
    model,
    parameters_of,
    tiny_client,
    trained,
)

from subfl_flower.clients.subgraphs.fedpub import FedPUBClient
from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.data.graph import TEST, TRAIN, VALIDATION, ClientGraph
from subfl_flower.errors import SubflError
from subfl_flower.wire.array_format import Stack

SEED = 7
SHAPES = model().shapes
HIDDEN = SHAPES["conv1.bias"][0]
OWN = ("classifier.weight", "classifier.bias")
SHARED = tuple(name for name in SHAPES if name not in OWN)
INITIAL = model().initial_of(SEED)


def client(
    *hosted: ClientGraph,
    family: type[SubgraphClient] = SubgraphClient,
    layers: tuple[str, ...] = ("classifier",),
    chunk: int | str = "all",
    **settings: Any,
) -> SubgraphClient:
    return family_of(family, cohort_of(*hosted, chunk=chunk), {"personal_layers": layers, **settings}, seed=SEED)


def received(clients: int, names: tuple[str, ...] = SHARED, seed: int = 0) -> Stack:
    return parameters_of(clients, names, seed)


def personal(cohort: SubgraphClient, name: str) -> np.ndarray:
    """The clients' personal values of a parameter, [clients, ...]."""
    return kept(cohort, f"personal.{name}")


def logits(graph: ClientGraph, parameters: dict[str, torch.Tensor]) -> torch.Tensor:
    operator = torch.from_numpy(dense_operator(graph.edge_index, graph.num_nodes)).float()
    return dense_gcn(parameters, operator, torch.from_numpy(dense_features(graph)))[0]


def test_a_personal_layer_is_neither_received_nor_sent() -> None:
    cohort = client(tiny_client(0, 9), tiny_client(1, 6))
    contract = cohort.contract(cohort.run)
    assert tuple(contract.downloads) == SHARED == ("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias")
    assert contract.uploads == contract.downloads
    arrays = trained(cohort, received(2)).arrays
    assert {name: array.shape[1:] for name, array in arrays.items()} == {name: SHAPES[name] for name in SHARED}


def test_personal_layers_go_on_from_the_initial_model_while_the_rest_is_replaced() -> None:
    """Two rounds against ``torch.optim.Adam`` on a dense GCN; the proximal term holds what was received alone."""
    hosted = [tiny_client(0, 9), tiny_client(1, 6)]
    cohort = client(*hosted, proximal=0.3)
    references = [{name: torch.nn.Parameter(torch.from_numpy(INITIAL[name].copy())) for name in SHAPES} for _ in hosted]
    optimizers = [torch.optim.Adam(p.values(), lr=0.05, weight_decay=0.01) for p in references]
    for server_round in (1, 2):
        sent = received(2, seed=server_round)
        result = trained(cohort, sent, server_round, epochs=3)
        for c, (graph, reference) in enumerate(zip(hosted, references, strict=True)):
            labels, train = torch.from_numpy(graph.labels), torch.from_numpy(graph.roles == TRAIN)
            with torch.no_grad():
                for name, value in sent.items():
                    reference[name].copy_(torch.from_numpy(value[c]))
            start = {name: reference[name].detach().clone() for name in SHARED}
            predicted = logits(graph, reference).argmax(1)
            for name, role in (("validation_as_received", VALIDATION), ("test_as_received", TEST)):
                accuracy = (predicted == labels)[torch.from_numpy(graph.roles == role)].float().mean().item()
                assert result.metrics[name][c] == pytest.approx(accuracy, abs=1e-6)
            for _ in range(3):
                optimizers[c].zero_grad()
                loss = F.cross_entropy(logits(graph, reference)[train], labels[train])
                if server_round > 1:
                    loss = loss + 0.3 * sum(((reference[name] - start[name]) ** 2).sum() for name in SHARED)
                loss.backward()
                optimizers[c].step()
            for name, values in result.arrays.items():
                np.testing.assert_allclose(values[c], reference[name].detach().numpy(), atol=2e-4)
            for name in OWN:
                np.testing.assert_allclose(personal(cohort, name)[c], reference[name].detach().numpy(), atol=2e-4)
    assert np.abs(personal(cohort, OWN[0]) - INITIAL[OWN[0]]).min(axis=(1, 2)).max() > 0  # every entry was trained
    assert not np.allclose(personal(cohort, OWN[0])[0], personal(cohort, OWN[0])[1], atol=1e-3)


@pytest.mark.parametrize("layers", [("classifier",), ("conv1", "classifier"), ("conv2",)])
def test_best_models_hold_all_layers(layers: tuple[str, ...]) -> None:
    cohort = client(tiny_client(0, 9), tiny_client(1, 6), layers=layers)
    own = [name for name in SHAPES if name.split(".")[0] in layers]
    shared = tuple(name for name in SHAPES if name not in own)
    assert tuple(cohort.downloads(cohort.run)) == shared
    arrays = trained(cohort, received(2, shared), epochs=2).arrays | {name: personal(cohort, name) for name in own}
    models = best_models(cohort)
    for c in range(2):
        assert list(models[c]) == list(SHAPES)
        for name in SHAPES:
            np.testing.assert_array_equal(models[c][name], arrays[name][c])


def test_of_equally_good_rounds_the_first_is_kept() -> None:
    """For every share of right answers, also one that is rounded when it is stored."""
    for right in range(1, 13):
        graph = tiny_client(0, 15, roles=[0] + [1] * 12 + [2] * 2)
        labels = np.array([0] * (right + 1) + [1] * (14 - right))
        cohort = client(replace(graph, labels=labels), layers=())
        for server_round, bias in ((1, 10), (2, 20), (3, 30)):
            sent = {name: np.zeros_like(value) for name, value in received(1, tuple(SHAPES)).items()}
            sent["classifier.bias"][0, 0] = bias  # the class of all nodes is 0
            assert trained(cohort, sent, server_round).metrics["validation"] == pytest.approx([right / 12])
        assert best_models(cohort)[0]["classifier.bias"][0] == pytest.approx(10, abs=0.1), f"{right} of 12 right"


def test_a_client_that_waited_a_round_goes_on_with_its_own_layer() -> None:
    hosted = [tiny_client(0, 9), tiny_client(1, 6)]
    waiting, alone = client(*hosted), client(hosted[0])
    for server_round, clients in ((1, 2), (2, 1), (3, 2)):
        sent = received(2, seed=server_round)
        some, one = ({name: value[:count] for name, value in sent.items()} for count in (clients, 1))
        trained(waiting, some, server_round, range(clients))
        trained(alone, one, server_round)
        if server_round == 1:
            before = personal(waiting, OWN[0])[1]
        elif server_round == 2:
            np.testing.assert_array_equal(personal(waiting, OWN[0])[1], before)
    np.testing.assert_allclose(personal(waiting, OWN[0])[0], personal(alone, OWN[0])[0], atol=1e-5)
    assert not np.allclose(personal(waiting, OWN[0])[1], before, atol=1e-3)


@pytest.mark.parametrize("family", [SubgraphClient, FedPUBClient])
def test_personal_layers_do_not_depend_on_the_chunk(family: type[SubgraphClient]) -> None:
    hosted = [tiny_client(c, 6 + 2 * c) for c in range(3)]
    single, whole = (client(*hosted, family=family, chunk=chunk) for chunk in (1, "all"))
    for server_round in (1, 2):
        sent = received(3, seed=server_round)
        arrays, expected = (trained(each, sent, server_round, epochs=2).arrays for each in (single, whole))
        for name, values in arrays.items():
            np.testing.assert_allclose(values, expected[name], atol=1e-4)
    for name in OWN:
        np.testing.assert_allclose(personal(single, name), personal(whole, name), atol=1e-4)


def test_a_masked_client_masks_its_personal_layer_too() -> None:
    cohort = client(
        tiny_client(0, 9), tiny_client(1, 6), family=FedPUBClient, sparsity=None, mask_threshold=0.97, mask_l1=1e-3
    )
    result = trained(cohort, received(2))
    sent = result.arrays
    assert set(sent) == {*SHARED, "functional_embedding", "wanted_features"}
    theta, mask = personal(cohort, "classifier.weight"), personal(cohort, "classifier.weight.mask")
    kept = np.abs(mask) > 0.97
    assert 0 < kept.mean() < 1
    models, zeros = best_models(cohort), np.zeros(2)
    for c in range(2):
        np.testing.assert_allclose(models[c]["classifier.weight"], theta[c] * np.where(kept, mask, 0)[c], atol=1e-7)
        np.testing.assert_array_equal(models[c]["classifier.bias"], personal(cohort, "classifier.bias")[c])
        for name in ("conv1.weight", "conv2.weight"):
            own_mask = personal(cohort, f"{name}.mask")[c]
            np.testing.assert_array_equal(sent[name][c] != 0, np.abs(own_mask) > 0.97)
        matrices = [models[c][name] for name in ("conv1.weight", "conv2.weight", "classifier.weight")]
        zeros[c] = np.mean(np.concatenate([matrix.ravel() for matrix in matrices]) == 0)
    np.testing.assert_allclose(result.metrics["sparsity"], zeros, atol=1e-6)


def test_a_masked_client_may_keep_its_first_layer_to_itself() -> None:
    cohort = client(tiny_client(0, 9, lacking=[2]), family=FedPUBClient, layers=("conv1",))
    shared = tuple(name for name in SHAPES if not name.startswith("conv1"))
    for server_round in (1, 2):
        result = trained(cohort, received(1, shared), server_round)
        sent = result.arrays
        assert set(sent) == {*shared, "functional_embedding", "wanted_features"}
        assert not sent["wanted_features"].any()  # no row of the first layer travels, in either direction
        assert result.clients == (0,)
    assert not best_models(cohort)[0]["conv1.weight"][2].any()
    own = cohort.open_state().of_client("personal.conv1.weight", 0)
    assert own.shape == (FEATURES - 1, HIDDEN) and own.any(1).all()  # a row for each feature that it has


@pytest.mark.parametrize("family", [SubgraphClient, FedPUBClient])
def test_unknown_layers_and_all_layers_are_refused(family: type[SubgraphClient]) -> None:
    with pytest.raises(SubflError, match="there is no layer 'head'; the model has conv1, conv2, classifier"):
        client(tiny_client(0, 9), family=family, layers=("classifier", "head"))
    with pytest.raises(SubflError, match="all layers are personal; use method=local"):
        client(tiny_client(0, 9), family=family, layers=("conv1", "conv2", "classifier"))

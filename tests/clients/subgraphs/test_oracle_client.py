from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from tiny_clients import CLASSES, FEATURES, best_models, cohort_of, dense_gcn, dense_operator, family_of, kept, trained

from subfl_flower.clients.subgraphs.oracle import OracleClient
from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.data.graph import TEST, VALIDATION, ClientGraph, Graph
from subfl_flower.data.subgraphs import SubgraphCutter
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import ModelSettings
from subfl_flower.seeding import client_generator
from subfl_flower.wire.batch import Batch, Result

NODES = 120
ROLES = np.random.default_rng(5).integers(0, 3, NODES).astype(np.int8)
ASSIGNMENTS = [np.arange(0, 50), np.arange(40, 65), np.arange(65, 120)]
"""Three clients; the first two share nodes, and many edges are in no client's graph."""
SEED = 7


def whole_graph() -> Graph:
    rng = np.random.default_rng(1)
    upper = np.triu(rng.random((NODES, NODES)) < 0.03, k=1)
    edge_index = np.stack(np.nonzero(upper | upper.T)).astype(np.int64)
    features = rng.standard_normal((NODES, FEATURES)).astype(np.float32)
    labels = (dense_operator(edge_index, NODES) @ features[:, :CLASSES]).argmax(1)  # of what a GCN can see
    return Graph(features, edge_index, labels, CLASSES)


GRAPH = whole_graph()


def hosted(ids: Sequence[int] = (0, 1, 2)) -> list[ClientGraph]:
    cutter = SubgraphCutter(GRAPH, ROLES, ASSIGNMENTS)
    return [cutter.cut(client_id) for client_id in ids]


def oracle(ids: Sequence[int] = (0, 1, 2), whole: Any = lambda: (GRAPH, ROLES), dropout: float = 0.5) -> OracleClient:
    network = ModelSettings(name="gcn", hidden=8, dropout=dropout)
    return family_of(OracleClient, replace(cohort_of(*hosted(ids)), whole=whole), model=network, seed=SEED)


def round_of(client: OracleClient, server_round: int = 1, ids: Sequence[int] = (0, 1, 2), epochs: int = 2) -> Result:
    return client.train(Batch(tuple(ids), server_round, local_epochs=epochs))


def central_model(client: OracleClient) -> dict[str, np.ndarray]:
    return {name: kept(client, f"personal.{name}")[0] for name in client.model.shapes}


def predicted(parameters: dict[str, np.ndarray]) -> np.ndarray:
    """Classes by a dense GCN on the whole graph."""
    operator = torch.from_numpy(dense_operator(GRAPH.edge_index, NODES)).float()
    tensors = {name: torch.from_numpy(value) for name, value in parameters.items()}
    found: np.ndarray = dense_gcn(tensors, operator, torch.from_numpy(GRAPH.features))[0].argmax(1).numpy()
    return found


def accuracies(parameters: dict[str, np.ndarray], role: int) -> list[float]:
    """Of a dense GCN on the whole graph, over each client's nodes of a role."""
    right = predicted(parameters) == GRAPH.labels
    return [float(right[nodes][ROLES[nodes] == role].mean()) for nodes in ASSIGNMENTS]


def test_it_trains_as_a_single_client_that_holds_the_whole_graph() -> None:
    client = oracle()
    alone = ClientGraph(
        client_id=-1,  # whose dropout the central model draws
        node_ids=np.arange(NODES),
        features=GRAPH.features,
        edge_index=GRAPH.edge_index,
        labels=GRAPH.labels,
        num_classes=CLASSES,
        roles=ROLES,
        shareable=np.zeros(NODES, dtype=bool),
    )
    plain = family_of(SubgraphClient, cohort_of(alone), model=client.run.model, seed=SEED)
    parameters = {name: value[None] for name, value in plain.model.initial_of(SEED).items()}
    for server_round in (1, 2, 3):
        metrics = round_of(client, server_round).metrics
        expected = trained(plain, parameters, server_round, epochs=2)
        parameters = expected.arrays
        for name, values in parameters.items():
            np.testing.assert_allclose(central_model(client)[name], values[0], atol=1e-6, err_msg=name)
        assert metrics["train_loss"] == pytest.approx(np.repeat(expected.metrics["train_loss"], 3), abs=1e-6)


def test_each_client_is_measured_by_the_central_outputs_at_its_own_nodes() -> None:
    client = oracle()
    before = client.model.initial_of(SEED)
    for server_round in (1, 2):
        metrics = round_of(client, server_round, epochs=5).metrics
        after = central_model(client)
        for name, parameters, role in (
            ("validation_as_received", before, VALIDATION),
            ("test_as_received", before, TEST),
            ("validation", after, VALIDATION),
            ("test", after, TEST),
        ):
            assert metrics[name] == pytest.approx(accuracies(parameters, role), abs=1e-6), name
        tested = [nodes[ROLES[nodes] == TEST] for nodes in ASSIGNMENTS]
        labels, found = GRAPH.labels, predicted(after)
        assert labels is not None
        recalls = [balanced_accuracy_score(labels[nodes], found[nodes]) for nodes in tested]
        assert metrics["test.balanced_accuracy"] == pytest.approx(recalls, abs=1e-6)
        common = [np.bincount(labels[nodes[ROLES[nodes] == 0]]).argmax() for nodes in ASSIGNMENTS]
        shares = [(labels[nodes] == most).mean() for nodes, most in zip(tested, common, strict=True)]
        assert metrics["test.majority"] == pytest.approx(shares, abs=1e-6)  # of each client's class, not of one for all
        assert metrics["num_examples"].tolist() == [int((ROLES[nodes] == 0).sum()) for nodes in ASSIGNMENTS]
        before = after
    assert len(set(metrics["test"].tolist())) == 3  # clients that could not be told apart would prove little


def test_nothing_is_received_or_sent() -> None:
    client = oracle()
    contract = client.contract(client.run)
    assert contract.downloads == {} and contract.uploads == {}
    result = round_of(client)
    assert result.arrays == {} and result.clients == (0, 1, 2) and result.failures == {}


def test_metrics_are_in_the_order_of_the_clients_that_were_asked() -> None:
    everyone, some = round_of(oracle()), round_of(oracle(), ids=[2, 0])
    assert some.clients == (2, 0)
    for name in ("test", "validation_as_received", "num_examples", "test.macro_f1", "test.majority"):
        assert some.metrics[name].tolist() == everyone.metrics[name][[2, 0]].tolist()


def test_every_node_trains_the_same_model_whomever_it_hosts() -> None:
    together, parts = oracle(), [oracle([0, 2]), oracle([1])]
    for server_round in (1, 2):
        metrics = round_of(together, server_round).metrics
        for part in parts:
            ids = part.hosted.client_ids
            own = round_of(part, server_round, ids).metrics
            assert own["test"].tolist() == metrics["test"][list(ids)].tolist()
            for name, value in central_model(part).items():
                np.testing.assert_array_equal(value, central_model(together)[name])


def test_each_hosted_client_keeps_the_central_model_of_its_own_best_round() -> None:
    client = oracle(dropout=0.0)
    assert best_models(client) == {}
    history = []
    for server_round in range(1, 13):
        metrics = round_of(client, server_round).metrics
        history.append((metrics["validation"], central_model(client)))
    best = np.argmax([validation for validation, _ in history], axis=0)
    assert len(set(best.tolist())) > 1  # else one model for all would do
    models = best_models(client)
    assert sorted(models) == [0, 1, 2]
    for c, tensors in models.items():
        assert list(tensors) == list(client.model.shapes)
        for name, value in tensors.items():
            np.testing.assert_array_equal(value, history[best[c]][1][name])


def test_its_dropout_is_no_clients() -> None:
    """The central model's draws have a separate id, so that the oracle is not tied to client 0's draws."""
    draws = {client_generator(SEED, client_id, 1, "dropout").integers(2**62) for client_id in range(-1, 3)}
    assert len(draws) == 4


def test_without_the_whole_graph_there_is_no_oracle() -> None:
    with pytest.raises(SubflError, match="the oracle needs the graph that the clients' subgraphs were cut from"):
        oracle(whole=None)

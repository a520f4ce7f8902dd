from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from clients.functional import FunctionalClient
from clients.structural import StructuralClient
from tiny_clients import cohort_of, tiny_client

from subfl_flower.data.graph import ClientGraph
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import ModelSettings, OptimizerSettings
from subfl_flower.runtime.cohort_client import Question
from subfl_flower.runtime.shared_key import SharedKey
from subfl_flower.runtime.state import MemoryStore
from subfl_flower.similarity.structural import describe_structure

KEY = bytes(range(32))


@pytest.fixture
def shared_key(tmp_path: Path) -> SharedKey:
    path = tmp_path / "clients.key"
    path.write_bytes(KEY)
    return SharedKey(path)


def asked(action: str) -> Question:
    return Question(action, {}, {"round": 1})


def client(
    key: SharedKey | None, *hosted: ClientGraph, family: type[FunctionalClient] = StructuralClient
) -> FunctionalClient:
    return family(
        cohort=replace(cohort_of(*hosted), shared_key=key),
        settings=family.Settings(),
        model=ModelSettings(name="gcn", hidden=5),
        optimizer=OptimizerSettings(name="adam"),
        seed=0,
        store=MemoryStore(),
    )


def shared(client_id: int, num_nodes: int, shareable: list[int]) -> ClientGraph:
    """Its global ids are far from its local ones."""
    graph = tiny_client(client_id, num_nodes)
    ids = 1000 * (client_id + 1) + np.arange(num_nodes)
    return replace(graph, node_ids=ids, shareable=np.isin(np.arange(num_nodes), shareable))


def test_each_clients_answer_is_its_own_structure(shared_key: SharedKey) -> None:
    hosted = [shared(4, 9, [0, 3, 8]), shared(2, 12, list(range(12))), shared(7, 5, [])]
    cohort = client(shared_key, *hosted)
    for graph, count in zip(hosted, (3, 12, 0), strict=True):
        answer = cohort.answer(asked("structure"), graph.client_id)
        assert list(answer) == ["tokens", "distances", "reach", "degrees"]
        expected = describe_structure(graph.edge_index, graph.num_nodes, graph.shareable, graph.node_ids, KEY)
        for name, values in answer.items():
            assert len(values) == count
            np.testing.assert_array_equal(values, getattr(expected, name))


def test_an_answer_speaks_of_the_shareable_nodes_alone(shared_key: SharedKey) -> None:
    """Distances are measured in the whole subgraph; only those of shareable nodes are told."""
    graph = shared(0, 9, [2, 5])
    network = nx.Graph(graph.edge_index.T.tolist())
    network.add_nodes_from(range(9))
    answer = client(shared_key, graph).answer(asked("structure"), 0)
    found = sorted(zip(answer["distances"], answer["reach"], answer["degrees"], strict=True))
    hops = [nx.single_source_shortest_path_length(network, node) for node in (2, 5)]
    assert found == sorted((sum(h.values()), len(h), network.degree[n]) for n, h in zip((2, 5), hops, strict=True))


def test_without_a_key_there_is_no_answer(tmp_path: Path) -> None:
    with pytest.raises(SubflError, match="this node has no shared key, which the clients' node ids are hashed with"):
        client(None, shared(0, 5, [1])).answer(asked("structure"), 0)
    absent = SharedKey(tmp_path / "nowhere.key")
    with pytest.raises(SubflError, match=r"shared key cannot be read from .*nowhere\.key: No such file"):
        client(absent, shared(0, 5, [1])).answer(asked("structure"), 0)
    assert not absent.path.exists()


def test_other_phases_are_refused(shared_key: SharedKey) -> None:
    with pytest.raises(SubflError, match="StructuralClient has no answer to query"):
        client(shared_key, shared(0, 5, [1])).answer(asked("features"), 0)
    with pytest.raises(SubflError, match="FunctionalClient has no answer to query"):
        client(shared_key, shared(0, 5, [1]), family=FunctionalClient).answer(asked("structure"), 0)


def test_training_sends_nothing_that_a_functional_client_does_not(shared_key: SharedKey) -> None:
    graph = shared(0, 9, [0, 1, 2])
    structural, functional = client(shared_key, graph), client(shared_key, graph, family=FunctionalClient)
    assert structural.extra_uploads == functional.extra_uploads == ("functional_embedding",)
    rng = np.random.default_rng(0)
    received = [rng.standard_normal((1, *shape)).astype(np.float32) for shape in structural.model.shapes.values()]
    config = {"clients": [0], "round": 1, "local_epochs": 2}
    for values, expected in zip(structural.fit(received, config)[0], functional.fit(received, config)[0], strict=True):
        np.testing.assert_array_equal(values, expected)

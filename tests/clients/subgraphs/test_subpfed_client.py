from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from tiny_clients import answered, cohort_of, family_of, parameters_of, tiny_client, trained

from subfl_flower.clients.subgraphs.fedpub import FedPUBClient
from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.clients.subgraphs.subpfed import SubPFedClient
from subfl_flower.data.graph import ClientGraph
from subfl_flower.errors import SubflError
from subfl_flower.node.shared_key import SharedKey
from subfl_flower.subgraphs.similarity.structural import describe_structure
from subfl_flower.wire.batch import Question

KEY = bytes(range(32))


@pytest.fixture
def shared_key(tmp_path: Path) -> SharedKey:
    path = tmp_path / "clients.key"
    path.write_bytes(KEY)
    return SharedKey(path)


def asked(phase: str, *ids: int) -> Question:
    return Question(phase, {client_id: {} for client_id in ids})


def client(
    key: SharedKey | None, *hosted: ClientGraph, family: type[SubgraphClient] = SubPFedClient, **settings: Any
) -> SubgraphClient:
    return family_of(family, replace(cohort_of(*hosted), shared_key=key), settings)


def shared(client_id: int, num_nodes: int, shareable: list[int]) -> ClientGraph:
    """Its global ids are far from its local ones."""
    graph = tiny_client(client_id, num_nodes)
    ids = 1000 * (client_id + 1) + np.arange(num_nodes)
    return replace(graph, node_ids=ids, shareable=np.isin(np.arange(num_nodes), shareable))


def test_each_clients_answer_is_its_own_structure(shared_key: SharedKey) -> None:
    hosted = [shared(4, 9, [0, 3, 8]), shared(2, 12, list(range(12))), shared(7, 5, [])]
    answers = answered(client(shared_key, *hosted), asked("structure", 4, 2, 7))
    assert list(answers) == [4, 2, 7]
    for graph, count in zip(hosted, (3, 12, 0), strict=True):
        answer = answers[graph.client_id]
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
    answer = answered(client(shared_key, graph), asked("structure", 0))[0]
    found = sorted(zip(answer["distances"], answer["reach"], answer["degrees"], strict=True))
    hops = [nx.single_source_shortest_path_length(network, node) for node in (2, 5)]
    assert found == sorted((sum(h.values()), len(h), network.degree[n]) for n, h in zip((2, 5), hops, strict=True))


def test_without_a_key_there_is_no_answer(tmp_path: Path) -> None:
    answers = client(None, shared(0, 5, [1])).answer(asked("structure", 0))
    reason = "this node has no shared key, which the clients' node ids are hashed with"
    assert (answers.arrays, answers.failures) == ({}, {0: reason})
    absent = SharedKey(tmp_path / "nowhere.key")
    answers = client(absent, shared(0, 5, [1])).answer(asked("structure", 0))
    assert re.search(r"shared key cannot be read from .*nowhere\.key: No such file", answers.failures[0])
    assert not absent.path.exists()


def test_other_phases_are_refused(shared_key: SharedKey) -> None:
    with pytest.raises(SubflError, match="SubPFedClient has no answer to query"):
        client(shared_key, shared(0, 5, [1])).answer(asked("features", 0))
    with pytest.raises(SubflError, match="FedPUBClient has no answer to query"):
        client(shared_key, shared(0, 5, [1]), family=FedPUBClient).answer(asked("structure", 0))


def test_training_sends_what_fedpub_sends_without_masks(shared_key: SharedKey) -> None:
    """Uploads have no list of wanted features, because no weight is pruned."""
    graph, settings = shared(0, 9, [0, 1, 2]), {"random_graph": "sbm"}
    structural = client(shared_key, graph, **settings)
    functional = client(shared_key, graph, family=FedPUBClient, masks=False, **settings)
    found, expected = (trained(each, parameters_of(1), epochs=2).arrays for each in (structural, functional))
    assert not expected.pop("wanted_features").any()
    assert list(found) == list(expected) == [*structural.model.shapes, "functional_embedding"]
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name])

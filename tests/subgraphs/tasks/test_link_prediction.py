from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pydantic
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from tiny_clients import FEATURES, tiny_client

from subfl_flower.composition import composed_config
from subfl_flower.data.graph import TEST, TRAIN, VALIDATION, ClientGraph
from subfl_flower.errors import SubflError
from subfl_flower.subgraphs.tasks.link_prediction import LinkExamples, LinkPrediction, pairs_without_edge

ROLES = (TRAIN, VALIDATION, TEST)
CPU = torch.device("cpu")


def task(**settings: float) -> LinkPrediction:
    return LinkPrediction.model_validate({"name": "link_prediction", **settings})


ALL_TRAIN = task(validation_fraction=1e-9, test_fraction=1e-9)
THIRDS = task(validation_fraction=0.33, test_fraction=0.33, seed=5)


def graph_of(num_nodes: int, edges: Iterable[tuple[int, int]], client_id: int = 0) -> ClientGraph:
    directed = sorted({(u, v) for u, v in edges} | {(v, u) for u, v in edges})
    edge_index = np.array(directed, dtype=np.int64).reshape(-1, 2).T
    return replace(tiny_client(client_id, num_nodes), edge_index=edge_index)


def held_by(client_id: int, nodes: Sequence[int], whole: ClientGraph) -> ClientGraph:
    """The subgraph of `whole` on some nodes, ids local."""
    local = {node: position for position, node in enumerate(nodes)}
    edges = [(local[u], local[v]) for u, v in whole.edge_index.T.tolist() if u in local and v in local]
    return replace(graph_of(len(nodes), edges, client_id), node_ids=np.array(nodes))


def large_graph(num_edges: int) -> ClientGraph:
    """Disjoint edges between nodes of spread global ids."""
    smaller = np.arange(0, 2 * num_edges, 2)
    edge_index = np.concatenate([np.stack([smaller, smaller + 1]), np.stack([smaller + 1, smaller])], axis=1)
    tiny = tiny_client(0, 2)
    features = np.zeros((2 * num_edges, 1), dtype=np.float32)
    return replace(tiny, node_ids=7 * np.arange(2 * num_edges), features=features, edge_index=edge_index)


def global_edges(chosen: LinkPrediction, graph: ClientGraph, role: int) -> set[tuple[int, int]]:
    return {(u, v) for u, v in graph.node_ids[chosen.edges(graph, role)].T.tolist()}


def all_edges(graph: ClientGraph) -> set[tuple[int, int]]:
    return {(u, v) for u, v in graph.node_ids[graph.edge_index].T.tolist() if u < v}


def held_out(examples: LinkExamples, client: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The pairs and truths that a client is validated and tested on."""
    return [(pairs.numpy(), truth) for pairs, truth in examples._clients[client].held_out]


def outputs_of(*graphs: ClientGraph, dimensions: int = 8, seed: int = 0) -> torch.Tensor:
    """Random outputs, padded to the largest client with values that would show in every figure."""
    width = max(graph.num_nodes for graph in graphs)
    outputs = torch.randn(len(graphs), width, dimensions, generator=torch.Generator().manual_seed(seed))
    for c, graph in enumerate(graphs):
        outputs[c, graph.num_nodes :] = 1e6
    return outputs


# Roles of edges ------------------------------------------------------------------------------------------------------


def test_every_edge_has_one_role() -> None:
    graph = tiny_client(0, 30)
    by_role = [global_edges(THIRDS, graph, role) for role in ROLES]
    assert all(by_role) and sum(map(len, by_role)) == graph.edge_index.shape[1] // 2
    assert set.union(*by_role) == all_edges(graph)


def test_the_visible_graph_has_exactly_the_training_edges_in_both_directions() -> None:
    graph = tiny_client(0, 30)
    visible = THIRDS.visible(graph)
    train = {(u, v) for u, v in THIRDS.edges(graph, TRAIN).T.tolist()}
    assert {(u, v) for u, v in visible.edge_index.T.tolist()} == train | {(v, u) for u, v in train}
    assert visible.edge_index.shape[1] == 2 * len(train) < graph.edge_index.shape[1]
    assert visible.features is graph.features and visible.node_ids is graph.node_ids
    assert visible.roles.tolist() == [TRAIN] * 30  # a loss may speak of any node


def test_an_edge_has_one_role_at_all_clients_that_hold_it_and_in_the_whole_graph() -> None:
    whole = tiny_client(0, 40)
    one, other = held_by(1, range(0, 30), whole), held_by(2, range(15, 40), whole)
    shared = all_edges(one) & all_edges(other)
    assert len(shared) > 20 and not np.array_equal(one.edge_index, other.edge_index)
    for role in ROLES:
        assert global_edges(THIRDS, one, role) & shared == global_edges(THIRDS, other, role) & shared
        assert global_edges(THIRDS, one, role) == global_edges(THIRDS, whole, role) & all_edges(one)


def test_nobody_is_shown_an_edge_that_another_client_is_tested_on() -> None:
    whole = tiny_client(0, 40)
    one, other = held_by(1, range(0, 30), whole), held_by(2, range(15, 40), whole)
    tested = global_edges(THIRDS, one, TEST) | global_edges(THIRDS, one, VALIDATION)
    for learner in (other, whole):
        assert tested & all_edges(learner) and not tested & all_edges(THIRDS.visible(learner))


def split_mix_64(state: int, output: int) -> int:
    """The `output`-th number (from 1) of Vigna's SplitMix64 from a state, in Python's integers."""
    z = (state + output * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def test_a_role_is_a_split_mix_64_hash_of_global_ends_and_seed() -> None:
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]  # of the seed 1234567
    assert [split_mix_64(1234567, k) for k in (1, 2, 3)] == published
    chosen = task(validation_fraction=0.25, test_fraction=0.25, seed=1234)
    graph = replace(tiny_client(0, 30), node_ids=np.arange(30) * 1000 + 2**31)  # ends that fill more than 31 bits
    expected: dict[int, set[tuple[int, int]]] = {role: set() for role in ROLES}
    for u, v in all_edges(graph):
        quarter = split_mix_64(u * 2**32 + v, 1 + 1234) >> 62
        expected[{0: VALIDATION, 1: TEST}.get(quarter, TRAIN)].add((u, v))
    assert {role: global_edges(chosen, graph, role) for role in ROLES} == expected


def test_fractions_are_as_asked_and_another_seed_divides_independently() -> None:
    """Of 100,000 edges the standard deviation of a share is below 0.0016."""
    graph = large_graph(100_000)
    one, other = task(seed=1), task(seed=2)
    for role, share in ((TRAIN, 0.7), (VALIDATION, 0.1), (TEST, 0.2)):
        assert one.edges(graph, role).shape[1] / 100_000 == pytest.approx(share, abs=0.008)
    alike = sum(len(global_edges(one, graph, role) & global_edges(other, graph, role)) for role in ROLES)
    assert alike / 100_000 == pytest.approx(0.7**2 + 0.1**2 + 0.2**2, abs=0.008)


def test_examples_are_training_edges_and_a_client_without_any_is_refused_by_its_id() -> None:
    graph = tiny_client(0, 20)
    assert THIRDS.num_examples(graph) == len(global_edges(THIRDS, graph, TRAIN)) > 0
    for without in (graph_of(3, [], client_id=7), graph_of(1, [], client_id=7)):
        with pytest.raises(SubflError, match="client 7 has no training edge"):
            THIRDS.num_examples(without)
    mostly_held_out = task(validation_fraction=0.5, test_fraction=0.499)
    with pytest.raises(SubflError, match="client 8 has no training edge"):
        mostly_held_out.num_examples(graph_of(2, [(0, 1)], client_id=8))


def centred(outputs: torch.Tensor, graph: ClientGraph) -> torch.Tensor:
    """A client's outputs less their mean over its nodes, padding left out."""
    own = outputs[: graph.num_nodes]
    return own - own.mean(0)


# The loss ------------------------------------------------------------------------------------------------------------


def test_the_loss_is_the_cross_entropy_of_training_edges_and_as_many_other_pairs() -> None:
    """A path of three nodes has one pair without an edge; both negatives are that pair."""
    examples = ALL_TRAIN.examples([graph_of(3, [(0, 1), (1, 2)])], CPU)
    outputs = torch.tensor([[[1.0, 0.0], [2.0, 1.0], [-3.0, 2.0]]])
    # Less their mean (0, 1) they are (1, -1), (2, 0), (-3, 1). Scores: 0-1 is 2, 1-2 is -6; 0-2, no edge, is -4.
    positive = np.log1p(np.exp(-2)) + np.log1p(np.exp(6))
    negative = 2 * np.log1p(np.exp(-4))
    assert examples.losses(outputs, [np.random.default_rng(0)]).tolist() == pytest.approx([(positive + negative) / 4])


def test_the_loss_knows_nothing_of_held_out_edges() -> None:
    """A triangle whose edge 0-2 is held out has the loss of a path: 0-2 is drawn as a pair without an edge."""
    triangle, path = graph_of(3, [(0, 1), (1, 2), (0, 2)]), graph_of(3, [(0, 1), (1, 2)])
    tasks = [task(seed=seed) for seed in range(200)]
    chosen = next(found for found in tasks if global_edges(found, triangle, TRAIN) == {(0, 1), (1, 2)})
    outputs = outputs_of(path)
    losses = [
        chosen.examples([graph], CPU).losses(outputs, [np.random.default_rng(3)]).item() for graph in (triangle, path)
    ]
    assert losses[0] == losses[1]


def test_losses_are_each_clients_own_and_drawn_from_its_own_generator() -> None:
    graphs = [tiny_client(0, 25, edge_probability=0.2), tiny_client(1, 14, edge_probability=0.2)]
    outputs = outputs_of(*graphs).requires_grad_()
    losses = THIRDS.examples(graphs, CPU).losses(outputs, [np.random.default_rng(4), np.random.default_rng(9)])
    for c, (graph, seed) in enumerate(zip(graphs, (4, 9), strict=True)):
        train = THIRDS.edges(graph, TRAIN)
        codes = np.array(sorted(u * graph.num_nodes + v for u, v in train.T.tolist()))
        others = pairs_without_edge(graph.num_nodes, codes, train.shape[1], np.random.default_rng(seed))
        assert others.shape == train.shape
        own = centred(outputs[c].detach(), graph)
        scores = [torch.dot(own[u], own[v]) for u, v in [*train.T.tolist(), *others.T.tolist()]]
        truth = torch.tensor([1.0] * train.shape[1] + [0.0] * train.shape[1])
        expected = F.binary_cross_entropy(torch.sigmoid(torch.stack(scores).double()), truth.double())
        assert losses[c].item() == pytest.approx(expected.item(), rel=1e-5)
    losses.sum().backward()
    assert outputs.grad is not None and outputs.grad[1, :14].any() and not outputs.grad[1, 14:].any()


def test_every_step_draws_other_pairs() -> None:
    graph = tiny_client(0, 25, edge_probability=0.2)
    examples, outputs, rng = THIRDS.examples([graph], CPU), outputs_of(graph), np.random.default_rng(4)
    assert len({examples.losses(outputs, [rng]).item() for _ in range(5)}) == 5


# The metric ----------------------------------------------------------------------------------------------------------


def test_the_metric_is_the_probability_that_an_edge_scores_higher_than_another_pair() -> None:
    graphs = [tiny_client(0, 25, edge_probability=0.2), tiny_client(1, 16, edge_probability=0.3)]
    examples, outputs = THIRDS.examples(graphs, CPU), outputs_of(*graphs).round()  # rounded, so that some scores tie
    figures = torch.stack(examples.evaluate(outputs), dim=1)
    assert figures.shape == (2, 2)
    for c in range(2):
        for which, (pairs, truth) in enumerate(held_out(examples, c)):
            own = centred(outputs[c], graphs[c])
            scores = (own[pairs[0]] * own[pairs[1]]).sum(-1).numpy()
            above = scores[truth == 1][:, None] - scores[truth == 0]
            assert figures[c, which].item() == pytest.approx(np.mean((above > 0) + 0.5 * (above == 0)))
            assert figures[c, which].item() == pytest.approx(roc_auc_score(truth, scores))


def test_outputs_that_tell_every_edge_get_one_and_outputs_that_tell_none_a_half() -> None:
    """Four cliques of five: nodes of one clique get one direction, those of different ones are orthogonal."""
    graph = graph_of(20, [(u, v) for u in range(20) for v in range(u) if u // 5 == v // 5])
    examples = THIRDS.examples([graph], CPU)
    for outputs, expected in ((torch.eye(4).repeat_interleave(5, dim=0), 1.0), (torch.ones(20, 4), 0.5)):
        assert [figure.item() for figure in examples.evaluate(outputs[None])] == [expected, expected]


def test_held_out_pairs_are_edges_of_a_role_and_as_many_pairs_that_no_edge_of_any_role_joins() -> None:
    graph = tiny_client(3, 30, edge_probability=0.2)
    examples = THIRDS.examples([graph], CPU)
    for (pairs, truth), role in zip(held_out(examples, 0), (VALIDATION, TEST), strict=True):
        edges, others = pairs[:, truth == 1], pairs[:, truth == 0]
        np.testing.assert_array_equal(edges, THIRDS.edges(graph, role))
        assert others.shape == edges.shape and (others[0] < others[1]).all()
        assert not {(u, v) for u, v in others.T.tolist()} & all_edges(graph)


def test_the_model_is_not_chosen_on_the_pairs_that_test_it() -> None:
    graph = tiny_client(3, 30, edge_probability=0.2)
    tasks = [THIRDS.model_copy(update={"seed": seed}) for seed in range(200)]
    chosen = next(t for t in tasks if t.edges(graph, VALIDATION).shape == t.edges(graph, TEST).shape)
    validation, test = (pairs[:, truth == 0] for pairs, truth in held_out(chosen.examples([graph], CPU), 0))
    assert validation.shape == test.shape and not np.array_equal(validation, test)


def test_held_out_pairs_are_the_same_at_every_call_and_depend_on_client_and_seed_alone() -> None:
    graph = tiny_client(3, 30, edge_probability=0.2)
    examples, outputs = THIRDS.examples([graph], CPU), outputs_of(graph)
    first = examples.evaluate(outputs)
    examples.losses(outputs, [np.random.default_rng(0)])
    assert [figure.item() for figure in examples.evaluate(outputs)] == [figure.item() for figure in first]

    def others(*graphs: ClientGraph, seed: int = 5) -> list[list[int]]:
        chosen = THIRDS.model_copy(update={"seed": seed})
        pairs, truth = held_out(chosen.examples(graphs, CPU), len(graphs) - 1)[1]
        found: list[list[int]] = pairs[:, truth == 0].T.tolist()
        return found

    assert others(graph) == others(tiny_client(0, 9), graph)  # whoever else is in the chunk
    assert others(graph) != others(replace(graph, client_id=4))
    assert others(graph) != others(graph, seed=6)


@pytest.mark.filterwarnings("error")
def test_the_metric_is_no_number_where_a_client_has_no_held_out_edge_or_no_other_pair() -> None:
    all_trained = graph_of(5, [(0, 1), (1, 2), (2, 3)])
    assert [*map(torch.isnan, ALL_TRAIN.examples([all_trained], CPU).evaluate(outputs_of(all_trained)))] == [True] * 2
    complete, usual = graph_of(12, [(u, v) for u in range(12) for v in range(u)]), tiny_client(1, 12)
    figures = torch.stack(THIRDS.examples([complete, usual], CPU).evaluate(outputs_of(complete, usual)))
    assert torch.isnan(figures).tolist() == [[True, False], [True, False]]


def test_there_are_no_further_figures() -> None:
    graph = tiny_client(3, 30)
    assert THIRDS.examples([graph], CPU).figures(outputs_of(graph)) == {} and THIRDS.client_figures == ()


# Pairs without an edge -----------------------------------------------------------------------------------------------


def test_pairs_without_edge_are_uniform_over_them() -> None:
    """The path of six nodes leaves ten pairs, each drawn 1,000 times of 10,000, give or take five deviations of 30."""
    path = np.array([u * 6 + u + 1 for u in range(5)])
    pairs = pairs_without_edge(6, path, 10_000, np.random.default_rng(0))
    found, times = np.unique(pairs, axis=1, return_counts=True)
    assert found.T.tolist() == [[u, v] for u in range(6) for v in range(u + 2, 6)]
    assert 9_950 < pairs.shape[1] <= 10_000  # a third of each draw meets an edge, and after eight draws it is left
    assert np.abs(times - 1000).max() < 150


@pytest.mark.parametrize(("num_nodes", "edges"), [(1, []), (2, [1]), (4, [1, 2, 3, 6, 7, 11])], ids=str)
def test_where_every_pair_is_an_edge_there_is_none_without(num_nodes: int, edges: list[int]) -> None:
    pairs = pairs_without_edge(num_nodes, np.array(edges, dtype=np.int64), 5, np.random.default_rng(0))
    assert pairs.shape == (2, 0) and pairs.dtype == np.int64


def test_without_edges_every_draw_counts() -> None:
    nothing = np.array([], dtype=np.int64)
    assert pairs_without_edge(2, nothing, 4, np.random.default_rng(0)).T.tolist() == [[0, 1]] * 4
    assert pairs_without_edge(5, nothing, 0, np.random.default_rng(0)).shape == (2, 0)


# Settings ------------------------------------------------------------------------------------------------------------


def test_a_model_is_as_wide_as_the_task_says_whatever_the_classes() -> None:
    assert task(dimensions=5).num_outputs(FEATURES) == task(dimensions=5).num_outputs(0) == 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"validation_fraction": 0.0},
        {"validation_fraction": 1.0},
        {"validation_fraction": float("nan")},
        {"test_fraction": 0.0},
        {"test_fraction": -0.1},
        {"validation_fraction": 0.5, "test_fraction": 0.5},
        {"dimensions": 0},
        {"seed": -1},
        {"seed": 2**31},
        {"negatives": 3},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(pydantic.ValidationError):
        task(**wrong)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["task.test_fraction=1"], ["task.test_fraction", "less than 1", "found 1"]),
        (["task.test_fraction=0.6", "task.validation_fraction=0.5"], ["task: ", "must leave edges to train on"]),
        (["task.dimensions=0"], ["task.dimensions", "found 0"]),
    ],
)
def test_what_is_wrong_is_one_sentence_with_its_key(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(SubflError) as error:
        composed_config(["task=link_prediction", *overrides])
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


def test_edges_are_divided_by_the_seed_of_the_partition() -> None:
    config, _ = composed_config(["task=link_prediction", "partition.seed=77", "seed=3"])
    assert isinstance(config.task, LinkPrediction) and config.task.seed == 77

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score
from tiny_clients import (
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
from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.data.graph import TEST, TRAIN, VALIDATION, ClientGraph
from subfl_flower.models.settings import ModelSettings
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Batch, Result

SIZES = (9, 5, 12)
NAMES = tuple(model().shapes)


def graphs(**options: Any) -> list[ClientGraph]:
    return [tiny_client(c, size, **options) for c, size in enumerate(SIZES)]


def client(
    *hosted: ClientGraph, chunk: int | str = "all", dropout: float = 0.5, family: type = SubgraphClient, **settings: Any
) -> SubgraphClient:
    network = ModelSettings(name="gcn", hidden=5, dropout=dropout)
    return family_of(family, cohort_of(*hosted, chunk=chunk), settings, model=network, seed=7)


def test_a_round_is_torchs_adam_on_the_mean_loss_over_training_nodes() -> None:
    """Two rounds of three epochs against a plain dense GCN under ``torch.optim.Adam``, moments kept across rounds."""
    hosted = graphs()
    cohort = client(*hosted, dropout=0.0)
    sent = parameters_of(3)
    references = [{name: torch.nn.Parameter(torch.from_numpy(v[c])) for name, v in sent.items()} for c in range(3)]
    optimizers = [torch.optim.Adam(p.values(), lr=0.05, weight_decay=0.01) for p in references]
    for server_round in (1, 2):
        result = trained(cohort, sent, server_round, epochs=3)
        metrics = result.metrics
        assert tuple(result.arrays) == NAMES
        for c, graph in enumerate(hosted):
            operator = torch.from_numpy(dense_operator(graph.edge_index, graph.num_nodes)).float()
            features, labels = torch.from_numpy(dense_features(graph)), torch.from_numpy(graph.labels)
            train = torch.from_numpy(graph.roles == TRAIN)
            for _ in range(3):
                optimizers[c].zero_grad()
                loss = F.cross_entropy(dense_gcn(references[c], operator, features)[0][train], labels[train])
                loss.backward()
                optimizers[c].step()
            for name, values in result.arrays.items():
                np.testing.assert_allclose(values[c], references[c][name].detach().numpy(), atol=2e-4)
            assert metrics["train_loss"][c] == pytest.approx(loss.item(), abs=1e-4)
            predicted = dense_gcn(references[c], operator, features)[0].argmax(1)
            for name, role in (("validation", VALIDATION), ("test", TEST)):
                chosen = torch.from_numpy(graph.roles == role)
                accuracy = (predicted == labels)[chosen].float().mean().item()
                assert metrics[name][c] == pytest.approx(accuracy, abs=1e-6)
            told, truth = predicted[chosen].numpy(), labels[chosen].numpy()
            assert metrics["test.macro_f1"][c] == pytest.approx(f1_score(truth, told, average="macro"), abs=1e-6)
        assert len(set(metrics["test.macro_f1"])) > 1
        assert metrics["num_examples"].tolist() == [graph.num_train for graph in hosted]
        sent = result.arrays


def test_as_received_is_measured_before_training() -> None:
    hosted, sent = graphs(), parameters_of(3)
    metrics = trained(client(*hosted), sent).metrics
    for c, graph in enumerate(hosted):
        operator = torch.from_numpy(dense_operator(graph.edge_index, graph.num_nodes)).float()
        parameters = {name: torch.from_numpy(values[c]) for name, values in sent.items()}
        predicted = dense_gcn(parameters, operator, torch.from_numpy(dense_features(graph)))[0].argmax(1).numpy()
        for name, role in (("validation_as_received", VALIDATION), ("test_as_received", TEST)):
            assert metrics[name][c] == pytest.approx((predicted == graph.labels)[graph.roles == role].mean(), abs=1e-6)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("chunk", [1, 2, "all"])
def test_a_client_trains_the_same_alone_in_any_chunk_and_any_order(sparse: bool, chunk: int | str) -> None:
    hosted, sent = graphs(sparse=sparse), parameters_of(3)
    cohort = client(*hosted, chunk=chunk, proximal=0.1)
    alone = [client(graph, proximal=0.1) for graph in hosted]
    for server_round, order in enumerate(([0, 1, 2], [2, 0], [1, 2, 0]), start=1):
        result = trained(cohort, rows(sent, *order), server_round, order, epochs=2)
        assert result.clients == tuple(sorted(order)) and result.failures == {}
        for row, c in enumerate(result.clients):
            own = trained(alone[c], rows(sent, c), server_round, [c], epochs=2)
            for name in NAMES:
                np.testing.assert_allclose(result.arrays[name][row], own.arrays[name][0], atol=1e-4)
            assert result.metrics["test"][row] == pytest.approx(own.metrics["test"][0], abs=1e-6)
            assert result.metrics["train_loss"][row] == pytest.approx(own.metrics["train_loss"][0], abs=1e-4)


def test_what_the_server_sent_is_left_as_it_was() -> None:
    sent = parameters_of(2)
    before = {name: value.copy() for name, value in sent.items()}
    trained(client(*graphs()[:2]), sent, epochs=3)
    for name, value in sent.items():
        np.testing.assert_array_equal(value, before[name])


def test_a_client_without_validation_nodes_says_so_and_still_has_a_model() -> None:
    alone = client(tiny_client(0, 4, roles=[0, 0, 2, 2]))
    result = trained(alone, parameters_of(1))
    assert np.isnan(result.metrics["validation"][0]) and not np.isnan(result.metrics["test"][0])
    models = best_models(alone)
    for name, values in result.arrays.items():
        np.testing.assert_array_equal(models[0][name], values[0])


@pytest.mark.parametrize("chunk", [1, "all"])
def test_the_model_that_is_kept_is_the_first_of_best_validation(chunk: int | str) -> None:
    hosted = [tiny_client(c, 24, edge_probability=0.1) for c in range(3)]
    cohort = client(*hosted, chunk=chunk)
    assert best_models(cohort) == {}  # nobody has been trained
    history = []
    for server_round in range(1, 9):
        result = trained(cohort, parameters_of(3, seed=server_round), server_round)
        history.append((result.metrics["validation"], result.arrays))
    best = np.argmax([validation for validation, _ in history], axis=0)
    assert len(set(best)) > 1 or 0 < best[0] < 7  # else the test could not tell
    for c, models in best_models(cohort).items():
        for name, values in history[best[c]][1].items():
            np.testing.assert_array_equal(models[name], values[c])


def test_accuracies_of_right_answers_are_exact() -> None:
    """Thirds and sevenths must not tie or lose by rounding: all right is 1, and equal counts are equal."""
    for nodes in range(3, 60):
        graph = tiny_client(0, nodes, roles=[0] + [1] * (nodes - 2) + [2])
        labels = np.zeros(nodes, dtype=np.int64)
        object.__setattr__(graph, "labels", labels)
        sent = {name: np.zeros_like(value) for name, value in parameters_of(2).items()}
        sent["classifier.bias"][:, 0] = 10.0  # always class 0
        metrics = trained(client(graph, tiny_client(1, 70)), sent).metrics
        assert metrics["validation_as_received"][0] == 1.0, f"{nodes - 2} of {nodes - 2} right"


def rows(stack: Stack, *chosen: int) -> Stack:
    return {name: values[list(chosen)] for name, values in stack.items()}


class Failing(SubgraphClient):
    """Client 1 fails in round 2, before or after its steps."""

    after = False

    def take_steps(self, *args: Any) -> torch.Tensor:
        chunk, batch = args[-2:]
        fails = 1 in chunk.client_ids and batch.server_round == 2
        if fails and not self.after:
            raise ValueError("the disk is full")
        losses = super().take_steps(*args)
        if fails:
            raise ValueError("the disk is full")
        return losses


class FailingAfter(Failing):
    """Fails when its steps are taken."""

    after = True


@pytest.mark.parametrize("family", [Failing, FailingAfter])
@pytest.mark.parametrize("chunk", [1, 2, "all"])
def test_a_failure_is_the_failing_clients_alone(family: type, chunk: int | str) -> None:
    hosted, sent = graphs(), parameters_of(3)
    failing, sound = client(*hosted, chunk=chunk, family=family), client(*hosted, chunk=1)
    for server_round in (1, 2, 3):
        result = trained(failing, sent, server_round, epochs=2)
        expected = trained(sound, sent, server_round, epochs=2)
        succeeded = [0, 2] if server_round == 2 else [0, 1, 2]
        assert result.clients == tuple(succeeded)
        assert result.failures == ({1: "ValueError: the disk is full"} if server_round == 2 else {})
        assert result.metrics["num_examples"].tolist() == [hosted[c].num_train for c in succeeded]
        if server_round == 3:
            succeeded = [0, 2]  # client 1 has missed a round
        for c in succeeded:
            row = result.clients.index(c)
            for name in NAMES:
                np.testing.assert_allclose(result.arrays[name][row], expected.arrays[name][c], atol=1e-4)
            loss = expected.metrics["train_loss"][c]
            assert result.metrics["train_loss"][row] == pytest.approx(loss, abs=1e-4)


def test_a_failed_step_leaves_the_failing_clients_state_as_it_was() -> None:
    hosted, sent = graphs(), parameters_of(3)
    failing, absent = client(*hosted, chunk=1, family=FailingAfter), client(*hosted, chunk=1)
    for each in (failing, absent):
        trained(each, sent, epochs=2)
    sent = rows(sent, 0)
    assert trained(failing, sent, 2, [1], epochs=2).failures
    after_failure, after_absence = (trained(each, sent, 3, [1], epochs=2).arrays for each in (failing, absent))
    for name in NAMES:
        np.testing.assert_allclose(after_failure[name][0], after_absence[name][0], atol=1e-5)


def test_a_loss_that_is_not_finite_names_its_client_and_spoils_no_other() -> None:
    hosted, sent = graphs(), parameters_of(3)
    sent["conv1.weight"][2] = np.nan
    result = trained(client(*hosted), sent)
    assert result.clients == (0, 1)
    assert all(np.isfinite(value).all() for value in result.arrays.values())
    assert result.failures == {2: "FloatingPointError: the training loss of client 2 is not finite"}


def test_all_clients_may_fail() -> None:
    sent = {name: np.full_like(value, np.nan) for name, value in parameters_of(3).items()}
    result = trained(client(*graphs()), sent)
    assert (result.clients, result.arrays, result.metrics) == ((), {}, {})
    assert set(result.failures) == {0, 1, 2}


def test_dropout_follows_seed_client_and_round_only() -> None:
    hosted, sent = graphs(), parameters_of(3)

    def losses(server_round: int, *ids: int) -> list[float]:
        found: list[float] = (
            trained(client(*hosted), rows(sent, *ids), server_round, ids).metrics["train_loss"].tolist()
        )
        return found

    first = losses(1, 0, 1, 2)
    assert losses(1, 0, 1, 2) == first
    assert losses(1, 2) == pytest.approx(first[2:], abs=1e-6)
    assert losses(5, 0, 1, 2) != pytest.approx(first, abs=1e-4)


def test_two_clients_with_the_same_data_draw_different_dropout() -> None:
    twin = replace(tiny_client(0, 9), client_id=1)
    sent = {name: np.repeat(value, 2, axis=0) for name, value in parameters_of(1).items()}
    metrics = trained(client(tiny_client(0, 9), twin), sent).metrics
    assert metrics["test_as_received"][0] == metrics["test_as_received"][1]
    assert metrics["train_loss"][0] != pytest.approx(metrics["train_loss"][1], abs=1e-4)


# Measuring alone ------------------------------------------------------------------------------------------------------


def measured(cohort: SubgraphClient, sent: Stack, server_round: int = 1, ids: Sequence[int] = (0, 1, 2)) -> Result:
    return cohort.measure(Batch.of_stack(ids, sent, server_round=server_round))


@pytest.mark.parametrize("family", [SubgraphClient, FedPUBClient])
@pytest.mark.parametrize("settings", [{}, {"personal_layers": ("classifier",)}], ids=["shared", "personal"])
@pytest.mark.parametrize("chunk", [1, 2, "all"])
def test_measuring_gives_what_training_measures_before_it_begins(
    chunk: int | str, settings: dict[str, Any], family: type[SubgraphClient]
) -> None:
    cohort = client(*graphs(), chunk=chunk, family=family, **settings)
    for server_round in (1, 2, 3):
        sent = parameters_of(3, tuple(family.shared(cohort.run)), seed=server_round)
        found = measured(cohort, sent, server_round, [2, 0, 1])
        expected = trained(cohort, sent, server_round, [2, 0, 1], epochs=2)
        assert found.clients == expected.clients == (0, 1, 2)
        assert (found.arrays, found.failures) == ({}, {})
        for name in ("validation", "test"):
            np.testing.assert_array_equal(found.metrics[name], expected.metrics[f"{name}_as_received"])
        np.testing.assert_array_equal(found.metrics["num_examples"], expected.metrics["num_examples"])
        assert set(found.metrics) <= set(family.metrics(cohort.run))


def test_the_loss_of_a_measurement_is_that_of_the_first_step_without_dropout() -> None:
    cohort, sent = client(*graphs(), dropout=0.0), parameters_of(3)
    found, expected = measured(cohort, sent), trained(cohort, sent, epochs=1)
    np.testing.assert_allclose(found.metrics["train_loss"], expected.metrics["train_loss"], atol=1e-6)


def test_further_figures_of_a_measurement_are_of_what_was_received() -> None:
    hosted, sent = graphs(), parameters_of(3)
    found = measured(client(*hosted), sent)
    for c, graph in enumerate(hosted):
        operator = torch.from_numpy(dense_operator(graph.edge_index, graph.num_nodes)).float()
        parameters = {name: torch.from_numpy(values[c]) for name, values in sent.items()}
        told = dense_gcn(parameters, operator, torch.from_numpy(dense_features(graph)))[0].argmax(1).numpy()
        chosen = graph.roles == TEST
        expected = f1_score(graph.labels[chosen], told[chosen], average="macro")
        assert found.metrics["test.macro_f1"][c] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("family", [SubgraphClient, FedPUBClient])
def test_measuring_changes_nothing_that_a_client_keeps(family: type[SubgraphClient]) -> None:
    """Neither of clients that have been trained nor of one that has not, whose rows stay those of a new state."""
    measuring, other = (client(*graphs(), family=family, personal_layers=("conv2",)) for _ in range(2))
    names = tuple(family.shared(measuring.run))
    for server_round in (1, 2):
        sent = parameters_of(3, names, seed=server_round)
        for each in (measuring, other):
            trained(each, rows(sent, 0, 1), server_round, [0, 1])
        before = measuring.open_state().buffer.clone()
        measured(measuring, parameters_of(3, names, seed=9), server_round)
        assert torch.equal(measuring.open_state().buffer, before) and measuring.open_state().is_fresh(2)
        assert torch.equal(other.open_state().buffer, before)
    assert sorted(best_models(measuring)) == [0, 1]
    sent = parameters_of(3, names, seed=3)
    one, two = (trained(each, sent, 3) for each in (measuring, other))
    for name in one.arrays:
        np.testing.assert_array_equal(one.arrays[name], two.arrays[name])

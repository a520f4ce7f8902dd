from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score
from tiny_clients import CLASSES, cohort_of, dense_features, dense_gcn, dense_operator, model, tiny_client

from clients.subgraph import SubgraphClient
from subfl_flower.data.graph import TEST, TRAIN, VALIDATION, ClientGraph
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import ModelSettings, OptimizerSettings
from subfl_flower.runtime.state import MemoryStore

SIZES = (9, 5, 12)
NAMES = tuple(model().shapes)


def graphs(**options: Any) -> list[ClientGraph]:
    return [tiny_client(c, size, **options) for c, size in enumerate(SIZES)]


def client(
    *hosted: ClientGraph, chunk: int | str = "all", dropout: float = 0.5, family: type = SubgraphClient, **settings: Any
) -> SubgraphClient:
    return family(
        cohort=cohort_of(*hosted, chunk=chunk),
        settings=family.Settings(**settings),
        model=ModelSettings(name="gcn", hidden=5, dropout=dropout),
        optimizer=OptimizerSettings(name="adam", lr=0.05, weight_decay=0.01),
        seed=7,
        store=MemoryStore(),
    )


def received(clients: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((clients, *shape)).astype(np.float32) for shape in model().shapes.values()]


def config(server_round: int, *ids: int, epochs: int = 1) -> dict[str, Any]:
    return {"clients": list(ids), "round": server_round, "local_epochs": epochs}


def test_a_round_is_torchs_adam_on_the_mean_loss_over_training_nodes() -> None:
    """Two rounds of three epochs against a plain dense GCN under ``torch.optim.Adam``, moments kept across rounds."""
    hosted = graphs()
    cohort = client(*hosted, dropout=0.0)
    sent = received(3)
    references = [
        {name: torch.nn.Parameter(torch.from_numpy(v[c])) for name, v in zip(NAMES, sent, strict=True)}
        for c in range(3)
    ]
    optimizers = [torch.optim.Adam(p.values(), lr=0.05, weight_decay=0.01) for p in references]
    for server_round in (1, 2):
        arrays, num_examples, metrics = cohort.fit(sent, config(server_round, 0, 1, 2, epochs=3))
        for c, graph in enumerate(hosted):
            operator = torch.from_numpy(dense_operator(graph.edge_index, graph.num_nodes)).float()
            features, labels = torch.from_numpy(dense_features(graph)), torch.from_numpy(graph.labels)
            train = torch.from_numpy(graph.roles == TRAIN)
            for _ in range(3):
                optimizers[c].zero_grad()
                loss = F.cross_entropy(dense_gcn(references[c], operator, features)[0][train], labels[train])
                loss.backward()
                optimizers[c].step()
            for name, values in zip(NAMES, arrays, strict=True):
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
        assert num_examples == sum(graph.num_train for graph in hosted)
        assert metrics["num_examples"] == [graph.num_train for graph in hosted]
        sent = arrays


def test_as_received_is_measured_before_training() -> None:
    hosted, sent = graphs(), received(3)
    _, _, metrics = client(*hosted).fit(sent, config(1, 0, 1, 2))
    for c, graph in enumerate(hosted):
        operator = torch.from_numpy(dense_operator(graph.edge_index, graph.num_nodes)).float()
        parameters = {name: torch.from_numpy(values[c]) for name, values in zip(NAMES, sent, strict=True)}
        predicted = dense_gcn(parameters, operator, torch.from_numpy(dense_features(graph)))[0].argmax(1).numpy()
        for name, role in (("validation_as_received", VALIDATION), ("test_as_received", TEST)):
            assert metrics[name][c] == pytest.approx((predicted == graph.labels)[graph.roles == role].mean(), abs=1e-6)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("chunk", [1, 2, "all"])
def test_a_client_trains_the_same_alone_in_any_chunk_and_any_order(sparse: bool, chunk: int | str) -> None:
    hosted, sent = graphs(sparse=sparse), received(3)
    cohort = client(*hosted, chunk=chunk, proximal=0.1)
    alone = [client(graph, proximal=0.1) for graph in hosted]
    for server_round, order in enumerate(([0, 1, 2], [2, 0], [1, 2, 0]), start=1):
        arrays, _, metrics = cohort.fit([value[order] for value in sent], config(server_round, *order, epochs=2))
        assert metrics["clients"] == sorted(order) and json.loads(metrics["failures"]) == {}
        for row, c in enumerate(metrics["clients"]):
            own, _, own_metrics = alone[c].fit([value[[c]] for value in sent], config(server_round, c, epochs=2))
            for values, expected in zip(arrays, own, strict=True):
                np.testing.assert_allclose(values[row], expected[0], atol=1e-4)
            assert metrics["test"][row] == pytest.approx(own_metrics["test"][0], abs=1e-6)
            assert metrics["train_loss"][row] == pytest.approx(own_metrics["train_loss"][0], abs=1e-4)


def test_what_the_server_sent_is_left_as_it_was() -> None:
    sent = received(2)
    before = [value.copy() for value in sent]
    client(*graphs()[:2]).fit(sent, config(1, 0, 1, epochs=3))
    for value, expected in zip(sent, before, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_a_client_without_validation_nodes_says_so_and_still_has_a_model() -> None:
    alone = client(tiny_client(0, 4, roles=[0, 0, 2, 2]))
    arrays, _, metrics = alone.fit(received(1), config(1, 0))
    assert np.isnan(metrics["validation"][0]) and not np.isnan(metrics["test"][0])
    models = alone.best_models()
    for name, values in zip(NAMES, arrays, strict=True):
        np.testing.assert_array_equal(models[0][name], values[0])


@pytest.mark.parametrize("chunk", [1, "all"])
def test_the_model_that_is_kept_is_the_first_of_best_validation(chunk: int | str) -> None:
    hosted = [tiny_client(c, 24, edge_probability=0.1) for c in range(3)]
    cohort = client(*hosted, chunk=chunk)
    assert cohort.best_models() == {}  # nobody has been trained
    history = []
    for server_round in range(1, 9):
        arrays, _, metrics = cohort.fit(received(3, seed=server_round), config(server_round, 0, 1, 2))
        history.append((np.array(metrics["validation"]), arrays))
    best = np.argmax([validation for validation, _ in history], axis=0)
    assert len(set(best)) > 1 or 0 < best[0] < 7  # else the test could not tell
    for c, models in cohort.best_models().items():
        for name, values in zip(NAMES, history[best[c]][1], strict=True):
            np.testing.assert_array_equal(models[name], values[c])


def test_accuracies_of_right_answers_are_exact() -> None:
    """Thirds and sevenths must not tie or lose by rounding: all right is 1, and equal counts are equal."""
    for nodes in range(3, 60):
        graph = tiny_client(0, nodes, roles=[0] + [1] * (nodes - 2) + [2])
        labels = np.zeros(nodes, dtype=np.int64)
        object.__setattr__(graph, "labels", labels)
        sent = [np.zeros_like(value) for value in received(1)]
        sent[NAMES.index("classifier.bias")][0, 0] = 10.0  # always class 0
        _, _, metrics = client(graph, tiny_client(1, 70)).fit(
            [np.concatenate([value, value]) for value in sent], config(1, 0, 1)
        )
        assert metrics["validation_as_received"][0] == 1.0, f"{nodes - 2} of {nodes - 2} right"


class Failing(SubgraphClient):
    """Client 1 fails in round 2, before or after its steps."""

    after = False

    def _train(self, *args: Any) -> torch.Tensor:
        chunk, _, config = args[-3:]
        fails = 1 in chunk.client_ids and config["round"] == 2
        if fails and not self.after:
            raise ValueError("the disk is full")
        losses = super()._train(*args)
        if fails:
            raise ValueError("the disk is full")
        return losses


class FailingAfter(Failing):
    """Fails when its steps are taken."""

    after = True


@pytest.mark.parametrize("family", [Failing, FailingAfter])
@pytest.mark.parametrize("chunk", [1, 2, "all"])
def test_a_failure_is_the_failing_clients_alone(family: type, chunk: int | str) -> None:
    hosted, sent = graphs(), received(3)
    failing, sound = client(*hosted, chunk=chunk, family=family), client(*hosted, chunk=1)
    for server_round in (1, 2, 3):
        arrays, num_examples, metrics = failing.fit(sent, config(server_round, 0, 1, 2, epochs=2))
        expected, _, expected_metrics = sound.fit(sent, config(server_round, 0, 1, 2, epochs=2))
        succeeded = [0, 2] if server_round == 2 else [0, 1, 2]
        assert metrics["clients"] == succeeded
        assert json.loads(metrics["failures"]) == ({"1": "ValueError: the disk is full"} if server_round == 2 else {})
        assert num_examples == sum(hosted[c].num_train for c in succeeded)
        if server_round == 3:
            succeeded = [0, 2]  # client 1 has missed a round
        for c in succeeded:
            row = metrics["clients"].index(c)
            for values, right in zip(arrays, expected, strict=True):
                np.testing.assert_allclose(values[row], right[c], atol=1e-4)
            assert metrics["train_loss"][row] == pytest.approx(expected_metrics["train_loss"][c], abs=1e-4)


def test_a_failed_step_leaves_the_failing_clients_state_as_it_was() -> None:
    hosted, sent = graphs(), received(3)
    failing, absent = client(*hosted, chunk=1, family=FailingAfter), client(*hosted, chunk=1)
    failing.fit(sent, config(1, 0, 1, 2, epochs=2))
    absent.fit(sent, config(1, 0, 1, 2, epochs=2))
    sent = [values[:1] for values in sent]
    failing.fit(sent, config(2, 1, epochs=2))
    after_failure, _, _ = failing.fit(sent, config(3, 1, epochs=2))
    after_absence, _, _ = absent.fit(sent, config(3, 1, epochs=2))
    for values, expected in zip(after_failure, after_absence, strict=True):
        np.testing.assert_allclose(values[0], expected[0], atol=1e-5)


def test_a_loss_that_is_not_finite_names_its_client_and_spoils_no_other() -> None:
    hosted, sent = graphs(), received(3)
    sent[0][2] = np.nan
    arrays, _, metrics = client(*hosted).fit(sent, config(1, 0, 1, 2))
    assert metrics["clients"] == [0, 1]
    assert all(np.isfinite(value).all() for value in arrays)
    assert json.loads(metrics["failures"]) == {"2": "FloatingPointError: the training loss of client 2 is not finite"}


def test_all_clients_may_fail() -> None:
    sent = [np.full_like(value, np.nan) for value in received(3)]
    arrays, num_examples, metrics = client(*graphs()).fit(sent, config(1, 0, 1, 2))
    assert (arrays, num_examples, metrics["clients"]) == ([], 0, [])
    assert set(json.loads(metrics["failures"])) == {"0", "1", "2"}


def test_dropout_follows_seed_client_and_round_only() -> None:
    hosted, sent = graphs(), received(3)

    def losses(server_round: int, *ids: int) -> list[float]:
        _, _, metrics = client(*hosted).fit([value[list(ids)] for value in sent], config(server_round, *ids))
        return metrics["train_loss"]

    first = losses(1, 0, 1, 2)
    assert losses(1, 0, 1, 2) == first
    assert losses(1, 2) == pytest.approx(first[2:], abs=1e-6)
    assert losses(5, 0, 1, 2) != pytest.approx(first, abs=1e-4)


def test_two_clients_with_the_same_data_draw_different_dropout() -> None:
    twin = replace(tiny_client(0, 9), client_id=1)
    sent = [np.repeat(value, 2, axis=0) for value in received(1)]
    _, _, metrics = client(tiny_client(0, 9), twin).fit(sent, config(1, 0, 1))
    assert metrics["test_as_received"][0] == metrics["test_as_received"][1]
    assert metrics["train_loss"][0] != pytest.approx(metrics["train_loss"][1], abs=1e-4)


def test_a_parameter_of_a_wrong_shape_is_refused_by_name() -> None:
    sent = received(3)
    sent[-1] = np.zeros((3, CLASSES + 1), np.float32)
    with pytest.raises(
        SubflError, match=r"the server sent classifier.bias with the shape \(3, 4\), where \(3, 3\) bel"
    ):
        client(*graphs()).fit(sent, config(1, 0, 1, 2))

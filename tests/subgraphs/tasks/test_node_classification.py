from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from tiny_clients import tiny_client

from subfl_flower.data.graph import TEST, TRAIN, VALIDATION, ClientGraph
from subfl_flower.errors import SubflError
from subfl_flower.subgraphs.tasks.node_classification import NodeClassification, NodeExamples

TASK = NodeClassification(name="node_classification")


def examples_of(*graphs: ClientGraph) -> NodeExamples:
    return TASK.examples(graphs, torch.device("cpu"))


def test_means_are_over_the_nodes_of_a_role_and_no_number_without_such_nodes() -> None:
    graphs = [tiny_client(0, 5, roles=[0, 0, 1, 1, -1]), tiny_client(1, 2, roles=[0, 2])]
    examples, values = examples_of(*graphs), torch.tensor([[1.0, 2, 3, 5, 100], [7, 8, 100, 100, 100]])
    assert examples.mean(values, TRAIN).tolist() == [1.5, 7]
    validation, test = examples.mean(values, VALIDATION).tolist(), examples.mean(values, TEST).tolist()
    assert validation[0] == 4 and np.isnan(validation[1])
    assert np.isnan(test[0]) and test[1] == 8


def test_unlabelled_nodes_and_padding_get_a_class_that_exists_and_no_weight() -> None:
    graph = replace(tiny_client(0, 3, roles=[0, -1, 1]), labels=np.array([2, -1, 1]))
    examples = examples_of(graph, tiny_client(1, 4))
    assert examples.labels[0].tolist() == [2, 0, 1, 0]
    assert not any(members[0, [1, 3]].any() for members in examples.members)


def test_the_loss_is_the_mean_cross_entropy_of_training_nodes_and_the_metric_is_accuracy() -> None:
    graph = replace(tiny_client(0, 4, roles=[0, 0, 1, 2]), labels=np.array([0, 1, 2, 0]))
    outputs = torch.tensor([[[0.0, 0, 0], [0, np.log(2), 0], [0, 0, 3], [0, 3, 0]]])
    examples = examples_of(graph)
    # Cross-entropies: log 3 of three equal logits; log(4) - log(2) of the weights 1, 2, 1.
    assert examples.losses(outputs, []).tolist() == pytest.approx([(np.log(3) + np.log(2)) / 2])
    validation, test = examples.evaluate(outputs)
    assert (validation.tolist(), test.tolist()) == ([1.0], [0.0])


def labelled(client_id: int, roles: list[int], labels: list[int], num_classes: int = 3) -> ClientGraph:
    """A client whose nodes have these roles and labels."""
    graph = tiny_client(client_id, len(roles), roles=roles)
    return replace(graph, labels=np.array(labels), num_classes=num_classes)


def told(*predictions: list[int], num_classes: int = 3) -> torch.Tensor:
    """Outputs that predict these classes; at padding class 0."""
    width = max(map(len, predictions))
    outputs = torch.full((len(predictions), width, num_classes), -2.0)
    for c, classes in enumerate(predictions):
        for node in range(width):
            outputs[c, node, classes[node] if node < len(classes) else 0] = -1.0
    return outputs


FOUR = (
    labelled(0, [0, 0, 0, 2, 2, 2, 2, 1], [1, 1, 0, 0, 0, 1, 2, 2]),
    labelled(1, [0, 1], [1, 1]),  # no test node
    labelled(2, [0, 0, 2, 2], [2, 0, 0, 2]),  # both training classes as often
    labelled(3, [0, 2, 2], [0, 1, 1]),
)
FOUR_TOLD = ([2, 2, 2, 0, 1, 1, 1, 0], [1, 1], [1, 1, 0, 0], [2, 1, 1])


def test_figures_of_test_nodes_worked_out_by_hand() -> None:
    """Client 0: F1 of class 0 is 2·1/(2 + 1), of class 1 2·1/(1 + 3), of class 2 zero; recalls 1/2, 1 and 0."""
    figures = examples_of(*FOUR).figures(told(*FOUR_TOLD))
    expected = {
        "test.macro_f1": [(2 / 3 + 1 / 2) / 3, np.nan, (2 / 3) / 2, 1],
        "test.balanced_accuracy": [1 / 2, np.nan, 1 / 2, 1],
        "test.majority": [1 / 4, np.nan, 1 / 2, 0],  # class 1; -; 0, the lower one of equals; 0
        "test.one_class": [0, np.nan, 1, 0],  # one class for one label, as client 3 does it, is right
    }
    assert figures.keys() == expected.keys() == set(TASK.client_figures)
    for name, values in expected.items():
        np.testing.assert_allclose(figures[name].numpy(), values, rtol=1e-6, err_msg=name)


def test_a_client_has_the_same_figures_alone_and_beside_others() -> None:
    together = examples_of(*FOUR).figures(told(*FOUR_TOLD))
    for c, (graph, classes) in enumerate(zip(FOUR, FOUR_TOLD, strict=True)):
        for name, values in examples_of(graph).figures(told(classes)).items():
            np.testing.assert_array_equal(values.numpy(), together[name][c : c + 1].numpy(), err_msg=name)


@pytest.mark.filterwarnings("ignore::UserWarning:sklearn")
def test_figures_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    sizes = rng.integers(2, 25, 120)
    classes = 5
    graphs, predictions = [], []
    for c, size in enumerate(sizes):
        roles = [0, 2, *rng.integers(0, 3, size - 2)]
        few = rng.choice(classes, rng.integers(1, classes + 1), replace=False)  # so that some clients lack classes
        graphs.append(labelled(c, roles, rng.choice(few, size).tolist(), classes))
        predictions.append(rng.choice(few[: rng.integers(1, len(few) + 1)], size).tolist())
    examples, outputs = examples_of(*graphs), told(*predictions, num_classes=classes)
    figures, accuracy = examples.figures(outputs), examples.evaluate(outputs)[1]
    single = 0
    for c, (graph, predicted) in enumerate(zip(graphs, np.array(predictions, dtype=object), strict=True)):
        assert graph.labels is not None
        test, train = graph.roles == TEST, graph.roles == TRAIN
        truth, found = graph.labels[test], np.array(predicted)[test]
        common = np.argmax(np.bincount(graph.labels[train]))  # numpy's is the lowest of equals
        collapsed = len(set(found)) == 1 and len(set(truth)) > 1
        single += collapsed
        expected = {
            "test.macro_f1": f1_score(truth, found, average="macro"),
            "test.balanced_accuracy": balanced_accuracy_score(truth, found) if len(truth) else np.nan,
            "test.majority": accuracy_score(truth, np.full(len(truth), common)),
            "test.one_class": float(collapsed),
        }
        for name, value in expected.items():
            assert figures[name][c].item() == pytest.approx(value, abs=1e-6), (name, c)
        if collapsed and found[0] == common:
            assert figures["test.majority"][c] == accuracy[c]  # to the last bit: the two are compared
    assert 10 < single < 110


def test_examples_are_training_nodes_and_a_client_without_any_is_refused() -> None:
    assert TASK.num_examples(tiny_client(0, 5, roles=[0, 0, 1, 2, 0])) == 3
    with pytest.raises(SubflError, match="client 7 has no training node"):
        TASK.num_examples(tiny_client(7, 2, roles=[1, 2]))

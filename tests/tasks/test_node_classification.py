from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_clients import tiny_client

from subfl_flower.data.graph import TEST, TRAIN, VALIDATION, ClientGraph
from subfl_flower.errors import SubflError
from subfl_flower.tasks.node_classification import NodeClassification, NodeExamples

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


def test_examples_are_training_nodes_and_a_client_without_any_is_refused() -> None:
    assert TASK.num_examples(tiny_client(0, 5, roles=[0, 0, 1, 2, 0])) == 3
    with pytest.raises(SubflError, match="client 7 has no training node"):
        TASK.num_examples(tiny_client(7, 2, roles=[1, 2]))

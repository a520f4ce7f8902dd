from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.metrics import accuracy_score, average_precision_score, roc_auc_score
from tiny_clients import tiny_client

from subfl_flower.data.graph import TEST, VALIDATION, ClientGraph
from subfl_flower.errors import SubflError
from subfl_flower.subgraphs.tasks.class_measures import MEASURES, LabelledNodes, Predictions, precision_of
from subfl_flower.subgraphs.tasks.node_classification import NodeClassification


def predicted(labels: list[int], probabilities: list[list[float]], client: list[int] | None = None) -> Predictions:
    """Predictions with these probabilities for nodes with these labels, of one client or of several."""
    owners = np.array(client or [0] * len(labels))
    nodes = LabelledNodes(np.array(labels), owners, int(owners.max()) + 1, len(probabilities[0]))
    return Predictions(nodes, torch.log(torch.tensor(probabilities, dtype=torch.float64)))


BINARY = predicted([1, 0, 1, 0], [[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.6, 0.4]])


def test_the_area_under_the_curve_of_two_classes_by_hand() -> None:
    """Pairs of a 1 and a 0: 0.9 beats 0.8 and 0.4, 0.7 beats 0.4 alone: 3 of 4."""
    assert MEASURES["roc_auc"](BINARY).tolist() == [0.75]
    tied = predicted([1, 0], [[0.5, 0.5], [0.5, 0.5]])
    assert MEASURES["roc_auc"](tied).tolist() == [0.5]  # a tie counts half


def test_the_average_precision_of_two_classes_by_hand() -> None:
    """Recall rises by 1/2 at the first of one node (precision 1) and at the third (precision 2/3)."""
    assert MEASURES["average_precision"](BINARY).tolist() == pytest.approx([(1 + 2 / 3) / 2])
    tied = predicted([1, 0, 0], [[0.5, 0.5]] * 3)
    assert MEASURES["average_precision"](tied).tolist() == pytest.approx([1 / 3])  # one threshold for all


def test_several_classes_are_each_measured_against_all_others_and_absent_ones_are_left_out() -> None:
    """Class 0: 0.6 and 0.2 against 0.3 and 0.1: 3 of 4 pairs. Class 1: 0.5 and 0.2 against 0.3 and 0.4: 2 of 4."""
    rows = [[0.6, 0.3, 0.1], [0.3, 0.5, 0.2], [0.2, 0.4, 0.4], [0.1, 0.2, 0.7]]
    assert MEASURES["roc_auc"](predicted([0, 1, 0, 1], rows)).tolist() == pytest.approx([(0.75 + 0.5) / 2])
    # Class 0 in order: right, wrong, right, wrong. Class 1: right, wrong, wrong, right.
    expected = ((1 + 2 / 3) / 2 + (1 + 2 / 4) / 2) / 2
    assert MEASURES["average_precision"](predicted([0, 1, 0, 1], rows)).tolist() == pytest.approx([expected])


def test_a_client_of_one_class_has_neither_area_nor_average_precision() -> None:
    of = predicted([1, 1, 0, 1], [[0.5, 0.5], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]], [0, 0, 2, 2])
    for name in ("roc_auc", "average_precision"):
        values = MEASURES[name](of)
        assert np.isnan(values[:2]).all() and values[2] == 1.0
    assert np.isnan(MEASURES["accuracy"](of)[1]) and np.isnan(MEASURES["calibration_error"](of)[1])


def test_the_calibration_error_by_hand() -> None:
    """Bins of width 1/15: 0.9 and 0.92 share (13/15, 14/15], accuracy 1/2; 0.6 lies in (8/15, 9/15], accuracy 1.

    The first bin's gap is |1/2 - 0.91| with weight 2/3, the second one's |1 - 0.6| with weight 1/3.
    """
    of = predicted([0, 1, 0], [[0.9, 0.1], [0.92, 0.08], [0.6, 0.4]])
    assert MEASURES["calibration_error"](of).tolist() == pytest.approx([2 / 3 * 0.41 + 1 / 3 * 0.4])


def test_gaps_of_a_bin_cancel_and_those_of_two_bins_do_not() -> None:
    one = predicted([0, 1], [[0.7, 0.3], [0.7, 0.3]])  # accuracy 1/2, confidence 0.7
    assert MEASURES["calibration_error"](one).tolist() == pytest.approx([0.2])
    two = predicted([0, 1], [[0.7, 0.3], [0.8, 0.2]])  # |1 - 0.7| and |0 - 0.8|, half each
    assert MEASURES["calibration_error"](two).tolist() == pytest.approx([0.55])


def test_a_confidence_on_the_edge_of_two_bins_is_in_the_lower_one() -> None:
    """1/5 is in (2/15, 3/15], and 0.22 in (3/15, 4/15]: half of |1 - 0.2| and half of |0 - 0.22|."""
    of = predicted([0, 1], [[0.2] * 5, [0.22, 0.195, 0.195, 0.195, 0.195]])
    assert MEASURES["calibration_error"](of).tolist() == pytest.approx([0.51])


@pytest.mark.parametrize("num_classes", [2, 3, 6])
def test_measures_are_those_of_scikit_learn(num_classes: int) -> None:
    rng = np.random.default_rng(num_classes)
    sizes = rng.integers(4 * num_classes, 60, 40)
    client = np.repeat(np.arange(40), sizes)
    labels = np.concatenate([rng.permutation(np.arange(size) % num_classes) for size in sizes])
    logits = torch.from_numpy(rng.integers(-3, 4, (len(client), num_classes)) / 2)  # with many ties
    of = Predictions(LabelledNodes(labels, client, 40, num_classes), logits)
    found = {name: measure(of) for name, measure in MEASURES.items()}
    for c in range(40):
        truth, scores = labels[client == c], of.scores[client == c]
        known = scores[:, 1] if num_classes == 2 else scores
        assert found["roc_auc"][c] == pytest.approx(roc_auc_score(truth, known, multi_class="ovr"), abs=1e-12)
        one_hot = truth if num_classes == 2 else np.eye(num_classes)[truth]
        assert found["average_precision"][c] == pytest.approx(average_precision_score(one_hot, known), abs=1e-12)
        assert found["accuracy"][c] == pytest.approx(accuracy_score(truth, scores.argmax(1)))
        if num_classes == 2:
            assert precision_of(known, truth) == found["average_precision"][c]


def test_the_order_of_the_nodes_changes_no_measure() -> None:
    rng = np.random.default_rng(0)
    client, labels = np.repeat([0, 1, 2], 20), rng.integers(0, 3, 60)
    logits, order = torch.from_numpy(rng.normal(size=(60, 3))), rng.permutation(60)
    one = Predictions(LabelledNodes(labels, client, 3, 3), logits)
    other = Predictions(LabelledNodes(labels[order], client[order], 3, 3), logits[order])
    for name, measure in MEASURES.items():
        np.testing.assert_allclose(measure(one), measure(other), rtol=1e-12, err_msg=name)


# The task -------------------------------------------------------------------------------------------------------------


def task(**settings: object) -> NodeClassification:
    return NodeClassification.model_validate({"name": "node_classification", **settings})


def client_of(roles: list[int], labels: list[int]) -> ClientGraph:
    graph = tiny_client(0, len(roles), roles=roles)
    return replace(graph, labels=np.array(labels), num_classes=2)


def test_the_metric_is_that_of_each_role_and_accuracy_becomes_a_further_figure() -> None:
    graph = client_of([0, 1, 1, 2, 2, 2], [0, 0, 1, 1, 0, 0])
    logits = torch.tensor([[[0.0, 0.0], [0, 1], [0, 2], [0, 1], [0, 2], [0, -1]]])
    asked = task(metric="roc_auc", figures=["average_precision", "roc_auc"])
    assert (asked.metric, asked.further) == ("roc_auc", ("accuracy", "average_precision"))
    examples = asked.examples([graph], torch.device("cpu"))
    validation, test = examples.evaluate(logits)
    assert (validation.tolist(), test.tolist()) == ([1.0], [0.5])
    figures = examples.figures(logits)
    assert figures["test.accuracy"].tolist() == pytest.approx([2 / 3])
    assert figures["test.average_precision"].tolist() == [0.5]
    assert {name for name in asked.metrics if name.startswith("test.")} == set(figures)


def test_the_default_is_accuracy_and_no_further_figure() -> None:
    assert task().metric == "accuracy" and task().further == ()
    assert task().model_dump(mode="json", by_alias=True)["metric"] == "accuracy"


def test_another_metric_is_refused() -> None:
    with pytest.raises(ValidationError, match="'accuracy', 'macro_f1'"):
        task(metric="auc")
    with pytest.raises(ValidationError, match="calibration_error"):
        task(metric="calibration_error")  # a model that knows nothing can be well calibrated


def test_a_metric_of_two_classes_needs_a_client_whose_validation_nodes_have_two() -> None:
    single, mixed = client_of([0, 1, 2], [0, 1, 0]), client_of([0, VALIDATION, VALIDATION, TEST], [0, 1, 0, 1])
    task(metric="roc_auc").require_measurable([single, mixed])
    task().require_measurable([single])
    with pytest.raises(SubflError, match="average_precision needs validation nodes of two classes, and no"):
        task(metric="average_precision").require_measurable([single])

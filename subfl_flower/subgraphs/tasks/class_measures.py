"""Measures of a classification of nodes, each for all clients of a chunk at once.

Shapes: N nodes of C clients, of K classes. `client` int64 [N] is the position of a node's client, and `labels` int64
[N] its class. A measure is NaN where a client has no such node, and where it
is not defined.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

BINS = 15
"""Number of equally wide bins of confidence of the calibration error, as in Guo et al., ICML 2017."""


@dataclass(frozen=True, eq=False)
class LabelledNodes:
    """Nodes that predictions are made for.

    Attributes:
        labels: int64 [N].
        client: int64 [N], from 0 to C - 1.
        num_clients, num_classes: C and K.
    """

    labels: np.ndarray
    client: np.ndarray
    num_clients: int
    num_classes: int

    @cached_property
    def counts(self) -> np.ndarray:
        """Number of each client's nodes, int64 [C]."""
        return self.labelled.sum(1)

    @cached_property
    def labelled(self) -> np.ndarray:
        """Number of each client's nodes with each label, int64 [C, K]."""
        return self.count(self.labels)

    @cached_property
    def num_labels(self) -> np.ndarray:
        """Number of labels among each client's nodes, int64 [C]."""
        return (self.labelled > 0).sum(1)

    def count(self, classes: np.ndarray, chosen: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Numbers of each client's nodes by class, int64 [C, K].

        Args:
            classes: of each node, int64 [N].
            chosen: the nodes that count.
        """
        cells = (self.client * self.num_classes + classes)[chosen]
        return np.bincount(cells, minlength=self.num_clients * self.num_classes).reshape(self.num_clients, -1)


@dataclass(frozen=True, eq=False)
class Predictions:
    """Outputs of models for some nodes.

    Attributes:
        nodes: the nodes.
        logits: [N, K].
    """

    nodes: LabelledNodes
    logits: Tensor

    @cached_property
    def told(self) -> np.ndarray:
        """The predicted class of each node, int64 [N]."""
        return np.asarray(self.logits.argmax(-1).cpu().numpy())

    @cached_property
    def told_of_class(self) -> np.ndarray:
        """Number of each client's nodes for which each class is predicted, int64 [C, K]."""
        return self.nodes.count(self.told)

    @cached_property
    def right_of_class(self) -> np.ndarray:
        """Number of each client's nodes of each class that are predicted as such, int64 [C, K]."""
        return self.nodes.count(self.told, self.told == self.nodes.labels)

    @cached_property
    def scores(self) -> np.ndarray:
        """Probabilities, float64 [N, K]: the softmax of the logits."""
        return np.asarray(self.logits.detach().to(torch.float64).softmax(-1).cpu().numpy())


def accuracy(of: Predictions) -> np.ndarray:
    """Share of each client's nodes whose class is predicted [C]."""
    return _ratio(of.right_of_class.sum(1), of.nodes.counts)


def macro_f1(of: Predictions) -> np.ndarray:
    """Mean F1 over the classes among each client's labels or predictions [C]."""
    either = of.nodes.labelled + of.told_of_class
    return _ratio((2 * of.right_of_class / np.maximum(either, 1)).sum(1), (either > 0).sum(1))


def balanced_accuracy(of: Predictions) -> np.ndarray:
    """Mean recall over the classes among each client's labels [C]."""
    return _ratio((of.right_of_class / np.maximum(of.nodes.labelled, 1)).sum(1), of.nodes.num_labels)


def roc_auc(of: Predictions) -> np.ndarray:
    """Area under the ROC curve [C].

    With two classes it is that of class 1, with more the mean of the areas of each class against all others. The mean
    is over the classes among a client's labels (scikit-learn requires all of them). The area is the share of pairs of a
    node of the class and another node in which the first one has the larger probability, a tie counting half (Mann and
    Whitney, 1947). It is not defined for a client whose nodes have one label.
    """
    return _over_classes(of, _areas)


def average_precision(of: Predictions) -> np.ndarray:
    """Average precision [C]: the sum over thresholds of precision times the increase of recall.

    The classes are those of `roc_auc`; nodes of equal probability share a threshold, as in scikit-learn. It is not
    defined for a client whose nodes have one label, where any model would have 1.
    """
    return _over_classes(of, _precisions)


def calibration_error(of: Predictions) -> np.ndarray:
    """Expected calibration error [C] (Guo et al., ICML 2017, equations 2, 3 and 5), with `BINS` bins.

    A node's confidence is the probability of its predicted class, and bin m of M holds confidences in ((m - 1)/M, m/M].
    The error is the mean over nodes of the distance between the accuracy and the mean confidence of their bins.
    """
    nodes, confidence = of.nodes, of.scores[np.arange(len(of.told)), of.told]
    bins = np.searchsorted(np.arange(1, BINS) / BINS, confidence, side="left")
    gaps = np.bincount(nodes.client * BINS + bins, (of.told == nodes.labels) - confidence, nodes.num_clients * BINS)
    return _ratio(np.abs(gaps).reshape(-1, BINS).sum(1), nodes.counts)


MEASURES: Mapping[str, Callable[[Predictions], np.ndarray]] = {
    measure.__name__: measure
    for measure in (accuracy, macro_f1, balanced_accuracy, roc_auc, average_precision, calibration_error)
}
"""Measures by name. All are shares from 0 to 1; of the calibration error less is better."""


def area_of(scores: np.ndarray, truth: np.ndarray) -> float:
    """Area under the ROC curve of two classes, NaN where `truth` has one; arguments as of `precision_of`."""
    return float(_areas(_Ranked(np.zeros(len(truth), dtype=np.int64), scores, truth, 1))[0])


def precision_of(scores: np.ndarray, truth: np.ndarray) -> float:
    """Average precision of two classes, NaN where `truth` has one.

    Args:
        scores: [N]; larger ones are for class 1.
        truth: 0 or 1, [N].
    """
    if truth.all() or not truth.any():
        return float("nan")
    return float(_precisions(_Ranked(np.zeros(len(truth), dtype=np.int64), scores, truth, 1))[0])


class _Ranked:
    """Scores in ascending order, group by group.

    Args:
        group: of each score, int64 [S].
        values: the scores [S].
        positive: 1 where a score's example is of the class that the score is for, else 0 [S].
        groups: G.

    Attributes:
        group: of each score, ascending [S].
        positive: as 0.0 or 1.0, in the order of the scores [S].
        tie: number of the run of equal scores that a score is in [S].
        firsts, lasts: places of the first and the last score of each run.
        starts, sizes, positives: first place, size and number of positives of each group [G].
    """

    def __init__(self, group: np.ndarray, values: np.ndarray, positive: np.ndarray, groups: int) -> None:
        order = np.lexsort((values, group))
        self.group, values = group[order], values[order]
        self.positive = positive[order].astype(np.float64)
        begins = np.ones(len(order), dtype=bool)
        begins[1:] = (self.group[1:] != self.group[:-1]) | (values[1:] != values[:-1])
        self.tie, self.firsts = np.cumsum(begins) - 1, np.flatnonzero(begins)
        self.lasts = np.append(self.firsts[1:], len(order)) - 1
        self.sizes = np.bincount(self.group, minlength=groups)
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.positives = np.bincount(self.group, self.positive, groups)


def _areas(ranked: _Ranked) -> np.ndarray:
    """Area under the ROC curve of each group [G], by the ranks of its positives."""
    ranks = (ranked.firsts + ranked.lasts)[ranked.tie] / 2 + 1 - ranked.starts[ranked.group]
    sums, positives = np.bincount(ranked.group, ranked.positive * ranks, len(ranked.sizes)), ranked.positives
    return _ratio(sums - positives * (positives + 1) / 2, positives * (ranked.sizes - positives))


def _precisions(ranked: _Ranked) -> np.ndarray:
    """Average precision of each group [G]; a run of equal scores is one threshold."""
    of_run, ends = ranked.group[ranked.firsts], ranked.starts + ranked.sizes
    below = np.concatenate([[0.0], np.cumsum(ranked.positive)])  # positives before each place
    above = (below[ends] - below[ranked.starts])[of_run] - (below[ranked.firsts] - below[ranked.starts][of_run])
    gained = np.bincount(ranked.tie, ranked.positive, len(ranked.firsts))
    precision = above / (ends[of_run] - ranked.firsts)
    return _ratio(np.bincount(of_run, gained * precision, len(ranked.sizes)), ranked.positives)


def _over_classes(of: Predictions, measured: Callable[[_Ranked], np.ndarray]) -> np.ndarray:
    """The measure of class 1 where there are two, else the mean over the classes that some, not all, nodes have."""
    nodes, classes = of.nodes, np.arange(of.nodes.num_classes)  # a group is a class of a client
    group = (nodes.client[:, None] * nodes.num_classes + classes).ravel()
    positive = (nodes.labels[:, None] == classes).ravel()
    ranked = _Ranked(group, of.scores.ravel(), positive, nodes.num_clients * nodes.num_classes)
    mixed = (ranked.positives > 0) & (ranked.positives < ranked.sizes)
    values = np.where(mixed, measured(ranked), 0.0).reshape(of.nodes.num_clients, -1)
    mixed = mixed.reshape(of.nodes.num_clients, -1)
    if of.nodes.num_classes == 2:
        values, mixed = values[:, 1:], mixed[:, 1:]
    return _ratio(values.sum(1), mixed.sum(1))


def _ratio(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """parts / wholes, NaN where a whole is 0."""
    return np.divide(parts, wholes, out=np.full(np.shape(parts), np.nan), where=np.asarray(wholes) > 0)

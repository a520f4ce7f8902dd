"""Audit of what a server can infer about a client's graph from the parameters that it uploads.

Three questions, each asked without shadow models and without other data:

- *membership*: which nodes did the model train on? The server computes the uploaded model at nodes that it suspects,
  and takes those with a small loss for training nodes (Yeom et al., CSF 2018). It knows the nodes' features, edges and
  labels: the worst case, and a bound for what it can do with less.
- *features*: which features does any of the client's nodes have? A row of the first layer whose feature is absent has
  no gradient, and comes back as it was sent, or not at all.
- *labels*: how frequent are the classes among its training nodes? The gradient by a class's bias is the mean of
  prediction less label, so that the bias of a frequent class rises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from subfl_flower.privacy.leakage import precision_at, ranking_auc


@dataclass(frozen=True)
class Evidence:
    """A client's secrets, and the scores that a server gives them; None where an attack has no scores.

    Attributes:
        membership: scores of labelled nodes, float [n].
        trained: True for those of these nodes that the client trained on, bool [n].
        features: scores of features, float [F].
        present: True for the features that any of its nodes has, bool [F].
        labels: scores of classes, float [K].
        frequencies: of the classes among its training nodes, float [K].
    """

    membership: np.ndarray | None
    trained: np.ndarray
    features: np.ndarray | None
    present: np.ndarray
    labels: np.ndarray | None
    frequencies: np.ndarray


@dataclass(frozen=True)
class InferenceReport:
    """Quality of the attacks, mean over clients; None where an attack has no scores, or nothing to tell apart.

    Attributes:
        clients: number of audited clients.
        membership_auc: area under the ROC curve of training nodes against others; 0.5 is chance.
        feature_auc: of features that a client has against others.
        feature_precision: share of features that it has among the n ranked first, n being their number.
        feature_share: share of features that it has, the precision of guessing.
        label_correlation: Pearson's, between the scores and the frequencies of classes.
        label_mode: share of clients whose most frequent class has the highest score.
        label_mode_chance: that of guessing a class.
    """

    clients: int
    membership_auc: float | None
    feature_auc: float | None
    feature_precision: float | None
    feature_share: float | None
    label_correlation: float | None
    label_mode: float | None
    label_mode_chance: float | None


def inference_report(evidence: Sequence[Evidence]) -> InferenceReport:
    """Results of the attacks on some clients."""
    membership = [ranking_auc(each.membership, each.trained) for each in evidence if each.membership is not None]
    features = [(each.features, each.present) for each in evidence if each.features is not None]
    ranked = [(scores, present) for scores, present in features if present.any() and not present.all()]
    labels = [(each.labels, each.frequencies) for each in evidence if each.labels is not None]
    return InferenceReport(
        clients=len(evidence),
        membership_auc=_mean(membership),
        feature_auc=_mean([ranking_auc(scores, present) for scores, present in ranked]),
        feature_precision=_mean([precision_at(scores, present) for scores, present in ranked]),
        feature_share=_mean([float(present.mean()) for _, present in features]),
        label_correlation=_mean([_correlation(scores, known) for scores, known in labels]),
        label_mode=_mean([float(known[scores.argmax()] == known.max()) for scores, known in labels]),
        label_mode_chance=_mean([float((known == known.max()).mean()) for _, known in labels]),
    )


def node_losses(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cross-entropy of each node [n], from outputs [n, K] and classes int [n]."""
    shifted = outputs - outputs.max(1, keepdims=True)
    losses: np.ndarray = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]
    return losses


def _correlation(scores: np.ndarray, known: np.ndarray) -> float:
    if scores.std() == 0 or known.std() == 0:
        return float("nan")
    return float(np.corrcoef(scores, known)[0, 1])


def _mean(values: Sequence[float]) -> float | None:
    numbers = [value for value in values if not np.isnan(value)]
    return float(np.mean(numbers)) if numbers else None

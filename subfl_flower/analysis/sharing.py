"""Weights that clients with private masks have in common (FED-PUB, Appendix C.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from subfl_flower.analysis.pairs import most_and_least_similar
from subfl_flower.subgraphs.models.graph_network import Parameters


@dataclass(frozen=True)
class SharedWeights:
    """Weights that every client's model shares with one other client's, by client id.

    Attributes:
        client: int [K], the other client.
        similarity: [K], the functional similarity of the two.
        jaccard: [K], the weights that both keep, as a share of those that either keeps.
        of_all: [K], the weights that both keep, as a share of all.
    """

    client: np.ndarray
    similarity: np.ndarray
    jaccard: np.ndarray
    of_all: np.ndarray

    @property
    def mean_jaccard(self) -> float:
        """Mean over clients."""
        return float(pd.Series(self.jaccard).mean())


@dataclass(frozen=True)
class ParameterSharing:
    """Weights in common with the functionally most similar and with the least similar other client."""

    most_similar: SharedWeights
    least_similar: SharedWeights


def kept_weights(models: Sequence[Parameters], matrices: Sequence[str]) -> np.ndarray:
    """Mask of the nonzero entries of the weight matrices, bool [K, entries].

    An entry is zero where the client's mask prunes it, or in the row of a feature that the client does not have.

    Args:
        models: by client id, each with a leading axis of one.
        matrices: names of the weight matrices.
    """
    return np.stack([np.concatenate([model[name].numpy().ravel() != 0 for name in matrices]) for model in models])


def parameter_sharing(kept: np.ndarray, similarity: np.ndarray) -> ParameterSharing | None:
    """Compare each client's weights with those of two others.

    Args:
        kept: bool [K, entries], K at least 2.
        similarity: [K, K]; selects the most and the least similar client.

    Returns:
        None where every client keeps every weight: the method prunes nothing, and all shares would be 1.
    """
    if kept.all():
        return None
    most, least = most_and_least_similar(similarity)
    return ParameterSharing(_shared(kept, similarity, most), _shared(kept, similarity, least))


def _shared(kept: np.ndarray, similarity: np.ndarray, other: np.ndarray) -> SharedWeights:
    both = np.array([np.count_nonzero(own & kept[j]) for own, j in zip(kept, other, strict=True)])
    either = np.array([np.count_nonzero(own | kept[j]) for own, j in zip(kept, other, strict=True)])
    jaccard = np.where(either > 0, both / np.maximum(either, 1), np.nan)
    return SharedWeights(other, similarity[np.arange(len(other)), other], jaccard, both / kept.shape[1])

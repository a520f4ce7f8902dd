"""Learning the treatment of a graph's features from its training nodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from subfl_flower.data.datasets.custom_settings import FeatureSettings
from subfl_flower.data.feature_transform import FeatureTransform, learnt_numbers
from subfl_flower.data.graph import FeatureMatrix, Graph, Notes

_MUCH_LARGER = 100.0


def treated(graph: Graph, train: np.ndarray, settings: FeatureSettings, row_normalize: bool) -> FeatureTransform:
    """The feature transform that the settings describe, learnt from training nodes.

    Args:
        graph: graph with features as they were read.
        train: bool `[nodes]`.
        settings: treatment of features.
        row_normalize: true if rows are made to sum to one, which rules out scaling by default.
    """
    encoding = graph.transform or FeatureTransform()
    asked = settings.standardize
    if asked == "auto":
        asked = encoding.columns is not None and not row_normalize
    scaled = ~_binary(graph.features) if asked else np.zeros(graph.num_features, dtype=bool)
    if encoding.structure is not None:
        scaled[:] = False
    numbers = learnt_numbers(graph.features, train, scaled, settings.impute)
    return encoding.model_copy(update={**numbers, "row_normalize": row_normalize})


def scale_warning(features: FeatureMatrix, names: Sequence[str] | None, transform: FeatureTransform) -> Notes:
    """A warning if features that were not scaled differ much in size, or are all zero."""
    largest = np.asarray(abs(features).max(axis=0).todense() if sp.issparse(features) else abs(features).max(axis=0))
    largest = largest.ravel()
    seen = np.flatnonzero(largest > 0)
    if not seen.size:
        return Notes(warnings=("all features are 0",))
    if transform.scale is not None or transform.row_normalize:
        return Notes()
    most, least = seen[largest[seen].argmax()], seen[largest[seen].argmin()]
    if largest[most] < _MUCH_LARGER * largest[least]:
        return Notes()

    def called(position: int) -> str:
        return f"{names[position] if names is not None else f'number {position}'} ({largest[position]:.3g})"

    return Notes(
        warnings=(
            f"the largest values of features differ much, from {called(int(least))} to {called(int(most))}, and "
            "features are not scaled; dataset.features.standardize=true scales them",
        )
    )


def _binary(features: FeatureMatrix) -> np.ndarray:
    """Mask of features whose values, without missing ones, are only 0 and 1; bool `[features]`."""
    if sp.issparse(features):
        other = sp.csc_array(features)
        odd = np.zeros(other.shape[1], dtype=bool)
        odd[np.repeat(np.arange(other.shape[1]), np.diff(other.indptr))[~np.isin(other.data, (0.0, 1.0))]] = True
        return ~odd
    return np.all((features == 0) | (features == 1) | np.isnan(features), axis=0)

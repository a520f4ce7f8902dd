"""Treatment of a source's features: missing values filled, columns scaled, by numbers learnt from training nodes."""

from __future__ import annotations

from typing import Literal

import numpy as np
import scipy.sparse as sp
from pydantic import BaseModel, ConfigDict, model_validator

from subfl_flower.errors import SubflError

Imputation = Literal["mean", "median", "most_frequent", "zero"]
"""Rules for missing numbers, as scikit-learn's `SimpleImputer` names them; `zero` fills in 0."""


class FeatureTransform(BaseModel):
    """Transform of a source's features into a model's input; it is saved with the model.

    Attributes:
        columns: the source's feature columns in the order of a table; None for features without names.
        one_hot: for each column of categories its categories; a category has a feature, in this order.
        fill: number that replaces a missing value, for each feature; None where no value may be missing.
        mean, scale: number that is subtracted from a feature, and by which it is then divided; None: neither.
        structure: rule that makes features from the edges, for a source without features; None: the source has some.
        row_normalize: true if each row was then made to sum to one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    columns: tuple[str, ...] | None = None
    one_hot: dict[str, tuple[str, ...]] = {}
    fill: tuple[float, ...] | None = None
    mean: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None
    structure: Literal["degree", "identity"] | None = None
    row_normalize: bool = False

    @model_validator(mode="after")
    def _fits_together(self) -> FeatureTransform:
        widths = {len(values) for values in (self.fill, self.mean, self.scale) if values is not None}
        if len(widths) > 1 or (self.mean is None) != (self.scale is None):
            raise ValueError("fill, mean and scale must have one number for each feature")
        if self.scale is not None and min(self.scale, default=1.0) <= 0:
            raise ValueError("scale must be positive")
        return self

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """The name of each feature, a category's being `column=category`; None for features without names."""
        if self.columns is None:
            return None
        return tuple(
            name
            for column in self.columns
            for name in (
                [f"{column}={category}" for category in self.one_hot[column]] if column in self.one_hot else [column]
            )
        )

    def apply(self, features: np.ndarray | sp.csr_array) -> np.ndarray | sp.csr_array:
        """Fill missing values and scale.

        Args:
            features: `[nodes, features]`, encoded as numbers, NaN where missing; a sparse matrix is scaled and never
                centred.

        Returns:
            float64 `[nodes, features]`, sparse where the input is.

        Raises:
            SubflError: the matrix has another width than the training features.
        """
        for values in (self.fill, self.scale):
            if values is not None and len(values) != features.shape[1]:
                raise SubflError(f"{features.shape[1]} features cannot be treated as {len(values)} were in training")
        if sp.issparse(features):
            return features if self.scale is None else sp.csr_array(features / np.array(self.scale)[None, :])
        result = np.array(features, dtype=np.float64)
        if self.fill is not None:
            result = np.where(np.isnan(result), np.array(self.fill), result)
        if self.scale is not None:
            result = (result - np.array(self.mean)) / np.array(self.scale)
        return result


def learnt_numbers(
    features: np.ndarray | sp.csr_array, train: np.ndarray, standardized: np.ndarray, impute: Imputation | None
) -> dict[str, tuple[float, ...] | None]:
    """The numbers of a `FeatureTransform`, learnt from training nodes alone.

    Args:
        features: `[nodes, features]`, NaN where missing.
        train: bool `[nodes]`; without a training node all nodes are used.
        standardized: bool `[features]`, those to be scaled to mean 0 and variance 1 (sparse: to variance 1).
        impute: rule for missing values; None leaves them.

    Returns:
        `fill`, `mean` and `scale`, each `[features]` or None where it is not applied.
    """
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import StandardScaler

    rows = np.flatnonzero(train) if train.any() else np.arange(features.shape[0])
    known = features[rows]
    found: dict[str, tuple[float, ...] | None] = dict.fromkeys(("fill", "mean", "scale"))
    if impute is not None and not sp.issparse(features):
        strategy = "constant" if impute == "zero" else impute
        imputer = SimpleImputer(strategy=strategy, fill_value=0.0, keep_empty_features=True).fit(known)
        found["fill"] = tuple(map(float, imputer.statistics_))
        known = np.where(np.isnan(known), imputer.statistics_, known)
    if standardized.any():
        scaler = StandardScaler(with_mean=not sp.issparse(features)).fit(known)
        mean = np.zeros(features.shape[1]) if scaler.mean_ is None else scaler.mean_
        found["mean"] = tuple(map(float, np.where(standardized, mean, 0.0)))
        found["scale"] = tuple(map(float, np.where(standardized, scaler.scale_, 1.0)))
    return found

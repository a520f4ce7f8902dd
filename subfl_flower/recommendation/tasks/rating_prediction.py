"""Rating prediction: a user's ratings of items that she has not rated."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np

from subfl_flower.data.graph import TEST, VALIDATION
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.recommendation.models.bias_row import bias_row_errors
from subfl_flower.tasks.metric import COUNT, Metric
from subfl_flower.tasks.settings import UserTask

EXAMPLES = {"validation": "validation_examples", "test": "test_examples"}
"""Names of the number of ratings behind each error."""


class RatingPrediction(UserTask):
    """Root mean squared error in rating units, of all users' ratings together; predictions are clipped to the scale."""

    pooled: ClassVar[Collection[str]] = frozenset(EXAMPLES)
    higher_is_better: ClassVar[bool] = False
    needs_ratings: ClassVar[bool] = True
    metric_range: ClassVar[tuple[float, float]] = (0.0, 1e12)
    name: Literal["rating_prediction"]

    @property
    def metric(self) -> str:
        """``rmse``."""
        return "rmse"

    @property
    def metrics(self) -> dict[str, Metric]:
        """The errors, and the number of ratings behind each of them."""
        return {**super().metrics, **dict.fromkeys(EXAMPLES.values(), replace(COUNT, by_client=True))}

    def baseline(self, ratings: Ratings) -> dict[str, dict[str, float | None]]:
        """The errors of the bias row."""
        return {"bias_row": bias_row_errors(ratings)}

    def over_clients(self, metrics: Mapping[str, np.ndarray], name: str) -> float | None:
        """The pooled error of validation or test; the mean of any other figure."""
        return pooled_error(metrics, name) if name in EXAMPLES else super().over_clients(metrics, name)


def pooled_error(metrics: Mapping[str, np.ndarray], name: str) -> float | None:
    """The root mean squared error of all clients' examples together, from each client's; None without any example."""
    if name not in metrics or EXAMPLES[name] not in metrics:
        return None
    counts = np.where(np.isnan(metrics[name]), 0, np.nan_to_num(metrics[EXAMPLES[name]]))
    total = counts.sum()
    return float(np.sqrt((np.nan_to_num(metrics[name]) ** 2 * counts).sum() / total)) if total else None


def errors_by_user(ratings: Ratings, chosen: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """Each user's root mean squared errors by role, and the number of ratings behind each.

    Args:
        ratings: of U users.
        chosen: bool [ratings], True where a rating was predicted.
        predicted: rating units [chosen].

    Returns:
        ``validation``, ``test`` [U], NaN where a user has no such rating; ``validation_examples``, ``test_examples``
        [U].
    """
    users, roles = ratings.users()[chosen], ratings.roles[chosen]
    squares = (predicted - ratings.values[chosen].astype(float)) ** 2
    figures = {}
    for name, role in (("validation", VALIDATION), ("test", TEST)):
        counts = np.bincount(users[roles == role], minlength=ratings.num_users)
        sums = np.bincount(users[roles == role], weights=squares[roles == role], minlength=ratings.num_users)
        with np.errstate(invalid="ignore", divide="ignore"):
            figures[name] = np.sqrt(sums / counts)
        figures[EXAMPLES[name]] = counts.astype(float)
    return figures

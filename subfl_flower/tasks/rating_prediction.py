"""Rating prediction: what a user would give an item that she has not rated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np

from subfl_flower.tasks.metric import COUNT, Metric
from subfl_flower.tasks.settings import TaskSettings

EXAMPLES = {"validation": "validation_examples", "test": "test_examples"}
"""How many ratings each of the errors is of."""


class RatingPrediction(TaskSettings):
    """Root mean squared error in rating units, of all users' ratings together; predictions are clipped to the scale."""

    kind: ClassVar[Literal["graph", "ratings"]] = "ratings"
    pooled: ClassVar[bool] = True
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
        """The errors, and the number of ratings that each of them is of."""
        return {**super().metrics, **dict.fromkeys(EXAMPLES.values(), replace(COUNT, by_client=True))}

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

"""Rating prediction: what a user would give an item that she has not rated."""

from __future__ import annotations

from typing import ClassVar, Literal

from subfl_flower.tasks.settings import TaskSettings


class RatingPrediction(TaskSettings):
    """Root mean squared error in rating units, of all users' ratings together; predictions are clipped to the scale."""

    kind: ClassVar[Literal["graph", "ratings"]] = "ratings"
    metric: ClassVar[str] = "rmse"
    pooled: ClassVar[bool] = True
    name: Literal["rating_prediction"]

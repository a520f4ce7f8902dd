"""Ranking: prediction of a user's next items, among those that the user has not rated."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from subfl_flower.data.ratings.table import Ratings
from subfl_flower.errors import SubflError
from subfl_flower.recommendation.tasks.ranking_metrics import popularity_figures
from subfl_flower.tasks.metric import SHARE, Metric
from subfl_flower.tasks.settings import UserTask


class Ranking(UserTask):
    """Ranking of each user's held-out item among items that the user never rated (He et al., WWW 2017, section 4.1).

    The measures are those of `ranking_metrics`: hit rate and NDCG at each cutoff, among drawn items (``hr@10``) and
    among all that the user has not seen (``full_hr@10``). Drawn items are the practice of most papers; because they
    may order models differently than all items do (Krichene and Rendle, KDD 2020), both are measured.

    Attributes:
        split: the data set's split for the task, which a data set's YAML uses as its `split`: each user's newest rating
            tests, the next newest validates. A source's own split may hold out several items of a user.
        choose_by: the measure, at the first cutoff and among drawn items, by which the best round is chosen.
        negatives: number of items that a held-out one is ranked among.
        cutoffs: lengths k of the list of recommended items, all different and at most `negatives`: in a list of all
            candidates every item is a hit.
            candidates every item is a hit.
        seed: of these items, which are the same for every model, round and placement.
    """

    metric_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    name: Literal["ranking"]
    split: Literal["leave_one_out"] = "leave_one_out"
    choose_by: Literal["hr", "ndcg"] = "hr"
    negatives: int = Field(default=100, ge=1)
    cutoffs: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(10, 20), min_length=1, max_length=4, validate_default=True
    )
    seed: int = Field(default=1234, ge=0, lt=2**31)

    @property
    def metric(self) -> str:
        """``hr@10``, by the measure that chooses and the first cutoff."""
        return f"{self.choose_by}@{self.cutoffs[0]}"

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures of one list: both measures at every cutoff."""
        return tuple(f"{measure}@{k}" for measure in ("hr", "ndcg") for k in self.cutoffs)

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metric, and all figures among drawn items and among all."""
        names = [
            f"{role}.{among}{name}"
            for role in ("validation", "test")
            for among in ("", "full_")
            for name in self.figures
        ]
        return {**super().metrics, **dict.fromkeys(names, SHARE)}

    @property
    def candidates(self) -> dict[str, int]:
        """The number and the seed of the drawn items."""
        return {"negatives": self.negatives, "seed": self.seed}

    def baseline(self, ratings: Ratings) -> dict[str, dict[str, float | None]]:
        """The figures of popularity."""
        return {"popularity": popularity_figures(ratings, self)}

    def require_split(self, split: str) -> None:
        """Refuse all splits but the task's and the source's."""
        if split not in (self.split, "given"):
            raise SubflError(
                f"task=ranking needs dataset.split={self.split}, which leaves each user one item to test, or the "
                f"source's own split; dataset.split={split} is neither"
            )

    @field_validator("cutoffs")
    @classmethod
    def _short_and_different(cls, value: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if len(set(value)) < len(value):
            raise ValueError("must all be different")
        negatives = info.data.get("negatives")  # nothing where that is wrong itself
        if negatives is not None and max(value) > negatives:
            raise ValueError(f"must be at most task.negatives, which is {negatives}")
        return value

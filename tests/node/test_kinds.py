"""Configurations whose task is a class of somebody else's that is of no kind of data."""

from __future__ import annotations

from typing import ClassVar, Literal

import pytest

from subfl_flower.composition import composed_config
from subfl_flower.errors import SubflError
from subfl_flower.node.domain import domain_of
from subfl_flower.tasks.choices import TaskSettings


class Unfitting(TaskSettings):
    """A task that says which data it is for, and is no task on them."""

    @property
    def metric(self) -> str:
        """Any."""
        return "any"


class UnfittingRatings(Unfitting):
    """A task for ratings that is no task on them."""

    kind: ClassVar[Literal["graph", "ratings"]] = "ratings"


@pytest.mark.parametrize(
    ("overrides", "task", "base"),
    [
        (["dataset=digits"], Unfitting, "GraphTask"),
        (["dataset=synthetic_ratings", "method=fedgnn"], UnfittingRatings, "UserTask"),
    ],
)
def test_a_task_on_no_kind_of_data_is_refused(overrides: list[str], task: type[TaskSettings], base: str) -> None:
    config, _ = composed_config(overrides)
    config = config.model_copy(update={"task": task(name="own")})
    with pytest.raises(SubflError, match=f"task=own: .* must be a subclass of {base}"):
        domain_of(config).prepare(config)

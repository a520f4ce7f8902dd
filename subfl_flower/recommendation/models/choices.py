"""Choice of the model that users train, by its settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from subfl_flower.models.settings import UserModelSettings
from subfl_flower.recommendation.models.lightgcn import LightGCN
from subfl_flower.recommendation.models.recommender import StackedRecommender
from subfl_flower.recommendation.models.user_models import UserModel


def _without_attributes(settings: Any, num_items: int, *attributes: Sequence[int]) -> UserModel:
    """Make a model that does not read attributes."""
    return StackedRecommender(settings, num_items)


_MODELS: dict[str, Callable[[Any, int, Sequence[int], Sequence[int]], UserModel]] = {
    "recommender": _without_attributes,
    "factorisation": _without_attributes,
    "lightgcn": LightGCN,
}


def stacked_user_model(
    settings: UserModelSettings,
    num_items: int,
    user_values: Sequence[int] = (),
    item_values: Sequence[int] = (),
) -> UserModel:
    """The model that the settings describe.

    Args:
        settings: kind, width and penalties.
        num_items: of the whole data set.
        user_values: number of values of each field of the users' attributes.
        item_values: number of values of each field of the items' attributes.

    Raises:
        SubflError: the settings ask for attributes, and there are none.
    """
    return _MODELS[settings.name](settings, num_items, user_values, item_values)

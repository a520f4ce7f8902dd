"""From settings to the model that users train."""

from __future__ import annotations

from collections.abc import Sequence

from subfl_flower.models.lightgcn import LightGCN
from subfl_flower.models.recommender import StackedRecommender
from subfl_flower.models.settings import LightGCNSettings, RecommenderSettings
from subfl_flower.models.user_models import UserModel


def stacked_user_model(
    settings: RecommenderSettings | LightGCNSettings,
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
    if isinstance(settings, LightGCNSettings):
        return LightGCN(settings, num_items, user_values, item_values)
    return StackedRecommender(settings, num_items)

"""The models of users, and checks of which model a method can train."""

from __future__ import annotations

from typing import Any

from subfl_flower.errors import SubflError
from subfl_flower.models.settings import UserModelSettings
from subfl_flower.recommendation.cohort import UserCohort
from subfl_flower.recommendation.models.choices import stacked_user_model
from subfl_flower.recommendation.models.user_models import UserModel


def model_of(cohort: UserCohort, settings: Any) -> UserModel:
    """The model of a cohort's users."""
    sizes = [() if known is None else known.sizes for known in (cohort.user_attributes, cohort.item_attributes)]
    return stacked_user_model(settings, cohort.ratings.num_items, *sizes)


def require_rating_model(model: UserModelSettings, method: str) -> None:
    """Raise SubflError where a method that predicts ratings was given a model that ranks."""
    if model.ranks:
        raise SubflError(
            f"model={model.name} ranks items, and method={method} predicts ratings; "
            "choose task=rating_prediction, or a method for task=ranking"
        )


def require_ranking_model(model: UserModelSettings, method: str) -> None:
    """Raise SubflError where a method that ranks items was given a model that predicts ratings."""
    if not model.ranks:
        raise SubflError(f"model must be lightgcn with method={method}, not {model.name}; choose task=ranking")


def require_factorisation(model: Any, method: str) -> None:
    """Raise SubflError where a method that is plain matrix factorisation was given a graph network."""
    require_rating_model(model, method)
    if model.gnn != "none":
        raise SubflError(f"model.gnn must be none, not {model.gnn!r}: method={method} is matrix factorisation")

"""What users' models are measured by: errors of predicted ratings, or where held-out items stand in a ranking."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from subfl_flower.data.graph import TEST, TRAIN, VALIDATION
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.models.lightgcn import LightGCN
from subfl_flower.models.mixture import Scorer
from subfl_flower.models.recommender import StackedRecommender
from subfl_flower.models.user_graphs import UserGraphs
from subfl_flower.models.user_models import UserModel
from subfl_flower.runtime.user_cohort import UserCohort
from subfl_flower.tasks.ranking import Ranking
from subfl_flower.tasks.ranking_metrics import user_figures


def measured(
    model: UserModel,
    cohort: UserCohort,
    ratings: Ratings,
    shared: Mapping[str, Tensor],
    items: Tensor,
    personal: Mapping[str, Tensor],
    graphs: UserGraphs,
) -> dict[str, np.ndarray]:
    """Each user's figures on what is held out, by name, each [U].

    Args:
        model: of the users.
        cohort: that they are of.
        ratings: of U users.
        shared: shared parameters, without a user axis.
        items: [num_items, width], the item table.
        personal: each [U, ...].
        graphs: the users' local graphs.
    """
    if isinstance(model, LightGCN):
        return ranking_figures(scorer(model, cohort, shared, items, personal, graphs).scores(), ratings, cohort)
    assert isinstance(model, StackedRecommender)
    held_out = ratings.roles != TRAIN
    predicted = model.predict(
        shared,
        items,
        personal,
        graphs,
        torch.from_numpy(ratings.items[held_out]).to(cohort.device),
        torch.from_numpy(ratings.users()[held_out]).to(cohort.device),
    )
    return errors_by_user(ratings, held_out, in_rating_units(predicted, cohort))


def scorer(
    model: LightGCN,
    cohort: UserCohort,
    shared: Mapping[str, Tensor],
    items: Tensor,
    personal: Mapping[str, Tensor],
    graphs: UserGraphs,
) -> Scorer:
    """What users score items by with a model; see `measured` for what is given."""
    return Scorer(*model.representations(shared, items, personal, graphs, cohort.item_attributes))


def ranking_figures(scores: np.ndarray, ratings: Ratings, cohort: UserCohort) -> dict[str, np.ndarray]:
    """Each user's hit rates and NDCG, [U] each, from scores [U, num_items] of all items."""
    assert isinstance(cohort.task, Ranking)
    return user_figures(scores, ratings, cohort.task, cohort.candidates(ratings))


def in_rating_units(predicted: Tensor, cohort: UserCohort) -> np.ndarray:
    """Predictions in rating units, float64, clipped to the scale, from those in normalised units."""
    return np.clip(predicted.double().cpu().numpy() * cohort.spread + cohort.center, *cohort.ratings.scale)


def errors_by_user(ratings: Ratings, chosen: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """Each user's root mean squared errors by role, and how many ratings they are of.

    Args:
        ratings: of U users.
        chosen: bool [ratings], those that were predicted.
        predicted: rating units [chosen].

    Returns:
        ``validation``, ``test`` [U], not a number where a user has no such rating; ``validation_examples``,
        ``test_examples`` [U].
    """
    users, roles = ratings.users()[chosen], ratings.roles[chosen]
    squares = (predicted - ratings.values[chosen].astype(float)) ** 2
    figures = {}
    for name, role in (("validation", VALIDATION), ("test", TEST)):
        counts = np.bincount(users[roles == role], minlength=ratings.num_users)
        sums = np.bincount(users[roles == role], weights=squares[roles == role], minlength=ratings.num_users)
        with np.errstate(invalid="ignore", divide="ignore"):
            figures[name] = np.sqrt(sums / counts)
        figures[f"{name}_examples"] = counts.astype(float)
    return figures

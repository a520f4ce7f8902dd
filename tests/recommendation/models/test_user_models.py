from __future__ import annotations

import numpy as np
import pytest
import torch
from lightgcn_by_hand import five_users
from pydantic import ValidationError

from subfl_flower.data.graph import TRAIN
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import LightGCNSettings, RecommenderSettings
from subfl_flower.recommendation.models.choices import stacked_user_model
from subfl_flower.recommendation.models.lightgcn import LightGCN
from subfl_flower.recommendation.models.recommender import StackedRecommender
from subfl_flower.recommendation.models.user_models import RatedUsers


def test_a_model_is_what_its_settings_say() -> None:
    lightgcn = stacked_user_model(LightGCNSettings(name="lightgcn", dim=3), 7)
    assert isinstance(lightgcn, LightGCN) and lightgcn.trains_locally
    assert lightgcn.shapes == {"items": (7, 3)}
    recommender = stacked_user_model(RecommenderSettings(name="recommender", gnn="none", dim=3), 7, (2,), (3,))
    assert isinstance(recommender, StackedRecommender) and not recommender.trains_locally
    assert recommender.shapes == {"items": (7, 4), "bias": (1,)}


def test_attributes_have_parameters_of_their_own() -> None:
    settings = LightGCNSettings(name="lightgcn", dim=3, attributes=True)
    of_items = {"items": (7, 3), "item_values": (9, 3), "item_attention": (3,), "item_components": (4,)}
    of_users = {"user_values": (5, 3), "user_attention": (3,), "user_components": (5,)}
    assert stacked_user_model(settings, 7, (2, 2, 1), (5, 4)).shapes == of_items | of_users
    assert stacked_user_model(settings, 7, (), (5, 4)).shapes == of_items
    assert stacked_user_model(settings, 7, (2, 2, 1)).shapes == {"items": (7, 3)} | of_users
    with pytest.raises(SubflError, match=r"model\.attributes"):
        stacked_user_model(settings, 7)


def test_the_recommenders_graphs_are_of_ratings() -> None:
    ratings = five_users()
    model = stacked_user_model(RecommenderSettings(name="recommender"), ratings.num_items)
    graphs = model.local_graphs(RatedUsers(ratings, 3.0, 2.0), generators=[np.random.default_rng(0)] * 5)
    training = ratings.roles == TRAIN
    assert graphs.items.tolist() == graphs.rows.tolist() == ratings.items[training].tolist()
    torch.testing.assert_close(graphs.targets, torch.from_numpy((ratings.values[training] - 3) / 2))


@pytest.mark.parametrize(
    "given", [{"dim": 0}, {"layers": -1}, {"negatives": 0}, {"embedding_penalty": -1}, {"gnn": "gat"}]
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LightGCNSettings(name="lightgcn", **given)  # type: ignore[arg-type]

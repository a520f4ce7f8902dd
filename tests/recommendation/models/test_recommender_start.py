from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from subfl_flower.models.settings import RecommenderSettings
from subfl_flower.recommendation.models.recommender import StackedRecommender


def model_of(gnn: str, **chosen: int) -> StackedRecommender:
    return StackedRecommender(RecommenderSettings(name="recommender", gnn=gnn, dim=8, **chosen), 400)


@pytest.mark.parametrize("gnn", ["gat", "gcn", "ggnn", "none"])
def test_the_start_depends_on_the_seed_alone(gnn: str) -> None:
    model = model_of(gnn, neighbours=4)
    first, again, other = model.initial_of(5), model.initial_of(5), model.initial_of(6)
    assert {name: value.shape for name, value in first.items()} == model.shapes
    assert {value.dtype for value in first.values()} == {np.dtype(np.float32)}
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
    assert (first["items"][:, :-1] != other["items"][:, :-1]).all()


def test_items_start_small_and_without_bias() -> None:
    items = model_of("gat").initial_of(0)["items"]
    assert not items[:, -1].any()
    assert items[:, :-1].std() == pytest.approx(0.1, rel=0.05)  # 3,200 draws
    assert abs(items[:, :-1].mean()) < 4 * 0.1 / 3200**0.5


def test_users_start_differently() -> None:
    model = model_of("gat")
    mine, again, other = model.initial_user(0, 3), model.initial_user(0, 3), model.initial_user(0, 4)
    assert {name: value.shape for name, value in mine.items()} == model.personal_shapes
    np.testing.assert_array_equal(mine["user"], again["user"])
    assert (mine["user"] != other["user"]).all()
    assert mine["user_bias"] == 0


def test_a_rating_passes_its_item_on_nearly_as_it_is() -> None:
    """So that the first steps already see a factor model; what the item says without its rating starts at random."""
    start = model_of("gat").initial_of(0)
    assert np.abs(start["gnn.rating"] - np.eye(8)).max() < 0.2  # five deviations of 0.1 / sqrt(8)
    assert np.abs(start["gnn.item"]).max() > 0.5
    assert start["gnn.gain"] == start["gnn.shrinkage"] == 0
    assert start["gnn.user_score"].any()


def test_only_factorisation_has_no_network() -> None:
    assert set(model_of("none").shapes) == {"items", "bias"}
    assert not any("neighbour" in name for name in model_of("gat").shapes)
    assert "gnn.neighbour" in model_of("gcn", neighbours=1).shapes


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(ValidationError, match="'gat', 'gcn', 'ggnn' or 'none'"):
        model_of("lightgcn")

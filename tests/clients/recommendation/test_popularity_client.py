"""Popularity as a method: every user is ranked for by how many users have an item, in every round."""

from __future__ import annotations

import numpy as np
import pytest
from rated_users import ITEMS, LENGTHS, RANKED, TASK, items_of, ranking, to_all, worked

from subfl_flower.clients.recommendation.popularity import PopularityClient
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import RecommenderSettings
from subfl_flower.recommendation.tasks.ranking_metrics import user_figures

EVERYONE = range(len(LENGTHS))


@pytest.mark.parametrize("ids", [EVERYONE, [1, 3], [2]], ids=str)
def test_users_are_ranked_for_by_the_counts_of_all_users_wherever_they_are(ids: list[int]) -> None:
    counts = np.zeros(ITEMS)
    for user in EVERYONE:
        counts[items_of(user)] += 1
    assert sum(LENGTHS) == counts.sum() and counts.max() > 1
    client = ranking(PopularityClient, ids)
    expected = user_figures(np.tile(counts, (len(LENGTHS), 1)), RANKED, TASK)
    for server_round in (1, 2):
        result = worked(client.train(to_all(ids, {}, server_round)))
        assert result.arrays == result.rows == {} and result.clients == tuple(ids)
        assert result.metrics["num_examples"].tolist() == [LENGTHS[user] for user in ids]
        assert "train_loss" not in result.metrics
        for name, values in expected.items():
            assert result.metrics[name].tolist() == values[list(ids)].tolist(), name


def test_what_it_cannot_do_is_said() -> None:
    with pytest.raises(SubflError, match="model must be lightgcn with method=popularity, not recommender"):
        PopularityClient.check_model(RecommenderSettings(name="recommender"), "popularity")
    with pytest.raises(SubflError, match="needs the ratings of all users in one place"):
        ranking(PopularityClient, with_whole=False)

from __future__ import annotations

import math

import numpy as np
import pydantic
import pytest

from subfl_flower.evaluation.summary import lower_is_better
from subfl_flower.tasks.choices import LinkPrediction, NodeClassification, Ranking, RatingPrediction, TaskSettings

RATINGS = RatingPrediction(name="rating_prediction")
RANKING = Ranking(name="ranking")
NAN = float("nan")


@pytest.mark.parametrize(
    ("task", "metric"),
    [
        (NodeClassification(name="node_classification"), "accuracy"),
        (LinkPrediction(name="link_prediction"), "roc_auc"),
        (RATINGS, "rmse"),
        (RANKING, "hr@10"),
        (Ranking(name="ranking", choose_by="ndcg", cutoffs=(5, 20)), "ndcg@5"),
    ],
)
def test_a_task_and_a_report_agree_on_which_value_is_better(task: TaskSettings, metric: str) -> None:
    assert task.metric == metric
    assert task.higher_is_better == (metric != "rmse") == (not lower_is_better(task.metric))


def test_an_error_over_clients_is_that_of_all_their_ratings_together() -> None:
    metrics = {
        "test": np.array([1.0, 2.0, NAN]),
        "test_examples": np.array([3.0, 1.0, 0.0]),
        "train_loss": np.array([0.25, NAN, 0.75]),
    }
    assert RATINGS.over_clients(metrics, "test") == pytest.approx(math.sqrt((3 * 1 + 1 * 4) / 4))
    assert RATINGS.over_clients(metrics, "validation") is None
    assert RATINGS.over_clients(metrics, "train_loss") == 0.5


def test_a_hit_rate_over_clients_is_their_mean() -> None:
    metrics = {
        "test": np.array([1.0, 0.0, NAN, 1.0]),
        "test_examples": np.array([5.0, 1, 1, 1]),
        "validation": np.full(4, NAN),
    }
    assert RANKING.over_clients(metrics, "test") == pytest.approx(2 / 3)
    assert RANKING.over_clients(metrics, "validation") is None
    assert RANKING.over_clients(metrics, "train_loss") is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cutoffs": ()}, "at least 1 item"),
        ({"cutoffs": (0,)}, "greater than or equal to 1"),
        ({"cutoffs": (10, 10)}, "must all be different"),
        ({"cutoffs": (1, 2, 3, 4, 5)}, "at most 4 items"),
        ({"cutoffs": (10, 51), "negatives": 50}, "cutoffs\n.*must be at most task.negatives, which is 50"),
        ({"negatives": 15}, "cutoffs\n.*must be at most task.negatives, which is 15"),
        ({"negatives": 0}, "greater than or equal to 1"),
        ({"split": "random"}, "leave_one_out"),
        ({"choose_by": "recall"}, "'hr' or 'ndcg'"),
    ],
)
def test_what_a_ranking_cannot_be_asked(settings: dict[str, object], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        Ranking(name="ranking", **settings)

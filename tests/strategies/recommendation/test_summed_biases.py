"""Biases from masked sums, against those of the bias row, which reads all ratings in one place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from run_outcomes import Outcome

from subfl_flower.clients.recommendation.summed_biases import SUM_BITS, SummedBiases
from subfl_flower.composition import composed_config
from subfl_flower.data.graph import TRAIN
from subfl_flower.data.prepared.ratings import PreparedRatings, prepare_ratings
from subfl_flower.errors import SubflError
from subfl_flower.privacy.secure_sum import unmask_sum
from subfl_flower.recommendation.models.bias_row import bias_row
from subfl_flower.recommendation.models.recommender_file import Recommender
from subfl_flower.wire.batch import Answers, Question

SMALL = (
    *("dataset=synthetic_ratings", "dataset.num_users=12", "dataset.num_items=15", "dataset.ratings_per_user=6"),
    *("model.dim=3", "federation.rounds=3", "method.users_per_round=4", "method.evaluate_every=2"),
)
METHODS = ("method=fedgnn", "method=fcf", "method=fedmf")


def prepared(overrides: Sequence[str]) -> PreparedRatings:
    config, _ = composed_config(list(overrides))
    return prepare_ratings(config.dataset, config.partition, config.data.root, config.data.cache)


def trained(outcome: Outcome) -> Recommender:
    (path,) = (outcome.directory / "users").glob("node-*.safetensors")
    found: Recommender = Recommender.read(path)
    return found


@pytest.mark.parametrize("method", METHODS)
def test_biases_are_those_of_the_bias_row_before_and_after_training(
    inline_run: Callable[..., Outcome], method: str
) -> None:
    """Of users that were never drawn, too; the global bias is none, as ratings are centred by their mean."""
    chosen = (method, *SMALL, "method.bias_shrinkage=3")
    outcome = inline_run(*chosen)
    data, model = prepared(chosen), trained(outcome)
    expected = bias_row(data.whole(), 3.0)
    np.testing.assert_allclose(model.shared["items"][:, -1] * data.spread, expected.item, atol=0.002)
    order = np.argsort(model.client_ids)
    np.testing.assert_allclose(model.personal["user_bias"][order] * data.spread, expected.user, atol=0.002)
    assert model.shared["bias"].tolist() == [0]
    assert 1 < outcome.summary["summed_biases"]["turns"] < 30


def test_the_server_adds_up_what_no_single_user_shows(
    inline_run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[int, np.ndarray]] = []
    answer = SummedBiases.answer

    def recording(self: SummedBiases, question: Question, asked: Any) -> Answers:
        answers = answer(self, question, asked)
        told.append({client: arrays["sums"] for client, arrays in answers.arrays.items()})
        return answers

    monkeypatch.setattr(SummedBiases, "answer", recording)
    chosen = ("method=fcf", *SMALL)
    inline_run(*chosen)
    ratings = prepared(chosen).whole()
    training = ratings.roles == TRAIN
    first = told[0]
    assert sorted(first) == list(range(12))
    total = np.sum(list(first.values()), axis=0, dtype=np.uint64)
    counts = unmask_sum(total, SUM_BITS)[15:]
    np.testing.assert_array_equal(counts, np.bincount(ratings.items[training], minlength=15))
    for numbers in first.values():
        plain = unmask_sum(numbers, SUM_BITS)
        assert np.abs(plain).min() > 100  # of a rating's size without a mask, or 0
    # No two turns have the same masks: their difference would show how a user's numbers change.
    for client, numbers in first.items():
        assert np.abs(unmask_sum(told[1][client] - numbers[:15], SUM_BITS)).min() > 100


def test_sums_are_tried_again_when_somebody_did_not_answer(
    inline_run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, asked_in = SummedBiases.answer, []

    def once_failing(self: SummedBiases, question: Question, asked: Any) -> Answers:
        asked_in.append(question.server_round)
        answers = answer(self, question, asked)
        if question.server_round == 1:
            del answers.arrays[5]
            return Answers(answers.arrays, {5: "no battery"})
        return answers

    monkeypatch.setattr(SummedBiases, "answer", once_failing)
    chosen = ("method=fedgnn", *SMALL)
    model, data = trained(inline_run(*chosen)), prepared(chosen)
    assert asked_in.count(1) == 1 and set(asked_in) == {1, 2}
    expected = bias_row(data.whole(), 5.0)
    np.testing.assert_allclose(model.shared["items"][:, -1] * data.spread, expected.item, atol=0.01)


def test_under_noise_biases_are_learnt(inline_run: Callable[..., Outcome]) -> None:
    outcome = inline_run("method=fedgnn", *SMALL, "privacy=laplace_l1")
    assert "summed_biases" not in outcome.summary
    assert trained(outcome).shared["bias"].tolist() != [0]


def test_sums_that_privacy_does_not_cover_are_refused(inline_run: Callable[..., Outcome]) -> None:
    with pytest.raises(SubflError, match=r"method\.biases=summed: the noise of privacy=laplace_l1 does not cover sums"):
        inline_run("method=fedgnn", *SMALL, "privacy=laplace_l1", "method.biases=summed")


def test_a_model_that_ranks_has_no_biases_to_sum(inline_run: Callable[..., Outcome]) -> None:
    ranked = tuple(setting for setting in SMALL if "dataset.ratings" not in setting)
    with pytest.raises(SubflError, match=r"method\.biases=summed: a model that ranks items has no biases"):
        inline_run("method=fedgnn", "task=ranking", *ranked, "method.biases=summed")

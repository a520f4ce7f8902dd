"""The mixture of three models against models worked one user at a time; and what the server is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from rated_users import (
    DIM,
    ITEMS,
    LENGTHS,
    RANKED,
    SEED,
    TASK,
    UserByHand,
    items_of,
    of_models,
    random_model,
    ranking,
    sampled,
    to_all,
    worked,
)

from subfl_flower.clients.recommendation.perfedrec import PerFedRecClient
from subfl_flower.data.graph import TRAIN, VALIDATION
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import RecommenderSettings
from subfl_flower.recommendation.cohort import UserCohort
from subfl_flower.recommendation.models.mixture import MixtureScores
from subfl_flower.recommendation.tasks.ranking_metrics import user_figures
from subfl_flower.seeding import client_generator
from subfl_flower.wire.batch import Question

EVERYONE = range(len(LENGTHS))
LOCAL_LR, OWN_LR = 0.4, 0.25
STILL: dict[str, Any] = {"own_lr": 0.0, "lr": 1e-30}
"""Learning rates by which nothing changes: the own model is what it starts from."""
Models = Mapping[str, np.ndarray]


def mixing(ids: Sequence[int] = EVERYONE, **more: Any) -> PerFedRecClient:
    knobs = {
        "pseudo_items": 0,
        "local_lr": LOCAL_LR,
        "own_lr": OWN_LR,
        "user_steps": 3,
        "loss": "sum",
        "user_lr": None,
        **more,
    }
    client: PerFedRecClient = ranking(PerFedRecClient, ids, **knobs)
    return client


def train(client: PerFedRecClient, model: Models, ids: Sequence[int], server_round: int = 1) -> None:
    worked(client.train(to_all(ids, model, server_round)))


def measured(
    client: PerFedRecClient, everyone: Models, start: Models, ids: Sequence[int] | None = None
) -> dict[str, np.ndarray]:
    """Figures of users, by name, each [users], where all have the same start."""
    ids = client.cohort.client_ids if ids is None else ids
    result = worked(client.measure(of_models(ids, [everyone, start], [[0, 1]] * len(ids))))
    assert list(result.clients) == sorted(ids)
    return result.metrics


def state_of(client: PerFedRecClient) -> dict[str, np.ndarray]:
    state = client.open_state()
    return {name: state[name].numpy().copy() for name in client.state_shapes}


@pytest.fixture
def ranked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[np.ndarray]]:
    """Scores [users, ITEMS] by which `measured` ranks items: of the mixture, then of the three models."""
    seen: list[np.ndarray] = []
    rank = UserCohort.ranking_figures

    def recording(cohort: UserCohort, ratings: Ratings, scores: np.ndarray) -> dict[str, np.ndarray]:
        seen.append(scores)
        return rank(cohort, ratings, scores)

    monkeypatch.setattr(UserCohort, "ranking_figures", recording)

    def scores(*given: Any) -> list[np.ndarray]:
        seen.clear()
        measured(*given)
        return list(seen)

    return scores


def two_models(client: PerFedRecClient) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    return random_model(client.model.shapes, 1), random_model(client.model.shapes, 2)


def by_hand(client: PerFedRecClient, user: int, **more: Any) -> UserByHand:
    return UserByHand(user, client.model.initial_user(SEED, user)["user"], loss="sum", **more)


class Trio:
    """A user's three models by hand: shared parameters of each, and its embedding before and after its local steps."""

    def __init__(self, hand: UserByHand, everyone: Models, start: Models) -> None:
        self.hand, self.before = hand, hand.own.detach().numpy().copy()
        own = hand.train(start, sampled(hand.user, 3, server_round=0, purpose="own model"), OWN_LR)
        self.models = {"global": everyone, "cluster": start, "own": own}
        self.after = hand.own.detach().numpy()

    def scores(self, which: str) -> np.ndarray:
        return self.hand.scores(self.models[which], self.after if which == "own" else self.before)

    def of_mixed_parameters(self, weights: Sequence[float]) -> np.ndarray:
        """The scores of one model whose every parameter is the weighted sum of those of the three."""
        mixed = {
            name: sum(w * self.models[which][name].astype(float) for w, which in zip(weights, self.models, strict=True))
            for name in self.models["global"]
        }
        own = (weights[0] + weights[1]) * self.before + weights[2] * self.after
        return self.hand.scores(mixed, own)


# Three models ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trained", [False, True], ids=["never took part", "took part"])
@pytest.mark.parametrize("layers", [0, 1, 2])
def test_scores_are_those_of_three_models_and_their_weighted_sum(
    ranked: Callable[..., list[np.ndarray]], layers: int, trained: bool
) -> None:
    weights = (0.2, 0.3, 0.5)
    client = mixing(weights=weights, model={"layers": layers})
    everyone, start = two_models(client)
    alone = [by_hand(client, user, layers=layers) for user in EVERYONE]
    if trained:  # what is personal has moved, and so have the moments that it goes on with
        train(client, start, EVERYONE)
        for user, hand in enumerate(alone):
            hand.train(start, sampled(user, 3, purpose="sampled items"), LOCAL_LR)
    mixed, *of_models = ranked(client, everyone, start)
    assert len(of_models) == 3
    for user in EVERYONE:
        trio = Trio(alone[user], everyone, start)
        expected = {which: trio.scores(which) for which in trio.models}
        for found, (which, wanted) in zip(of_models, expected.items(), strict=True):
            np.testing.assert_allclose(found[user], wanted, atol=3e-6, err_msg=f"{which} of user {user}")
        wanted = sum(weight * scores for weight, scores in zip(weights, expected.values(), strict=True))
        np.testing.assert_allclose(mixed[user], wanted, atol=3e-6)
        if LENGTHS[user]:
            assert np.abs(expected["own"] - expected["cluster"]).max() > 0.01


def test_every_model_is_measured_by_the_same_candidates(ranked: Callable[..., list[np.ndarray]]) -> None:
    """By those that the seed of the task draws, whichever of the three models, and for the mixture."""
    client = mixing(weights=(0.2, 0.3, 0.5))
    models = two_models(client)
    figures = measured(client, *models)
    mixed, *of_models = ranked(client, *models)
    for name, values in user_figures(mixed, RANKED, TASK).items():
        np.testing.assert_array_equal(figures[name], values, err_msg=name)
    for which, scores in zip(("global", "cluster", "own"), of_models, strict=True):
        for name, values in user_figures(scores, RANKED, TASK).items():
            role, _, measure = name.partition(".")
            if measure.endswith("@3"):
                np.testing.assert_array_equal(figures[f"{role}.{which}.{measure}"], values, err_msg=f"{which} {name}")
    alone = {name for name in figures if name.count(".") == 2}
    measures = ("hr@3", "ndcg@3", "full_hr@3", "full_ndcg@3")
    roles = ("validation", "test")
    assert alone == {f"{r}.{w}.{m}" for r in roles for w in ("global", "cluster", "own") for m in measures}


@pytest.mark.parametrize("combination", ["scores", "parameters"])
@pytest.mark.parametrize(("which", "weights"), [("global", (1, 0, 0)), ("cluster", (0, 1, 0)), ("own", (0, 0, 1))])
def test_all_weight_on_one_model_gives_its_figures(
    ranked: Callable[..., list[np.ndarray]], which: str, weights: tuple[int, int, int], combination: str
) -> None:
    client = mixing(weights=weights, combination=combination)
    models = two_models(client)
    figures = measured(client, *models)
    for role in ("validation", "test"):
        for measure in ("hr@3", "ndcg@3", "full_hr@3", "full_ndcg@3"):
            np.testing.assert_array_equal(figures[f"{role}.{measure}"], figures[f"{role}.{which}.{measure}"])
        np.testing.assert_array_equal(figures[role], figures[f"{role}.{which}.hr@3"])
    mixed, *of_models = ranked(client, *models)
    np.testing.assert_allclose(mixed, of_models[("global", "cluster", "own").index(which)], atol=1e-6)
    assert min(np.abs(a - b).max() for i, a in enumerate(of_models) for b in of_models[:i]) > 0.01


WEIGHTS = ["equal", (0.2, 0.3, 0.5), (0.7, 0.0, 0.3)]


@pytest.mark.parametrize(
    ("combination", "weights"),
    [*(("scores", weights) for weights in [*WEIGHTS, "validation"]), *(("parameters", weights) for weights in WEIGHTS)],
)
def test_three_times_the_same_model_is_that_model(
    ranked: Callable[..., list[np.ndarray]], combination: str, weights: Any
) -> None:
    """Whatever the weights, not one figure changes: mixing gains nothing but by what models differ in."""
    for seed in range(4):
        client = mixing(combination=combination, weights=weights, **STILL)
        model = random_model(client.model.shapes, seed)
        figures = measured(client, model, model)
        for role in ("validation", "test"):
            for measure in ("hr@3", "ndcg@3", "full_hr@3", "full_ndcg@3"):
                values = [figures[f"{role}.{part}{measure}"] for part in ("", "global.", "cluster.", "own.")]
                for other in values[1:]:
                    np.testing.assert_array_equal(other, values[0])
        mixed, of_global, of_cluster, of_own = ranked(client, model, model)
        np.testing.assert_array_equal(of_global, of_cluster)
        # A single product and one of matrices may round differently.
        np.testing.assert_allclose(of_own, of_cluster, atol=1e-6)
        if combination == "parameters":
            np.testing.assert_array_equal(mixed, of_own)
        else:
            alike = of_own == of_cluster
            np.testing.assert_array_equal(mixed[alike], of_cluster[alike])
            assert alike.mean() > 0.5
        np.testing.assert_allclose(mixed, of_cluster, atol=1e-6)


def test_the_mixture_of_three_equal_scores_is_exact() -> None:
    """To the last bit, for weights that no float can hold."""
    rng = np.random.default_rng(0)
    scores = (10 ** rng.uniform(-9, 9, (500, 7)) * rng.choice([-1, 1], (500, 7))).astype(np.float32)
    weights = rng.dirichlet([1, 1, 1], 500)
    np.testing.assert_array_equal(MixtureScores(scores, scores.copy(), scores.copy()).mixed(weights), scores)


@pytest.mark.parametrize("attributes", [False, True])
@pytest.mark.parametrize("weights", [(1 / 3, 1 / 3, 1 / 3), (0.2, 0.3, 0.5)])
def test_mixed_parameters_are_one_model(
    ranked: Callable[..., list[np.ndarray]], weights: tuple[float, float, float], attributes: bool
) -> None:
    client = mixing(weights=weights, combination="parameters", attributes=attributes)
    everyone, start = two_models(client)
    mixed, *of_models = ranked(client, everyone, start)
    for user in EVERYONE:
        trio = Trio(by_hand(client, user, attributes=attributes), everyone, start)
        # A user's own values of attributes reach the items that it has touched, and no others.
        draws = sampled(user, 3, server_round=0, purpose="own model")
        known = np.union1d(items_of(user), draws) if attributes else np.arange(ITEMS)
        np.testing.assert_allclose(mixed[user][known], trio.of_mixed_parameters(weights)[known], atol=3e-6)
        np.testing.assert_allclose(of_models[2][user][known], trio.scores("own")[known], atol=3e-6)
    of_scores = sum(weight * scores for weight, scores in zip(weights, of_models, strict=True))
    assert np.abs(of_scores - mixed).max() > 0.01  # scores are no linear function of parameters


def test_without_a_rate_for_items_the_own_model_differs_by_its_embedding_alone(
    ranked: Callable[..., list[np.ndarray]],
) -> None:
    client = mixing(own_lr=0.0, model={"layers": 0})
    everyone, start = two_models(client)
    _, _, of_cluster, of_own = ranked(client, everyone, start)
    for user in EVERYONE:
        hand = by_hand(client, user, layers=0)
        hand.train(start, sampled(user, 3, server_round=0, purpose="own model"), 0.0)
        np.testing.assert_allclose(of_own[user], start["items"] @ hand.own.detach().numpy(), atol=3e-6)
    assert np.abs(of_own - of_cluster).max() > 0.01


@pytest.mark.parametrize("combination", ["scores", "parameters"])
def test_who_never_took_part_has_figures(combination: str) -> None:
    client = mixing(combination=combination)
    figures = measured(client, *two_models(client))
    assert len(figures) > 30
    for name, values in figures.items():
        assert values.shape == (5,) and np.isfinite(values).all(), name


def test_measuring_changes_nothing() -> None:
    client = mixing()
    everyone, start = two_models(client)
    train(client, start, [0, 3])
    before = state_of(client)
    first, second = measured(client, everyone, start), measured(client, everyone, start)
    for name, values in state_of(client).items():
        np.testing.assert_array_equal(values, before[name], err_msg=name)
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)


@pytest.mark.parametrize("chunk", [1, 2, "all"])
def test_neither_chunks_nor_nodes_change_figures(chunk: Any) -> None:
    whole = mixing(weights="validation")
    everyone, start = two_models(whole)
    train(whole, start, EVERYONE)
    expected = measured(whole, everyone, start)
    for ids in ([0, 3], [1, 2, 4]):
        part = mixing(ids, chunk=chunk, weights="validation")
        train(part, start, ids)
        for name, values in measured(part, everyone, start).items():
            np.testing.assert_allclose(values, expected[name][ids], atol=1e-9, err_msg=name)


def test_users_of_one_message_may_start_from_different_models() -> None:
    client = mixing()
    everyone, start = two_models(client)
    other = random_model(client.model.shapes, 3)
    rows = [[0, 2], [0, 1], [0, 0], [0, 2], [0, 1]]
    result = worked(client.measure(of_models([4, 3, 2, 1, 0], [everyone, start, other], rows)))
    found, metrics = {client_id: place for place, client_id in enumerate(result.clients)}, result.metrics
    alone = [measured(client, everyone, model) for model in (everyone, start, other)]
    for user, model in ((4, 2), (3, 1), (2, 0), (1, 2), (0, 1)):
        for name, values in alone[model].items():
            assert metrics[name][found[user]] == values[user], f"{name} of user {user}"


# Weights by validation ------------------------------------------------------------------------------------------------

GRID = [(1 / 3, 1 / 3, 1 / 3), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5), (1, 0, 0), (0, 1, 0), (0, 0, 1)]


def test_a_user_takes_the_weights_that_rank_its_validation_item_highest(
    ranked: Callable[..., list[np.ndarray]],
) -> None:
    chosen = set()
    for seed in range(6):
        client = mixing(weights="validation")
        everyone, start = (random_model(client.model.shapes, 10 * seed + which) for which in (1, 2))
        mixed, *of_models = ranked(client, everyone, start)
        for user in EVERYONE:
            (item,) = items_of(user, VALIDATION)
            rivals = np.setdiff1d(np.arange(ITEMS), [*items_of(user), item])
            combinations = [sum(w * s[user] for w, s in zip(weights, of_models, strict=True)) for weights in GRID]
            ranks = [int((scores[rivals] > scores[item]).sum()) for scores in combinations]
            best = ranks.index(min(ranks))
            chosen.add(best)
            np.testing.assert_allclose(mixed[user], combinations[best], atol=1e-6)
    assert len(chosen) >= 4


@pytest.mark.parametrize(
    ("in_global", "in_cluster", "expected"),
    [(1.0, 1.0, "equal"), (1.0, 10.0, "equal"), (1.0, -10.0, "global"), (-30.0, 10.0, "cluster and own")],
)
def test_the_first_of_equally_good_weights_counts(
    ranked: Callable[..., list[np.ndarray]], in_global: float, in_cluster: float, expected: str
) -> None:
    """Without layers a validation item whose row is c times the user's embedding scores c, and other items 0."""
    client = mixing(weights="validation", model={"layers": 0}, **STILL)
    own = client.model.initial_user(SEED, 3)["user"]
    (item,) = items_of(3, VALIDATION)
    tables = [np.zeros((ITEMS, DIM), np.float32) for _ in range(2)]
    for values, factor in zip(tables, (in_global, in_cluster), strict=True):
        values[item] = factor * own / (own @ own)
    mixed, of_global, of_cluster, _ = ranked(client, *({"items": values} for values in tables))
    assert of_global[3, item] == pytest.approx(in_global) and of_cluster[3, item] == pytest.approx(in_cluster)
    factors = {
        "equal": (in_global + 2 * in_cluster) / 3,
        "global": in_global,
        "cluster and own": in_cluster,
    }
    assert mixed[3, item] == pytest.approx(factors[expected])


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"weights": (0.5, 0.5, 0.5)}, "three weights must sum to 1"),
        ({"weights": (1.5, -0.5, 0.0)}, "greater than or equal to 0"),
        ({"weights": "best"}, "equal"),
        ({"weights": "validation", "combination": "parameters"}, "where parameters are mixed"),
        ({"agreeing": 1.2}, "less than or equal to 1"),
    ],
)
def test_other_weights_are_refused(knobs: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        PerFedRecClient.Settings(**knobs)


# What the server clusters by ------------------------------------------------------------------------------------------


def told(client: PerFedRecClient, server_round: int = 5, ids: Sequence[int] | None = None) -> dict[int, Any]:
    ids = client.cohort.client_ids if ids is None else ids
    answers = client.answer(Question("embedding", {user: {} for user in ids}, server_round))
    assert answers.failures == {}
    return answers.arrays


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_who_has_trained_tells_the_direction_of_its_embedding(layers: int) -> None:
    """The user's h_u by its own model after training, from all of its items, as a vector of length 1."""
    client = mixing(model={"layers": layers})
    start = random_model(client.model.shapes)
    assert told(client) == {user: {} for user in EVERYONE}
    train(client, start, [0, 2, 3])
    answers = told(client)
    assert [user for user in EVERYONE if answers[user]] == [0, 2, 3]
    for user in (0, 2, 3):
        hand = by_hand(client, user, layers=layers)
        model = hand.train(start, sampled(user, 3, purpose="sampled items"), LOCAL_LR)
        # Scores are products with the user: with an identity matrix in the place of other items, its coordinates.
        mine = items_of(user)
        others = np.setdiff1d(np.arange(ITEMS), mine)[:DIM]
        model["items"][others] = np.eye(DIM)
        coordinates = hand.scores(model)[others]
        (found,) = answers[user].values()
        assert found.dtype == np.float32 and found.shape == (DIM,)
        assert np.linalg.norm(found) == pytest.approx(1, abs=1e-6)
        np.testing.assert_allclose(found, coordinates / np.linalg.norm(coordinates), atol=1e-5)


def test_who_does_not_agree_tells_nothing_ever() -> None:
    for share in (0.0, 0.5, 1.0):
        client = mixing(agreeing=share)
        agree = [user for user in EVERYONE if client_generator(SEED, user, 0, "agreement").random() < share]
        for server_round in (1, 2):
            train(client, random_model(client.model.shapes), EVERYONE, server_round)
            assert [user for user, answer in told(client, server_round).items() if answer] == agree
        assert len(agree) == {0.0: 0, 1.0: 5}.get(share, len(agree))


def many_users(count: int) -> Ratings:
    """Users with one item each, which they train on."""
    return Ratings(
        user_ids=np.arange(count),
        offsets=np.arange(count + 1),
        items=np.arange(count) % ITEMS,
        values=np.ones(count, np.float32),
        roles=np.full(count, TRAIN, np.int8),
        num_items=ITEMS,
        scale=(1.0, 5.0),
    )


def test_noise_has_the_deviation_that_was_asked_for_and_a_draw_of_its_own() -> None:
    ratings = many_users(1500)
    start = random_model({"items": (ITEMS, DIM)})

    def answers(ids: Sequence[int], noise: float, server_round: int = 5) -> np.ndarray:
        client = mixing(ids, ratings=ratings, cluster_noise=noise)
        train(client, start, ids)
        return np.stack([answer["embedding"] for answer in told(client, server_round).values()])

    exact, noisy = answers(range(1500), 0.0), answers(range(1500), 0.3)
    noise = noisy - exact
    assert noise.std() == pytest.approx(0.3, rel=0.05) and abs(noise.mean()) < 0.02
    np.testing.assert_allclose(np.cov(noise.T), 0.09 * np.eye(DIM), atol=0.015)
    assert len(np.unique(noise[:, 0].round(5))) > 1400  # nobody has another's
    odd = range(1, 1500, 2)
    np.testing.assert_allclose(answers(odd, 0.3), noisy[1::2], atol=1e-6)
    later = answers(range(1500), 0.3, server_round=6) - exact
    assert abs(np.corrcoef(later.ravel(), noise.ravel())[0, 1]) < 0.1


def test_telling_an_embedding_changes_nothing_of_a_user() -> None:
    client = mixing(cluster_noise=0.5)
    train(client, random_model(client.model.shapes), EVERYONE)
    before = state_of(client)
    first, second = told(client), told(client)
    for name, values in state_of(client).items():
        np.testing.assert_array_equal(values, before[name], err_msg=name)
    for user in EVERYONE:
        np.testing.assert_array_equal(first[user]["embedding"], second[user]["embedding"])


@pytest.mark.parametrize("phase", ["rows", "secrets"])
def test_other_questions_are_refused(phase: str) -> None:
    """Also that for rows: each round samples other items, so that none are asked for."""
    with pytest.raises(SubflError, match=f"PerFedRecClient has no answer to query.{phase}"):
        mixing().answer(Question(phase, {3: {}}))


def test_a_model_of_ratings_is_refused_in_words() -> None:
    with pytest.raises(SubflError, match="choose task=ranking"):
        PerFedRecClient.check_model(RecommenderSettings(name="recommender"), "perfedrec")


def test_a_machine_that_keeps_embeddings_tells_none() -> None:
    client = mixing()
    train(client, random_model(client.model.shapes), EVERYONE)
    assert all(told(client, 2).values())
    silent = PerFedRecClient(client.run, replace(client.cohort, keep_embeddings=True), client.store)
    assert told(silent, 2).keys() == set(EVERYONE) and not any(told(silent, 2).values())

"""Parts of the server of a recommender: each by hand, and in combinations that no method of the configuration has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from subfl_flower.clients.recommendation.recommender import RecommenderClient
from subfl_flower.clients.recommendation.upload_transforms import MASKED, PARTICIPANTS, SumMasks
from subfl_flower.clients.recommendation.user_settings import ClusterSettings, MaskSettings, StepSettings
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import LightGCNSettings, RecommenderSettings
from subfl_flower.privacy.mechanism import LdpSettings
from subfl_flower.privacy.secure_sum import masked, quantise
from subfl_flower.server.strategy import CohortStrategy
from subfl_flower.server.updates import Updates
from subfl_flower.strategies.recommendation.fcf import FCF
from subfl_flower.strategies.recommendation.fedavg import FedAvgRatings
from subfl_flower.strategies.recommendation.fedgnn import FedGNN
from subfl_flower.strategies.recommendation.fedmf import FedMF
from subfl_flower.strategies.recommendation.gradient_means import MaskedSum
from subfl_flower.strategies.recommendation.perfedrec import PerFedRec
from subfl_flower.strategies.recommendation.recommender import RecommenderStrategy
from subfl_flower.strategies.recommendation.requested_rows import RequestedRows
from subfl_flower.strategies.recommendation.user_clusters import UserClusters
from subfl_flower.strategies.recommendation.user_sampling import ClusterUsers, RandomUsers
from subfl_flower.tasks.choices import Ranking, RatingPrediction
from subfl_flower.wire.contract import RunContext
from subfl_flower.wire.ragged import Ragged
from subfl_flower.wire.roster import Roster

CLIENTS = (2, 3, 5, 9)
INITIAL = {
    "items": np.arange(8, dtype=np.float32).reshape(4, 2),
    "gnn.gain": np.array([2.0], np.float32),
    "bias": np.array([1.0], np.float32),
}
KEY = bytes(range(32))
RANKS, RATES = LightGCNSettings(name="lightgcn"), RecommenderSettings(name="recommender", shrinkage=0)


def server(
    family: type[RecommenderStrategy],
    *,
    model: Any = RATES,
    task: Any = None,
    num_rounds: int | None = None,
    **knobs: Any,
) -> Any:
    privacy = knobs.pop("privacy", LdpSettings())
    sizes = np.full(len(CLIENTS), 2.0)
    roster = Roster(CLIENTS, (0, 0, 1, 1), sizes, sizes, sizes, 4, 0, False)
    chosen = {"users_per_round": None, "server_optimizer": "sgd", "server_lr": 0.5, **knobs}
    settings = family.Settings(**chosen)
    facts: dict[str, Any] = {"task": task, "privacy": privacy, "num_rounds": num_rounds, "initial": INITIAL}
    return family(RunContext(settings=settings, model=model, **facts), roster)


def updates(arrays: Mapping[str, Any], positions: Sequence[int], rows: Sequence[Mapping[int, Any]] = ()) -> Updates:
    """Uploads of the users at `positions`; `rows` are of items, for each of them."""
    ids = [item for own in rows for item in own]
    values = np.array([value for own in rows for value in own.values()], dtype=np.float32).reshape(-1, 2)
    lengths = np.array([len(own) for own in rows], dtype=np.int64)
    ragged = {"item_ids": Ragged(np.array(ids, np.int32), lengths), "item_rows": Ragged(values, lengths)}
    return Updates(
        server_round=1,
        positions=np.array(positions),
        arrays={name: np.asarray(value) for name, value in arrays.items()},
        metrics={},
        failures={},
        bytes_up=np.zeros(4, np.int64),
        bytes_down=np.zeros(4, np.int64),
        client_seconds=0.0,
        ragged=ragged if rows else {},
    )


# Masks, clusters and a graph network ----------------------------------------------------------------------------------


class MaskedGNNClient(RecommenderClient):
    """Users of a graph network who mask, and are drawn by cluster."""

    class Settings(MaskSettings, StepSettings, ClusterSettings):
        """Knobs of steps, masks and clusters."""

    Transforms = (SumMasks,)


class MaskedGNN(RecommenderStrategy):
    """A graph network stepped by masked sums of users who are drawn by cluster."""

    Settings = MaskedGNNClient.Settings
    counterpart = MaskedGNNClient

    Averaging = MaskedSum
    Parts = (UserClusters,)

    def participants(self, server_round: int) -> Sequence[int]:
        """Positions of a round's users, by cluster."""
        (clusters,) = (part for part in self.parts if isinstance(part, UserClusters))
        sampling = ClusterUsers(self.run, len(self.roster))
        return sampling.draw_from(server_round, clusters.labels, clusters.distances, self.uploads)


class Telling:
    """An exchange with users who tell the angles of their embeddings."""

    def __init__(self, angles: Sequence[float]) -> None:
        self.angles = angles

    def ask(self, action: str, decode: Any, largest: Any, tolerant: bool) -> list[Any]:
        assert action == "embedding" and tolerant
        return [decode({"embedding": np.array([np.cos(a), np.sin(a)], np.float32)}) for a in self.angles]


def test_masked_sums_of_users_drawn_by_cluster_step_a_graph_network() -> None:
    """Users 2 and 3 are one cluster, 5 and 9 the other one; gradients are multiples of the user's id."""
    knobs = {"users_per_round": 2, "selection": "size", "clusters": 2, "cluster_start": 1, "network_lr": 0.1}
    strategy = server(MaskedGNN, **knobs)
    strategy.before_round(1, Telling([0.0, 0.1, 1.5, 1.6]))
    chosen = list(strategy.participants(1))
    assert len(chosen) == 2 and chosen[0] in (0, 1) and chosen[1] in (2, 3)  # one of each cluster
    ids = [CLIENTS[position] for position in chosen]
    sent = strategy.instructions(1, chosen)
    assert sent[PARTICIPANTS].tolist() == [ids, ids] and sent["items"].shape == (2, 4, 2)
    # Uploads are the gain's gradient, the bias's, and the table's: 1, 2, 3 .. 10 times the id.
    uploads = [masked(quantise(np.arange(1.0, 11.0) * own, 24), own, ids, KEY, b"round 1", 2) for own in ids]
    strategy.take(updates({MASKED: np.stack(uploads)}, chosen))
    mean = sum(ids) / 2
    np.testing.assert_allclose(strategy.parameters["gnn.gain"], [2 - 0.1 * 1 * mean], atol=1e-5)
    np.testing.assert_allclose(strategy.parameters["bias"], [1 - 0.1 * 2 * mean], atol=1e-5)
    expected = INITIAL["items"].reshape(-1) - 0.5 * mean * np.arange(3, 11)
    np.testing.assert_allclose(strategy.parameters["items"].reshape(-1), expected, atol=1e-4)
    state = {name: np.array(value) for name, value in strategy.state().items()}
    other = server(MaskedGNN, **knobs)
    other.load_state(state)
    assert other.state().keys() == state.keys()
    assert [list(other.participants(r)) for r in range(2, 9)] == [list(strategy.participants(r)) for r in range(2, 9)]


# Each by hand ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("row_average", "second"), [("uploads", [3.0, 4.0]), ("participants", [1.5, 2.0])])
def test_an_items_row_is_averaged_over_uploads_or_participants(row_average: str, second: list[float]) -> None:
    """Row 0 comes from both users, row 2 from the second alone; rows 1 and 3 stay."""
    strategy = server(FCF, row_average=row_average, server_lr=1.0, network_lr=0.25)
    arrays = {"gnn.gain": [[4.0], [8.0]], "bias": [[-1.0], [1.0]]}
    rows = [{0: (1.0, 0.0)}, {0: (3.0, 2.0), 2: (3.0, 4.0)}]
    strategy.take(updates({name: np.array(value, np.float32) for name, value in arrays.items()}, [1, 3], rows))
    moved = INITIAL["items"] - strategy.parameters["items"].numpy()
    np.testing.assert_allclose(moved, [[2, 1], [0, 0], second, [0, 0]])
    assert strategy.parameters["gnn.gain"].tolist() == [2 - 0.25 * 6] and strategy.parameters["bias"].tolist() == [1]
    assert strategy.uploads.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("knobs", "shares"),
    [
        ({"row_average": "uploads"}, [0.5, 1.0, 1.0, 1.0]),  # two uploads hold row 0
        ({"row_average": "participants"}, [0.5] * 4),
        ({"row_average": "participants", "loss": "mean"}, [0.25] * 4),  # users have two ratings each
    ],
)
def test_embeddings_shrink_by_a_penalty_that_is_shared_by_all_users(knobs: dict[str, Any], shares: list[float]) -> None:
    """2 * 10 * 0.1 of an embedding over all four users, two of whom are in the round; biases do not shrink."""
    model = RecommenderSettings(name="recommender", embedding_penalty=0.1, shrinkage=10)
    strategy = server(FCF, model=model, server_lr=1.0, **knobs)
    arrays = {name: np.zeros((2, 1), np.float32) for name in ("gnn.gain", "bias")}
    strategy.take(updates(arrays, [1, 3], [{0: (0.0, 0.0)}, {0: (0.0, 0.0), 2: (0.0, 0.0)}]))
    expected = INITIAL["items"].copy()
    expected[:, 0] -= 2 * 10 * 0.1 * 2 / 4 * np.array(shares) * expected[:, 0]
    np.testing.assert_allclose(strategy.parameters["items"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("users", "rounds", "expected"),
    [(943, 300, 128), (3000, 400, 300), (6040, 400, 604), (60, 5, 60), (943, None, 128)],
)
def test_by_rule_each_user_takes_part_in_forty_rounds_of_a_run(users: int, rounds: int | None, expected: int) -> None:
    run = RunContext(settings=FedGNN.Settings(), model=RATES, num_rounds=rounds)
    assert len(RandomUsers(run, users).draw(1)) == expected


def test_only_a_graph_networks_weights_decay_by_its_knob() -> None:
    """0.5 * 0.1 of the gain, and 0.5 * 0.2 of the table, by gradients of nothing."""
    strategy = server(FedGNN, network_weight_decay=0.1, table_weight_decay=0.2, server_lr_final=1.0)
    arrays = {name: np.zeros((1, 1), np.float32) for name in ("gnn.gain", "bias")}
    strategy.take(updates(arrays, [0], [{0: (0.0, 0.0)}]))
    assert strategy.parameters["gnn.gain"].tolist() == pytest.approx([2 * 0.95])
    assert strategy.parameters["bias"].tolist() == [1.0]
    np.testing.assert_allclose(strategy.parameters["items"], 0.9 * INITIAL["items"], atol=1e-6)


def test_a_rate_falls_along_a_cosine_to_its_last_share() -> None:
    strategy = server(FCF, server_lr=1.0, server_lr_final=0.2, num_rounds=5)
    rates = []
    for _ in range(6):
        rates.append(strategy.learning_rates["items"])
        arrays = {name: np.zeros((1, 1), np.float32) for name in ("gnn.gain", "bias")}
        strategy.take(updates(arrays, [0], [{0: (0.0, 0.0)}]))
    falling = [0.2 + 0.8 * (1 + np.cos(np.pi * step / 4)) / 2 for step in range(5)]
    np.testing.assert_allclose(rates, [*falling, 0.2])


@pytest.mark.parametrize(
    ("knobs", "model", "sends"),
    [
        ({"pseudo_items": 0}, RATES, True),  # two rated of four
        ({"pseudo_items": 1}, RATES, False),  # three are more than half
        ({"pseudo_items": 0, "download": "table"}, RATES, False),
        ({"pseudo_items": 3, "download": "rows"}, RATES, True),
        ({"pseudo_items": "all"}, RATES, False),
        ({"pseudo_items": 0, "pseudo_refresh": True}, RATES, False),
        ({"pseudo_items": 0}, RANKS, False),  # it samples other items in each round
    ],
)
def test_rows_are_sent_where_they_are_known_and_few(knobs: dict[str, Any], model: Any, sends: bool) -> None:
    strategy = server(FedGNN, model=model, **knobs)
    strategy.set_up(None)
    (part,) = (part for part in strategy.parts if isinstance(part, RequestedRows))
    assert part.sends_rows is sends
    sent = strategy.instructions(1, [0, 1])
    assert ("items" in sent) is not sends
    assert ("item_rows" in strategy.row_instructions(1, [0, 1])) is sends


def test_rows_of_a_model_that_samples_items_are_refused() -> None:
    strategy = server(FedGNN, model=RANKS, download="rows")
    with pytest.raises(SubflError, match=r"method\.download: with task=ranking users sample items in each round"):
        strategy.set_up(None)


def test_a_summary_tells_what_parts_have_seen() -> None:
    """Two uploads of user 2, of 2 single values and at most 3 rows of 2 numbers."""
    privacy = LdpSettings(mechanism="laplace_linf", clip=0.1, noise=0.4)
    strategy = server(FedAvgRatings, privacy=privacy, task=Ranking(name="ranking"))
    arrays = {name: np.zeros((1, 1), np.float32) for name in ("gnn.gain", "bias")}
    for items in ((0, 1, 3), (2,)):
        strategy.take(updates(arrays, [0], [dict.fromkeys(items, (0.0, 0.0))]))
    found = strategy.report(None)
    assert list(found) == ["uploads_per_user", "privacy"] and found["uploads_per_user"] == 2
    assert found["privacy"]["num_coordinates"] == 2 + 3 * 2 and found["privacy"]["covers"] == "values"
    assert found["privacy"]["per_coordinate_epsilon"] == pytest.approx(
        2 * 0.1 / 0.4, rel=1e-5
    )  # the radius is a multiple
    other = server(FedAvgRatings, privacy=privacy, task=Ranking(name="ranking"))
    other.load_state({name: np.array(value) for name, value in strategy.state().items()})
    assert other.report(None) == found


@pytest.mark.parametrize(
    ("task", "worse", "better"),
    [(Ranking(name="ranking"), 0.2, 0.4), (RatingPrediction(name="rating_prediction"), 2, 1)],
)
def test_the_best_round_is_the_tasks(task: Any, worse: float, better: float) -> None:
    strategy = server(FCF, task=task)
    for server_round, figure in ((1, worse), (2, better), (3, worse), (4, better)):
        strategy.parameters["bias"].fill_(server_round)
        figures = {"validation": np.full(4, figure), "validation_examples": np.ones(4)}
        strategy.take_evaluation(replace(updates({}, range(4)), metrics=figures, server_round=server_round))
    assert strategy.announcements == {"best_round": 2.0} and strategy.model()["bias"].tolist() == [2.0]


def test_random_users_are_drawn_without_replacement_and_all_take_turns() -> None:
    def sampling(users_per_round: int | None) -> RandomUsers:
        settings = FCF.Settings(users_per_round=users_per_round)
        return RandomUsers(RunContext(settings=settings, fraction=0.5, seed=3), 20)

    drawn = [sampling(7).draw(server_round) for server_round in range(1, 60)]
    assert all(len(set(users)) == 7 and list(users) == sorted(users) for users in drawn)
    counts = np.bincount(np.concatenate(drawn), minlength=20)
    assert counts.min() > 8 and counts.sum() == 7 * 59
    assert len(sampling(None).draw(1)) == 10
    assert list(sampling(21).draw(1)) == list(range(20))


@pytest.mark.parametrize("selection", ["random", "size", "representative"])
def test_attack_absent_users_take_the_places_of_present_ones(selection: str) -> None:
    present, rounds = [3, 8, 11, 12, 19], range(1, 30)
    labels, nearness = np.arange(20) % 3, np.arange(20.0)
    run = RunContext(settings=PerFedRec.Settings(users_per_round=3, selection=selection), seed=3)
    drawn = [ClusterUsers(run, 20).draw_from(r, labels, nearness, np.zeros(20, int), present) for r in rounds]
    assert all(len(set(users)) == 3 and set(users) <= set(present) for users in drawn)
    many = RunContext(settings=PerFedRec.Settings(users_per_round=12, selection=selection), seed=3)
    assert list(ClusterUsers(many, 20).draw_from(1, labels, nearness, np.zeros(20, int), present)) == present


METHODS = (FCF, FedMF, FedGNN, FedAvgRatings, PerFedRec)


@pytest.mark.parametrize("family", METHODS)
def test_no_method_is_a_variant_of_another(family: type[RecommenderStrategy]) -> None:
    assert family.__mro__.index(CohortStrategy) == 2
    assert not any(issubclass(family, other) for other in METHODS if other is not family)


def test_parts_know_who_is_there_at_the_moment() -> None:
    """A node leaves between two rounds: its users are no participants of a masked sum any more."""
    strategy = server(FedMF)
    assert strategy.instructions(1, [0])[PARTICIPANTS][0].tolist() == list(CLIENTS)
    strategy.go_on_with(replace(strategy.roster, node_ids=(0, 0, None, None)))
    assert strategy.instructions(2, [0])[PARTICIPANTS][0].tolist() == list(CLIENTS[:2])

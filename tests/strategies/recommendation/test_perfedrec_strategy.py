"""PerFedRec's server on a few users whose models are worked out by hand, and on many against a plain reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from subfl_flower.server.updates import Updates
from subfl_flower.strategies.recommendation.fedavg import FedAvgRatings
from subfl_flower.strategies.recommendation.perfedrec import PerFedRec
from subfl_flower.tasks.choices import Ranking
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.choice import Choice
from subfl_flower.wire.contract import RunContext
from subfl_flower.wire.payload import pack
from subfl_flower.wire.ragged import Ragged
from subfl_flower.wire.roster import Roster

CLIENTS = (2, 3, 5, 9, 10)
ITEMS, WIDTH = 4, 2
INITIAL = {"items": np.arange(8, dtype=np.float32).reshape(ITEMS, WIDTH), "w": np.array([10.0], np.float32)}
LEFT, RIGHT = (1.0, 0.0), (0.0, 1.0)
Difference = tuple[float, dict[int, tuple[float, float]]]
"""A user's upload: received - trained of ``w``, and of the item rows that it touched."""


class Answers:
    """An exchange with clients who have these embeddings, or nothing to tell."""

    def __init__(self, embeddings: Mapping[int, Sequence[float] | None]) -> None:
        self.embeddings = embeddings
        self.next_round = 1
        self.asked: list[tuple[str, int, list[int]]] = []

    def ask(self, action: str, decode: Callable[[Stack], Any], largest: list[int], tolerant: bool = False) -> list[Any]:
        assert tolerant  # a user who cannot answer stops nobody
        self.asked.append((action, self.next_round, largest))
        return [self._answer(position, decode) for position in range(len(largest))]

    def _answer(self, position: int, decode: Callable[[Stack], Any]) -> Any:
        if position not in self.embeddings:
            return None  # it did not reply
        told = self.embeddings[position]
        return decode({} if told is None else {"embedding": np.array(told, np.float32)})


OWN = {"clusters": 2, "cluster_start": 1, "cluster_every": 10, "cluster_pull": 0.0, "selection": "random"}
"""Knobs of PerFedRec, where a test gives no others."""


def server(
    family: Any = PerFedRec,
    clients: Sequence[int] = CLIENTS,
    initial: Stack = INITIAL,
    num_rounds: int | None = None,
    **knobs: Any,
) -> Any:
    sizes = np.full(len(clients), 7.0)
    nodes = tuple(client % 2 for client in clients)
    roster = Roster(tuple(clients), nodes, sizes, sizes, sizes, len(initial["items"]), 0, False)
    chosen = {"users_per_round": None, **(OWN if family is PerFedRec else {}), **knobs}
    run = RunContext(
        settings=family.Settings(**chosen),
        task=Ranking(name="ranking"),
        num_rounds=num_rounds,
        initial={name: value.copy() for name, value in initial.items()},
    )
    return family(run, roster)


def updates(differences: Mapping[int, Difference], clients: int = len(CLIENTS), server_round: int = 1) -> Updates:
    """Uploads of the users at these positions."""
    chosen = sorted(differences)
    rows = [sorted(differences[position][1].items()) for position in chosen]
    lengths = np.array([len(own) for own in rows], dtype=np.int64)
    ids = np.array([item for own in rows for item, _ in own], dtype=np.int32)
    values = np.array([value for own in rows for _, value in own], dtype=np.float32).reshape(-1, WIDTH)
    return Updates(
        server_round=server_round,
        positions=np.array(chosen),
        arrays={"w": np.array([[differences[position][0]] for position in chosen], np.float32)},
        ragged={"item_ids": Ragged(ids, lengths), "item_rows": Ragged(values, lengths)},
        metrics={},
        failures={},
        bytes_up=np.zeros(clients, np.int64),
        bytes_down=np.zeros(clients, np.int64),
        client_seconds=0.0,
    )


def clustered(told: Mapping[int, Sequence[float] | None] | None = None, **knobs: Any) -> Any:
    """A server that has clustered users 0 and 1, and 2 and 3, before the first round; user 4 has told it nothing."""
    strategy = server(**knobs)
    pairs = {0: LEFT, 1: (1.0, 0.1), 2: RIGHT, 3: (0.1, 1.0), 4: None}
    strategy.before_round(1, Answers(pairs if told is None else told))
    return strategy


def of(strategy: Any, user: int) -> dict[str, Any]:
    """The model of a user's cluster."""
    found: dict[str, Any] = strategy.clusters[strategy.labels[user]].parameters
    return found


# Models of clusters ---------------------------------------------------------------------------------------------------


def test_two_clusters_of_two_users_by_hand() -> None:
    """The initial rows are [0, 1], [2, 3], [4, 5], [6, 7], and w is 10.

    Round 1, users 0, 1 and 2: w is trained to 9, 7 and 14. Row 0 becomes [1, 1] with user 0 and [3, 1] with user 1, row
    1 becomes [2, 9] with user 2; the other rows nobody touches.
    """
    strategy = clustered()
    strategy.take(updates({0: (1, {0: (-1, 0)}), 1: (3, {0: (-3, 0)}), 2: (-4, {1: (0, -6)})}))
    left, right = of(strategy, 0), of(strategy, 2)
    assert left["w"].tolist() == [8] and right["w"].tolist() == [14] and strategy.parameters["w"].tolist() == [10]
    assert left["items"].tolist() == [[2, 1], [2, 3], [4, 5], [6, 7]]
    assert right["items"].tolist() == [[0, 1], [2, 9], [4, 5], [6, 7]]
    assert strategy.parameters["items"].tolist() == [[2, 1], [2, 9], [4, 5], [6, 7]]
    # Round 2, users 1 (from w = 8), 3 (from 14) and 4, who has no cluster (from the global 10): w is 6, 8 and 16. Row 0
    # is [0, 1] (from [2, 1]), [4, 5] (from [0, 1]) and [2, 3] (from [2, 1]); row 2 is [4, 9] with user 4 alone.
    strategy.take(
        updates({1: (2, {0: (2, 0)}), 3: (6, {0: (-4, -4)}), 4: (-6, {0: (0, -2), 2: (0, -4)})}, server_round=2)
    )
    left, right = of(strategy, 0), of(strategy, 2)
    assert left["w"].tolist() == [6] and right["w"].tolist() == [8]
    np.testing.assert_allclose(strategy.parameters["w"], [10], atol=1e-5)
    assert left["items"].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert right["items"].tolist() == [[4, 5], [2, 9], [4, 5], [6, 7]]
    np.testing.assert_allclose(strategy.parameters["items"], [[2, 3], [2, 9], [4, 9], [6, 7]], atol=1e-5)
    assert strategy.uploads.tolist() == [1, 2, 1, 1, 1]


def test_a_cluster_is_drawn_to_the_global_model_after_each_round() -> None:
    strategy = clustered(cluster_pull=0.25)
    strategy.take(updates({0: (1, {0: (-1, 0)}), 1: (3, {0: (-3, 0)}), 2: (-4, {1: (0, -6)})}))
    # Before, with the global model last: w 8, 14 and 10; row 0 [2, 1], [0, 1], [2, 1]; row 1 [2, 3], [2, 9], [2, 9].
    assert of(strategy, 1)["w"].tolist() == [8.5] and of(strategy, 3)["w"].tolist() == [13]
    assert of(strategy, 1)["items"].tolist() == [[2, 1], [2, 4.5], [4, 5], [6, 7]]
    assert of(strategy, 3)["items"].tolist() == [[0.5, 1], [2, 9], [4, 5], [6, 7]]
    # A cluster of which nobody takes part is drawn, too.
    strategy.take(updates({3: (3, {})}, server_round=2))
    assert strategy.parameters["w"].tolist() == [10] and of(strategy, 1)["w"].tolist() == [8.875]


class Reference:
    """PerFedRec's averages in plain words: every user has a whole model, and each server's model is a mean of these."""

    def __init__(self, strategy: Any, row_average: str, pull: float) -> None:
        self.row_average, self.pull = row_average, pull
        self.models = [{name: value.astype(float) for name, value in INITIAL.items()} for _ in range(3)]
        self.start_of = [int(label) + 1 for label in strategy.labels]

    def round(self, differences: Mapping[int, Difference]) -> None:
        trained, touched = {}, {}
        for user, (w, rows) in differences.items():
            start = self.models[self.start_of[user]]
            items = start["items"].copy()
            for item, change in rows.items():
                items[item] -= change
            trained[user], touched[user] = {"w": start["w"] - w, "items": items}, set(rows)
        for number, model in enumerate(self.models):
            members = [user for user in trained if number in (0, self.start_of[user])]
            if not members:
                continue
            model["w"] = np.mean([trained[user]["w"] for user in members], axis=0)
            for item in range(ITEMS):
                counted = [u for u in members if item in touched[u] or self.row_average == "participants"]
                if counted:
                    model["items"][item] = np.mean([trained[user]["items"][item] for user in counted], axis=0)
        for model in self.models[1:]:
            for name, value in model.items():
                model[name] = value + self.pull * (self.models[0][name] - value)


def random_differences(rng: np.random.Generator, users: int = len(CLIENTS)) -> dict[int, Difference]:
    """Uploads of some users, some of whom touch nothing."""
    chosen = rng.choice(users, rng.integers(1, users + 1), replace=False)
    return {
        int(user): (
            float(rng.standard_normal()),
            {
                int(item): tuple(rng.standard_normal(WIDTH))
                for item in rng.choice(ITEMS, rng.integers(0, ITEMS), replace=False)
            },
        )
        for user in chosen
    }


@pytest.mark.parametrize("row_average", ["uploads", "participants"])
@pytest.mark.parametrize("pull", [0.0, 0.3, 1.0])
def test_models_are_means_of_users_models_wherever_these_started(row_average: str, pull: float) -> None:
    strategy = clustered(row_average=row_average, cluster_pull=pull)
    reference, rng = Reference(strategy, row_average, pull), np.random.default_rng(0)
    for server_round in range(1, 9):
        differences = random_differences(rng)
        strategy.take(updates(differences, server_round=server_round))
        reference.round(differences)
        found = [strategy.parameters, *(cluster.parameters for cluster in strategy.clusters)]
        for number, (model, expected) in enumerate(zip(found, reference.models, strict=True)):
            for name, value in expected.items():
                np.testing.assert_allclose(model[name], value, atol=2e-5, err_msg=f"{name} of {number}, {server_round}")


@pytest.mark.parametrize("row_average", ["uploads", "participants"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("clusters", [1, 2])
def test_clusters_that_are_drawn_all_the_way_are_fedavg(row_average: str, optimizer: str, clusters: int) -> None:
    """Also where some have no cluster, and with rates that fall and weights that decay."""
    knobs = {"row_average": row_average, "server_optimizer": optimizer, "server_lr": 0.7, "server_lr_final": 0.1}
    knobs |= {"num_rounds": 8}
    plain = server(FedAvgRatings, **knobs, table_weight_decay=0.01, iterate_average=0.5)
    knobs |= {"clusters": clusters, "cluster_pull": 1.0, "cluster_start": 3}
    one = server(**knobs, table_weight_decay=0.01, iterate_average=0.5)
    rng = np.random.default_rng(1)
    for server_round in range(1, 9):
        one.before_round(server_round, Answers({0: LEFT, 1: RIGHT, 3: LEFT, 4: None}))
        assert one.participants(server_round) == plain.participants(server_round)
        sent = updates(random_differences(rng), server_round=server_round)
        for strategy in (plain, one):
            strategy.take(sent)
        for name, value in plain.parameters.items():
            np.testing.assert_allclose(one.parameters[name], value, atol=1e-5)
            np.testing.assert_allclose(one.server.evaluated[name], plain.server.evaluated[name], atol=1e-5)
            for cluster in one.clusters:
                np.testing.assert_array_equal(cluster.parameters[name], one.parameters[name])
                np.testing.assert_array_equal(cluster.evaluated[name], one.server.evaluated[name])
    assert len(one.clusters) == clusters
    assert [label >= 0 for label in one.labels] == [True, True, False, True, False]
    assert (one.labels[1] == one.labels[0]) == (clusters == 1) and one.labels[3] == one.labels[0]


def test_a_cluster_of_all_is_the_global_model() -> None:
    """At the same rate in every step, also where it falls."""
    strategy = clustered(
        dict.fromkeys(range(5), LEFT),
        clusters=1,
        server_lr=0.8,
        server_lr_final=0.1,
        network_lr=0.3,
        iterate_average=0.4,
        num_rounds=6,
    )
    rng = np.random.default_rng(2)
    for server_round in range(1, 7):
        strategy.take(updates(random_differences(rng), server_round=server_round))
        for name, value in strategy.parameters.items():
            np.testing.assert_allclose(strategy.clusters[0].parameters[name], value, atol=1e-5, err_msg=name)
            np.testing.assert_allclose(strategy.clusters[0].evaluated[name], strategy.server.evaluated[name], atol=1e-5)


# Clusters -------------------------------------------------------------------------------------------------------------


def test_users_are_asked_when_it_is_time_and_for_no_more_than_an_embedding() -> None:
    strategy = server(cluster_start=2, cluster_every=3)
    exchange = Answers(dict.fromkeys(range(5), LEFT))
    for exchange.next_round in range(1, 9):
        strategy.before_round(exchange.next_round, exchange)
    assert [(action, server_round) for action, server_round, _ in exchange.asked] == [
        ("embedding", 2),
        ("embedding", 5),
        ("embedding", 8),
    ]
    assert all(most == [4 * WIDTH + 4096] * 5 for _, _, most in exchange.asked)


def test_where_nobody_tells_anything_there_is_the_global_model_alone() -> None:
    strategy = clustered({0: None, 1: None, 2: None})
    assert strategy.clusters == [] and strategy.labels.tolist() == [-1] * 5 and strategy.clustering is None
    sent = strategy.evaluation_instructions([0, 3])
    assert sent.rows.tolist() == [[0, 0]] * 2 and sent.num_rows == 1
    strategy.take(updates({0: (1, {0: (-1, 0)}), 3: (3, {0: (-3, 0)})}))
    assert strategy.parameters["w"].tolist() == [8] and strategy.parameters["items"][0].tolist() == [2, 1]
    assert strategy.report(None)["clusters"] == {"sizes": [0, 0], "without": 5}


@pytest.mark.parametrize(
    "answer",
    [[1.0], [1.0, 2.0, 3.0], [1.0, np.nan], [1.0, np.inf], [[1.0, 0.0]]],
    ids=["short", "long", "not a number", "infinite", "two axes"],
)
def test_what_is_no_embedding_is_refused(answer: Any) -> None:
    with pytest.raises(ValueError, match="an embedding is 2 finite numbers"):
        clustered({0: answer})
    with pytest.raises(ValueError, match="an embedding is 2 finite numbers"):
        server().before_round(1, type("Doubles", (Answers,), {"_answer": _in_doubles})({}))  # type: ignore[arg-type]


def _in_doubles(self: Answers, position: int, decode: Callable[[Stack], Any]) -> Any:
    return decode({"embedding": np.array(LEFT)})


def test_clusters_keep_their_numbers_and_users_who_say_nothing_their_cluster() -> None:
    strategy = clustered(cluster_every=1)
    first = strategy.labels.copy()
    assert first[0] == first[1] != first[2] == first[3] and first[4] == -1
    strategy.take(updates({0: (1, {}), 2: (-1, {})}))
    # All have turned a bit; user 1 has changed sides, 3 does not reply, 4 is there for the first time.
    strategy.before_round(2, Answers({0: (1, -0.3), 1: (0.2, 1), 2: (-0.2, 1), 4: (0.9, -0.1)}))
    assert strategy.labels.tolist() == [first[0], first[2], first[2], first[3], first[0]]
    assert of(strategy, 0)["w"].tolist() == [9] and of(strategy, 2)["w"].tolist() == [11]
    # Who was in a cluster and says nothing now keeps it; where nobody says anything all do.
    before = strategy.labels.copy()
    strategy.before_round(3, Answers({0: None, 1: None, 2: None, 3: None, 4: None}))
    assert strategy.labels.tolist() == before.tolist()
    for server_round in range(4, 8):  # as long as nobody moves
        strategy.before_round(server_round, Answers({0: LEFT, 1: RIGHT, 2: RIGHT, 3: RIGHT, 4: LEFT}))
        assert strategy.labels.tolist() == before.tolist()
    assert strategy.report(None)["clusters"]["without"] == 0
    assert sorted(strategy.report(None)["clusters"]["sizes"]) == [2, 3]


def test_clusters_are_of_the_same_users_wherever_these_go_together() -> None:
    """All change sides at once: it is the same two groups, each with the model that it has trained."""
    strategy = clustered(cluster_every=1)
    before = strategy.labels.copy()
    strategy.before_round(2, Answers({0: RIGHT, 1: (0.1, 1.0), 2: LEFT, 3: (1.0, 0.1)}))
    assert strategy.labels.tolist() == before.tolist()
    # Each user is nearest to the centre of its new cluster.
    assert strategy.users.distances[:4].max() < 0.2


def test_the_length_of_an_embedding_does_not_matter() -> None:
    strategy = clustered({0: (50, 0), 1: (0.01, 0), 2: (0, 50), 3: (0, 0.01)})
    assert strategy.labels[0] == strategy.labels[1] != strategy.labels[2] == strategy.labels[3]


def test_a_clustering_says_who_is_where() -> None:
    strategy = clustered()
    found = strategy.clustering
    assert found.client_ids.tolist() == list(CLIENTS) and found.labels.tolist() == strategy.labels.tolist()
    assert found.points.shape == (5, 2) and np.isnan(found.points[4]).all() and np.isfinite(found.points[:4]).all()
    distances = np.linalg.norm(found.points[:4, None] - found.points[None, :4], axis=2)
    assert distances[0, 1] == pytest.approx(distances[2, 3], rel=1e-5) and distances[0, 1] < 0.2 < 1 < distances[0, 2]
    strategy.labels[0] = 1 - strategy.labels[0]
    assert found.labels[0] == found.labels[1]  # what comes later does not change it


# What travels ---------------------------------------------------------------------------------------------------------


def unequal() -> Any:
    """A server whose three models differ in everything."""
    strategy = clustered()
    for model, factor in zip((strategy.server, *strategy.clusters), (1, 2, 3), strict=True):
        for value in model.parameters.values():
            value += factor
    return strategy


def test_users_are_sent_what_they_start_from() -> None:
    strategy = unequal()
    for positions in ([0, 1, 2, 3, 4], [3, 0], [4], [1]):
        sent = strategy.instructions(1, positions)
        assert isinstance(sent, Choice) and sent.rows.shape == (len(positions), 1)
        for row, position in enumerate(positions):
            expected = strategy.parameters if position == 4 else of(strategy, position)
            for name, value in expected.items():
                np.testing.assert_array_equal(sent.values[name][sent.rows[row, 0]], value)
        assert sent.num_rows == len(np.unique(sent.rows))  # nothing that nobody needs


def test_users_are_measured_by_the_global_model_and_their_start() -> None:
    strategy = unequal()
    for positions in ([0, 1, 2, 3, 4], [3, 0], [4], [1]):
        sent = strategy.evaluation_instructions(positions)
        assert isinstance(sent, Choice) and sent.rows.shape == (len(positions), 2)
        for row, position in enumerate(positions):
            expected = [strategy.parameters, strategy.parameters if position == 4 else of(strategy, position)]
            for place, model in enumerate(expected):
                for name, value in model.items():
                    np.testing.assert_array_equal(sent.values[name][sent.rows[row, place]], value)
        assert sent.num_rows == len(np.unique(sent.rows))


def test_a_user_is_charged_each_model_once() -> None:
    """Eight item coordinates and w, 4 bytes each: one model to train, two to be measured by, one without a cluster."""
    strategy = unequal()
    together = range(5)
    trained, evaluated = pack(strategy.instructions(1, together)), pack(strategy.evaluation_instructions(together))
    assert trained.bytes_per_client.tolist() == [36] * 5
    assert evaluated.bytes_per_client.tolist() == [72] * 4 + [36]
    for position in together:  # as if each had a separate message
        assert pack(strategy.instructions(1, [position])).bytes_per_client.tolist() == [36]
        alone = pack(strategy.evaluation_instructions([position])).bytes_per_client
        assert alone.tolist() == [evaluated.bytes_per_client[position]]
    assert pack(server().instructions(1, together)).bytes_per_client.max() <= 36


def test_what_is_evaluated_is_averaged_over_rounds_where_that_is_asked_for() -> None:
    strategy = clustered(iterate_average=0.5)
    strategy.take(updates({0: (4, {}), 2: (-2, {})}))
    strategy.take(updates({0: (2, {}), 2: (-2, {})}, server_round=2))
    # Cluster of user 0: 6, then 4; that of user 2: 12, then 14; global: 9 of both. Weights 1/3 and 2/3.
    sent = strategy.evaluation_instructions([0, 2, 4])
    found = [[sent.values["w"][row][0] for row in rows] for rows in sent.rows]
    np.testing.assert_allclose(found, [[9, 14 / 3], [9, 40 / 3], [9, 9]], atol=1e-5)
    started = strategy.instructions(3, [0, 2, 4])
    np.testing.assert_allclose([started.values["w"][row] for row in started.rows[:, 0]], [[4], [14], [9]], atol=1e-5)


# Who takes part -------------------------------------------------------------------------------------------------------

MANY = tuple(range(100, 160))


def many(**knobs: Any) -> Any:
    """60 users: 30 in a cluster, the further from its centre the higher their number, 20 in another, 10 in none."""
    initial = {"items": np.zeros((ITEMS, WIDTH), np.float32), "w": np.zeros(1, np.float32)}
    strategy = server(clients=MANY, initial=initial, users_per_round=12, **knobs)
    angles = np.concatenate([0.3 * np.arange(30) / 30, np.pi / 2 + 0.3 * np.arange(20) / 20])
    told: dict[int, Any] = {user: (np.cos(angle), np.sin(angle)) for user, angle in enumerate(angles)}
    strategy.before_round(1, Answers({**told, **dict.fromkeys(range(50, 60))}))
    return strategy


def test_users_are_drawn_as_by_fedavg_before_there_are_clusters_and_where_that_is_asked_for() -> None:
    plain = server(FedAvgRatings, clients=MANY, users_per_round=12)
    for knobs in ({"selection": "random"}, {"selection": "representative", "cluster_start": 9}):
        strategy = many(**knobs)
        for server_round in range(1, 6):
            assert strategy.participants(server_round) == plain.participants(server_round)


def test_a_round_has_of_each_cluster_as_many_as_it_is_large() -> None:
    """Of 12 users 6 of 30, 4 of 20 and 2 of the 10 without a cluster, other ones in each round."""
    strategy = many(selection="size")
    seen: set[int] = set()
    for server_round in range(1, 40):
        chosen = strategy.participants(server_round)
        assert chosen == strategy.participants(server_round) == sorted(set(chosen))
        parts = [sum(low <= user < high for user in chosen) for low, high in ((0, 30), (30, 50), (50, 60))]
        assert parts == [6, 4, 2]
        seen |= set(chosen)
    assert seen == set(range(60))


def test_representatives_stand_for_their_clusters() -> None:
    """Half of 12 users: 4 of 30 and 2 of 20 (3.6 and 2.4), those in the middle; the others are anybody."""
    strategy = many(selection="representative")
    drawn: set[int] = set()
    for server_round in range(1, 30):
        chosen = strategy.participants(server_round)
        assert len(chosen) == 12 and chosen == sorted(set(chosen)) == strategy.participants(server_round)
        assert {13, 14, 15, 16, 39, 40} <= set(chosen)
        drawn |= set(chosen)
    assert len(drawn) > 50
    # Who has been taken makes room for those who are next to the middle.
    strategy.take(updates(dict.fromkeys((13, 14, 15, 16, 39, 40), (0.0, {})), clients=60))
    always = set.intersection(*(set(strategy.participants(server_round)) for server_round in range(1, 30)))
    assert always == {11, 12, 17, 18, 38, 41}
    nobody = many(selection="representative", representative_share=0.0)
    assert not set.intersection(*(set(nobody.participants(server_round)) for server_round in range(1, 30)))


def test_all_take_part_where_there_are_fewer_than_asked_for() -> None:
    for selection in ("representative", "size", "random"):
        strategy = clustered(selection=selection, users_per_round=50)
        assert list(strategy.participants(1)) == [0, 1, 2, 3, 4]


# After a crash --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [1, 2, 4])
@pytest.mark.parametrize("selection", ["representative", "size"])
def test_a_server_goes_on_from_its_state(stop: int, selection: str) -> None:
    """Stopped before the first clustering, right after it, and after the second; embeddings move all the time."""
    knobs: dict[str, Any] = {
        **{"selection": selection, "users_per_round": 3, "cluster_start": 2, "cluster_every": 2, "cluster_pull": 0.1},
        **{"server_optimizer": "adam", "server_lr": 0.3, "server_lr_final": 0.2, "iterate_average": 0.3},
    }

    def play(strategy: Any, rounds: Sequence[int]) -> list[Any]:
        seen = []
        for server_round in rounds:
            rng = np.random.default_rng(server_round)
            told = {user: rng.standard_normal(WIDTH).tolist() for user in range(5)}
            strategy.before_round(server_round, Answers(told))
            chosen = strategy.participants(server_round)
            changes = {u: (float(rng.standard_normal()), {int(u) % ITEMS: (1.0, -1.0)}) for u in chosen}
            strategy.take(updates(changes, server_round=server_round))
            if server_round in (1, 3):
                strategy._best_round = server_round
                strategy.keep()
            measured = strategy.evaluation_instructions(range(5))
            seen.append((list(chosen), strategy.labels.tolist(), measured.rows.tolist(), measured.values))
        return seen

    unbroken, first, second = (server(**knobs, num_rounds=7) for _ in range(3))
    expected = play(unbroken, range(1, 8))
    play(first, range(1, stop + 1))
    state = {name: np.array(value) for name, value in first.state().items()}
    assert all(isinstance(value, np.ndarray) and value.dtype != object for value in state.values())
    second.load_state(state)
    assert second.state().keys() == state.keys()
    for name, value in state.items():
        np.testing.assert_array_equal(second.state()[name], value, err_msg=name)
    for mine, theirs in zip(play(second, range(stop + 1, 8)), expected[stop:], strict=True):
        assert mine[:3] == theirs[:3]
        for name, values in theirs[3].items():
            np.testing.assert_array_equal(mine[3][name], values)
    for name, value in unbroken.state().items():
        np.testing.assert_array_equal(second.state()[name], value, err_msg=name)
    for one, other in zip(second._best_clusters, unbroken._best_clusters, strict=True):
        for name, value in other.items():
            np.testing.assert_array_equal(one[name], value)
    assert len(unbroken._best_clusters) == 2


def test_what_was_best_is_kept_as_it_was() -> None:
    strategy = clustered()
    strategy.take(updates({0: (4, {}), 2: (-2, {})}))
    strategy._best_round = 1
    strategy.keep()
    strategy.take(updates({0: (4, {}), 2: (-2, {})}, server_round=2))
    kept = strategy._best_clusters
    assert [kept[strategy.labels[user]]["w"].tolist() for user in (0, 2)] == [[6], [12]]
    assert [of(strategy, user)["w"].tolist() for user in (0, 2)] == [[2], [14]]
    assert strategy._best["w"].tolist() == [9]

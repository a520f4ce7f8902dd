"""Admission to a federation: nodes are made by hand, join, leave and come back, and send any answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from subfl_flower.data.federation_schema import FederationSchema
from subfl_flower.errors import RunFailure, SubflError
from subfl_flower.flower.inline_grid import InlineGrid
from subfl_flower.server import membership
from subfl_flower.server.membership import Membership
from subfl_flower.wire import roster as roster_module
from subfl_flower.wire.roster import ROSTER, Roster

ABOUT: dict[str, Any] = {
    "num_features": 7,
    "num_classes": 0,
    "user_values": [3, 2],
    "item_values": [19],
    "dataset": "digits",
    "partition": "ab" * 8,
    "num_clients": 4,
    "overlapping": False,
}
SCHEMA: dict[str, Any] = {
    **{"items": 7, "user_values": [3, 2], "item_values": [19]},
    **{"partition": "ab" * 8, "names": "", "overlapping": False, "clients": ["0-3"]},
}
OTHER = "ba" * 8
Answer = dict[str, Any] | RecordDict | Exception


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "_LOOK_SECONDS", 0.001)


class Nodes(InlineGrid):
    """Nodes by id and what each says of its clients; they may change from look to look.

    Args:
        answers: of the nodes that are there.
        events: what happens before the n-th look, 1-based.
    """

    def __init__(
        self, answers: Mapping[int, Answer], events: Mapping[int, Callable[[dict[int, Answer]], None]] | None = None
    ) -> None:
        app = ClientApp()

        @app.query(ROSTER)
        def roster(message: Message, context: Context) -> Message:
            self.asked.append(context.node_id)
            answer = self.answers[context.node_id]
            if isinstance(answer, Exception):
                raise answer
            content = answer if isinstance(answer, RecordDict) else RecordDict({ROSTER: ConfigRecord(answer)})
            return Message(content, reply_to=message)

        super().__init__(app, 20)
        self.answers = dict(answers)
        self.events = dict(events or {})
        self.asked: list[int] = []
        self.looks = 0

    @contextmanager
    def active(self) -> Iterator[Nodes]:
        with super().active():
            yield self

    def get_node_ids(self) -> Iterable[int]:
        self.looks += 1
        if event := self.events.pop(self.looks, None):
            event(self.answers)
        return list(self.answers)


def hosting(*clients: int, **about: Any) -> dict[str, Any]:
    sizes = {
        "num_examples": [10.0 + c for c in clients],
        "num_nodes": [50.0 + c for c in clients],
        "num_edges": [400.0 - c for c in clients],
    }
    return {"clients": list(clients), **sizes, **ABOUT, **about}


def nodes(*answers: Answer) -> Nodes:
    """Nodes 1, 2, ... that stay."""
    return Nodes(dict(enumerate(answers, start=1)))


def members(
    grid: Nodes, *, tolerant: bool = True, patience: float = 0.05, stated: Mapping[str, Any] | None = None, **rest: Any
) -> Membership:
    """Of a run whose schema is `SCHEMA`, but for what is stated otherwise."""
    schema = FederationSchema.model_validate({**SCHEMA, **(stated or {})})
    run = ConfigRecord({"config": "{}"})
    return Membership(grid, run, "digits", schema, tolerant=tolerant, patience=patience, **rest)


OPEN: dict[str, Any] = {"clients": None}
"""Stated where nobody knows who takes part."""


def hosts(roster: Roster) -> dict[int, int | None]:
    return dict(zip(roster.client_ids, roster.node_ids, strict=True))


@pytest.mark.parametrize("stated", [1e12, 3e7, 401.0])
def test_attack_by_a_stated_size_counts_as_a_multiple_of_the_median(stated: float) -> None:
    answers = [hosting(client) for client in range(4)]
    for key in ("num_examples", "num_nodes"):
        answers[2][key] = [stated]
    with nodes(*answers).active() as grid:
        roster = members(grid, stated=OPEN, min_clients=4, size_bound=4.0).gather()
    # The lower medians of 10, 11, 13 and of 50, 51, 53 with the attacker's are 11 and 51.
    assert roster.num_examples.tolist() == [10, 11, 44, 13]
    assert roster.num_nodes.tolist() == [50, 51, 204, 53]
    assert roster.num_edges.tolist() == [400, 399, 398, 397]


def test_honest_sizes_stay_as_they_are() -> None:
    answers = [hosting(0), hosting(1), {**hosting(2), "num_examples": [43.0]}]
    with nodes(*answers).active() as grid:
        roster = members(grid, stated=OPEN, min_clients=3, size_bound=4.0).gather()
    assert roster.num_examples.tolist() == [10, 11, 43]


def test_attack_invented_clients_are_more_than_a_run_takes() -> None:
    invented = hosting(*range(5, 300), num_clients=0)
    answers = [hosting(0, num_clients=0), invented, hosting(1, 2, num_clients=0), hosting(3, 4, num_clients=0)]
    with nodes(*answers).active() as grid:
        run = members(grid, stated=OPEN, min_clients=5, max_clients=5)
        roster = run.gather()
    assert hosts(roster) == {0: 1, 1: 3, 2: 3, 3: 4, 4: 4}
    [refusal] = run.refusals
    assert refusal["clients"] == list(range(5, 13))
    said = "node 2 hosts 295 clients, with which there would be more than 5 (federation.max_clients)"
    assert refusal["reason"] == said


def test_a_list_of_clients_is_bound_enough() -> None:
    with nodes(hosting(0, 1), hosting(2, 3)).active() as grid:
        assert len(members(grid, max_clients=1).gather()) == 4


# All nodes are there, and none may be wrong -------------------------------------------------------------------------


def gathered(num_clients: int, *answers: Answer, **stated: Any) -> Roster:
    own = [{**answer, "num_clients": num_clients} if isinstance(answer, dict) else answer for answer in answers]
    with nodes(*own).active() as grid:
        return members(grid, tolerant=False, stated={"clients": [f"0-{num_clients - 1}"], **stated}).gather()


class Clock:
    """Time that goes on by a second at each sleep."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += 1.0


@pytest.mark.parametrize("first", [3, None])
def test_a_node_that_came_late_shows_how_long_the_others_may_take(
    first: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patience is 2.5 s; a first node after 2 s lets the second take three times as long, and it comes after 5 s."""
    monkeypatch.setattr(membership, "time", Clock())
    events: dict[int, Callable[[dict[int, Answer]], None]] = {
        6: lambda answers: answers.update({2: hosting(1, num_clients=2)})
    }
    if first is not None:
        events[first] = lambda answers: answers.update({1: hosting(0, num_clients=2)})
    with Nodes({}, events).active() as grid:
        run = members(grid, tolerant=False, patience=2.5, stated={"clients": ["0-1"]})
        if first is None:
            with pytest.raises(SubflError, match="2 of 2 clients are hosted by no node"):
                run.gather()
        else:
            assert hosts(run.gather()) == {0: 1, 1: 2}


def test_clients_are_sorted_whichever_node_hosts_them() -> None:
    roster = gathered(4, hosting(3, 1), hosting(0), hosting(2))
    assert roster.client_ids == (0, 1, 2, 3) and len(roster) == 4
    assert roster.node_ids == (2, 1, 3, 1) and roster.reachable == [0, 1, 2, 3]
    np.testing.assert_array_equal(roster.num_examples, [10, 11, 12, 13])
    np.testing.assert_array_equal(roster.num_nodes, [50, 51, 52, 53])
    np.testing.assert_array_equal(roster.num_edges, [400, 399, 398, 397])
    assert (roster.num_features, roster.num_classes, roster.overlapping) == (7, 0, False)
    assert (roster.user_values, roster.item_values) == ((3, 2), (19,))
    assert roster.by_node([0, 1, 3]) == {2: [0], 1: [1, 3]}


def test_clients_overlap_if_the_schema_says_so() -> None:
    assert gathered(2, hosting(0), hosting(1, overlapping=True), overlapping=True).overlapping
    assert gathered(2, hosting(0), hosting(1), overlapping=True).overlapping
    with pytest.raises(SubflError, match=r"^client 1: of a partition whose clients share nodes, where schema.overlapp"):
        gathered(2, hosting(0), hosting(1, overlapping=True))


def test_a_node_may_host_nobody() -> None:
    assert gathered(2, hosting(1), hosting(), hosting(0)).node_ids == (3, 1)


@pytest.mark.parametrize(
    ("num_clients", "answers", "sentence"),
    [
        (3, [hosting(0, 1), hosting(1, 2)], "client 1 is hosted by two nodes"),
        (4, [hosting(0, 3), hosting(1)], "1 of 4 clients are hosted by no node, the first is client 2; 2 nodes"),
        (4, [], "4 of 4 clients are hosted by no node, the first is client 0; 0 nodes answered within 0 s"),
        (2, [hosting(0, 1), hosting(5)], "hosts client 5, but the run has the clients 0 .. 1"),
        (2, [hosting(0, 5)], "hosts client 5, but the run has the clients 0 .. 1"),
        (2, [hosting(0), hosting(1, num_features=8)], "client 1: 8 items and 0 classes, where the run's schema has 7 "),
        (2, [hosting(0), hosting(1, num_classes=4)], "client 1: 7 items and 4 classes, where the run's schema has 7 "),
        (2, [hosting(0), hosting(1, dataset="cora")], "client 1: data of 'cora', and this run is on dataset=digits"),
        (2, [hosting(0), hosting(1, partition=OTHER)], "client 1: not of the partition of 'digits' that the run's sch"),
        (3, [hosting(0), hosting(1, 2, dataset="cora")], "clients 1 .. 2: data of 'cora'"),
        (1, [hosting(0), hosting(dataset="cora")], "a node without clients: data of 'cora'"),
        (2, [hosting(0), SubflError("client-0001 is damaged")], "a node could not open its clients: client-0001 is"),
        (2, [hosting(0), ZeroDivisionError("division by zero")], "a node could not open its clients: ZeroDivision"),
        (2, [hosting(0), RecordDict()], "node 2 gave no roster; does it run this app"),
        (2, [hosting(0), {"clients": [1], **ABOUT}], "the roster of node 2: it lacks num_edges, num_examples, num_n"),
        (2, [hosting(0), {**hosting(1), "num_nodes": [1.0, 2.0]}], "the roster of node 2: it has not one num_examples"),
    ],
    ids=lambda value: value.replace("/", " ")[:40] if isinstance(value, str) else "",
)
def test_errors_are_one_sentence(num_clients: int, answers: list[Any], sentence: str) -> None:
    with pytest.raises(SubflError) as error:
        gathered(num_clients, *answers)
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_nodes_that_come_late_are_waited_for_and_asked_once() -> None:
    grid = Nodes({1: hosting(0, num_clients=2)}, {40: lambda answers: answers.update({2: hosting(1, num_clients=2)})})
    with grid.active():
        assert members(grid, tolerant=False, patience=60, stated={"clients": [0, 1]}).gather().node_ids == (1, 2)
    assert grid.asked == [1, 2] and grid.looks == 40


def test_a_wait_that_lasts_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "_TELL_SECONDS", 0.0)
    grid = Nodes({1: hosting(0, num_clients=2)}, {3: lambda answers: answers.update({2: hosting(1, num_clients=2)})})
    told: list[str] = []
    with grid.active():
        members(grid, tolerant=False, patience=3600, stated={"clients": [0, 1]}).gather(told.append)
    sentence = r"waits for nodes: 1 of 2 clients are there, (3600|359\d) s are left \(runtime\.node_timeout\)"
    assert len(told) == 2 and all(re.fullmatch(sentence, said) for said in told)


# Some nodes are wrong, and the others go on -------------------------------------------------------------------------

WRONG: dict[str, tuple[Answer, list[int], str]] = {
    "another data set": (hosting(1, 2, dataset="cora"), [1, 2], "data of 'cora', and this run is on dataset=digits"),
    "another width": (hosting(3, num_features=8), [3], "client 3: 8 items and 0 classes, where the run's schema has 7"),
    "other classes": (hosting(3, num_classes=2), [3], "client 3: 7 items and 2 classes, where the run's schema has 7"),
    "other attributes": (
        hosting(3, user_values=[3, 3]),
        [3],
        "client 3: attributes of users with 3, 3 values, where the run's schema has attributes of users with 3, 2 va",
    ),
    "no attributes": (hosting(3, item_values=[]), [3], "client 3: attributes of items with no values, where the run"),
    "many attributes": (
        hosting(3, user_values=[2**20] * 64),
        [3],
        f"attributes of users with {'1048576, ' * 8}... values, where",
    ),
    "attributes without values": (hosting(3, user_values=[3, 0]), [], "must be at most 64 counts of 1 to 1048576"),
    "too many values": (hosting(3, item_values=[2**20 + 1]), [], "must be at most 64 counts of 1 to 1048576"),
    "too many attributes": (hosting(3, item_values=[1] * 65), [], "must be at most 64 counts of 1 to 1048576"),
    "attributes by name": (hosting(3, item_values=["genre"]), [], "item_values must be a list of type int"),
    "another partition": (
        hosting(3, partition=OTHER),
        [3],
        "client 3: not of the partition of 'digits' that the run's",
    ),
    "other names": (hosting(3, names="c" * 16), [3], "client 3: the names of classes or features, their order, or whe"),
    "shared nodes": (hosting(3, overlapping=True), [3], "client 3: of a partition whose clients share nodes, where sc"),
    "another count": (
        hosting(3, num_clients=5),
        [3],
        "client 3: of a partition into 5 clients, where the run's schema",
    ),
    "hosted already": (hosting(2), [2], "client 2 is hosted by two nodes, 2 and 5; every client must have exactly one"),
    "unknown client": (hosting(3, 4), [3, 4], "a node hosts client 4, but the run has the clients 0 .. 3"),
    "error": (OSError("the disk\nis gone"), [], "a node could not open its clients: OSError: the disk"),
    "nothing": (RecordDict(), [], "node 5 gave no roster; does it run this app, in this version?"),
    "malformed": ({**hosting(3), "num_edges": [-1.0]}, [], "num_examples, num_nodes, num_edges must be counts"),
}
SOUND = {1: hosting(0), 2: hosting(1, 2)}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_node_is_refused_by_name_and_the_others_go_on(wrong: str) -> None:
    answer, clients, reason = WRONG[wrong]
    with Nodes({**SOUND, 5: answer}, {9: lambda answers: answers.update({6: hosting(3)})}).active() as grid:
        found = members(grid, patience=60)
        assert hosts(found.gather()) == {0: 1, 1: 2, 2: 2, 3: 6}
        for _ in range(3):  # it is not said again at every look
            found.refresh()
    (refusal,) = found.refusals
    assert refusal["clients"] == clients and reason in refusal["reason"] and "\n" not in refusal["reason"]


def test_of_a_node_with_one_client_too_many_only_that_client_is_refused() -> None:
    with nodes(hosting(0, 1), hosting(1, 2, 3)).active() as grid:
        found = members(grid)
        assert hosts(found.gather()) == {0: 1, 1: 1, 2: 2, 3: 2}
    assert [refusal["clients"] for refusal in found.refusals] == [[1]]


LIES: dict[str, dict[str, Any]] = {
    "width": {"num_features": 8},
    "classes": {"num_classes": 5},
    "attributes": {"user_values": [], "item_values": [4, 4]},
    "partition": {"partition": OTHER},
    "names": {"names": "c" * 16},
    "overlap": {"overlapping": True},
    "count": {"num_clients": 3},
}


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("lie", LIES)
def test_three_nodes_that_agree_on_a_lie_are_refused_and_the_one_that_fits_is_taken(lie: str, last: bool) -> None:
    """However many clients they host, and whoever came first."""
    wrong = [hosting(0, 1, **LIES[lie]), hosting(2, **LIES[lie]), hosting(3, **LIES[lie])]
    with nodes(*wrong, hosting(0)).active() if last else nodes(hosting(0), *wrong).active() as grid:
        found = members(grid, min_clients=1)
        roster = found.gather()
        assert hosts(found.refresh()) == hosts(roster) == {0: 4 if last else 1, 1: None, 2: None, 3: None}
    assert (roster.shape, roster.overlapping) == ((7, 0, (3, 2), (19,)), False)
    assert sorted(refusal["clients"] for refusal in found.refusals) == [[0, 1], [2], [3]]
    assert all(refusal["reason"].startswith("client") for refusal in found.refusals)


def test_the_width_of_graphs_is_held_against_the_schema_too() -> None:
    graphs = {"num_classes": 3, "user_values": [], "item_values": []}
    sizes = {"items": None, "user_values": [], "item_values": [], "features": 7, "classes": 3}
    with nodes(hosting(0, 1, num_features=8, **graphs), hosting(0, **graphs)).active() as grid:
        found = members(grid, stated=sizes, min_clients=1)
        assert hosts(found.gather()) == {0: 2, 1: None, 2: None, 3: None}
    assert [refusal["reason"] for refusal in found.refusals] == [
        "clients 0 .. 1: 8 features and 3 classes, where the run's schema has 7 features and 3 classes"
    ]


@pytest.mark.parametrize(("key", "lie"), [("names", "c" * 16), ("partition", OTHER)])
def test_what_a_schema_leaves_open_is_as_the_first_node_has_it_that_is_taken(key: str, lie: str) -> None:
    """The first node decides; data that differ are never mixed, even after that node has left."""
    misfit = hosting(3, num_features=9, **{key: lie})
    with nodes(misfit, hosting(**{key: lie}), hosting(0), hosting(1, **{key: lie}), hosting(2)).active() as grid:
        found = members(grid, stated={key: None}, min_clients=2)
        assert hosts(found.gather()) == {0: 3, 1: None, 2: 5, 3: None}
        late = {9: hosting(3, **{key: lie}), 10: hosting(0), 11: hosting(2)}
        grid.answers = {2: grid.answers[2], 4: grid.answers[4], **late}
        assert hosts(found.refresh()) == {0: 10, 1: None, 2: 11, 3: None}
    reasons = [refusal["reason"] for refusal in found.refusals]
    assert len(reasons) == 3 and sum(f"schema.{key} says which" in reason for reason in reasons) == 2


def test_who_takes_part_is_said_by_the_schema_and_not_by_nodes() -> None:
    """A node's client 9 does not count as one of the four, else the run would start without client 3."""
    grid = Nodes(
        {1: hosting(9, num_clients=0), 2: hosting(0, 1, 2)}, {30: lambda answers: answers.update({3: hosting(3)})}
    )
    with grid.active():
        found = members(grid, patience=60)
        assert hosts(found.gather()) == {0: 2, 1: 2, 2: 2, 3: 3}
    assert [refusal["clients"] for refusal in found.refusals] == [[9]]


def test_ids_need_not_be_without_gaps() -> None:
    with nodes(hosting(9, 2, num_clients=3), hosting(5, num_clients=0), hosting(3, num_clients=3)).active() as grid:
        found = members(grid, stated={"clients": [2, 5, 9]})
        assert hosts(found.gather()) == {2: 1, 5: 2, 9: 1}
    assert found.refusals[0]["reason"] == "a node hosts client 3, but the run has the clients 2, 5, 9"


def test_a_number_of_clients_that_no_run_has_is_refused_before_anything_is_made_of_it() -> None:
    with nodes(hosting(0, num_clients=2**31 - 1), *[hosting(c) for c in range(4)]).active() as grid:
        found = members(grid, min_clients=1)
        assert hosts(found.gather()) == {0: 2, 1: 3, 2: 4, 3: 5}
    assert "num_clients must be counts" in found.refusals[0]["reason"]


def test_more_clients_than_any_run_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster_module, "MOST_CLIENTS", 3)
    many = hosting(4, 5, 6, 7, num_clients=0)
    with nodes(many, hosting(0, 1, 2, num_clients=0)).active() as grid:
        found = members(grid, stated=OPEN)
        assert hosts(found.gather()) == {0: 2, 1: 2, 2: 2}
    assert "clients must be at most 3" in found.refusals[0]["reason"]


def test_too_few_after_patience_says_who_is_missing_and_who_was_refused() -> None:
    wrong = (hosting(1, dataset="cora"), ValueError("no such file"))
    with nodes(hosting(0), *wrong).active() as grid, pytest.raises(SubflError) as error:
        members(grid).gather()
    text = str(error.value)
    assert text.startswith("3 of 4 clients are hosted by no node, the first is client 1; 2 nodes answered within 0 s")
    assert "refused: client 1: data of 'cora'" in text and "ValueError: no such file" in text and "\n" not in text
    assert text.endswith("federation.min_clients lets a run start with fewer")


# As many as are needed ----------------------------------------------------------------------------------------------


def test_enough_clients_start_when_patience_is_over_and_absent_ones_have_their_place() -> None:
    with nodes(hosting(0), hosting(2)).active() as grid:
        roster = members(grid, min_clients=2).gather()
    assert hosts(roster) == {0: 1, 1: None, 2: 2, 3: None} and roster.reachable == [0, 2]
    assert roster.by_node(range(4)) == {1: [0], 2: [2]}
    np.testing.assert_array_equal(roster.num_examples, [10, np.nan, 12, np.nan])
    np.testing.assert_array_equal(roster.num_edges, [400, np.nan, 398, np.nan])


def test_enough_clients_are_no_reason_not_to_wait_for_all() -> None:
    grid = Nodes({1: hosting(0, 1)}, {50: lambda answers: answers.update({2: hosting(2, 3)})})
    with grid.active():
        assert members(grid, patience=60, min_clients=1).gather().reachable == [0, 1, 2, 3]


def test_fewer_than_needed_do_not_start() -> None:
    with (
        nodes(hosting(0), hosting(2)).active() as grid,
        pytest.raises(SubflError, match=r"^2 of 4 clients are hosted by no node, the first is client 1"),
    ):
        members(grid, min_clients=3).gather()


def test_where_nobody_knows_how_many_there_are_as_many_as_needed_are_the_run() -> None:
    unknowing = {"num_clients": 0}
    grid = Nodes(
        {1: hosting(7, **unknowing), 2: hosting(5, **unknowing)},
        {20: lambda answers: answers.update({3: hosting(2, **unknowing)})},
    )
    with grid.active():
        found = members(grid, patience=60, min_clients=3, stated=OPEN)
        roster = found.gather()
        assert hosts(roster) == {2: 3, 5: 2, 7: 1}
        np.testing.assert_array_equal(roster.num_examples, [12, 15, 17])
        # Who comes now has no place in the run any more.
        grid.answers[4] = hosting(6, **unknowing)
        assert hosts(found.refresh()) == {2: 3, 5: 2, 7: 1}
    assert [refusal["reason"] for refusal in found.refusals] == [
        "a node hosts client 6, but the run has the clients 2, 5, 7"
    ]


def test_where_nobody_knows_and_nothing_is_said_whoever_came_in_time_is_the_run() -> None:
    with nodes(hosting(3, num_clients=0), hosting(1, num_clients=0)).active() as grid:
        assert hosts(members(grid, stated=OPEN).gather()) == {1: 2, 3: 1}


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        ([], "no node answered within 0 s (runtime.node_timeout); federation.min_clients lets"),
        ([hosting(5, num_clients=0)], "1 clients that fit came within 0 s (runtime.node_timeout), and federation.min"),
        ([SubflError("broken")], "no node answered within 0 s (runtime.node_timeout); refused: a node could not open"),
    ],
    ids=["nobody", "too few", "an error"],
)
def test_too_few_where_nobody_knows_how_many_there_are(answers: list[Answer], sentence: str) -> None:
    with nodes(*answers).active() as grid, pytest.raises(SubflError) as error:
        members(grid, min_clients=2, stated=OPEN).gather()
    assert str(error.value).startswith(sentence)


# Between rounds -----------------------------------------------------------------------------------------------------


def test_a_late_client_joins_without_anyone_waiting() -> None:
    with nodes(hosting(0), hosting(2)).active() as grid:
        found = members(grid, min_clients=1)
        first = found.gather()
        looks = grid.looks
        assert hosts(found.refresh()) == {0: 1, 1: None, 2: 2, 3: None} and grid.looks == looks + 1
        grid.answers[9] = hosting(3)
        roster = found.refresh()
    assert hosts(roster) == {0: 1, 1: None, 2: 2, 3: 9}
    np.testing.assert_array_equal(roster.num_nodes, [50, np.nan, 52, 53])
    np.testing.assert_array_equal(first.num_nodes, [50, np.nan, 52, np.nan])  # an earlier roster is not changed


def test_a_node_that_leaves_takes_its_clients_along_and_brings_them_back_under_another_id() -> None:
    with nodes(hosting(0), hosting(1, 2), hosting(3)).active() as grid:
        found = members(grid)
        found.gather()
        back = grid.answers.pop(2)
        roster = found.refresh()
        assert hosts(roster) == {0: 1, 1: None, 2: None, 3: 3} and roster.reachable == [0, 3]
        assert roster.num_examples[1] == 11  # what was known of it is not forgotten
        grid.answers[17] = back
        assert hosts(found.refresh()) == {0: 1, 1: 17, 2: 17, 3: 3}
        # A node that goes and comes under its own id, too.
        again = grid.answers.pop(1)
        found.refresh()
        grid.answers[1] = again
        assert hosts(found.refresh()) == {0: 1, 1: 17, 2: 17, 3: 3}
    assert found.refusals == [] and grid.asked == [1, 2, 3, 17, 1]


def test_a_client_hosted_twice_stays_where_it_is_until_its_node_goes() -> None:
    with nodes(hosting(0), hosting(1, 2, 3)).active() as grid:
        found = members(grid)
        found.gather()
        grid.answers[4] = hosting(0)
        assert hosts(found.refresh())[0] == 1
        gone = grid.answers.pop(1)
        assert hosts(found.refresh())[0] == 4
        grid.answers[1] = gone  # back, and too late
        assert hosts(found.refresh())[0] == 4
    assert {refusal["reason"][:32] for refusal in found.refusals} == {"client 0 is hosted by two nodes,"}


def test_a_late_node_that_does_not_fit_is_refused_even_where_everyone_else_has_gone() -> None:
    with nodes(hosting(0, 1)).active() as grid:
        found = members(grid, min_clients=1)
        found.gather()
        grid.answers = {2: hosting(1, 2, 3, num_features=8), 3: hosting(2, partition=OTHER), 4: hosting(3)}
        assert hosts(found.refresh()) == {0: None, 1: None, 2: None, 3: 4}
    assert [refusal["clients"] for refusal in found.refusals] == [[1, 2, 3], [2]]


def test_a_node_with_an_error_is_asked_again_some_time_later(monkeypatch: pytest.MonkeyPatch) -> None:
    with nodes(hosting(0, 1, 2), SubflError("not mounted")).active() as grid:
        found = members(grid, min_clients=1)
        found.gather()
        grid.answers[2] = hosting(3)
        assert hosts(found.refresh())[3] is None and grid.asked == [1, 2]
        monkeypatch.setattr(membership, "_ASK_AGAIN_SECONDS", 0.0)
        assert hosts(found.refresh())[3] == 2 and grid.asked == [1, 2, 2]


def test_rounds_wait_for_as_many_clients_as_are_needed() -> None:
    grid = nodes(hosting(0), hosting(1), hosting(2, 3))
    with grid.active():
        found = members(grid, patience=60, min_clients=3)
        found.gather()
        back = grid.answers.pop(3)
        grid.events[grid.looks + 25] = lambda answers: answers.update({8: back})
        looks = grid.looks
        assert found.refresh().reachable == [0, 1, 2, 3] and grid.looks == looks + 25


@pytest.mark.parametrize(("needed", "left"), [(3, 2), (None, 0)])
def test_a_run_with_too_few_clients_left_fails_when_patience_is_over(needed: int | None, left: int) -> None:
    with nodes(hosting(0, 1), hosting(2, 3)).active() as grid:
        found = members(grid, min_clients=needed)
        found.gather()
        grid.answers = {1: grid.answers[1]} if left else {}
        with pytest.raises(RunFailure) as error:
            found.refresh()
    assert str(error.value) == (
        f"{left} of 4 clients are connected, {needed or 1} are needed (federation.min_clients), and no more came "
        "within 0 s (runtime.node_timeout)"
    )


def test_without_min_clients_one_client_is_enough_to_go_on() -> None:
    with nodes(hosting(0), hosting(1, 2, 3)).active() as grid:
        found = members(grid)
        found.gather()
        del grid.answers[2]
        assert found.refresh().reachable == [0]


def test_a_message_that_is_not_taken_is_sent_again() -> None:
    class Refusing(Nodes):
        refusals = 3

        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            if self.refusals:
                self.refusals -= 1
                return [None for _ in messages]  # type: ignore[misc]
            return super().push_messages(messages)

    grid = Refusing({1: hosting(0, 1, 2, 3)})
    with grid.active():
        assert members(grid, patience=60).gather().reachable == [0, 1, 2, 3]
    assert grid.looks == 4


# A run that goes on -------------------------------------------------------------------------------------------------


def known(*clients: int) -> Roster:
    """A checkpoint's roster."""
    sizes = np.array([10.0 + c if c != 2 else np.nan for c in clients])
    return Roster(clients, (None,) * len(clients), sizes, sizes + 40, 410 - sizes, 7, 0, True, None, (3, 2), (19,))


def test_a_resumed_run_takes_its_own_clients_and_nobody_else() -> None:
    with nodes(hosting(5), hosting(2), hosting(3), hosting(9, 4)).active() as grid:
        found = members(grid, patience=60, known=known(2, 5, 9), min_clients=2, stated=OPEN)
        grid.events[10] = lambda answers: answers.update({6: hosting(9)})
        roster = found.gather()
    assert hosts(roster) == {2: 2, 5: 1, 9: 6}
    np.testing.assert_array_equal(roster.num_examples, [12, 15, 19])  # client 2 had never been there
    assert roster.overlapping  # SubPFed's distances and FED-PUB's τ are of that roster
    assert [refusal["reason"] for refusal in found.refusals] == [
        "a node hosts client 3, but the run has the clients 2, 5, 9",
        "a node hosts client 4, but the run has the clients 2, 5, 9",
    ]


def test_a_resumed_run_starts_with_enough_of_its_clients_and_keeps_the_others_places() -> None:
    with nodes(hosting(9)).active() as grid:
        roster = members(grid, known=known(2, 5, 9), min_clients=1, stated=OPEN).gather()
    assert hosts(roster) == {2: None, 5: None, 9: 1}
    np.testing.assert_array_equal(roster.num_examples, [np.nan, 15, 19])


def test_a_resumed_run_waits_for_all_where_not_told_otherwise() -> None:
    with (
        nodes(hosting(9)).active() as grid,
        pytest.raises(SubflError, match=r"^2 of 3 clients .* is client 2; 1 nodes"),
    ):
        members(grid, known=known(2, 5, 9), stated=OPEN).gather()


def test_a_resumed_run_is_not_outvoted() -> None:
    """Most clients that come have other data; the run's model is of the width that it was."""
    with nodes(hosting(2, 5, num_features=8), hosting(9)).active() as grid:
        found = members(grid, known=known(2, 5, 9), min_clients=1, stated=OPEN)
        assert hosts(found.gather()) == {2: None, 5: None, 9: 2}
    assert found.refusals[0]["reason"].startswith("clients 2, 5: 8 items and 0 classes, where the run's schema has 7 i")
    reason = r"^3 of 3 clients .* refused: clients 2, 5: 8 items"
    with nodes(hosting(2, 5, num_features=8)).active() as grid, pytest.raises(SubflError, match=reason):
        members(grid, known=known(2, 5, 9), min_clients=1, stated=OPEN).gather()


# Anything at all ----------------------------------------------------------------------------------------------------

SCALARS = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=30), st.binary(max_size=10), st.booleans()
)
LISTS = st.one_of(
    st.lists(st.integers(-2, 6), max_size=5),
    st.lists(st.integers(), max_size=4),
    st.lists(st.floats(), max_size=4),
    st.lists(st.booleans(), max_size=4),
    st.lists(st.text(max_size=5), max_size=4),
    st.lists(st.binary(max_size=5), max_size=4),
)


ANYTHING = st.dictionaries(st.text(max_size=12), st.one_of(SCALARS, LISTS), max_size=8)


@st.composite
def altered(draw: st.DrawFn) -> dict[str, Any]:
    """A sound answer with some of its fields replaced or left out."""
    answer = hosting(*draw(st.lists(st.integers(0, 5), max_size=4)))
    for key in draw(st.sets(st.sampled_from(sorted(answer)), min_size=1, max_size=3)):
        if draw(st.booleans()):
            answer[key] = draw(st.one_of(SCALARS, LISTS))
        else:
            del answer[key]
    return answer


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(altered(), ANYTHING), st.booleans())
def test_no_answer_does_more_than_keep_its_node_out(answer: dict[str, Any], first: bool) -> None:
    """Whatever it says, those that fit the schema are the run."""
    wrong, rest = (1, 2) if first else (2, 1)
    answers = {wrong: answer, rest: hosting(*range(6), num_clients=6)}
    with Nodes(dict(sorted(answers.items()))).active() as grid:
        found = members(grid, patience=0.0, min_clients=1, stated={"clients": ["0-5"]})
        try:
            for roster in (found.gather(), found.refresh()):
                assert roster.client_ids == tuple(range(6))
                assert set(roster.node_ids) <= {1, 2} and rest in roster.node_ids
                assert roster.shape == (7, 0, (3, 2), (19,))
                sizes = np.array([roster.num_examples, roster.num_nodes, roster.num_edges])
                assert (sizes >= 0).all() and np.isfinite(sizes).all()
            if wrong not in roster.node_ids and "clients" in answer and answer["clients"]:
                assert found.refusals
        except SubflError as error:
            raise AssertionError(f"the run was stopped: {error}") from None
        strict = members(grid, tolerant=False, patience=0.0, stated={"clients": ["0-5"]})
        try:
            strict.gather()
        except SubflError as error:
            assert "\n" not in str(error) and len(str(error)) < 700
    for refusal in found.refusals:
        assert refusal["reason"].isprintable() and len(refusal["reason"]) < 500

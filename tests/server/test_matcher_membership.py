"""A federation whose method needs a matcher: it is waited for, there is one, and without it training goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from subfl_flower.data.federation_schema import FederationSchema
from subfl_flower.errors import SubflError
from subfl_flower.flower.inline_grid import InlineGrid
from subfl_flower.server import membership
from subfl_flower.server.membership import Membership
from subfl_flower.wire.roster import ROSTER, Matcher

ABOUT: dict[str, Any] = {
    "num_features": 7,
    "num_classes": 0,
    "user_values": [],
    "item_values": [],
    "dataset": "ratings",
    "partition": "ab" * 8,
    "num_clients": 3,
}
ABSENT = "no node is the matcher, and none came within 0 s (runtime.node_timeout)"


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "_LOOK_SECONDS", 0.001)


class Nodes(InlineGrid):
    """Nodes by id, what each says, and what happens before the n-th look."""

    def __init__(
        self,
        answers: Mapping[int, dict[str, Any]],
        events: Mapping[int, Callable[[dict[int, dict[str, Any]]], None]] | None = None,
    ) -> None:
        app = ClientApp()

        @app.query(ROSTER)
        def roster(message: Message, context: Context) -> Message:
            return Message(RecordDict({ROSTER: ConfigRecord(self.answers[context.node_id])}), reply_to=message)

        super().__init__(app, 20)
        self.answers, self.events, self.looks = dict(answers), dict(events or {}), 0

    @contextmanager
    def active(self) -> Iterator[Nodes]:
        with super().active():
            yield self

    def get_node_ids(self) -> list[int]:
        self.looks += 1
        if event := self.events.pop(self.looks, None):
            event(self.answers)
        return list(self.answers)


def hosting(*clients: int) -> dict[str, Any]:
    sizes = {name: [1.0] * len(clients) for name in ("num_examples", "num_nodes", "num_edges")}
    return {"clients": list(clients), **sizes, **ABOUT, "overlapping": False}


def matching(key: Any = b"k" * 32, role: str = "matcher") -> dict[str, Any]:
    return {"role": role, "public_key": key}


CLIENTS = {1: hosting(0), 2: hosting(1, 2)}


def members(grid: Nodes, *, tolerant: bool = True, patience: float = 0.05, needs_matcher: bool = True) -> Membership:
    return Membership(
        *(grid, ConfigRecord({}), "ratings", FederationSchema(items=7, clients=("0-2",))),
        tolerant=tolerant,
        patience=patience,
        needs_matcher=needs_matcher,
    )


@pytest.mark.parametrize("tolerant", [True, False])
def test_the_matcher_hosts_nobody_and_stands_in_the_roster(tolerant: bool) -> None:
    with Nodes({**CLIENTS, 5: matching()}).active() as grid:
        roster = members(grid, tolerant=tolerant).gather()
    assert roster.matcher == Matcher(5, b"k" * 32)
    assert roster.node_ids == (1, 2, 2)


def test_a_matcher_that_comes_late_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    grid = Nodes(CLIENTS, {30: lambda answers: answers.update({9: matching()})})
    with grid.active():
        roster = members(grid, patience=60).gather()
    assert roster.matcher == Matcher(9, b"k" * 32) and grid.looks == 30
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_who_needs_no_matcher_does_not_wait_for_one() -> None:
    with Nodes(CLIENTS).active() as grid:
        assert members(grid, patience=60, needs_matcher=False).gather().matcher is None
    assert grid.looks == 1


def test_a_simulation_without_its_matcher_ends_in_words() -> None:
    with Nodes(CLIENTS).active() as grid, pytest.raises(SubflError) as error:
        members(grid, tolerant=False).gather()
    assert str(error.value) == ABSENT


def test_a_deployment_starts_without_its_matcher_and_says_so_and_takes_it_when_it_comes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Nodes(CLIENTS).active() as grid, caplog.at_level("WARNING", logger="flwr"):
        found = members(grid)
        assert found.gather().matcher is None
        assert caplog.messages == [f"{ABSENT}; training starts without it"]
        assert found.refresh().matcher is None
        grid.answers[7] = matching()
        assert found.refresh().matcher == Matcher(7, b"k" * 32)
    assert len(caplog.messages) == 1 and found.refusals == []


def test_a_matcher_does_not_stand_for_clients() -> None:
    with Nodes({1: hosting(0), 5: matching()}).active() as grid, pytest.raises(SubflError, match=r"^2 of 3 clients"):
        members(grid).gather()


def test_a_second_matcher_is_refused_and_the_first_keeps_its_seat() -> None:
    with Nodes({**CLIENTS, 5: matching(), 6: matching(b"l" * 32)}).active() as grid:
        found = members(grid)
        assert found.gather().matcher == found.refresh().matcher == Matcher(5, b"k" * 32)
    refusal = {"clients": [], "reason": "node 6 is a second matcher; a federation has one"}
    assert found.refusals == [refusal]
    with Nodes({**CLIENTS, 5: matching(), 6: matching()}).active() as grid, pytest.raises(SubflError) as error:
        members(grid, tolerant=False).gather()
    assert str(error.value) == refusal["reason"]


def test_a_matcher_that_leaves_is_missed_and_another_takes_the_seat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "_ASK_AGAIN_SECONDS", 0.0)
    with Nodes({**CLIENTS, 5: matching()}).active() as grid:
        found = members(grid)
        first = found.gather()
        grid.answers[6] = matching(b"l" * 32)
        assert found.refresh().matcher == first.matcher
        gone = grid.answers.pop(5)
        assert found.refresh().matcher == Matcher(6, b"l" * 32)
        grid.answers[5] = gone  # back, and the seat is taken
        assert found.refresh().matcher == Matcher(6, b"l" * 32)
        del grid.answers[5], grid.answers[6]
        roster = found.refresh()
    assert roster.matcher is None and roster.node_ids == (1, 2, 2)
    assert first.matcher == Matcher(5, b"k" * 32)  # an earlier roster is not changed


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (matching(role="judge"), "the roster of node 5: there is no role 'judge'"),
        (matching(role="client"), "the roster of node 5: there is no role 'client'"),
        (matching(b"k" * 31), "the roster of node 5: a matcher's public_key has 32 bytes"),
        (matching("k" * 32), "the roster of node 5: a matcher's public_key has 32 bytes"),
        ({"role": "matcher"}, "the roster of node 5: a matcher's public_key has 32 bytes"),
        ({"role": ["matcher"], "public_key": b"k" * 32}, "the roster of node 5: there is no role ['matcher']"),
    ],
    ids=["role", "client", "short key", "text", "no key", "a list"],
)
def test_who_is_no_matcher_is_refused_in_words(answer: dict[str, Any], sentence: str) -> None:
    with Nodes({**CLIENTS, 5: answer}).active() as grid:
        found = members(grid)
        assert found.gather().matcher is None
    assert [refusal["reason"].startswith(sentence) for refusal in found.refusals] == [True]
    assert "\n" not in found.refusals[0]["reason"]

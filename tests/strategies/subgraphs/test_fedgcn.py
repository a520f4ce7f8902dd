"""FedGCN's server on answers made by hand: sums, refusals, who is asked again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pydantic
import pytest
from flwr.app import ConfigRecord
from toy_rounds import answering, replies, strategy_of, toy_roster

from subfl_flower.errors import RunFailure
from subfl_flower.flower.inline_grid import InlineGrid
from subfl_flower.server.exchange import Exchange
from subfl_flower.strategies.subgraphs.fedgcn import FedGCN
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Question

INITIAL = {"w": np.array([[8.0, 6.0]], np.float32), "b": np.array([5.0], np.float32)}


def tokens(names: str) -> np.ndarray:
    return np.array([list(name.encode().ljust(16, b".")) for name in names], dtype=np.uint8).reshape(-1, 16)


LISTED: list[Stack] = [
    {"tokens": tokens("abn"), "held": np.array([True, False, False])},
    {"tokens": tokens("abd"), "held": np.array([False, True, True])},
    {"tokens": tokens("bn"), "held": np.array([True, False])},
]
"""Client 0 holds a; 1 and 2 hold b, which client 1 is responsible for; d is client 1's alone, and nobody holds n."""
ADDED: list[Stack] = [
    {"rows": np.array([[1, 2], [3, 4]], np.float32), "degrees": np.array([2], np.uint32)},
    {"rows": np.array([[10, 20], [30, 40]], np.float32), "degrees": np.array([5], np.uint32)},
    {"rows": np.array([[100, 200]], np.float32), "degrees": np.array([], np.uint32)},
]
"""For a and b, for a and b, for b. Dense, because no sparse row of two entries is shorter."""

Clients = Callable[[str, int, Mapping[str, Any]], Stack]


def honest(action: str, client: int, about: Mapping[str, Any]) -> Stack:
    return {"boundary": LISTED, "neighbours": ADDED, "mend": [{}, {}, {}]}[action][client]


class Asked:
    """A real exchange with three nodes of a client each, which answer as they are told to.

    Attributes:
        sent: what the clients were sent, by action and client; of the last time.
        order: which clients were asked what, in order.
    """

    def __init__(self, answers: Clients, tolerant: bool = False) -> None:
        self.sent: dict[tuple[str, int], Stack] = {}
        self.order: list[tuple[str, int]] = []
        self._tolerant = tolerant

        def answer(question: Question, client: int) -> Stack:
            self.sent[question.phase, client] = question.received[client]
            self.order.append((question.phase, client))
            return answers(question.phase, client, question.about)

        self._app = answering(answer)

    def set_up(self, **settings: Any) -> FedGCN:
        roster = replace(toy_roster(10, 30, 60), node_ids=(1, 2, 3))
        strategy = strategy_of(FedGCN, roster, INITIAL, settings)
        with InlineGrid(self._app, 3).active() as grid:
            self.exchange = Exchange(grid, ConfigRecord({"id": "run-1"}), roster, self._tolerant)
            strategy.set_up(self.exchange)
        return strategy

    def bits(self, action: str, client: int, name: str, count: int) -> list[int]:
        return np.unpackbits(self.sent[action, client][name], count=count).tolist()


def test_clients_are_asked_for_what_is_needed_and_told_what_it_comes_to() -> None:
    asked = Asked(honest)
    asked.set_up()
    kept, counted = (
        [asked.bits("neighbours", client, name, count) for client, count in enumerate((3, 3, 2))]
        for name in ("kept", "counted")
    )
    assert kept == [[1, 1, 0], [1, 1, 0], [1, 0]] and counted == [[1, 0, 0], [0, 1, 0], [0, 0]]
    assert [asked.bits("mend", client, "told", count) for client, count in enumerate((3, 3, 2))] == kept
    told = [
        {name: values.tolist() for name, values in asked.sent["mend", c].items() if name != "told"} for c in range(3)
    ]
    a, b = [11, 22], [133, 244]
    assert told[0] == {"rows": [a, b], "degrees": [5]}  # of b, which it does not hold
    assert told[1] == {"rows": [a, b], "degrees": [2]}
    assert told[2] == {"rows": [b], "degrees": []}


def test_with_one_hop_clients_are_told_of_their_own_nodes_alone() -> None:
    def answers(action: str, client: int, about: Mapping[str, Any]) -> Stack:
        stack = honest(action, client, about)
        return {name: values for name, values in stack.items() if name != "degrees"}

    asked = Asked(answers)
    asked.set_up(hops=1)
    assert [asked.bits("mend", client, "told", count) for client, count in enumerate((3, 3, 2))] == [
        [1, 0, 0],
        [0, 1, 0],
        [1, 0],
    ]
    assert [asked.sent["mend", client]["rows"].tolist() for client in range(3)] == [
        [[11, 22]],
        [[133, 244]],
        [[133, 244]],
    ]
    assert all(not len(asked.sent["mend", client]["degrees"]) for client in range(3))


def test_without_hops_nobody_is_asked_and_it_averages_as_fedavg() -> None:
    asked = Asked(honest)
    strategy = asked.set_up(hops=0)
    assert asked.order == [] and asked.exchange.log == []
    strategy.aggregate(replies([0, 1, 2], 3, w=[[[1, 0]], [[2, 0]], [[4, 8]]], b=[[1], [1], [1]]))
    np.testing.assert_allclose(strategy.mixing, [[0.1, 0.3, 0.6]] * 3)


def test_bytes_are_those_of_the_arrays() -> None:
    asked = Asked(honest)
    asked.set_up()
    assert [(p["action"], p["bytes_up"], p["bytes_down"]) for p in asked.exchange.log] == [
        ("boundary", 8 * 17, 0),
        ("neighbours", 4 * 10 + 4 * 2, 6),  # ten numbers and two degrees; a byte of bits for each of two questions
        ("mend", 0, 3 + 4 * 10 + 4 * 2),
    ]


def test_degrees_that_are_not_whole_are_told_as_they_are() -> None:
    """Client 1 holds b, whose edges have weights; a's add up to a whole number."""

    def answers(action: str, client: int, about: Mapping[str, Any]) -> Stack:
        stack = honest(action, client, about)
        return {**stack, "degrees": np.array([4.1])} if (action, client) == ("neighbours", 1) else stack

    asked = Asked(answers)
    asked.set_up()
    told = [asked.sent["mend", client]["degrees"] for client in range(3)]
    assert [values.tolist() for values in told] == [[4.1], [2], []]
    assert [values.dtype for values in told] == [np.float64, np.uint32, np.uint32]
    assert [(p["action"], p["bytes_up"], p["bytes_down"]) for p in asked.exchange.log] == [
        ("boundary", 8 * 17, 0),
        ("neighbours", 4 * 10 + 4 + 8, 6),
        ("mend", 0, 3 + 4 * 10 + 4 + 8),
    ]


@pytest.mark.parametrize("degree", [5, 4.5])
def test_under_masks_the_sums_are_taken_apart(degree: float) -> None:
    """One pair's masks by hand: what client 0 adds, client 1 takes off."""
    noise = np.random.default_rng(0).integers(0, 2**64, (2, 3), dtype=np.uint64)

    def answers(action: str, client: int, about: Mapping[str, Any]) -> Stack:
        if action != "neighbours":
            return honest(action, client, about)
        assert about["attempt"] == 0
        column = {0: [2, 0], 1: [0, degree], 2: [0]}[client]
        rows = np.column_stack([ADDED[client]["rows"], column]).astype(float) * 2**24
        fixed = rows.astype(np.int64).astype(np.uint64)
        return {"masked": fixed + noise if client == 0 else fixed - noise if client == 1 else fixed}

    asked = Asked(answers)
    asked.set_up(masking=True)
    told = asked.sent["mend", 0]
    assert told["rows"].tolist() == [[11, 22], [133, 244]] and told["degrees"].tolist() == [degree]
    groups = [
        {name: asked.sent["neighbours", c][name].tolist() for name in ("groups", "sizes", "members")} for c in range(3)
    ]
    both = {"groups": [0, 1], "sizes": [2, 3], "members": [0, 1, 0, 1, 2]}
    assert groups == [both, both, {"groups": [0], "sizes": [3], "members": [0, 1, 2]}]


# What cannot be used --------------------------------------------------------------------------------------------------


def spoiled(action: str, **changes: Any) -> Clients:
    """Client 1 changes an answer; None leaves an array out."""

    def answers(asked: str, client: int, about: Mapping[str, Any]) -> Stack:
        stack = honest(asked, client, about)
        if asked != action or client != 1:
            return stack
        return {name: values for name, values in {**stack, **changes}.items() if values is not None}

    return answers


ROWS = ADDED[1]["rows"]
SPOILED = [
    ("boundary", {"held": None}, "it holds tokens"),
    ("boundary", {"degrees": np.ones(3)}, "it holds degrees, held, tokens"),
    ("boundary", {"tokens": np.zeros((3, 16), np.uint8)}, "a token comes twice"),
    ("boundary", {"held": np.zeros(3, np.int8)}, r"held must be bool \[3\], not int8 \[3\]"),
    ("boundary", {"tokens": np.zeros((5_000_000, 16), np.uint8)}, r"it has \d+ bytes, and may have \d+"),
    ("neighbours", {"rows": None}, "rows are made of nothing"),
    ("neighbours", {"degrees": None}, r"degrees must be uint32 \[nodes\], each at least 1"),
    ("neighbours", {"degrees": np.array([0], np.uint32)}, r"degrees must be uint32 \[nodes\], each at least 1"),
    ("neighbours", {"degrees": np.array([5.0])}, r"degrees must be uint32 \[nodes\], each at least 1"),
    ("neighbours", {"degrees": np.array([0.5])}, r"degrees must be uint32 \[nodes\], each at least 1"),
    ("neighbours", {"degrees": np.array([np.inf])}, r"degrees must be uint32 \[nodes\], each at least 1"),
    ("neighbours", {"degrees": np.array([5, 6], np.uint32)}, "it has 2 sums and 2 degrees, where 2 and 1 belong"),
    ("neighbours", {"rows": ROWS[:1]}, "it has 1 sums and 1 degrees, where 2 and 1 belong"),
    ("neighbours", {"rows": ROWS[:, :1]}, r"rows are float32 \[2, 1\], where float32 \[any, 2\] belongs"),
    ("neighbours", {"rows": ROWS * np.float32(np.nan)}, "rows hold a number that is not finite"),
    ("neighbours", {"rows": ROWS * np.float32(1e35)}, "a sum is too large to be added to others"),
    ("neighbours", {"rows": np.zeros((5000, 2), np.float32)}, r"it has \d+ bytes, and may have \d+"),
    ("mend", {"rows": ROWS}, "it holds rows"),
]


@pytest.mark.parametrize(("action", "changes", "reason"), SPOILED)
def test_an_answer_that_makes_no_sense_is_that_clients_failure(
    action: str, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RunFailure, match=rf"^client 1 failed in query.{action}: its answer cannot be used: {reason}"):
        Asked(spoiled(action, **changes)).set_up()


@pytest.mark.parametrize(("action", "changes", "reason"), SPOILED)
def test_where_failures_are_tolerated_the_others_go_on(
    action: str, changes: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    answers = spoiled(action, **changes)

    def adapted(asked: str, client: int, about: Mapping[str, Any]) -> Stack:
        """Without client 1 only b is left, of clients 0 and 2; client 2 is now responsible for it."""
        if asked == "neighbours" and client != 1 and (action == "boundary" or about["attempt"]):
            return {"rows": ADDED[client]["rows"][-1:], "degrees": np.array([7] * (client == 2), np.uint32)}
        return answers(asked, client, about)

    asked = Asked(adapted, tolerant=True)
    with caplog.at_level(logging.WARNING, logger="flwr"):
        asked.set_up()
    assert any(f"1 clients failed in query.{action}, the first is client 1: its answer" in m for m in caplog.messages)
    if action == "mend":
        assert asked.sent["mend", 0]["rows"].tolist() == [[11, 22], [133, 244]]
        return
    assert ("mend", 1) not in asked.order
    assert asked.bits("mend", 0, "told", 3) == [0, 1, 0] and asked.bits("mend", 2, "told", 2) == [1, 0]
    assert asked.sent["mend", 0]["rows"].tolist() == [[103, 204]] == asked.sent["mend", 2]["rows"].tolist()
    assert asked.sent["mend", 0]["degrees"].tolist() == [7]
    again = "1 clients gave no sums over neighbours; the others' are made anew"
    assert (again in caplog.messages) == (action == "neighbours")


def test_a_client_that_raises_is_left_out_likewise() -> None:
    def answers(action: str, client: int, about: Mapping[str, Any]) -> Stack:
        if action == "neighbours" and client == 0:
            raise OSError("the disk is full")
        stack = honest(action, client, about)
        if action == "neighbours" and about["attempt"]:
            return {"rows": stack["rows"][-1:], "degrees": stack["degrees"]}
        return stack

    with pytest.raises(RunFailure, match=r"^client 0 failed in query.neighbours: the disk is full"):
        Asked(answers).set_up()
    asked = Asked(answers, tolerant=True)
    asked.set_up()
    assert [client for action, client in asked.order if action == "neighbours"] == [0, 1, 2, 1, 2]
    assert asked.sent["mend", 2]["rows"].tolist() == [[130, 240]]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"masked": np.zeros((2, 2), np.uint64)}, r"it must hold masked sums alone, uint64 \[nodes, 3\]"),
        ({"masked": np.zeros((2, 3))}, "it must hold masked sums alone"),
        ({"masked": np.zeros((2, 3), np.uint64), "rows": ROWS}, "it must hold masked sums alone"),
        ({"rows": ROWS}, "it must hold masked sums alone"),
        ({"masked": np.zeros((1, 3), np.uint64)}, "it has 1 sums and 0 degrees, where 2 and 0 belong"),
    ],
)
def test_masked_answers_are_checked_too(answer: Stack, reason: str) -> None:
    def answers(action: str, client: int, about: Mapping[str, Any]) -> Stack:
        if action == "neighbours":
            return answer if client == 1 else {"masked": np.zeros((1 if client == 2 else 2, 3), np.uint64)}
        return honest(action, client, about)

    with pytest.raises(RunFailure, match=f"^client 1 failed in query.neighbours: its answer cannot be used: {reason}"):
        Asked(answers).set_up(masking=True)


def test_a_client_with_another_key_is_named(caplog: pytest.LogCaptureFixture) -> None:
    other: Sequence[Stack] = [LISTED[0], {**LISTED[1], "tokens": tokens("xyz")}, LISTED[2]]

    def answers(action: str, client: int, about: Mapping[str, Any]) -> Stack:
        if action == "neighbours":
            return {"rows": np.ones((1, 2), np.float32), "degrees": np.array([3] * (client == 2), np.uint32)}
        return other[client] if action == "boundary" else {}

    asked = Asked(answers)
    with caplog.at_level(logging.WARNING, logger="flwr"):
        asked.set_up()
    (message,) = caplog.messages
    assert message.startswith("no other client knows any of the 3 nodes that client 1 has to do with; ")
    assert ("neighbours", 1) not in asked.order and asked.bits("mend", 1, "told", 3) == [0, 0, 0]


@pytest.mark.parametrize("settings", [{"hops": 3}, {"fraction_bits": 47}, {"masks": True}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        FedGCN.Settings(**settings)

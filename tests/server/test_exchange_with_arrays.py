"""Phases in which each client is sent different arrays, and questions to the matcher."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp import ClientApp

from subfl_flower.errors import RunFailure
from subfl_flower.flower.inline_grid import InlineGrid
from subfl_flower.server.exchange import ASK, Exchange, answer_record, read_question
from subfl_flower.server.round_messages import RUN, announced
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Answers, Question
from subfl_flower.wire.payload import ARRAYS
from subfl_flower.wire.roster import Matcher, Roster

CLIENTS = (10, 11, 12, 13, 14)
NODES = (2, 1, 2, 3, 1)
MATCHER = 4


def roster(nodes: Sequence[int | None] = NODES, matcher: int | None = MATCHER) -> Roster:
    third = None if matcher is None else Matcher(matcher, bytes(32))
    return Roster(CLIENTS, tuple(nodes), np.ones(5), np.ones(5), np.ones(5), 1, 0, False, third)


class Asked(InlineGrid):
    """Three nodes of clients that answer with twice what they are sent, and a matcher that does what it is told.

    Args:
        matcher: what becomes of what the matcher is sent, by number.
    """

    def __init__(self, matcher: Callable[[Mapping[int, Stack]], Any] | None = None) -> None:
        app = ClientApp()
        self.questions: dict[int, ConfigRecord] = {}
        self.sent: dict[int, list[str]] = {}
        self.read: dict[int, Question] = {}

        @app.query(ASK)
        def ask(message: Message, context: Context) -> Message:
            self.questions[context.node_id] = message.content.config_records[RUN]
            self.sent[context.node_id] = list(message.content.array_records[ARRAYS])
            question = self.read[context.node_id] = read_question(message.content)
            if question.phase == "double":
                answers = Answers({c: {"twice": 2 * own["x"]} for c, own in question.received.items()})
            else:
                assert question.phase == "match" and matcher is not None
                answers = Answers(*matcher(question.received))
            return Message(answer_record(answers), reply_to=message)

        super().__init__(app, 4)

    def exchange(self, roster: Roster, **rest: Any) -> Exchange:
        return Exchange(self, ConfigRecord({"id": "a"}), roster, **{"tolerant": False, "timeout": 0, **rest})


def twice(stack: Stack) -> list[int]:
    found: list[int] = stack["twice"].tolist()
    return found


def numbers(*values: int) -> Stack:
    return {"x": np.array(values, dtype=np.int32)}


SENT = {4: numbers(1, 2, 3), 0: numbers(), 2: numbers(7)}
"""By position: clients 14, 10 and 12."""


def test_only_those_that_are_sent_something_are_asked() -> None:
    with Asked().active() as grid:
        exchange = grid.exchange(roster())
        exchange.about = {"checkpoint": 2, **announced({"nodes": 7.5})}
        answers = exchange.ask("double", twice, sent=SENT, about={"round": 3, "matcher_key": b"k"})
    assert answers == [[], None, [14], None, [2, 4, 6]]
    assert {node: run["clients"] for node, run in grid.questions.items()} == {1: [14], 2: [10, 12]}
    for run in grid.questions.values():
        assert (run["id"], run["checkpoint"], run["round"], run["matcher_key"]) == ("a", 2, 3, b"k")
    assert grid.sent == {1: ["14/x"], 2: ["10/x", "12/x"]}
    for question in grid.read.values():
        assert (question.phase, question.server_round, question.announced) == ("double", 3, {"nodes": 7.5})
        assert question.about["matcher_key"] == b"k"
    (phase,) = exchange.log
    assert phase.pop("seconds") >= 0
    assert phase == {"action": "double", "round": 1, "bytes_up": 4 * 4, "bytes_down": 4 * 4}


def test_nobody_is_asked_where_nothing_is_sent() -> None:
    with Asked().active() as grid:
        exchange = grid.exchange(roster())
        assert exchange.ask("double", twice, sent={}) == [None] * 5
    assert not grid.questions and exchange.log[0]["bytes_down"] == 0


def test_bytes_of_both_directions_are_counted_where_they_differ() -> None:
    with Asked().active() as grid:
        exchange = grid.exchange(roster())
        wide = {1: {"x": np.ones(3, np.float64)}, 3: {"x": np.ones((2, 5), np.uint8)}}
        answers = exchange.ask("double", lambda stack: stack["twice"].nbytes, sent=wide)
    assert answers == [None, 24, None, 10, None]
    assert (exchange.log[0]["bytes_up"], exchange.log[0]["bytes_down"]) == (34, 34)


def test_who_is_away_is_a_failure_of_its_own_and_who_was_not_asked_is_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    away = roster((2, None, 2, None, 1))
    with Asked().active() as grid:
        with pytest.raises(RunFailure, match=r"^client 11 failed in query\.double: no reply$"):
            grid.exchange(away).ask("double", twice, sent={1: numbers(1), 0: numbers(5)})
        assert grid.exchange(away).ask("double", twice, sent=SENT) == [[], None, [14], None, [2, 4, 6]]
        with caplog.at_level("WARNING", logger="flwr"):
            answers = grid.exchange(away).ask("double", twice, sent={1: numbers(1), 0: numbers(5)}, tolerant=True)
    assert answers == [[10], None, None, None, None]
    assert caplog.messages == ["1 clients failed in query.double, the first is client 11: no reply"]


# The matcher ----------------------------------------------------------------------------------------------------------


def lengths(received: Mapping[int, Stack]) -> tuple[dict[int, Stack], dict[int, str]]:
    """Answers with how many numbers came, and refuses where none did."""
    answers = {number: {"n": np.array([len(own["x"])])} for number, own in received.items() if len(own["x"])}
    return answers, {number: "there is nothing in it" for number in received if number not in answers}


BOXES = {7: numbers(1, 2), 3: numbers(4), 5: numbers()}


def test_the_matcher_is_told_numbers_and_answers_for_some(caplog: pytest.LogCaptureFixture) -> None:
    with Asked(lengths).active() as grid, caplog.at_level("WARNING", logger="flwr"):
        exchange = grid.exchange(roster())
        exchange.next_round = 6
        answers = exchange.ask_matcher("match", BOXES)
    assert {number: stack["n"].tolist() for number, stack in answers.items()} == {7: [2], 3: [1]}
    assert list(grid.questions) == [MATCHER]
    run = grid.questions[MATCHER]
    assert (run["id"], run["round"], run["clients"]) == ("a", 6, [3, 5, 7])
    (phase,) = exchange.log
    assert phase.pop("seconds") >= 0
    assert phase == {"action": "match", "round": 6, "bytes_up": 2 * 8, "bytes_down": 3 * 4}
    assert caplog.messages == ["the matcher refused 1 boxes: there is nothing in it"]


def test_the_order_of_what_the_matcher_is_told_says_nothing_either() -> None:
    """Whoever puts boxes in the order of clients has told which number is whose."""
    with Asked(lengths).active() as grid:
        grid.exchange(roster()).ask_matcher("match", BOXES)
    assert grid.sent[MATCHER] == ["3/x", "5/x", "7/x"]


def test_without_a_matcher_there_is_nobody_to_ask() -> None:
    with Asked(lengths).active() as grid, pytest.raises(RunFailure, match=r"^there is no matcher$"):
        grid.exchange(roster(matcher=None)).ask_matcher("match", BOXES)
    assert not grid.questions


def raising(received: Mapping[int, Stack]) -> Any:
    raise OSError("the disk\nis full")


def with_a_foreign_number(received: Mapping[int, Stack]) -> Any:
    return {7: {}, 8: {}}, {}


def with_a_foreign_refusal(received: Mapping[int, Stack]) -> Any:
    return {}, {8: "no"}


def with_a_number_twice(received: Mapping[int, Stack]) -> Any:
    return {7: {}}, {7: "no"}


@pytest.mark.parametrize(
    ("matcher", "sentence"),
    [
        (raising, "the matcher failed: OSError: the disk"),
        (with_a_foreign_number, "the matcher's reply cannot be read: it answers for client 8, which it was not asked"),
        (with_a_foreign_refusal, "the matcher's reply cannot be read: it answers for client 8, which it was not ask"),
        (with_a_number_twice, "the matcher's reply cannot be read: it says of client 7 both that it failed and"),
    ],
    ids=["raises", "foreign number", "foreign refusal", "both"],
)
def test_a_matcher_that_answers_what_it_must_not_is_a_failure_in_words(matcher: Any, sentence: str) -> None:
    with Asked(matcher).active() as grid, pytest.raises(RunFailure) as error:
        grid.exchange(roster()).ask_matcher("match", BOXES)
    assert str(error.value).startswith(sentence) and "\n" not in str(error.value)


def test_a_torn_answer_of_the_matcher_is_a_failure_in_words() -> None:
    class Tearing(Asked):
        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            replies = list(super().pull_messages(message_ids))
            for reply in replies:
                array = reply.content.array_records[ARRAYS]["7/n"]
                array.data = array.data[:-3]
            return replies

    with (
        Tearing(lengths).active() as grid,
        pytest.raises(RunFailure, match=r"^the matcher's reply cannot be read: "),
    ):
        grid.exchange(roster()).ask_matcher("match", BOXES)  # type: ignore[attr-defined]


def test_a_silent_matcher_is_not_waited_for_without_end() -> None:
    class Silent(Asked):
        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            return []

    with Silent(lengths).active() as grid, pytest.raises(RunFailure, match=r"^the matcher did not reply$"):
        grid.exchange(roster()).ask_matcher("match", BOXES)  # type: ignore[attr-defined]

from __future__ import annotations

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from subfl_flower.errors import SubflError
from subfl_flower.flower.inline_grid import InlineGrid

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Doubles a number, and counts the messages of its node."""
    number = int(message.content.config_records["in"]["number"])  # type: ignore[arg-type]
    if number == 13:
        raise SubflError("13 is not allowed")
    seen = 1
    if "seen" in context.state:
        seen += int(context.state.config_records["seen"]["times"])  # type: ignore[arg-type]
    context.state["seen"] = ConfigRecord({"times": seen})
    answer = {"double": 2 * number, "seen": seen, **context.node_config}
    return Message(RecordDict({"out": ConfigRecord(answer)}), reply_to=message)


@app.query("broken")
def broken(message: Message, context: Context) -> Message:
    raise KeyError("missing")


def message(node: int, number: int = 1, kind: str = "train") -> Message:
    return Message(RecordDict({"in": ConfigRecord({"number": number})}), node, kind)


def test_every_node_answers_with_its_own_state() -> None:
    with InlineGrid(app, 3).active() as grid:
        assert list(grid.get_node_ids()) == [1, 2, 3]
        replies = list(grid.send_and_receive([message(3, 5), message(1, 6), message(3, 7)]))
        assert [reply.metadata.src_node_id for reply in replies] == [3, 1, 3]
        answers = [reply.content.config_records["out"] for reply in replies]
    assert [answer["double"] for answer in answers] == [10, 12, 14]
    assert [answer["seen"] for answer in answers] == [1, 1, 2]
    assert [answer["partition-id"] for answer in answers] == [2, 0, 2]
    assert {answer["num-partitions"] for answer in answers} == {3}


def test_an_error_comes_back_as_an_error_and_others_go_on() -> None:
    with InlineGrid(app, 2).active() as grid:
        bad, good, worse = grid.send_and_receive([message(1, 13), message(2, 4), message(1, kind="query.broken")])
    assert bad.has_error() and bad.error.reason == "13 is not allowed" and bad.metadata.src_node_id == 1
    assert not good.has_error() and good.content.config_records["out"]["double"] == 8
    assert worse.has_error() and worse.error.reason == "KeyError: 'missing'"


def test_pushed_messages_are_pulled_once_and_answer_what_was_pushed() -> None:
    with InlineGrid(app, 2).active() as grid:
        ids = list(grid.push_messages([message(1, 1), message(2, 2)]))
        assert len(set(ids)) == 2
        (second,) = grid.pull_messages(ids[1:])
        assert second.content.config_records["out"]["double"] == 4
        assert second.metadata.reply_to_message_id == ids[1]
        (first,) = grid.pull_messages(ids)
        assert first.content.config_records["out"]["double"] == 2
        assert list(grid.pull_messages([*ids, "unknown"])) == []


def test_the_identity_is_there_for_the_time_of_a_run_only() -> None:
    def make() -> Message:
        return message(1)

    with pytest.raises(Exception):  # noqa: B017 - whatever Flower raises without an identity
        make()
    with InlineGrid(app, 1).active():
        make()
    with pytest.raises(Exception):  # noqa: B017
        make()


def test_the_identity_is_given_back_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), InlineGrid(app, 1).active():
        raise ZeroDivisionError
    with pytest.raises(Exception):  # noqa: B017
        message(1)

"""The engine's look for messages waits for them, hands out each once, and never waits long or out of turn."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from types import SimpleNamespace

from subfl_flower.flower.prompt_delivery import deliver_promptly


class State:
    """The two methods that are wrapped, over a plain dictionary."""

    def __init__(self) -> None:
        self.stored: dict[int, list[str]] = defaultdict(list)

    def store_message_ins(self, message: tuple[int, str]) -> str:
        self.stored[message[0]].append(message[1])
        return message[1]

    def get_message_ins(self, node_id: int, limit: int | None) -> list[str]:
        found, self.stored[node_id] = self.stored[node_id][:limit], self.stored[node_id][limit:]
        return found


def test_a_look_returns_as_soon_as_something_is_stored() -> None:
    state = State()
    deliver_promptly(SimpleNamespace(state=state))
    looked: list[list[str]] = []
    look = threading.Thread(target=lambda: looked.append([m for n in (1, 2) for m in state.get_message_ins(n, 1)]))
    look.start()
    assert state.store_message_ins((1, "a")) == "a" and state.store_message_ins((2, "b")) == "b"
    look.join(10)
    assert looked == [["a", "b"]]


def test_every_message_is_handed_out_once_and_an_empty_look_ends() -> None:
    state = State()
    deliver_promptly(SimpleNamespace(state=state))
    for message in [(1, "a"), (1, "b"), (2, "c")]:
        state.store_message_ins(message)
    turns = [[m for n in (1, 2) for m in state.get_message_ins(n, 1)] for _ in range(3)]
    assert turns == [["a", "c"], ["b"], []]


def test_only_the_first_question_of_a_turn_waits() -> None:
    state = State()
    deliver_promptly(SimpleNamespace(state=state))
    state.store_message_ins((1, "a"))
    assert state.get_message_ins(1, 1) == ["a"]
    waits: list[float] = []
    for node in (2, 3, 4):  # nothing is waiting: a node that is not the first of a turn is answered at once
        start = time.monotonic()
        assert state.get_message_ins(node, 1) == []
        waits.append(time.monotonic() - start)
    start = time.monotonic()
    assert state.get_message_ins(1, 1) == []
    assert time.monotonic() - start > sum(waits)


def test_a_grid_without_such_a_state_is_left_alone() -> None:
    grid = SimpleNamespace(state=SimpleNamespace(other=1))
    deliver_promptly(grid)
    deliver_promptly(SimpleNamespace())
    assert vars(grid.state) == {"other": 1}

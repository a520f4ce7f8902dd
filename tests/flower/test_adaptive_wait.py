"""Waits of Flower's loop, which grow with the time that it has waited for the same thing."""

from __future__ import annotations

import pytest

from subfl_flower.flower.warm.adaptive_wait import AdaptiveWait


class Clock:
    """A clock that moves by waits alone."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def test_a_wait_is_a_fifth_of_the_time_so_far_and_at_most_flowers() -> None:
    clock = Clock()
    wait = AdaptiveWait(lambda: None, clock)
    while clock.now < 60:
        before = clock.now
        wait.sleep(3)
        assert clock.waits[-1] == pytest.approx(min(3, max(0.2, before / 5)))
    assert clock.waits[0] == pytest.approx(0.2) and clock.waits[-1] == 3
    assert len(clock.waits) < 20 + 60 / 3  # asks a silent server hardly more often than Flower does


def test_it_begins_again_and_says_so_when_the_loop_waits_for_something_else() -> None:
    clock, changes = Clock(), []
    wait = AdaptiveWait(lambda: changes.append(clock.now), clock)
    for _ in range(30):
        wait.sleep(3)
    told = clock.now
    wait.sleep(0.5)
    assert changes == [0, told]
    assert clock.waits[-1] == pytest.approx(0.5 / 15)
    wait.sleep(3)
    assert clock.waits[-1] == pytest.approx(0.2)
    assert len(changes) == 3


def test_whatever_else_a_loop_asks_of_the_module_is_the_clocks() -> None:
    clock = Clock()
    clock.now = 4.5
    assert AdaptiveWait(lambda: None, clock).monotonic() == 4.5

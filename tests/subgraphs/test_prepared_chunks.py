"""Arrays that are prepared once for some clients, and forgotten when other clients come together each time."""

from __future__ import annotations

import threading

from subfl_flower.subgraphs.prepared import Prepared


def test_it_is_made_once_and_again_for_another_version() -> None:
    prepared, made = Prepared[str](4), list[int]()

    def make() -> str:
        made.append(len(made))
        return f"number {len(made)}"

    assert [prepared.of((0, 1), make), prepared.of((0, 1), make), prepared.of((1,), make)] == [
        *("number 1", "number 1", "number 2")
    ]
    assert prepared.of((0, 1), make, version=3) == prepared.of((0, 1), make, version=3) == "number 3"
    assert made == [0, 1, 2]


def test_each_client_alone_and_all_in_chunks_are_kept_and_what_was_used_longest_ago_is_dropped() -> None:
    prepared, made = Prepared[int](6), list[tuple[int, ...]]()

    def ask(*positions: int) -> None:
        prepared.of(positions, lambda: made.append(positions) or 0)  # type: ignore[func-returns-value]

    regular = [(0, 1, 2), (3, 4, 5), *((position,) for position in range(6))]
    for positions in regular * 3:
        ask(*positions)
    assert made == regular
    ask(0, 1, 2)
    made.clear()
    ask(0, 2)  # 14 clients are two too many: one chunk has to go, and it is not the one just used
    ask(0, 1, 2)
    assert made == [(0, 2)]
    ask(3, 4, 5)
    assert made == [(0, 2), (3, 4, 5)]


def test_one_set_of_all_clients_is_kept() -> None:
    prepared, made = Prepared[int](2), list[int]()
    for _ in range(2):
        prepared.of((0, 1, 2, 3, 4, 5, 6), lambda: made.append(1) or 0)  # type: ignore[func-returns-value]
    assert made == [1]


def test_threads_prepare_different_sets_at_the_same_time() -> None:
    prepared, meeting, found = Prepared[int](4), threading.Barrier(2, timeout=30), list[int]()

    def ask(position: int) -> None:
        found.append(prepared.of((position,), lambda: (meeting.wait() and 0) or position))

    threads = [threading.Thread(target=ask, args=(position,)) for position in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [0, 1]

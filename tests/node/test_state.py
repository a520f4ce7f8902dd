from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from flwr.app import RecordDict

from subfl_flower.node.state import (
    ContextStore,
    MappedStore,
    MemoryStore,
    StateStore,
    TornStateError,
)

IDS = (3, 8, 11, 20)
SHAPES: dict[str, tuple[int, ...]] = {"mask": (2, 3), "steps": (), "best": (5,)}
CPU = torch.device("cpu")
Reopen = Callable[[], StateStore]


@pytest.fixture(params=["memory", "mapped", "context"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Reopen:
    """The store, and what the next message finds of it."""
    memory, records = MemoryStore(), RecordDict()
    return {
        "memory": lambda: memory,
        "mapped": lambda: MappedStore(tmp_path / "state"),
        "context": lambda: ContextStore(records),
    }[request.param]


def change(store: StateStore, positions: list[int], value: float) -> None:
    state = store.open(IDS, SHAPES)
    with state.rows(positions, CPU) as rows:
        assert {name: tuple(tensor.shape) for name, tensor in rows.items()} == {
            name: (len(positions), *shape) for name, shape in SHAPES.items()
        }
        for tensor in rows.values():
            for row, position in enumerate(positions):
                tensor[row] += value * (1 + position)
    store.commit(state)


def kept(store: StateStore) -> list[list[float]]:
    """The one value that fills each client's mask, steps and best."""
    state = store.open(IDS, SHAPES)
    with state.rows(range(len(IDS)), CPU) as rows:
        for tensor in rows.values():
            assert all(len(row.unique()) == 1 for row in tensor)
        return [[float(tensor[c].flatten()[0]) for tensor in rows.values()] for c in range(len(IDS))]


@pytest.mark.parametrize("positions", [[0, 1], [1, 2, 3], [2], [3, 0], [2, 1], [0, 2]], ids=str)
def test_changes_of_some_rows_are_kept_and_touch_no_other(reopen: Reopen, positions: list[int]) -> None:
    change(reopen(), positions, 10.0)
    change(reopen(), positions, 1.0)
    fresh = reopen().open(IDS, SHAPES)
    assert [fresh.is_fresh(c) for c in range(4)] == [c not in positions for c in range(4)]
    assert kept(reopen()) == [[11.0 * (1 + c) if c in positions else 0.0] * 3 for c in range(4)]


def test_an_exception_passes_and_the_rows_can_be_used_again(reopen: Reopen) -> None:
    store = reopen()
    state = store.open(IDS, SHAPES)
    with pytest.raises(ZeroDivisionError), state.rows([0, 1], CPU):
        raise ZeroDivisionError
    store.commit(state)
    change(reopen(), [0, 1], 2.0)
    assert kept(reopen())[:2] == [[2.0] * 3, [4.0] * 3]


@pytest.mark.parametrize("positions", [[0, 1], [0, 2]], ids=["adjacent", "gathered"])
def test_a_first_use_that_fails_leaves_the_rows_fresh(reopen: Reopen, positions: list[int]) -> None:
    """Else what a new client starts with (masks of one) would never be put there."""
    store = reopen()
    state = store.open(IDS, SHAPES)
    with pytest.raises(ZeroDivisionError), state.rows(positions, CPU):
        raise ZeroDivisionError
    store.commit(state)
    again = reopen().open(IDS, SHAPES)
    assert all(again.is_fresh(c) for c in range(4))


def test_cohorts_do_not_share_their_state(reopen: Reopen, tmp_path: Path) -> None:
    store = reopen()
    change(store, [0], 1.0)
    other = store.open((0, 1), SHAPES)
    assert other.is_fresh(0) and kept(store)[0] == [1.0] * 3


def test_work_that_fails_leaves_the_rows_as_they_were(reopen: Reopen) -> None:
    change(reopen(), [0, 1, 2], 3.0)
    store = reopen()
    state = store.open(IDS, SHAPES)
    for positions in ([0, 1], [2, 0]):
        with pytest.raises(ZeroDivisionError), state.rows(positions, CPU) as rows:
            for tensor in rows.values():
                tensor += 100
            raise ZeroDivisionError
    store.commit(state)
    assert kept(reopen()) == [[3.0] * 3, [6.0] * 3, [9.0] * 3, [0.0] * 3]


def test_only_the_named_stacks_are_handed_out_and_replaced(reopen: Reopen) -> None:
    change(reopen(), [0, 1], 3.0)
    store = reopen()
    state = store.open(IDS, SHAPES)
    with state.rows([1], CPU, ["mask"]) as rows:
        assert list(rows) == ["mask"]
        rows["mask"][:] = 5.0
    store.commit(state)
    with reopen().open(IDS, SHAPES).rows([1], CPU) as rows:
        assert {name: float(tensor.unique()) for name, tensor in rows.items()} == {"mask": 5, "steps": 6, "best": 6}


OTHER_PROCESS = """
import os, sys
from pathlib import Path
import torch
from subfl_flower.node.state import MappedStore
store = MappedStore(Path(sys.argv[1]))
state = store.open((3, 8, 11, 20), {"mask": (2, 3), "steps": (), "best": (5,)})
with state.rows([1, 2], torch.device("cpu")) as rows:
    print(rows["steps"].tolist(), flush=True)
    rows["best"][1] = 7.0
    if sys.argv[2] == "die at work":
        os._exit(1)
    if sys.argv[2] == "die while writing":
        class Last:
            def to(self, *where):
                os._exit(1)
        rows["best"] = Last()
store.commit(state)
"""


def in_another_process(folder: Path, how: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS, str(folder), how], capture_output=True, text=True, timeout=60
    )
    return finished.stdout.strip()


def test_a_mapped_state_is_seen_by_another_process_and_back(tmp_path: Path) -> None:
    change(MappedStore(tmp_path), [0, 1], 4.0)
    state = MappedStore(tmp_path).open(IDS, SHAPES)
    assert in_another_process(tmp_path, "live") == "[8.0, 0.0]"
    with state.rows([2], CPU) as rows:  # opened before the other process wrote
        assert rows["best"].tolist() == [[7.0] * 5]


def test_a_process_that_dies_at_work_leaves_the_state_as_it_was(tmp_path: Path) -> None:
    change(MappedStore(tmp_path), [0, 1, 2, 3], 4.0)
    assert in_another_process(tmp_path, "die at work") == "[8.0, 12.0]"
    assert kept(MappedStore(tmp_path)) == [[4.0 * (1 + c)] * 3 for c in range(4)]


def test_the_state_that_a_process_died_writing_is_refused_and_that_of_others_is_not(tmp_path: Path) -> None:
    change(MappedStore(tmp_path), [0, 1, 2, 3], 4.0)
    in_another_process(tmp_path, "die while writing")
    state = MappedStore(tmp_path).open(IDS, SHAPES)
    for position, client in ((1, 8), (2, 11)):
        with pytest.raises(TornStateError, match=f"client {client}"), state.rows([position], CPU):
            pass
    with pytest.raises(TornStateError), state.rows([0, 1, 2, 3], CPU):
        pass
    for position in (0, 3):
        with state.rows([position], CPU) as rows:
            assert rows["steps"].tolist() == [4.0 * (1 + position)]


def test_a_context_state_survives_serialisation() -> None:
    import pickle

    records = RecordDict()
    change(ContextStore(records), [0, 3], 2.0)
    travelled = pickle.loads(pickle.dumps(records))
    assert kept(ContextStore(travelled)) == [[2.0] * 3, [0.0] * 3, [0.0] * 3, [8.0] * 3]


def test_adjacent_rows_that_die_with_the_process_are_worked_on_where_they_are() -> None:
    """Every other way copies each stack a second time, which is a seventh of a round."""
    for store, in_place in ((MemoryStore(), True), (ContextStore(RecordDict()), False)):
        state = store.open(IDS, SHAPES)
        with state.rows([1, 2], CPU) as rows:
            rows["best"] += 7
            assert float(state["best"][2, 4]) == (7.0 if in_place else 0.0)
        assert float(state["best"][2, 4]) == 7.0

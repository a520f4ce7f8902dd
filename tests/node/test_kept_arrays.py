"""Arrays that clients keep of exchanges: which message finds which, in every store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import RecordDict

from subfl_flower.errors import SubflError
from subfl_flower.node.durable_store import DurableStore
from subfl_flower.node.kept_arrays import KeptArrays, KeptInFiles
from subfl_flower.node.state import ContextStore, MappedStore, MemoryStore, StateStore

Reopen = Callable[[], KeptArrays]


@pytest.fixture(params=["memory", "mapped", "context", "durable"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Reopen:
    """The arrays that the next message finds."""
    memory, records = MemoryStore(), RecordDict()
    stores: dict[str, Callable[[], StateStore]] = {
        "memory": lambda: memory,
        "mapped": lambda: MappedStore(tmp_path / "state"),
        "context": lambda: ContextStore(records),
        "durable": lambda: DurableStore(MemoryStore(), lambda client: tmp_path / f"{client}", 9, 0, keep=True),
    }
    return lambda: stores[request.param]().kept


def test_arrays_of_any_size_come_back_as_they_were(reopen: Reopen) -> None:
    arrays = {"sums": np.arange(6, dtype=np.float32).reshape(2, 3).T, "tokens": np.zeros((0, 16), np.uint8)}
    reopen().put(3, "told", 0, arrays)
    reopen().put(13, "told", 2, {"sums": np.ones(4)})
    reopen().put(3, "told-too", 1, {"sums": np.full(1, 7)})
    found = reopen().get(3, "told")
    assert set(found) == set(arrays)
    for name, values in arrays.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)
    assert [reopen().round_of(client, "told") for client in (3, 13, 4)] == [0, 2, None]
    assert reopen().get(13, "told")["sums"].tolist() == [1.0] * 4
    assert reopen().get(3, "told-too")["sums"].tolist() == [7] and reopen().round_of(3, "told-too") == 1


def test_a_later_round_takes_the_place_of_an_earlier_one(reopen: Reopen) -> None:
    for server_round in (0, 4, 4, 9):
        reopen().put(3, "told", server_round, {f"of {server_round}": np.full(2, server_round)})
        assert reopen().round_of(3, "told") == server_round
        assert {name: values.tolist() for name, values in reopen().get(3, "told").items()} == {
            f"of {server_round}": [server_round] * 2
        }


def test_what_nobody_kept_is_said_so(reopen: Reopen) -> None:
    reopen().put(3, "told", 1, {"a": np.ones(1)})
    with pytest.raises(SubflError, match="client 4 keeps no told"):
        reopen().get(4, "told")
    with pytest.raises(SubflError, match="client 3 keeps no generator"):
        reopen().get(3, "generator")


def kept(folder: Path, now: int, checkpoint: int = 0) -> KeptArrays:
    return DurableStore(MemoryStore(), lambda client: folder, now, checkpoint, keep=True).kept


def test_a_repeated_round_finds_what_it_found_before(tmp_path: Path) -> None:
    for server_round in (0, 5, 10):
        kept(tmp_path, server_round).put(3, "told", server_round, {"a": np.array([server_round])})
    found = {now: kept(tmp_path, now).get(3, "told")["a"].item() for now in (1, 4, 5, 9, 10, 12)}
    assert found == {1: 0, 4: 0, 5: 5, 9: 5, 10: 10, 12: 10}
    kept(tmp_path, 5).put(3, "told", 5, {"a": np.array([55])})  # the federation went back to round 4
    assert kept(tmp_path, 12).get(3, "told")["a"].item() == 55, "what a lost round 10 kept is of another history"


def test_files_that_no_checkpoint_needs_are_removed(tmp_path: Path) -> None:
    for server_round, checkpoint in ((0, 0), (5, 4), (10, 9), (15, 14)):
        kept(tmp_path, server_round, checkpoint).put(3, "told", server_round, {"a": np.array([server_round])})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "kept-0003-told-000010.safetensors",
        "kept-0003-told-000015.safetensors",
    ]
    assert kept(tmp_path, 14).get(3, "told")["a"].item() == 10
    without = KeptInFiles(lambda client: tmp_path)
    without.put(3, "told", 20, {"a": np.array([20])})
    assert [path.name for path in tmp_path.iterdir()] == ["kept-0003-told-000020.safetensors"]


def test_a_damaged_file_is_refused_by_name(tmp_path: Path) -> None:
    kept(tmp_path, 1).put(3, "told", 1, {"a": np.ones(5)})
    path = tmp_path / "kept-0003-told-000001.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(
        SubflError, match=r"kept-0003-told-000001\.safetensors does not hold arrays that a client kept: it"
    ):
        kept(tmp_path, 2).get(3, "told")

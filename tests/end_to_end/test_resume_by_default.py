"""Simulations write checkpoints from time to time by themselves, and go on from the last one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from run_outcomes import Outcome, run_inline
from test_resume import HALF, KNOBS, SMALL, KilledError, assert_same
from test_resume_recommenders import SMALL as SMALL_RATINGS

from subfl_flower.composition import composed_config
from subfl_flower.errors import SubflError
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.server.checkpoint import Checkpoint, CheckpointTimes
from subfl_flower.sweeps.job import train_here

ROUNDS = ("federation.rounds=6", "record.mixing_every=1", "runtime.nodes=2")
GRAPHS = {
    "fedpub": (),
    "fedpub, half": HALF,
    "subpfed, half": HALF,
    "oracle": (),
    "fedgcn": (),
    "fedgnn_subgraph, half": (*HALF, "method.exchange_every=3"),
}
RATINGS = {
    "central_gnn": (),
    "central": ("task=ranking",),
    "fedgnn, expanded": ("method.max_neighbours=3", "method.expansion_every=2"),
    "perfedrec, half": HALF,
}


def overrides_of(case: str) -> tuple[str, ...]:
    """Overrides of a case: a method, and its part of the clients."""
    method = case.split(",")[0]
    small = SMALL if case in GRAPHS else SMALL_RATINGS
    return (*small, f"method={method}", *KNOBS.get(method, ()), *ROUNDS, *{**GRAPHS, **RATINGS}[case])


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint whenever a round ends."""
    monkeypatch.setattr(CheckpointTimes, "is_due", True)


def killed_in_round(directory: Path, number: int, *overrides: str) -> None:
    """Begin a run in a folder, or go on with it, and kill it when it records a round."""
    append = RunDirectory.append_round

    def append_round(self: RunDirectory, record: dict[str, Any]) -> None:
        if record["round"] == number:
            raise KilledError
        append(self, record)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunDirectory, "append_round", append_round)
        with pytest.raises((KilledError, SubflError)):  # Ray's simulation ends in an error of another type
            train_here(composed_config(list(overrides))[0], directory)
    (directory / "summary.json").unlink()  # a process that is killed writes none


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("case", [*GRAPHS, *RATINGS])
def test_a_killed_run_goes_on_to_the_numbers_of_an_unbroken_one(case: str, tmp_path: Path) -> None:
    overrides = overrides_of(case)
    unbroken = run_inline(tmp_path / "unbroken", *overrides)
    folder = tmp_path / "run"
    killed_in_round(folder, 4, *overrides)
    assert Checkpoint.read(folder / "checkpoint").server_round == 3
    killed_in_round(folder, 6, *overrides)
    train_here(composed_config(list(overrides))[0], folder)
    assert_same(Outcome(folder), unbroken)
    assert [path.name for path in tmp_path.glob("*/checkpoint")] == []  # removed at the end


@pytest.mark.slow
@pytest.mark.usefixtures("always")
def test_a_run_under_ray_goes_on(tmp_path: Path) -> None:
    overrides = (*SMALL, "method=fedpub", *KNOBS["fedpub"], *ROUNDS, *HALF)
    unbroken = run_inline(tmp_path / "unbroken", *overrides)
    ray = ("runtime=ray", "runtime.total_cpus=2")
    killed_in_round(tmp_path / "run", 4, *ray, *overrides)
    assert any((tmp_path / "run" / "checkpoint" / "clients").iterdir())
    train_here(composed_config([*ray, *overrides])[0], tmp_path / "run")
    assert_same(Outcome(tmp_path / "run"), unbroken, 1e-4)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The seconds that checkpoints count by; a test sets them."""
    now = [0.0]
    monkeypatch.setattr("subfl_flower.server.checkpoint.time.monotonic", lambda: now[0])
    yield now


def test_there_is_one_a_minute_and_none_in_the_first(clock: list[float]) -> None:
    times = CheckpointTimes()
    due = []
    for second in range(0, 301, 10):
        clock[0] = second
        if times.is_due:
            due.append(second)
            with times.measured():
                clock[0] += 0.5
    assert due == [60, 130, 200, 270]  # the next step after 60 seconds without one


def test_they_take_a_twentieth_of_the_time_at_most(clock: list[float]) -> None:
    times = CheckpointTimes()
    clock[0] = 60
    with times.measured():
        clock[0] += 10
    clock[0] = 70 + 199
    assert not times.is_due
    clock[0] = 70 + 200
    assert times.is_due


def test_a_short_run_writes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []
    monkeypatch.setattr(Checkpoint, "write", lambda self, folder: written.append(folder))
    run_inline(tmp_path / "run", *SMALL, "method=fedavg", "federation.rounds=2")
    assert written == [] and not (tmp_path / "run" / "checkpoint").exists()

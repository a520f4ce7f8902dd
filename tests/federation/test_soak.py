"""A run of some rounds under each kind of fault; `soak.py` is the same with hundreds of rounds."""

from __future__ import annotations

from pathlib import Path

import pytest
from soak import CLIENTS, FAULTS, Fault, Memory, _unexplained, problems, soak

EMPTY = {"blamed": [], "refused": [], "unsound": [], "orphans": [], "processes": {"supernode": 3}}
SOUND = {"differences": {"test": 0.0}, "memory": {}, **dict.fromkeys(("unbroken", "stop", "continue"), EMPTY)}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_run_under_faults_keeps_its_numbers_files_processes_and_memory(tmp_path: Path) -> None:
    found = soak(tmp_path / "soak", rounds=15, seed=2, per_kind=1)
    assert problems(found) == []
    for run in ("stop", "continue"):
        assert sorted(fault["kind"] for fault in found[run]["faults"]) == sorted(FAULTS)
    assert found["stop"]["stops"] > 2


def test_each_problem_is_told() -> None:
    assert problems(SOUND) == []
    grown = {"early_mib": 100.0, "late_mib": 131.0, "early_files": 5.0, "late_files": 5.0}
    wrong = {
        **SOUND,
        "differences": {"test": 0.25},
        "stop": {**EMPTY, "blamed": [("2", 3, "no reply")], "processes": {"supernode": 4}},
        "memory": {"superlink 1": grown, "superlink 2": {**grown, "late_mib": 129.0}},
    }
    assert [line.split(":")[0] for line in problems(wrong)] == [
        *("test differs by 0.25", "stop", "stop", "superlink 1 grows"),
    ]


def test_a_failure_is_explained_by_a_fault_of_the_clients_node_about_then() -> None:
    times = {0: 1000.0, 1: 1010.0, 2: 1020.0}
    records = [{"round": 1, "failures": {}}, {"round": 2, "failures": {"2": "no reply"}}]
    (node,) = [name for name, clients in CLIENTS.items() if 2 in clients]
    other = next(name for name in CLIENTS if name != node)
    assert _unexplained(records, times, [Fault("slow", node, 1, 1012.0, 1015.0)]) == []
    assert _unexplained(records, times, [Fault("slow", other, 1, 1012.0, 1015.0)]) == [("2", 2, "no reply")]
    assert _unexplained(records, times, [Fault("slow", node, 1, 500.0, 600.0)]) == [("2", 2, "no reply")]
    assert _unexplained(records, times, [Fault("node", node, 1, 1030.0, 1040.0)]) == [("2", 2, "no reply")]


def test_memory_is_compared_between_quarters_of_a_life() -> None:
    memory = Memory()
    memory.samples["superlink", 1] = [(round_, (100 + round_) * 2**20, 7) for round_ in range(80)]
    memory.samples["message", 2] = [(0, 2**20, 3)]
    (found,) = memory.growth().values()
    assert (found["early_mib"], found["late_mib"], found["late_files"]) == (130.0, 170.0, 7.0)

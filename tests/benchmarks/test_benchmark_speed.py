"""The benchmark command measures real processes and reckons ratios and targets from them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from benchmark_scripts import load_benchmark

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def speed() -> ModuleType:
    return load_benchmark("speed")


def rounds_file(path: Path, seconds: list[float]) -> Path:
    lines = [
        {"test": 0.1 * number, "seconds": {"round": s, "client": 0.5 * s, "server": 0.3 * s, "transport": 0.2 * s}}
        for number, s in enumerate(seconds, start=1)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_measurement_leaves_out_the_warm_up(speed: ModuleType, tmp_path: Path) -> None:
    path = rounds_file(tmp_path / "metrics.jsonl", [9.0, 1.0, 2.0, 6.0])
    found = speed.read_measurement(path, warmup=1, first_round=12.0, memory=5, total=30.0)

    assert found.seconds == [1.0, 2.0, 6.0]
    assert found.median() == 2.0
    assert found.parts["client"] == [0.5, 1.0, 3.0]
    assert found.startup == pytest.approx(3.0)  # the first round ended at 12 and took 9
    assert found.test == pytest.approx(0.4)
    both = found.join(speed.Measurement(seconds=[8.0, 10.0], startup=1.0, memory=7, total=20.0))
    assert (both.median(), both.startup, both.memory, both.total) == (6.0, 1.0, 7, 20.0)


def test_rounds_that_are_all_warm_up_are_refused(speed: ModuleType, tmp_path: Path) -> None:
    path = rounds_file(tmp_path / "metrics.jsonl", [1.0, 1.0])
    with pytest.raises(RuntimeError, match="2 rounds leave none after 2 of warm-up"):
        speed.read_measurement(path, warmup=2, first_round=1.0, memory=0, total=1.0)


def test_targets_say_what_is_met(speed: ModuleType) -> None:
    def row(clients: int, runtime: str, ratio: float, mib: float) -> object:
        return speed.Row("fedavg", clients, runtime, 0.5, ratio, 0.0, 0.0, 0.0, 10.0, mib, 60.0, 0.8)

    rows = [row(50, "floor", 1.0, 900), row(50, "inline", 0.6, 3000), row(10, "ray", 2.0, 1), row(50, "ray", 0.71, 1)]
    lines = speed.targets(rows, "overlapping", "cora")

    assert [line.split()[0] for line in lines] == ["met", "MISSED", "met", "MISSED", "met"]
    assert "0.60 of the floor" in lines[0]
    assert "3000 MiB" in lines[1]
    assert "about 60 s" in lines[2]  # 10 + 100 · 0.5
    assert "0.71 of the floor" in lines[3]
    assert speed.targets(rows[:1], "overlapping", "cora") == []


def test_disjoint_cora_has_targets_by_method_clients_and_threads(speed: ModuleType) -> None:
    def row(method: str, clients: int, runtime: str, threads: int, ratio: float, server: float) -> object:
        return speed.Row(method, clients, runtime, 0.5, ratio, 0.0, server, 0.0, 10.0, 900, 60.0, 0.8, threads)

    rows = [row("fedpub", 50, "inline", 1, 0.38, 0.07), row("fedpub", 50, "inline", 2, 0.21, 0.2)]
    rows += [row("fedavg", 10, "inline", 2, 0.25, 0.2), row("fedpub", 50, "ray", 1, 0.29, 0.2)]
    lines = speed.targets(rows, "metis", "cora")
    verdicts = [line.split()[0] for line in lines if "of the floor" in line]
    assert verdicts == ["met", "MISSED", "met", "MISSED"]
    shares = [line for line in lines if "of a round" in line]
    assert len(shares) == 1 and shares[0].startswith("met") and "0.14 of a round" in shares[0]


def test_the_command_measures_floor_and_app_in_one_run(tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "speed.py"), "--dataset", "digits", "--clients", "3", "--methods", "fedpub"]
    command += ["--runtimes", "inline", "--rounds", "6", "--warmup", "2", "--json", str(tmp_path / "found.json")]
    command += ["--threads", "1", "2"]
    command += ["--", "model.hidden=8", "method.random_block_nodes=5"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert ran.returncode == 0, ran.stderr

    floor, inline, two = json.loads((tmp_path / "found.json").read_text())
    assert [(row["runtime"], row["threads"]) for row in (floor, inline, two)] == [
        *(("floor", 1), ("inline", 1), ("inline", 2))
    ]
    assert two["test"] == inline["test"]
    assert floor["ratio"] == 1
    assert inline["ratio"] == pytest.approx(inline["seconds"] / floor["seconds"])
    assert 0 < inline["client"] + inline["server"] + inline["transport"] <= 1.5 * inline["seconds"]
    for row in (floor, inline):
        assert 0 < row["startup"] < row["total"]
        assert 150 < row["memory_mib"] < 4000  # PyTorch alone takes more than the one, this data set far less
    assert "of the floor (target" in ran.stdout


def test_a_process_that_fails_is_quoted(speed: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="method=nothing"):
        speed.measure("inline", ["method=nothing"], 0, tmp_path)

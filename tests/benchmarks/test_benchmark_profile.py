"""Parts of a round: each without those inside it, in every thread, and all of them a round."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
from benchmark_scripts import load_benchmark

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "profile_round.py"


@pytest.fixture(scope="module")
def profile() -> ModuleType:
    return load_benchmark("profile_round")


@pytest.fixture
def now(profile: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which passes as the test says."""
    clock = [0.0]
    monkeypatch.setattr(profile.time, "perf_counter", lambda: clock[0])
    return clock


def test_a_part_is_without_the_parts_inside_it(profile: ModuleType, now: list[float]) -> None:
    clock = profile.Clock()

    def pass_(seconds: float) -> None:
        now[0] += seconds

    inner = profile.timed(lambda: pass_(2), "inner", clock)

    @contextmanager
    def opened() -> Iterator[int]:
        pass_(8)
        yield 5
        pass_(16)

    managed = profile.timed(opened, "opened", clock)

    def outer() -> int:
        pass_(1)
        inner()
        inner()
        with managed() as value:
            pass_(4)
            inner()
        return int(value)

    assert profile.timed(outer, "outer", clock)() == 5
    assert clock.take() == {"outer": 5.0, "inner": 6.0, "opened": 24.0}
    assert clock.take() == {}


def test_a_thread_is_not_inside_the_part_that_waits_for_it(profile: ModuleType) -> None:
    clock = profile.Clock()

    def work() -> None:
        with clock.part("work"):
            time.sleep(0.05)

    with clock.part("wait"):
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = clock.take()
    assert found["work"] >= 0.1 and found["wait"] >= 0.05


def test_the_command_prints_the_parts_of_a_round(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "method=fedpub", "dataset=digits", "model.hidden=8", "--json"]
    command += [str(tmp_path / "parts.json"), "--warmup", "1", "federation.rounds=6", "partition.clients=3"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    found = json.loads((tmp_path / "parts.json").read_text())
    parts = found["parts"]
    assert {"forward and backward", "Adam", "embedding", "mix", "pack", "evaluation"} <= parts.keys()
    assert all(spent > 0 for spent in parts.values())
    assert 0.4 * found["round"] < sum(parts.values()) < 1.5 * found["round"]
    assert "Adam" in ran.stdout and "rest of the round" in ran.stdout

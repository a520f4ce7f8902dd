"""Jobs side by side: the numbers of a sequential sweep, and processes that may die."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from run_outcomes import Outcome, start
from small_runs import SMALL, numbers

from subfl_flower.composition import composed_config
from subfl_flower.config import Config
from subfl_flower.errors import SubflError
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.sweeps.engine import run_sweep
from subfl_flower.sweeps.processes import number_of_processes

CLASS = """
import os, signal
from subfl_flower.strategies.subgraphs.mixing import MixingStrategy
import numpy as np


class Deadly(MixingStrategy):
    def mixing_matrix(self, updates):
        if self.run.seed == 1 and not os.environ.get("HARMLESS"):
            os.kill(os.getpid(), signal.SIGKILL)
        return np.eye(len(self.roster))
"""


def test_the_numbers_are_those_of_a_sequential_sweep_to_the_last_bit(tmp_path: Path) -> None:
    asked = [[*SMALL, f"method={method}", f"seed={seed}"] for method in ("fedavg", "fedpub") for seed in (0, 1)]
    one = run_sweep(asked, tmp_path / "sequential", show=False)
    many = run_sweep(asked, tmp_path / "parallel", jobs=2, show=False)
    assert [folder.name for folder in many] == [folder.name for folder in one]
    for folder, other in zip(one, many, strict=True):
        assert numbers(folder) == numbers(other)
        models, others = Outcome(folder).models(), Outcome(other).models()
        assert models.keys() == others.keys() == {0, 1, 2}
        for client, tensors in models.items():
            assert all(np.array_equal(values, others[client][name]) for name, values in tensors.items())


def test_a_process_that_is_killed_is_one_failed_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "deadly_method.py").write_text(CLASS)
    monkeypatch.syspath_prepend(str(tmp_path))
    asked = [[*SMALL, "method.strategy=deadly_method.Deadly", f"seed={seed}"] for seed in range(3)]
    folders = run_sweep(asked, tmp_path / "sweep", jobs=2, show=True)
    summaries = [RunDirectory(folder).summary() or {} for folder in folders]
    assert [summary["status"] for summary in summaries] == ["completed", "failed", "completed"]
    assert summaries[1]["error"] == "its process was killed by SIGKILL (memory may be short)"
    assert f"subfl: {folders[1].name} failed: its process was killed by SIGKILL" in capfd.readouterr().err
    monkeypatch.setenv("HARMLESS", "1")
    assert run_sweep(asked, tmp_path / "sweep", jobs=2, show=False) == folders
    assert [(RunDirectory(folder).summary() or {})["status"] for folder in folders] == ["completed"] * 3


def begun_in_two_processes(tmp_path: Path) -> tuple[psutil.Popen, list[psutil.Process]]:
    """A sweep without end whose two processes are in training, and these."""
    endless = ("-m", *SMALL[:-1], "federation.rounds=1000000", "seed=0,1,2", "sweep.jobs=2")
    process = start((*endless, f"hydra.sweep.dir={tmp_path / 'sweep'}"), tmp_path / "run", tmp_path)
    deadline = time.monotonic() + 300
    while sum(path.stat().st_size > 0 for path in tmp_path.glob("sweep/*/metrics.jsonl")) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    children = psutil.Process(process.pid).children()
    assert len(children) == 2
    return process, children  # type: ignore[return-value]


def test_the_processes_end_with_a_sweep_that_is_killed(tmp_path: Path) -> None:
    process, children = begun_in_two_processes(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=60)
    process.communicate(timeout=60)
    assert alive == []


def test_ctrl_c_ends_the_runs_after_their_rounds(tmp_path: Path) -> None:
    process, _ = begun_in_two_processes(tmp_path)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in err
    assert "interrupted; 1 job(s) are left" in err
    summaries = [RunDirectory(path.parent).summary() or {} for path in tmp_path.glob("sweep/*/metrics.jsonl")]
    assert [summary["status"] for summary in summaries] == ["interrupted"] * 2
    assert all(summary["rounds"] >= 1 for summary in summaries)


@pytest.fixture
def configs() -> Callable[..., list[Config]]:
    return lambda count, *more: [composed_config([*SMALL, *more])[0]] * count


def test_auto_takes_a_core_a_job_while_memory_lasts(
    configs: Callable[..., list[Config]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subfl_flower.sweeps.processes.cpu_count", lambda: 8)
    gib = 2**30

    def with_memory(size: int, jobs: int, *more: str) -> int:
        class Memory:
            available = size

        monkeypatch.setattr("subfl_flower.sweeps.processes.psutil.virtual_memory", Memory)
        return number_of_processes("auto", configs(jobs, *more))

    assert [with_memory(64 * gib, jobs) for jobs in (3, 20)] == [3, 8]
    assert [with_memory(size * gib, 20) for size in (1, 5, 12)] == [1, 2, 6]
    assert with_memory(64 * gib, 20, "runtime=ray") == 1
    assert [number_of_processes(asked, configs(3)) for asked in (1, 2, 9)] == [1, 2, 3]
    with pytest.raises(SubflError, match=r"sweep\.jobs=2: runtime=ray spreads each job"):
        number_of_processes(2, configs(3, "runtime=ray"))


def test_a_sweep_may_run_in_another_thread(tmp_path: Path) -> None:
    """A notebook's server trains in such a thread; signals are the main thread's."""
    folders: list[Path] = []
    asked = [[*SMALL, f"seed={seed}"] for seed in (0, 1)]
    thread = threading.Thread(target=lambda: folders.extend(run_sweep(asked, tmp_path, jobs=2, show=False)))
    thread.start()
    thread.join(300)
    assert [(RunDirectory(folder).summary() or {})["status"] for folder in folders] == ["completed"] * 2

"""Ctrl-C: what is finished is kept."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from run_outcomes import Outcome, finished, start, wait_for_rounds

from subfl_flower.composition import composed_config
from subfl_flower.sweeps.fingerprint import job_name

ENDLESS = ("dataset=digits", "method=fedavg", "model.hidden=8", "federation.rounds=1000000")
RAY = ("runtime=ray", "runtime.nodes=2", "runtime.total_cpus=2")


def kept_what_was_finished(outcome: Outcome) -> None:
    assert outcome.code == 130, outcome.stderr
    assert "Traceback" not in outcome.stderr
    lines = (outcome.directory / "metrics.jsonl").read_text().splitlines()
    rounds = [json.loads(line)["round"] for line in lines]
    assert rounds == list(range(1, len(rounds) + 1)) and len(rounds) >= 3
    assert outcome.summary["status"] == "interrupted" and outcome.summary["rounds"] == len(rounds)
    assert outcome.summary["test_last"] is not None
    assert sorted(outcome.models()) == list(range(10))
    assert not (outcome.directory / "state").exists()


@pytest.mark.parametrize("runtime", [(), RAY], ids=["inline", "ray"])
def test_ctrl_c_ends_the_run_after_the_current_round(tmp_path: Path, runtime: tuple[str, ...]) -> None:
    """As a terminal does it: the signal goes to every process of the foreground group."""
    process = start((*ENDLESS, *runtime), tmp_path / "run", tmp_path)
    wait_for_rounds(process, tmp_path / "run", 3)
    os.killpg(process.pid, signal.SIGINT)
    kept_what_was_finished(finished(process, tmp_path / "run"))


def test_ctrl_c_ends_a_sweep(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    process = start(("-m", *ENDLESS, "seed=0,1,2", f"hydra.sweep.dir={sweep}"), tmp_path / "run", tmp_path)
    first = sweep / job_name(composed_config([*ENDLESS, "seed=0"])[0])
    wait_for_rounds(process, first, 3)
    process.send_signal(signal.SIGINT)
    outcome = finished(process, first)
    kept_what_was_finished(outcome)
    assert [path for path in sweep.iterdir() if path.is_dir()] == [first]
    assert f"interrupted; 2 job(s) are left; the same command with hydra.sweep.dir={sweep} goes on" in outcome.stderr


def test_a_second_ctrl_c_ends_it_at_once_and_keeps_the_rounds(tmp_path: Path) -> None:
    minutes = "federation.local_epochs=100000"  # of a round
    process = start((*ENDLESS, minutes), tmp_path / "run", tmp_path)
    wait_for_rounds(process, tmp_path / "run", 0)
    time.sleep(1.0)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
    outcome = finished(process, tmp_path / "run")
    assert outcome.code == 130 and "Traceback" not in outcome.stderr
    assert outcome.summary["status"] == "interrupted" and outcome.summary["rounds"] == 0

"""The example in which Flower's own loop drives our clients, and a strategy of ours: as a user runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "plain_flower"


def output_of(script: str, folder: Path) -> str:
    """All that a script of the example prints."""
    env = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "FLWR_TELEMETRY_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, EXAMPLE / script], cwd=folder, env=env, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_flowers_fedavg_trains_subgraphs_and_users(tmp_path: Path) -> None:
    printed = output_of("flower_drives_clients.py", tmp_path)
    tests = [float(value) for value in re.findall(r"\(\d, ([\d.]+)\)", printed.replace("np.float64", ""))]
    assert printed.count("[SUMMARY]") == 2 and "Received: Error" not in printed
    assert len(tests) == 9 and all(value >= 0 for value in tests)


def test_flowers_start_runs_fedpub(tmp_path: Path) -> None:
    printed = output_of("start_fedpub.py", tmp_path)
    figures = re.findall(r"^round (\d): test (0\.\d+)$", printed, re.MULTILINE)
    assert [number for number, _ in figures] == ["1", "2", "3"]
    rows = [[float(value) for value in row.split()] for row in re.findall(r"\[([\d.e\s+-]+)\]", printed)[-4:]]
    assert len(rows) == 4 and all(abs(sum(row) - 1) < 0.03 for row in rows)

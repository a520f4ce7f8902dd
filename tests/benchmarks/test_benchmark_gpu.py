"""The benchmark on a GPU: its ratios, and its words where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmark_scripts import load_benchmark

FOLDER = Path(__file__).parents[2] / "benchmarks"


def test_without_a_gpu_it_says_so() -> None:
    command = [sys.executable, str(FOLDER / "gpu.py"), "--clients", "3"]
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=200, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    )
    assert (ran.returncode, ran.stdout) == (0, "no GPU is visible here: nothing is measured\n"), ran.stderr


def test_ratios_are_to_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    module = load_benchmark("gpu")

    def measured(*seconds: float) -> object:
        parts = {name: [0.5 * each for each in seconds] for name in ("client", "server", "transport")}
        return module.Measurement(seconds=list(seconds), parts=parts, test=0.8)

    rows = module.rows_of("fedpub", 10, {module.LOOP: measured(0.2, 0.4, 9), "inline": measured(0.1)}, "a GPU")
    assert [(row.case, row.milliseconds, row.of_loop, row.client) for row in rows] == [
        *(("loop on the GPU", 400.0, 1.0, 200.0), ("inline", 100.0, 0.25, 50.0))
    ]
    assert module.table(rows, "title").row_count == 2

"""Folder of the benchmark files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

BENCHMARKS = Path(os.environ.get("SUBFL_TEST_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))


@pytest.fixture
def benchmark_root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A data root with a copy of the folder that the test's parameter names."""
    folder = Path(request.param)
    if not (BENCHMARKS / folder).is_dir():
        pytest.skip(f"{folder} is not among the benchmark files in {BENCHMARKS} (SUBFL_TEST_DATA)")
    shutil.copytree(BENCHMARKS / folder, tmp_path / "root" / folder)
    return tmp_path / "root"


@pytest.fixture
def reference_partitions() -> Path:
    if not (BENCHMARKS / "partitions").is_dir():
        pytest.skip(f"the reference partitions are not in {BENCHMARKS} (SUBFL_TEST_DATA)")
    return BENCHMARKS / "partitions"

"""Fixtures of all tests: a cache of prepared partitions, the identity that Flower's messages need, inline runs."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity
from run_outcomes import Outcome, run_inline

from subfl_flower.flower.inline_grid import InlineGrid

BENCHMARKS = Path(os.environ.get("SUBFL_TEST_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))


LONG = ("federation", "launch", "docs", "end_to_end")
"""Folders whose files take minutes, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with long files: a file is one worker's, and the last one should not keep it from ending with the other."""
    items.sort(key=lambda item: LONG.index(item.path.parent.name) if item.path.parent.name in LONG else len(LONG))


def pytest_collection_finish() -> None:
    """Leave what has been imported out of garbage collections, each of which would go through a million objects."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def prepared_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache of prepared partitions, and an empty data root, for the whole session and its subprocesses."""
    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUBFL_CACHE", str(folder))
        patch.setenv("SUBFL_DATA", str(tmp_path_factory.mktemp("no-data")))
        patch.setenv("OMP_NUM_THREADS", "1")
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield folder
        torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def no_identity_left() -> Iterator[None]:
    """A test that left Flower's task identity behind would change what later tests of the process see."""
    before = (TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id)
    yield
    assert (TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id) == before


@pytest.fixture
def task_identity() -> Iterator[None]:
    """Without an identity Flower refuses to make messages; a run has one."""
    with InlineGrid(ClientApp(), 1).active():
        yield


@pytest.fixture
def inline_run(tmp_path: Path) -> Callable[..., Outcome]:
    """A run in this process with the given overrides, each in a separate folder under the test's."""
    started: list[Path] = []

    def run(*overrides: str) -> Outcome:
        started.append(tmp_path / f"run-{len(started)}")
        return run_inline(started[-1], *overrides)

    return run


@pytest.fixture
def reference_partitions() -> Path:
    """The folder of FED-PUB's own partitions of Cora."""
    folder = (BENCHMARKS / "partitions").resolve()
    if not folder.is_dir():
        pytest.skip(f"the reference partitions are not among the benchmark files in {BENCHMARKS} (SUBFL_TEST_DATA)")
    return folder


def copied_root(folder: str, to: Path) -> Path:
    """A data root with a copy of a benchmark's raw files."""
    if not (BENCHMARKS / folder).is_dir():
        pytest.skip(f"{folder} is not among the benchmark files in {BENCHMARKS} (SUBFL_TEST_DATA)")
    shutil.copytree(BENCHMARKS / folder, to / "root" / folder)
    return to / "root"


@pytest.fixture
def cora_root(tmp_path: Path) -> Path:
    """A data root with a copy of Cora's raw files."""
    return copied_root("Planetoid/Cora/raw", tmp_path)


@pytest.fixture
def photo_root(tmp_path: Path) -> Path:
    """A data root with a copy of Photo's raw file."""
    return copied_root("Amazon/Photo/raw", tmp_path)

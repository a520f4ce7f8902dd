"""A job in its folder: begun, continued, started again, reused; and never mixed with another one."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from pathlib import Path

import pytest
from small_runs import SMALL, files, numbers

from subfl_flower.composition import composed_config
from subfl_flower.config import Config
from subfl_flower.errors import SubflError
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.storage.folder_lock import folder_lock
from subfl_flower.sweeps.job import Found, found_in, newest, train_here, train_job


def config_of(*overrides: str) -> Config:
    return composed_config([*SMALL, *overrides])[0]


@pytest.fixture(scope="module")
def completed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completed") / "run"
    train_here(config_of(), folder)
    return folder


@pytest.fixture
def run(completed: Path, tmp_path: Path) -> Path:
    """A copy of a completed run."""
    shutil.copytree(completed, tmp_path / "job")
    return tmp_path / "job"


def with_status(folder: Path, status: str | None) -> None:
    """Make a completed run one that ended otherwise; None for one that was killed."""
    if status is None:
        (folder / "summary.json").unlink()
    else:
        RunDirectory(folder).write_summary({**(RunDirectory(folder).summary() or {}), "status": status})


def test_another_configuration_is_refused_in_one_sentence_and_touches_nothing(run: Path) -> None:
    before = files(run)
    for status in ("completed", "interrupted"):
        with pytest.raises(SubflError) as error:
            train_here(config_of("seed=1"), run)
        assert str(error.value) == (
            f"{run} already holds a run of another configuration (seed=0, not 1); choose another folder"
        )
        assert files(run) == before, status
        with_status(run, "interrupted")
        before = files(run)


def test_a_completed_run_is_refused_and_the_way_out_is_named(run: Path) -> None:
    before = files(run)
    with pytest.raises(SubflError, match=r"completed with this configuration .* choose another folder$"):
        train_here(config_of("runtime.chunk=1"), run)
    assert files(run) == before


@pytest.mark.parametrize("status", [None, "failed", "interrupted"])
def test_without_a_checkpoint_a_run_starts_again(
    status: str | None, run: Path, completed: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with_status(run, status)
    (run / "mine.txt").write_text("notes")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"round": 3, "tes')
    train_here(config_of(), run)
    assert numbers(run) == numbers(completed)
    assert set(files(run)) == {*files(completed), "mine.txt"}
    assert f"{run}: starts again, because it has no checkpoint" in capfd.readouterr().err


def test_a_damaged_checkpoint_starts_again_and_says_why(
    run: Path, completed: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with_status(run, None)
    (run / "checkpoint").mkdir()
    (run / "checkpoint" / "server.safetensors").write_bytes(b"no tensors")
    assert found_in(run, config_of()) is Found.RESUMABLE
    train_here(config_of(), run)
    assert numbers(run) == numbers(completed)
    assert "server.safetensors does not hold a checkpoint" in capfd.readouterr().err


def test_data_that_are_refused_leave_no_folder(tmp_path: Path) -> None:
    with pytest.raises(SubflError, match="is more than the 1797 nodes"):
        train_here(config_of("partition.clients=5000"), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_a_process_trains_in_is_refused(run: Path) -> None:
    with_status(run, None)
    before = files(run)
    with folder_lock(run, wait=False) as ours:
        assert ours
        with pytest.raises(SubflError, match="another process is training this run"):
            train_here(config_of(), run)
    assert files(run) == before


def hold(folder: Path, held: multiprocessing.synchronize.Event) -> None:
    with folder_lock(folder, wait=False):
        held.set()
        held.wait()
        multiprocessing.Event().wait()


def test_a_lock_ends_with_the_process_that_is_killed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    held = context.Event()
    process = context.Process(target=hold, args=(tmp_path, held))
    process.start()
    held.wait(30)
    with folder_lock(tmp_path, wait=False) as ours:
        assert not ours
    process.kill()
    with folder_lock(tmp_path, wait=True) as ours:
        assert ours
    process.join()


# Jobs of a sweep ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("redo", ["failed", "none"])
def test_a_completed_job_is_reused(redo: str, run: Path) -> None:
    before = files(run)
    outcome = train_job(config_of(), run, redo)  # type: ignore[arg-type]
    assert (outcome.status, outcome.reused, outcome.directory) == ("completed", True, run)
    assert outcome.value == max(record["validation"] for record in numbers(run))
    assert files(run) == before


def test_redo_all_trains_beside_a_completed_run(run: Path, completed: Path) -> None:
    before = files(run)
    for number in (2, 3):
        outcome = train_job(config_of(), run, "all")
        assert outcome.directory == run.with_name(f"job-{number}") == newest(run) and not outcome.reused
        assert numbers(outcome.directory) == numbers(completed)
    assert files(run) == before
    assert train_job(config_of(), run, "failed").directory == run.with_name("job-3")


@pytest.mark.parametrize(
    ("status", "left"), [("failed", "failed"), ("interrupted", "interrupted"), (None, "interrupted")]
)
def test_what_was_cut_off_is_repeated_unless_redo_is_none(
    status: str | None, left: str, run: Path, completed: Path
) -> None:
    with_status(run, status)
    before = files(run)
    outcome = train_job(config_of(), run, "none")
    assert (outcome.status, outcome.reused, outcome.value) == (left, True, None) and files(run) == before
    again = train_job(config_of(), run, "failed")
    assert (again.status, again.reused, again.directory) == ("completed", False, run)
    assert numbers(run) == numbers(completed)


def test_a_failure_is_recorded_and_repeated(tmp_path: Path) -> None:
    config = config_of("partition.clients=5000")
    for _ in range(2):
        outcome = train_job(config, tmp_path / "job")
        assert outcome.status == "failed" and outcome.error and "1797 nodes" in outcome.error
    assert json.loads((tmp_path / "job" / "summary.json").read_text()) == {
        **{"method": "fedavg", "dataset": "digits", "partition": "metis", "seed": 0},
        **{"status": "failed", "error": outcome.error},
    }


def test_a_job_whose_folder_holds_another_run_fails_and_touches_nothing(run: Path) -> None:
    before = files(run)
    outcome = train_job(config_of("seed=1"), run)
    assert (outcome.status, outcome.bad_input) == ("failed", True)
    assert outcome.error and "of another configuration (seed=0, not 1)" in outcome.error
    assert files(run) == before

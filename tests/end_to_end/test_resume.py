"""A run that was broken off goes on to the numbers that it would have had: every method, at several moments."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_outcomes import SMALL_GENERATOR, Outcome, method_names, run_inline, start, subfl, wait_for_rounds

from subfl_flower.cli import main
from subfl_flower.composition import composed_job
from subfl_flower.errors import RunFailure, SubflError
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.server.checkpoint import Checkpoint
from subfl_flower.simulation import simulate

METHODS = method_names("graph")
ROUNDS = 6
SMALL = ("dataset=digits", "partition=overlap_rate", "partition.rate=0.3", "model.hidden=16")
RECORDED = (f"federation.rounds={ROUNDS}", "record.mixing_every=1", "record.checkpoint_every=2", "runtime.nodes=2")
SPLITTING = ("method.first_split=2", "method.epsilon1=2")
"""A cluster is halved whenever it may be, so that there are several when the run is broken off."""
FEW = ("method.random_blocks=2", "method.random_block_nodes=20")
KNOBS = {
    "fedpub": FEW,
    "fedpub_released": FEW,
    "gcfl": SPLITTING,
    "gcfl_plus": (*SPLITTING, "method.window=2"),
    "fedsage_plus": SMALL_GENERATOR,
}
HALF = ("federation.fraction=0.5", "runtime.nodes=10")
"""A client a node: no other client's node keeps the state of one that is absent from a checkpoint's round."""
OF_ITS_OWN = ("seconds", "cpu_seconds", "seconds_per_round", "run_id", "git_commit", "app_hash")
"""Entries that may differ between two runs with the same numbers."""


class KilledError(BaseException):
    """Nobody catches this: the process is as good as dead."""


def federation(method: str, *more: str) -> tuple[str, ...]:
    """Overrides for a run of a method."""
    return (*SMALL, *RECORDED, f"method={method}", *KNOBS.get(method, ()), *more)


def break_off(directory: Path, moment: str, *overrides: str) -> None:
    """Start a run and kill it in its fifth round, or while it writes the checkpoint of its fourth."""
    append, write = RunDirectory.append_round, Checkpoint.write

    def append_round(self: RunDirectory, record: dict[str, Any]) -> None:
        if record["round"] == 5:
            with (self.path / "metrics.jsonl").open("ab") as file:
                file.write(b'{"round":5,"metric":"accu')
            raise KilledError
        append(self, record)

    def write_checkpoint(self: Checkpoint, folder: Path) -> None:
        if self.server_round == 4:
            raise KilledError
        write(self, folder)

    with pytest.MonkeyPatch.context() as patch:
        if moment == "round 5":
            patch.setattr(RunDirectory, "append_round", append_round)
        else:
            patch.setattr(Checkpoint, "write", write_checkpoint)
        with pytest.raises(KilledError):
            run_inline(directory, *overrides)
    (directory / "summary.json").unlink()  # a process that is killed writes none


def resumed(directory: Path, *changes: str) -> Outcome:
    job = composed_job([f"resume={directory}", *changes])
    assert job.resume and job.directory == directory
    simulate(job.config, job.directory, resume=True)
    return Outcome(directory)


def assert_close(found: Any, expected: Any, tolerance: float, where: str = "") -> None:
    """Compare structures and their numbers; whole numbers, such as bytes, exactly."""
    if isinstance(expected, dict):
        keys = set(expected) - set(OF_ITS_OWN)
        assert set(found) - set(OF_ITS_OWN) == keys, where
        for key in keys:
            assert_close(found[key], expected[key], tolerance, f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for place, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_close(one, other, tolerance, f"{where}[{place}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=tolerance, nan_ok=True), where
    else:
        assert found == expected, where


def assert_same(found: Outcome, expected: Outcome, tolerance: float = 1e-6) -> None:
    assert found.summary["status"] == expected.summary["status"] == "completed"
    assert_close(found.rounds, expected.rounds, tolerance, "rounds")
    assert_close(found.summary, expected.summary, tolerance, "summary")
    assert sorted(found.mixing) == sorted(expected.mixing)
    for server_round, matrix in found.mixing.items():
        np.testing.assert_allclose(matrix, expected.mixing[server_round], atol=tolerance)
    models, right = found.models(), expected.models()
    assert sorted(models) == sorted(right)
    for client, tensors in models.items():
        assert set(tensors) == set(right[client])
        for name, values in tensors.items():
            np.testing.assert_allclose(values, right[client][name], atol=tolerance, err_msg=f"{client} {name}")
    assert not (found.directory / "state").exists()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Outcome]:
    """A run with the given overrides; each is made once."""
    made: dict[tuple[str, ...], Outcome] = {}

    def run(*overrides: str) -> Outcome:
        if overrides not in made:
            made[overrides] = run_inline(tmp_path_factory.mktemp("unbroken") / "run", *overrides)
        return made[overrides]

    return run


@pytest.mark.parametrize("some", [(), HALF], ids=["all", "half"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_goes_on_where_it_was_broken_off(
    method: str, some: tuple[str, ...], unbroken: Callable[..., Outcome], tmp_path: Path
) -> None:
    overrides = federation(method, *some)
    break_off(tmp_path / "run", "round 5", *overrides)
    checkpoint = Checkpoint.read(tmp_path / "run" / "checkpoint")
    assert checkpoint.server_round == 4
    if method.startswith("gcfl") and not some:
        assert 1 < len(np.unique(checkpoint.strategy["cluster_of"])) < 10
    assert_same(resumed(tmp_path / "run"), unbroken(*overrides))


@pytest.mark.parametrize("method", ["fedpub", "gcfl_plus", "oracle", "subpfed"])
def test_a_round_that_clients_have_kept_and_the_server_has_not_is_repeated(
    method: str, unbroken: Callable[..., Outcome], tmp_path: Path
) -> None:
    """Killed between the clients' states of round 4 and the server's: four rounds are recorded, two of them in vain."""
    for some in ((), HALF):
        folder, overrides = tmp_path / str(len(some)), federation(method, *some)
        break_off(folder, "checkpoint", *overrides)
        assert len(RunDirectory(folder).rounds()) == 4
        assert Checkpoint.read(folder / "checkpoint").server_round == 2
        assert any((folder / "checkpoint" / "clients").glob("*/round-000004.safetensors"))
        assert_same(resumed(folder), unbroken(*overrides))


@pytest.mark.parametrize("method", ["fedpub", "subpfed", "local"])
def test_link_prediction_goes_on(method: str, unbroken: Callable[..., Outcome], tmp_path: Path) -> None:
    overrides = federation(method, "task=link_prediction", *HALF)
    break_off(tmp_path / "run", "round 5", *overrides)
    assert_same(resumed(tmp_path / "run"), unbroken(*overrides))


def test_without_what_clients_kept_the_numbers_would_be_others(
    unbroken: Callable[..., Outcome], tmp_path: Path
) -> None:
    """The comparisons above can see whether clients go on with their own state."""
    break_off(tmp_path / "run", "round 5", *federation("fedpub"))
    shutil.rmtree(tmp_path / "run" / "checkpoint" / "clients")
    expected = unbroken(*federation("fedpub"))
    with pytest.raises(AssertionError):
        assert_same(resumed(tmp_path / "run"), expected)


def test_a_run_may_be_broken_off_again_and_again(unbroken: Callable[..., Outcome], tmp_path: Path) -> None:
    folder, overrides = tmp_path / "run", federation("fedpub", *HALF)
    break_off(folder, "checkpoint", *overrides)
    for _ in range(2):
        job = composed_job([f"resume={folder}"])
        with pytest.MonkeyPatch.context() as patch:
            append = RunDirectory.append_round

            def append_round(self: RunDirectory, record: dict[str, Any], append: Any = append) -> None:
                if record["round"] == 5:
                    raise KilledError
                append(self, record)

            patch.setattr(RunDirectory, "append_round", append_round)
            with pytest.raises(KilledError):
                simulate(job.config, job.directory, resume=True)
        assert Checkpoint.read(folder / "checkpoint").server_round == 4
    assert_same(resumed(folder), unbroken(*overrides))


def test_where_clients_run_may_change(unbroken: Callable[..., Outcome], tmp_path: Path) -> None:
    for method in ("fedpub", "oracle"):
        folder, overrides = tmp_path / method, federation(method)
        break_off(folder, "round 5", *overrides)
        found = resumed(folder, "runtime.chunk=1", "runtime.nodes=3", "record.checkpoint_every=1")
        assert_same(found, unbroken(*overrides), 1e-4)
        assert RunDirectory(folder).config()["runtime"]["chunk"] == 1


def test_more_rounds_are_those_of_a_longer_run(unbroken: Callable[..., Outcome], tmp_path: Path) -> None:
    """Without a share of pruned weights: it follows the length of the run, as a learning rate's schedule would."""
    overrides = federation("fedpub", "method.sparsity=null", *HALF)
    finished = tmp_path / "run"
    run_inline(finished, *overrides)
    found = resumed(finished, "federation.rounds=8")
    assert_same(found, unbroken(*overrides, "federation.rounds=8"))
    assert RunDirectory(finished).config()["federation"]["rounds"] == 8


def test_a_run_that_failed_goes_on(unbroken: Callable[..., Outcome], tmp_path: Path) -> None:
    """Whatever was wrong with the data is mended; the run had said so in its summary."""
    overrides = federation("fedper")
    break_off(tmp_path / "run", "round 5", *overrides)
    RunDirectory(tmp_path / "run").write_summary({"status": "failed"})
    assert_same(resumed(tmp_path / "run"), unbroken(*overrides))


# What cannot be resumed ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run with a checkpoint, from which nothing may be changed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    run_inline(folder, *SMALL, *RECORDED, "method=fedavg", "federation.rounds=2")
    return folder


def refused(*overrides: str) -> str:
    with pytest.raises(SubflError) as error:
        job = composed_job(list(overrides))
        simulate(job.config, job.directory, resume=True)
    assert not isinstance(error.value, RunFailure) and "\n" not in str(error.value)
    return str(error.value)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_finished_run_is_left_as_it_is(finished: Path) -> None:
    before = snapshot(finished)
    said = f"{finished} has finished its 2 rounds; federation.rounds=... lets it go on"
    assert refused(f"resume={finished}") == refused(f"resume={finished}", "federation.rounds=1") == said
    assert snapshot(finished) == before


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("seed=1", "seed=1: a resumed run keeps its settings; only federation.rounds, "),
        ("method=fedpub", "method=fedpub: a resumed run keeps its settings"),
        ("federation.fraction=0.5", "federation.fraction=0.5: a resumed run keeps its settings"),
        ("runtime=ray", "runtime=ray: a resumed run keeps its settings"),
        ("+runtime.chunk=1", "+runtime.chunk=1: a resumed run keeps its settings"),
        ("runtime.color=blue", "runtime.color: there is no such setting"),
        ("federation.rounds=many", "federation.rounds: "),
        ("federation.rounds=0", "federation.rounds: Input should be greater than or equal to 1"),
        ("runtime.chunk=0", "runtime.chunk: must be at least 1"),
        ("runtime.chunk=1,2", "runtime.chunk=1,2: a run is resumed with one value of a setting"),
        ("runtime.device=a=b", "runtime.device: the value a=b cannot be read; put a text with special characters in"),
        ("record.checkpoint_every=0", "record.checkpoint_every: a resumed run needs checkpoints for its clients"),
    ],
)
def test_a_change_that_is_not_allowed_is_refused(finished: Path, change: str, sentence: str) -> None:
    before = snapshot(finished)
    assert refused(f"resume={finished}", change).startswith(sentence)
    assert snapshot(finished) == before


def test_where_there_is_no_run(tmp_path: Path) -> None:
    assert refused(f"resume={tmp_path}") == f"resume={tmp_path}: there is no run in this folder"
    nowhere = tmp_path / "nowhere"
    assert refused(f"resume={nowhere}") == f"resume={nowhere}: there is no run in this folder"
    assert not nowhere.exists()


def test_a_run_without_checkpoints_can_only_be_started_anew(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run_inline(folder, *SMALL, "method=fedavg", "federation.rounds=1")
    before = snapshot(folder)
    assert not (folder / "checkpoint").exists()
    assert refused(f"resume={folder}", "federation.rounds=2") == (
        f"{folder / 'checkpoint' / 'server.safetensors'} does not exist: the run left no checkpoint "
        "(record.checkpoint_every), so it can only be started again"
    )
    assert snapshot(folder) == before


def test_a_run_that_lacks_rounds_or_clients_states_says_which(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (folder / "checkpoint" / "clients" / "0003" / "round-000002.safetensors").write_bytes(b"damaged")
    with pytest.raises(SubflError, match=r"0003/round-000002\.safetensors does not hold the state of a client: "):
        resumed(folder, "federation.rounds=3")
    lines = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_bytes(lines[1])
    assert refused(f"resume={folder}", "federation.rounds=3") == (
        f"{folder / 'metrics.jsonl'} does not hold all rounds up to 2, the checkpoint's"
    )


# Real processes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runtime", "tolerance"),
    [((), 1e-6), pytest.param(("runtime=ray", "runtime.total_cpus=2"), 1e-4, marks=pytest.mark.slow)],
    ids=["inline", "ray"],
)
def test_a_killed_process_is_resumed_by_the_command(tmp_path: Path, runtime: tuple[str, ...], tolerance: float) -> None:
    """Killed whenever it happens to be: the rounds after its last checkpoint are those of an unbroken run."""
    folder, base = (
        tmp_path / "run",
        federation("fedpub", "method.sparsity=null", "runtime.chunk=1", "runtime.threads=1"),
    )
    process = start((*runtime, *base, "federation.rounds=1000000"), folder, tmp_path)
    wait_for_rounds(process, folder, 4)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=300)
    assert RunDirectory(folder).summary() is None
    reached = Checkpoint.read(folder / "checkpoint").server_round
    assert reached >= 2 and reached % 2 == 0
    outcome = subfl("resume=run", f"federation.rounds={reached + 3}", cwd=tmp_path)
    found = replace(outcome, directory=folder)
    assert found.code == 0, found.stderr
    assert "Traceback" not in found.stderr and "run directory: run\n" in found.stdout
    expected = run_inline(tmp_path / "unbroken", *base, f"federation.rounds={reached + 3}")
    assert_same(found, expected, tolerance)


def test_the_command_says_in_one_sentence_why_it_cannot_go_on(
    finished: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([f"resume={finished}"])
    said = capfd.readouterr()
    assert ended.value.code == 2 and said.out == ""
    assert said.err == f"subfl: {finished} has finished its 2 rounds; federation.rounds=... lets it go on\n"

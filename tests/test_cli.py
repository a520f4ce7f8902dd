from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from run_outcomes import SMALL_DIGITS, Outcome, command

from subfl_flower.cli import main
from subfl_flower.runs.directory import RunDirectory

Subfl = Callable[..., Outcome]


@pytest.fixture
def subfl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Subfl:
    """The command in this process; `stdout` and `stderr` as a user would see them."""
    monkeypatch.setattr(sys, "argv", ["subfl"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Outcome:
        directory = tmp_path / "run"
        place = (
            []
            if any(argument.startswith("hydra.run.dir") for argument in arguments)
            else [f"hydra.run.dir={directory}"]
        )
        with pytest.raises(SystemExit) as ended:
            main([*arguments, *place])
        out, err = capfd.readouterr()
        return Outcome(directory, int(ended.value.code or 0), out, err)

    return run


REMARK = "warning: 2 of 10 clients have nodes of one class only, the first is client 1\n"


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("partition=overlapping partition.clients=12", "partition.clients: must be a multiple of 5"),
        ("partition.clients=5000", "partition.clients=5000 is more than the 1797 nodes"),
        ("method.tau=-1", "method.tau: "),
        (
            "method=fedpubb",
            "method=fedpubb: there is no such choice; available: bias_row, central, central_gnn, central_mf, ",
        ),
        ("partition=given", "partition.file: a value is required"),
        ("partition.clientz=3", "partition.clientz: there is no such setting"),
        ("federation.rounds=many", "federation.rounds: "),
        ("schema=federation.json", "schema: a file is read by subfl deploy submit and by flwr run alone"),
        (
            "schema.features=64",
            "schema: runtime=inline takes it from the data that it has; it is stated with runtime=de",
        ),
        ("seed=[1", "[1"),
        ("seed=0,1", "seed=0,1: has several values; subfl -m seed=0,1 trains a run with each"),
        ("method.strategy=strategies.nowhere.Nothing", "method.strategy: cannot import"),
        ("method.client=subfl_flower.strategies.subgraphs.local.Local", "method.client: "),
        ("runtime.device=abacus", "runtime.device: 'abacus'"),
        ("runtime.device=cuda:77", "runtime.device: 'cuda:77'"),
        ("dataset=custom", "dataset: give either dataset.path"),
        ("dataset=custom dataset.path=nowhere.pt", "nowhere.pt does not exist"),
        ("data.cache=/proc/subfl", "/proc/subfl"),
        ("hydra.run.dir=/proc/subfl", "/proc/subfl"),
        ("logger=wandb", "wandb"),
    ],
)
def test_bad_input_is_one_sentence_exit_code_2_and_no_files(subfl: Subfl, arguments: str, words: str) -> None:
    outcome = subfl(*arguments.split())
    assert outcome.code == 2
    lines = outcome.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("subfl: ") and words in lines[0] and len(lines[0]) < 500
    assert not outcome.directory.exists() and outcome.stdout == ""


def test_refused_data_leave_no_folder(subfl: Subfl, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    outcome = subfl("partition.clients=5000", f"hydra.run.dir={tmp_path / 'mine' / 'day' / 'time'}")
    assert outcome.code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine"] and not any((tmp_path / "mine").iterdir())


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("", "hydra.run.dir: a folder is required"),
        ("file", "file is not a folder; choose another folder (hydra.run.dir=...)"),
        ("file/run", "file/run cannot be made: File exists; choose another folder (hydra.run.dir=...)"),
        ("link", "link cannot be made: File exists; choose another folder (hydra.run.dir=...)"),
        ("a" * 300, "cannot be made: File name too long; choose another folder (hydra.run.dir=...)"),
    ],
)
def test_a_folder_that_cannot_be_made_is_one_sentence(subfl: Subfl, tmp_path: Path, folder: str, words: str) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    outcome = subfl("method=fedavg", f"hydra.run.dir={folder}")
    (line,) = outcome.stderr.splitlines()
    assert outcome.code == 2 and words in line
    assert files(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "mine"


def test_a_home_folder_is_no_folder_with_the_name_of_a_wave(
    subfl: Subfl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    outcome = subfl(*SMALL_DIGITS, "federation.rounds=1", "hydra.run.dir=~/run")
    assert outcome.code == 0 and RunDirectory.is_run(tmp_path / "home" / "run") and not (tmp_path / "~").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--config-dir=conf", "seed=x", "hydra.run.dir=new/day/time"),
        ("--config-dir=conf", "seed=x", "hydra.run.dir=${now:%Y}/day"),
        ("-m", "seed=x,y", "hydra.sweep.dir=new/sweep"),
        ("-m", "method=fedavg,fedpubb", "hydra.sweep.dir=new/sweep"),
        ("-m", "method=fedavg", "sweep.jobs=0", "hydra.sweep.dir=new"),
    ],
)
def test_refused_settings_leave_no_folder_where_hydra_makes_it_first(
    subfl: Subfl, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "conf").mkdir()
    outcome = subfl(*arguments)
    assert outcome.code == 2 and len(outcome.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["conf"]


def test_the_real_command_ends_with_code_2_and_one_sentence(tmp_path: Path) -> None:
    outcome = command("method.tau=-1", directory=tmp_path / "run", cwd=tmp_path)
    assert outcome.code == 2 and outcome.stdout == ""
    (line,) = outcome.stderr.strip().splitlines()
    assert line.startswith("subfl: method.tau: ") and "-1" in line
    assert files(tmp_path) == []


def test_a_folder_that_holds_a_run_is_not_written_to(subfl: Subfl) -> None:
    assert subfl(*SMALL_DIGITS, "federation.rounds=1").code == 0
    before = {name: (subfl_run / name).read_bytes() for subfl_run in [Path("run")] for name in files(subfl_run)}
    outcome = subfl(*SMALL_DIGITS, "federation.rounds=2")
    assert outcome.code == 2 and "already holds a run" in outcome.stderr
    assert {name: (Path("run") / name).read_bytes() for name in files(Path("run"))} == before


def test_a_run_says_where_it_is_and_leaves_everything(subfl: Subfl) -> None:
    outcome = subfl(*SMALL_DIGITS, "federation.rounds=3", "record.mixing_every=2")
    assert outcome.code == 0 and f"run directory: {outcome.directory}" in outcome.stdout
    assert outcome.stderr == REMARK
    assert files(outcome.directory) == sorted(
        [
            "config.yaml",
            "data.json",
            "metrics.jsonl",
            "mixing.npz",
            "summary.json",
            *(f"clients/{c:04d}.safetensors" for c in range(10)),
        ]
    )
    summary = outcome.summary
    assert (summary["status"], summary["method"], summary["dataset"], summary["seed"]) == (
        *("completed", "fedpub", "digits"),
        0,
    )
    rounds = outcome.rounds
    assert [record["round"] for record in rounds] == [1, 2, 3] and sorted(outcome.mixing) == [2, 3]
    best = max(rounds, key=lambda record: record["validation"])
    assert summary["test_at_best_validation"] == pytest.approx(best["test"]) and summary["best_round"] == best["round"]
    assert summary["bytes_up"] == sum(sum(record["clients"]["bytes_up"]) for record in rounds)
    for record in rounds:
        assert record["test"] == pytest.approx(sum(record["clients"]["test"]) / 10)
    for matrix in outcome.mixing.values():
        assert matrix.shape == (10, 10) and matrix.sum(1) == pytest.approx([1.0] * 10, abs=1e-5)
    assert RunDirectory(outcome.directory).config()["federation"]["rounds"] == 3


def test_client_models_are_left_out_where_not_wanted(subfl: Subfl) -> None:
    outcome = subfl(*SMALL_DIGITS, "federation.rounds=1", "record.client_models=false")
    assert not (outcome.directory / "clients").exists() and outcome.code == 0


def test_a_failing_job_is_recorded_and_the_sweep_goes_on(subfl: Subfl, tmp_path: Path) -> None:
    outcome = subfl(
        "-m",
        *SMALL_DIGITS,
        f"hydra.sweep.dir={tmp_path / 'sweep'}",
        "hydra.sweep.subdir=${hydra.job.num}",
        "federation.rounds=1",
        "partition.clients=5000,5,4,0",
    )
    assert outcome.code == 1
    jobs = [Outcome(tmp_path / "sweep" / str(job)) for job in range(4)]
    assert [job.summary["status"] for job in jobs] == ["failed", "completed", "completed", "failed"]
    assert "5000" in jobs[0].summary["error"] and "partition.clients" in jobs[3].summary["error"]
    assert [job.summary["clients"] for job in jobs[1:3]] == [5, 4]
    assert "Traceback" not in outcome.stderr and "2 job(s) of the sweep failed" in outcome.stderr
    assert "5000 is more than" in outcome.stderr


def test_a_sweep_without_failures_ends_with_0(subfl: Subfl, tmp_path: Path) -> None:
    outcome = subfl(
        "-m", *SMALL_DIGITS[:2], f"hydra.sweep.dir={tmp_path / 's'}", "federation.rounds=1", "method=local,fedavg"
    )
    assert outcome.code == 0 and outcome.stderr == REMARK  # once, not for each job
    (local,) = (tmp_path / "s").glob("local-digits-seed0-*")
    (fedavg,) = (tmp_path / "s").glob("fedavg-digits-seed0-*")
    assert [Outcome(job).summary["method"] for job in (local, fedavg)] == ["local", "fedavg"]


USER_MODULE = """
from dataclasses import replace
import numpy as np
from pydantic import Field
from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.strategies.subgraphs.mixing import MixingStrategy


class Ring(MixingStrategy):
    class Settings(MixingStrategy.Settings):
        own: float = Field(default=0.5, ge=0, le=1)

    def mixing_matrix(self, updates):
        count = len(self.roster)
        return self.settings.own * np.eye(count) + (1 - self.settings.own) * np.roll(np.eye(count), 1, axis=1)


class Shouting(SubgraphClient):
    class Settings(SubgraphClient.Settings):
        loudness: int = 1

    def train_chunk(self, batch, state):
        result = super().train_chunk(batch, state)
        return replace(result, arrays={name: value * self.settings.loudness for name, value in result.arrays.items()})
"""
USER_METHOD = "name: ring\nstrategy: ring_method.Ring\nclient: ring_method.Shouting\nown: 0.75\nloudness: 2\n"


def test_a_method_of_ones_own_needs_a_module_and_a_yaml_file(tmp_path: Path) -> None:
    """By the real command, as a user has it: both files in the working directory."""
    (tmp_path / "ring_method.py").write_text(USER_MODULE)
    (tmp_path / "conf" / "method").mkdir(parents=True)
    (tmp_path / "conf" / "method" / "ring.yaml").write_text(USER_METHOD)
    arguments = ("--config-dir", "conf", "method=ring", "dataset=digits", "model.hidden=8", "federation.rounds=1")
    env = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    outcome = command(*arguments, directory=tmp_path / "run", cwd=tmp_path, env=env)
    assert outcome.code == 0, outcome.stderr
    assert outcome.summary["method"] == "ring"
    matrix = outcome.mixing[1]
    assert matrix.diagonal().tolist() == [0.75] * 10 and matrix[0, 1] == 0.25 == matrix[9, 0]

    wrong = command(*arguments, "method.own=2", directory=tmp_path / "wrong", cwd=tmp_path, env=env)
    assert wrong.code == 2 and "method.own: " in wrong.stderr and files(tmp_path / "wrong") == []
    unknown = command(*arguments, "+method.quiet=2", directory=tmp_path / "wrong", cwd=tmp_path, env=env)
    assert unknown.code == 2 and "loudness, own, personal_layers, proximal" in unknown.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "{}"],
        ["analyse", "{}"],
        ["predict", "{}"],
        ["recommend", "{}", "user=1"],
        ["resume={}"],
        ["inspect", "dataset=custom", "dataset.path={}"],
        ["dataset=custom", "dataset.path={}"],
        ["partition", "dataset=sbm", "out={}"],
        ["--code", "{}", "dataset=sbm"],
    ],
)
def test_a_path_that_the_system_refuses_is_bad_input(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["subfl"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    name = "a" * 300  # file systems take 255 bytes
    with pytest.raises(SystemExit) as ended:
        main([each.format(name) for each in arguments])
    assert ended.value.code == 2
    _, err = capfd.readouterr()
    assert err.startswith("subfl")
    assert err.count("\n") == 1
    assert name in err
    assert err.endswith(" cannot be used: File name too long\n")


@pytest.mark.parametrize(
    ("arguments", "baseline", "words"),
    [
        (("method=fedavg", "dataset=synthetic_ratings", "task=ranking"), "popularity", "popularity on the same items"),
        (("method=fedgnn", "dataset=synthetic_ratings"), "bias_row", "bias row on the same ratings"),
    ],
)
def test_a_result_is_held_against_what_needs_no_taste(
    subfl: Subfl, arguments: tuple[str, ...], baseline: str, words: str
) -> None:
    small = ("dataset.num_users=24", "dataset.num_items=130", "dataset.ratings_per_user=12", "model.dim=4")
    outcome = subfl(*arguments, *small, "federation.rounds=1")
    assert outcome.code == 0, outcome.stderr
    assert f"{words}: test {outcome.summary[baseline]['test']:.4f}" in outcome.stdout.splitlines()

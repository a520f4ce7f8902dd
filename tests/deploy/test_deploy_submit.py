import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from deploy_answers import Answer
from flwr.common.config import parse_config_args
from path_names import ALL_IN_ONE, AWKWARD_NAMES

from subfl_flower.composition import composed_job
from subfl_flower.data.federation_schema import FEDERATION_FILE, FederationSchema
from subfl_flower.deploy import submission as deploy_submission
from subfl_flower.flower import submission
from subfl_flower.flower.programs import Flower
from subfl_flower.flower.submission import COMPLETED, INTERRUPTED, NOT_STARTED, Outcome, submit
from subfl_flower.registry import validate

STARTED = "print('Successfully started run 7', flush=True)"
ENDS = f"{STARTED}; print('run directory: /runs/a b')"
GOES_ON = f"import time; {STARTED}; time.sleep(600)"


class Scripted(Flower):
    """Flower's command line: `flwr run` is a program of the test's, and what `flwr ls` says is known beforehand."""

    def __init__(self, program: str, *statuses: str) -> None:
        super().__init__({}, "lab")
        object.__setattr__(self, "program", program)
        object.__setattr__(self, "statuses", list(statuses))
        object.__setattr__(self, "asked", [])

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        self.asked.append(arguments)  # type: ignore[attr-defined]
        command = [sys.executable, "-c", self.program]  # type: ignore[attr-defined]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self, *arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        self.asked.append(arguments)  # type: ignore[attr-defined]
        return subprocess.CompletedProcess(arguments, 0, "", "")

    def run_status(self, run_id: str) -> tuple[str, str]:
        assert run_id == "7"
        return self.statuses.pop(0), "why"  # type: ignore[attr-defined]


def never() -> bool:
    return False


def test_a_log_that_breaks_off_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "_STATUS_SECONDS", 0.01)
    flower = Scripted(ENDS, "starting", "running", "running", COMPLETED)
    assert submit(flower, tmp_path, never) == Outcome(COMPLETED, "why", Path("/runs/a b"))
    assert flower.statuses == []  # type: ignore[attr-defined]
    run = ("run", str(tmp_path / "app"), "lab", "--stream", "--run-config", str(tmp_path / "run-config.toml"))
    assert flower.asked == [run]  # type: ignore[attr-defined]


def test_the_folder_is_read_from_a_log_in_json_as_well(tmp_path: Path) -> None:
    line = '{"event": "run directory", "message": "run directory: /runs/a b"}'
    assert submit(Scripted(f"{STARTED}; print('{line}')", COMPLETED), tmp_path, never).run_directory == Path(
        "/runs/a b"
    )


def test_a_superlink_that_no_longer_answers_is_not_waited_for(tmp_path: Path) -> None:
    assert submit(Scripted(ENDS, "unknown"), tmp_path, never).status == "unknown"


def test_an_interrupt_before_the_run_has_a_number_stops_it_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flower = Scripted(GOES_ON)
    assert submit(flower, tmp_path, lambda: True) == Outcome(INTERRUPTED)
    assert flower.asked[1:] == [("stop", "7", "lab")]  # type: ignore[attr-defined]
    assert capsys.readouterr().err == "stopping run 7\n"


def test_a_refused_run_is_not_started(tmp_path: Path) -> None:
    outcome = submit(Scripted("import sys; sys.exit(3)"), tmp_path, never)
    assert outcome == Outcome(NOT_STARTED, "flwr run ended with code 3, as said above")


@pytest.mark.parametrize(
    ("outcome", "code", "line"),
    [
        (Outcome(COMPLETED, "", Path("/runs/a")), 0, "run directory on the SuperLink's machine: /runs/a"),
        (Outcome(INTERRUPTED), 130, "subfl deploy: the run was stopped"),
        (Outcome(NOT_STARTED, "code 1"), 1, "subfl deploy: the run did not start: code 1"),
        (
            Outcome("finished:failed", "no data"),
            1,
            "subfl deploy: the run did not complete, it is finished:failed: no data",
        ),
        (
            Outcome("unknown", "silence"),
            1,
            "subfl deploy: the SuperLink does not answer; the run may go on, flwr ls lab tells",
        ),
    ],
)
def test_the_exit_code_tells_the_runs_true_end(
    outcome: Outcome, code: int, line: str, deploy: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, ...]] = []

    def submit_run(*arguments: object) -> Outcome:
        asked.append(arguments)
        return outcome

    monkeypatch.setattr(deploy_submission, "submit_run", submit_run)
    answer = deploy("submit", "method=fedavg", "--connection", "lab", "seed=1", "--app", "here")
    assert asked == [(["method=fedavg", "seed=1"], "lab", Path("here"))]
    assert answer.code == code
    assert answer.out + answer.err == [line]


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ([], "by schema=FILE, the federation.json that subfl partition wrote, or by schema.features=... and schema.cl"),
        (["schema.features=64"], "by schema=FILE, the federation.json that subfl partition wrote, or by schema.featur"),
        (["method=fedgnn"], "by schema=FILE, the federation.json that subfl partition wrote, or by schema.items=..."),
        (["schema=nowhere.json"], "nowhere.json cannot be read: No such file or directory"),
        (["schema.items=3"], "schema.items: dataset=digits holds a graph; only data of the other kind have items"),
        (["schema.clients=[0,0]"], "schema.clients: must be different ids from 0 to 2147483647, or ranges of them"),
    ],
)
def test_nothing_starts_without_a_schema(overrides: list[str], reason: str, deploy: Callable[..., Answer]) -> None:
    answer = deploy("submit", *overrides, "--connection", "nowhere")  # looked for only after that
    assert answer.code == 2 and answer.out == []
    assert len(answer.err) == 1 and reason in answer.err[0]


def test_folders_of_any_name_reach_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration staged for `flwr run` names the folders, read as Flower and then the server app read it."""
    files: list[str] = []
    keys = {"partition": "0" * 16, "names": "1e15" + "0" * 12, "features": 3, "classes": 2}
    schema = FederationSchema.model_validate({"dataset": "custom", "clients": [4, "0-2"], "overlapping": True, **keys})

    def staged(_app: None, run_config: str, _folder: Path, own: None) -> None:
        files.append(run_config)

    monkeypatch.setattr(deploy_submission, "stage", staged)
    monkeypatch.setattr(deploy_submission, "submit", lambda *_: Outcome(COMPLETED))
    monkeypatch.setattr(deploy_submission, "require_connection", lambda _: None)
    for name in (*AWKWARD_NAMES, ALL_IN_ONE):
        folder = tmp_path / name
        folder.mkdir()
        schema.write(folder / FEDERATION_FILE)
        overrides = ["dataset=custom", f"dataset.path=/x/{name}", f"hydra.run.dir={name}"]
        overrides.append(f"schema={folder / FEDERATION_FILE}")
        deploy_submission.submit_run(overrides, "lab", None)
        (folder / FEDERATION_FILE).unlink()  # what is submitted needs no file
        file = tmp_path / "run-config.toml"
        file.write_text(files[-1], encoding="utf-8")
        job = composed_job(shlex.split(str(parse_config_args([str(file)])["overrides"])))
        assert job.config.runtime.name == "deploy" and job.directory == Path(name)
        assert job.config.plain()["dataset"]["path"] == f"/x/{name}"
        assert job.config.data_schema == schema and validate(job.config.plain()) == job.config
    deploy_submission.submit_run([f"resume=/runs/{ALL_IN_ONE}", f"data.root={ALL_IN_ONE}"], "lab", None)
    file.write_text(files[-1], encoding="utf-8")
    line = str(parse_config_args([str(file)])["overrides"])
    assert shlex.split(line) == [f"resume=/runs/{ALL_IN_ONE}", f"data.root={ALL_IN_ONE}"]

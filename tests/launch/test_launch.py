"""Launch of a small Flower app: `subfl launch` in a separate process, a SuperLink, and Ray."""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from subfl_flower.runs.directory import RunDirectory

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "from subfl_flower.cli import main; main()"
OVERRIDES = ["method=fedpub", "seeds=[0,1]", "names={a:1,b:'two words'}", 'note="it\'s quoted"']

PYPROJECT = """
[project]
name = "toy"
version = "1.0.0"
description = "answers with the number of its partition"
license = "Apache-2.0"
[tool.flwr.app]
publisher = "toy"
[tool.flwr.app.components]
serverapp = "toy.app:server"
clientapp = "toy.app:client"
[tool.flwr.app.config]
overrides = ""
"""

APP = """
import json, time
from pathlib import Path
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

client = ClientApp()
server = ServerApp()

@client.query()
def partition(message, context):
    answer = ConfigRecord({"partition": context.node_config["partition-id"]})
    return Message(RecordDict({"answer": answer}), reply_to=message)

@server.main()
def main(grid, context):
    overrides = context.run_config["overrides"]
    if "fail" in overrides:
        raise ValueError("the toy was told to fail")
    while len(nodes := list(grid.get_node_ids())) < 2:
        time.sleep(0.1)
    replies = grid.send_and_receive([Message(RecordDict(), node, "query") for node in nodes])
    answers = [reply.content["answer"]["partition"] for reply in replies]
    if "sleep" in overrides:
        print("asleep", flush=True)
        time.sleep(600)
    Path("echo.json").write_text(json.dumps({"overrides": overrides, "partitions": sorted(answers)}))
    print("run directory: outputs/run", flush=True)
"""


@dataclass
class Launch:
    """`subfl launch` at work, what it printed so far, and every process that was ever seen below it."""

    process: subprocess.Popen[str]
    output: list[str] = field(default_factory=list)
    below: set[psutil.Process] = field(default_factory=set)
    names: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.output.extend(iter(self.process.stdout.readline, ""))

    def _watch(self) -> None:
        launching = psutil.Process(self.process.pid)
        while self.process.returncode is None:
            try:
                for process in launching.children(recursive=True):
                    self.below.add(process)
                    self.names.add(process.name())
            except psutil.Error:
                pass
            time.sleep(0.05)

    @property
    def text(self) -> str:
        return "".join(self.output)

    def wait_for(self, condition: Callable[[], bool], seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None and time.monotonic() < deadline, self.text
            time.sleep(0.05)

    def code(self) -> int:
        return self.process.wait(timeout=400.0)

    def left(self) -> list[psutil.Process]:
        """Processes still running of those seen, zombies included, two seconds after the end at most."""
        deadline = time.monotonic() + 2.0
        while (left := [p for p in self.below if p.is_running()]) and time.monotonic() < deadline:
            time.sleep(0.1)
        return left


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    (folder / "toy").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PYPROJECT)
    (folder / "toy" / "__init__.py").touch()
    (folder / "toy" / "app.py").write_text(APP)
    run = RunDirectory.create(folder / "outputs" / "run")
    run.write_config({"method": {"name": "toymethod"}, "dataset": {"name": "toydata"}, "seed": 0})
    return folder


@pytest.fixture
def launch() -> Iterator[Callable[..., Launch]]:
    launches: list[Launch] = []

    def start(*argv: str, cwd: Path) -> Launch:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "launch", *argv, "--supernodes", "2"],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        launches.append(Launch(process))
        return launches[-1]

    yield start
    for started in launches:
        for process in started.below if started.process.poll() is None else started.left():
            process.kill()
        started.process.kill()
        started.process.wait()


def kept_files(home: Path) -> list[str]:
    return sorted(path.name for path in home.rglob("*") if path.is_file())


@pytest.mark.slow
def test_two_at_once_one_completes_and_one_fails(app: Path, launch: Callable[..., Launch]) -> None:
    good = launch(*OVERRIDES, cwd=app)
    bad = launch("fail=1", "--app", str(app), "--home", str(app.parent / "home"), cwd=app.parent)

    assert good.code() == 0, good.text
    echo = json.loads((app / "echo.json").read_text())
    assert shlex.split(echo["overrides"]) == OVERRIDES
    assert echo["partitions"] == [0, 1]
    assert "run directory: outputs/run" in good.text
    assert "toymethod" in good.text.split("run directory: outputs/run")[1]
    assert not (app / ".flwr").exists()

    assert bad.code() == 1, bad.text
    last = bad.text.splitlines()[-1]
    log = app.parent / "home" / "launches"
    assert last.startswith("subfl launch: the run did not complete, it is finished:failed: ")
    assert "the toy was told to fail" in last and str(log) in last
    assert kept_files(log) == ["superlink.log"]

    assert {"flower-superlink"[:15], "flwr-simulation", "raylet"} <= good.names
    assert good.left() == [] and bad.left() == []


def test_ctrl_c_stops_the_run_and_leaves_nothing(app: Path, launch: Callable[..., Launch]) -> None:
    early = launch(cwd=app)
    late = launch("sleep=1", cwd=app)
    early.wait_for(lambda: "flower-superlink"[:15] in early.names)
    early.process.send_signal(signal.SIGTERM)
    late.wait_for(lambda: "asleep" in late.text)
    late.process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    late.process.send_signal(signal.SIGINT)  # an impatient second one must not cut the clean-up short

    assert early.code() == 130, early.text
    assert late.code() == 130, late.text
    assert "stopping run" in late.text
    assert late.text.splitlines()[-1] == "subfl launch: the run was stopped"
    assert not (app / "echo.json").exists()
    assert "raylet" in late.names
    assert early.left() == [] and late.left() == []


@pytest.mark.slow
def test_when_flwr_run_refuses_the_app_its_words_are_shown(app: Path, launch: Callable[..., Launch]) -> None:
    (app / "pyproject.toml").write_text(PYPROJECT.replace('publisher = "toy"', ""))
    refused = launch(cwd=app)
    assert refused.code() == 1
    assert 'Property "publisher" missing' in refused.text
    last = refused.text.splitlines()[-1]
    assert last.startswith("subfl launch: the run did not start: flwr run ended with code 1, as said above")
    assert refused.left() == []

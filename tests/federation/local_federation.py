"""A federation on this machine: real SuperLink and SuperNode processes on loopback, with TLS and authentication."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from run_outcomes import SUBFL, Outcome

from subfl_flower.cli import main as subfl
from subfl_flower.composition import resumes
from subfl_flower.flower.process_tree import MARKER, LaunchProcesses

_CONNECTION = "lab"
_PATIENCE = 240.0


def command(*arguments: object) -> None:
    """A `subfl` command in this process; it must succeed."""
    try:
        subfl([str(argument) for argument in arguments])
    except SystemExit as exit_:
        assert not exit_.code, arguments


def wait_for(what: Callable[[], Any], meaning: str, patience: float = _PATIENCE) -> Any:
    deadline = time.monotonic() + patience
    while not (found := what()):
        assert time.monotonic() < deadline, f"{meaning}: did not happen within {patience:.0f} s"
        time.sleep(0.1)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def kill(process: subprocess.Popen[bytes] | psutil.Process) -> None:
    """SIGKILL for a process and all that it started, as when the machine dies."""
    tree = [psutil.Process(process.pid)]
    tree += tree[0].children(recursive=True)
    for member in tree:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    if isinstance(process, subprocess.Popen):
        process.wait(timeout=10)


@contextmanager
def held_up(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """A process and all below it do nothing for this time."""
    members = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in members:
        member.suspend()
    try:
        yield
    finally:
        for member in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.resume()


@dataclass
class LocalFederation:
    """Folders, keys and processes of one federation.

    Attributes:
        folder: everything is below it.
        launch_id: marks every process, so that none is left behind.
        schema: the file that every new run is submitted with.
    """

    folder: Path
    launch_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    port: int = field(default_factory=free_port)
    schema: Path | None = None
    superlink: subprocess.Popen[bytes] | None = None
    nodes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def opened(cls, folder: Path) -> Iterator[LocalFederation]:
        """With certificates; whatever it started is ended, and Flower's home put back."""
        federation = cls(folder)
        (folder / "modules").mkdir()
        command("deploy", "certificates", folder / "certificates", "--host", "127.0.0.1")
        try:
            yield federation
        finally:
            left = LaunchProcesses(federation.launch_id).end(grace=1.0)
            assert not left, f"these processes could not be ended: {left}"

    def environment(self, home: str) -> dict[str, str]:
        (self.folder / home).mkdir(exist_ok=True)
        return {
            **os.environ,
            MARKER: self.launch_id,
            "FLWR_HOME": str(self.folder / home),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(self.folder / "modules"), os.environ.get("PYTHONPATH")])),
        }

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def _start(self, name: str, *arguments: object) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [str(SUBFL), *map(str, arguments)],
                cwd=self.folder,
                env=self.environment(f"home-{name}"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def start_superlink(self, *options: object) -> None:
        """Start it, or start it again, and wait until it listens."""
        certificates = ("--certificates", self.folder / "certificates", "--database", self.folder / "superlink.db")
        self.superlink = process = self._start(
            "superlink", "deploy", "superlink", "--host", "127.0.0.1", "--port", self.port, *certificates, *options
        )

        def listens() -> bool:
            assert process.poll() is None, self.log("superlink")
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        wait_for(listens, "the SuperLink listens")
        os.environ["FLWR_HOME"] = str(self.folder / "home-user")
        (self.folder / "home-user").mkdir(exist_ok=True)
        ca = self.folder / "certificates" / "ca.crt"
        command("deploy", "connect", _CONNECTION, "--address", f"127.0.0.1:{self.port}", "--root-certificates", ca)

    def server_app(self) -> psutil.Process:
        """The process that runs the ServerApp."""
        assert self.superlink is not None
        started = psutil.Process(self.superlink.pid).children(recursive=True)
        (found,) = [process for process in started if "flwr-serverapp" in " ".join(process.cmdline())]
        return found

    def key(self, name: str, register: bool = True) -> Path:
        key = self.folder / f"{name}.key"
        if not key.exists():
            command("deploy", "key", key)
        if register:
            command("deploy", "register", f"{key}.pub", "--connection", _CONNECTION)
        return key

    def start_node(
        self,
        name: str,
        *clients: Path,
        key: Path,
        ca: Path | None = None,
        allowed: Sequence[str] = ("held_clients",),
        warm: bool = True,
        options: Sequence[object] = (),
    ) -> None:
        """Start a SuperNode, or start it again; runs may name classes of the `allowed` packages."""
        folders: list[object] = [argument for client in clients for argument in ("--client", client)]
        trusted = ("--root-certificates", ca or self.folder / "certificates" / "ca.crt")
        folders.append("--warm" if warm else "--no-warm")
        hosted = folders + [argument for package in allowed for argument in ("--allow-package", package)]
        address = ("--superlink", f"127.0.0.1:{self.port}")
        self.nodes[name] = self._start(name, "deploy", "supernode", *address, *trusted, "--key", key, *hosted, *options)

    def start_node_unchecked(self, name: str, client: Path, key: Path) -> None:
        """A SuperNode that Flower's own command starts: nobody looks at the client's folder before."""
        environment = {**self.environment(f"home-{name}"), "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1"}
        with (self.folder / f"{name}.log").open("ab") as log:
            self.nodes[name] = subprocess.Popen(
                [
                    str(Path(sys.executable).with_name("flower-supernode")),
                    *("--superlink", f"127.0.0.1:{self.port}", "--host", "127.0.0.1", "--port", str(free_port())),
                    *("--root-certificates", str(self.folder / "certificates" / "ca.crt")),
                    *("--auth-supernode-private-key", str(key), "--node-config", f'client="{client}"'),
                ],
                env={**environment, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @contextmanager
    def visited_by(self, *names: str) -> Iterator[None]:
        """SuperNodes of these names may be started, and are ended."""
        try:
            yield
        finally:
            for name in set(names) & set(self.nodes):
                if (node := self.nodes.pop(name)).poll() is None:
                    kill(node)
                (self.folder / f"{name}.log").unlink()

    def wait_for_node(self, name: str) -> None:
        """Until it is connected for the first time."""

        def connected() -> bool:
            assert self.nodes[name].poll() is None, self.log(name)
            return "SuperNode ID" in self.log(name)

        wait_for(connected, f"the SuperNode {name} is connected")

    def submit(self, *overrides: str) -> subprocess.Popen[bytes]:
        """Start a run, or resume one; `outcome` waits for it."""
        (self.folder / "user.log").unlink(missing_ok=True)
        schema = [] if resumes(overrides) else [f"schema={self.schema}"]
        return self._start("user", "deploy", "submit", *schema, *overrides, "--connection", _CONNECTION)

    def run_directory(self) -> Path | None:
        """The folder that the run names in its log, once it has named it."""
        found = re.search(r"run directory: (\S+)", self.log("user"))
        return Path(found[1]) if found else None

    def outcome(self, process: subprocess.Popen[bytes], timeout: float = 420.0) -> Outcome:
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the run did not end within {timeout:.0f} s: {self.log('user')}") from None
        directory = self.run_directory()
        assert directory is not None, self.log("user")
        return Outcome(directory, code, self.log("user"), self.log("superlink"))


def copied_client(folder: Path, to: Path) -> Path:
    """A copy of a client's folder, without what runs left in it."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("runs"))
    return to


def shared_arguments(*extra: str) -> Sequence[str]:
    """A FED-PUB run of seconds."""
    return ("method=fedpub", "dataset=digits", "model.hidden=16", *extra)

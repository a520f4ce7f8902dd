"""A SuperLink of one's own, and Flower's command line pointed at it."""

import http.client
import json
import os
import socket
import subprocess
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from subfl_flower.errors import SubflError
from subfl_flower.launch.processes import MARKER

CONNECTION = "launch"

_START_ATTEMPTS = 3
_START_SECONDS = 90.0
_QUIET_RAY = "ignore::FutureWarning:ray._private.worker"
_TASK_POLL_SECONDS = "0.2"


def launch_environment(home: Path, ray_folder: Path, launch_id: str) -> dict[str, str]:
    """The environment of everything that a launch starts.

    Args:
        home: Flower's home of this launch alone (configuration, installed app).
        ray_folder: Ray's folder for sockets and logs. Unix sockets allow 107 characters, so it must be short.
        launch_id: the mark by which the launch's processes are found again.
    """
    environment = dict(os.environ)

    def prepend(name: str, value: str, separator: str) -> None:
        rest = environment.get(name)
        environment[name] = f"{value}{separator}{rest}" if rest else value

    prepend("PATH", sysconfig.get_path("scripts"), os.pathsep)
    prepend("PYTHONWARNINGS", _QUIET_RAY, ",")
    for name in ("NO_PROXY", "no_proxy"):
        prepend(name, "127.0.0.1,localhost", ",")
    environment.update(
        {
            MARKER: launch_id,
            "FLWR_HOME": str(home),
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": _TASK_POLL_SECONDS,
            "FLWR_TELEMETRY_ENABLED": "0",
            "PYTHONUNBUFFERED": "1",
            "RAY_TMPDIR": str(ray_folder),
            "RAY_USAGE_STATS_ENABLED": "0",
            # Flower's actors carry a runtime environment, which workers started in advance do not have.
            "RAY_prestart_worker_first_driver": "0",
        }
    )
    return environment


@dataclass(frozen=True)
class SuperLink:
    """A running SuperLink in simulation mode, its state in memory, reachable from this machine only."""

    process: subprocess.Popen[str]
    environment: dict[str, str]
    log: Path

    def flwr(self, *arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Runs `flwr ARGUMENTS` to its end and captures what it prints.

        Raises:
            subprocess.TimeoutExpired: when it takes longer than `timeout` seconds.
        """
        return subprocess.run(
            ["flwr", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            start_new_session=True,
        )

    def flwr_streaming(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts `flwr ARGUMENTS`, output and errors in one pipe, out of reach of the terminal's Ctrl-C."""
        return subprocess.Popen(
            ["flwr", *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )

    def run_status(self, run_id: str) -> tuple[str, str]:
        """What the SuperLink says of a run: its status, such as `finished:completed`, and the reason.

        The status is `unknown` when the SuperLink gives no answer.
        """
        try:
            answer = self.flwr("ls", CONNECTION, "--run-id", run_id, "--format", "json")
            run: dict[str, Any] = json.loads(answer.stdout)["runs"][0]
        except (subprocess.TimeoutExpired, ValueError, LookupError):
            return "unknown", "the SuperLink does not say how it ended"
        return str(run["status"]), " ".join(str(run["status-details"]).split())


def start_superlink(
    app: Path, home: Path, environment: dict[str, str], interrupted: Callable[[], bool]
) -> SuperLink | None:
    """Starts a SuperLink on a free port and waits until it answers.

    Args:
        app: its working directory, and that of the ServerApp: relative paths are meant from here.
        home: gets `config.toml` with the connection `CONNECTION`, and `superlink.log`.
        environment: as `launch_environment` makes it.
        interrupted: asked while waiting; when true the wait is given up.

    Returns:
        The SuperLink, or `None` when interrupted.

    Raises:
        SubflError: when it does not start.
    """
    log = home / "superlink.log"
    for _ in range(_START_ATTEMPTS):
        port = _free_port()
        command = ["flower-superlink", "--insecure", "--simulation", "--isolation", "subprocess"]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        try:
            with log.open("a") as output:
                process = subprocess.Popen(
                    command,
                    cwd=app,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    text=True,
                    start_new_session=True,
                )
        except FileNotFoundError as error:
            folder = sysconfig.get_path("scripts")
            raise SubflError(f"no flower-superlink in {folder}: install the package with pip") from error
        config = f'[superlink.{CONNECTION}]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
        (home / "config.toml").write_text(config, encoding="utf-8")
        deadline = time.monotonic() + _START_SECONDS
        while process.poll() is None:
            if interrupted():
                return None
            if _listens(process.pid, port) and _healthy(port):
                return SuperLink(process, environment, log)
            if time.monotonic() > deadline:
                raise SubflError(f"the SuperLink did not answer within {_START_SECONDS:.0f} s; its log is {log}")
            time.sleep(0.05)
    raise SubflError(f"the SuperLink ended with code {process.returncode} while starting; its log is {log}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(pid: int, port: int) -> bool:
    """Whether it is this very process that listens: another may have taken the port in the meantime."""
    try:
        connections = psutil.Process(pid).net_connections(kind="tcp")
    except psutil.Error:
        return False
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections)


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2.0)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()

"""Flower's command line: its environment, and commands pointed at one SuperLink."""

import json
import math
import os
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subfl_flower.errors import SubflError

UNKNOWN = "unknown"

WARM_SUPERNODE = "subfl_flower.flower.warm.supernode"
"""The module that stands for `flower-supernode` where messages are handled by forks."""

# Without these Flower installs the app's dependencies again for every run, looks for updates and reports its use; and
# the process that starts apps would look for work every three seconds only.
SETTINGS = {
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
    "FLWR_TELEMETRY_ENABLED": "0",
    "PYTHONUNBUFFERED": "1",
}

# Flower's processes on one machine talk over its loopback interface, whatever proxy the machine uses.
PROXY_EXCEPTIONS = ("NO_PROXY", "no_proxy")
LOCAL_HOSTS = "127.0.0.1,localhost"


def ray_settings(patience: float) -> dict[str, str]:
    """Environment variables for a process that starts Ray.

    Args:
        patience: seconds that a process of Ray's may take to start. Ray itself ends it after 60 seconds and starts it
            again, without end on a busy machine.
    """
    return {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_register_timeout_seconds": str(math.ceil(patience))}


def scripts_folder() -> str:
    """The folder of this environment's programs; Flower starts its programs by name, so it must be on `PATH`."""
    return sysconfig.get_path("scripts")


def program(name: str) -> str:
    """The path of one of Flower's programs.

    Raises:
        SubflError: when it is not installed.
    """
    path = Path(scripts_folder()) / name
    if not path.is_file():
        raise SubflError(f"no {name} in {scripts_folder()}: install the package with pip")
    return str(path)


def flower_environment() -> dict[str, str]:
    """This process's environment with what Flower's programs need to run the app."""
    environment = dict(os.environ)
    prepend(environment, "PATH", scripts_folder(), os.pathsep)
    for name in PROXY_EXCEPTIONS:
        prepend(environment, name, LOCAL_HOSTS, ",")
    environment.update(SETTINGS)
    return environment


def prepend(environment: dict[str, str], name: str, value: str, separator: str) -> None:
    """Put a value before those that an environment variable lists."""
    rest = environment.get(name)
    environment[name] = f"{value}{separator}{rest}" if rest else value


@dataclass(frozen=True)
class Flower:
    """`flwr` commands to the SuperLink of `connection`, a name in the `config.toml` of Flower's home."""

    environment: dict[str, str]
    connection: str

    def run(self, *arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run `flwr ARGUMENTS` to its end and capture its output.

        Raises:
            subprocess.TimeoutExpired: when it takes longer than `timeout` seconds.
        """
        return subprocess.run(
            [program("flwr"), *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            start_new_session=True,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `flwr ARGUMENTS`, output and errors in one pipe, out of reach of the terminal's Ctrl-C."""
        return subprocess.Popen(
            [program("flwr"), *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )

    def run_status(self, run_id: str) -> tuple[str, str]:
        """A run's status at the SuperLink, such as `finished:completed`, and the reason.

        The status is `UNKNOWN` when the SuperLink gives no answer.
        """
        try:
            answer = self.run("ls", self.connection, "--run-id", run_id, "--format", "json")
            run: dict[str, Any] = json.loads(answer.stdout)["runs"][0]
        except (subprocess.TimeoutExpired, ValueError, LookupError):
            return UNKNOWN, "the SuperLink does not say how it ended"
        return str(run["status"]), " ".join(str(run["status-details"]).split())

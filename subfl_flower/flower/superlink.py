"""A SuperLink for one launch."""

import http.client
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from subfl_flower.errors import SubflError
from subfl_flower.flower.ports import free_port
from subfl_flower.flower.process_tree import MARKER
from subfl_flower.flower.programs import Flower, flower_environment, prepend, program, ray_settings

CONNECTION = "launch"

_START_ATTEMPTS = 3
_START_SECONDS = 90.0
_QUIET_RAY = "ignore::FutureWarning:ray._private.worker"


def launch_environment(home: Path, ray_folder: Path, launch_id: str, patience: float) -> dict[str, str]:
    """The environment of all processes that a launch starts.

    Args:
        home: Flower's home of this launch alone (configuration, installed app).
        ray_folder: Ray's folder for sockets and logs. Unix sockets allow 107 characters, so it must be short.
        launch_id: the mark by which the launch's processes are found again.
        patience: seconds that a process of Ray's may take to start.
    """
    environment = flower_environment()
    prepend(environment, "PYTHONWARNINGS", _QUIET_RAY, ",")
    environment.update(
        {
            MARKER: launch_id,
            "FLWR_HOME": str(home),
            "RAY_TMPDIR": str(ray_folder),
            **ray_settings(patience),
            # Flower's actors carry a runtime environment, which workers started in advance do not have.
            "RAY_prestart_worker_first_driver": "0",
        }
    )
    return environment


def superlink_line(host: str, port: int, *options: str) -> list[str]:
    """The command line of a SuperLink whose apps are processes that it starts."""
    return [program("flower-superlink"), "--host", host, "--port", str(port), "--isolation", "subprocess", *options]


def start_superlink(
    folder: Path, home: Path, environment: dict[str, str], interrupted: Callable[[], bool]
) -> Flower | None:
    """Start a SuperLink in simulation mode on a free port of the loopback interface, and wait until it answers.

    Its state is in memory.

    Args:
        folder: its working directory, and that of the ServerApp: relative paths start here.
        home: gets `config.toml` with the connection `CONNECTION`, and `superlink.log`.
        environment: result of `launch_environment`.
        interrupted: polled while waiting; when true the wait ends.

    Returns:
        Commands to it, or `None` when interrupted.

    Raises:
        SubflError: when it does not start.
    """
    log = home / "superlink.log"
    for _ in range(_START_ATTEMPTS):
        port = free_port()
        with log.open("a") as output:
            process = subprocess.Popen(
                superlink_line("127.0.0.1", port, "--insecure", "--simulation"),
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        config = f'[superlink.{CONNECTION}]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
        (home / "config.toml").write_text(config, encoding="utf-8")
        deadline = time.monotonic() + _START_SECONDS
        while process.poll() is None:
            if interrupted():
                return None
            if _listens(process.pid, port) and _healthy(port):
                return Flower(environment, CONNECTION)
            if time.monotonic() > deadline:
                raise SubflError(f"the SuperLink did not answer within {_START_SECONDS:.0f} s; its log is {log}")
            time.sleep(0.05)
    raise SubflError(f"the SuperLink ended with code {process.returncode} while starting; its log is {log}")


def _listens(pid: int, port: int) -> bool:
    """True if process `pid` listens on `port`: another process may have taken the port in the meantime."""
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

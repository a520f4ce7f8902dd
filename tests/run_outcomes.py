"""Starting runs, in this process or by the real command, and reading what they left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from warm_process import WarmProcess

from subfl_flower.cli import run
from subfl_flower.composition import composed_config, config_directory
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.simulation import simulate


def method_names(kind: str) -> list[str]:
    """The methods whose default data are of a kind, ``graph`` or ``ratings``.

    A file says so by the choice of data with which it replaces the default graph. It is read, not composed: several
    test modules ask for this list when they are collected.
    """
    replaces = "override /dataset@_global_.dataset:"
    texts = {path.stem: path.read_text() for path in sorted((config_directory() / "method").glob("*.yaml"))}
    return [name for name, text in texts.items() if (replaces in text) == (kind == "ratings")]


Process = subprocess.Popen[str] | WarmProcess
SUBFL = Path(sys.executable).with_name("subfl")
SMALL_DIGITS = ("dataset=digits", "model.hidden=16", "method.random_blocks=2", "method.random_block_nodes=20")
"""Overrides for a FED-PUB run of a second."""
SMALL_GENERATOR = (
    *("method.generator_epochs=4", "method.exchanges=1", "method.generator_lr=0.05"),
    *("method.generator.latent=8", "method.generator.hidden=4"),
)
"""Overrides for a FedSage+ run of seconds."""


def subfl_command(name: str) -> Callable[[Sequence[str]], int]:
    """A command of `subfl` in this process: a function from arguments to the exit code."""
    return lambda arguments: run([name, *arguments])


deploy, launch, partition, predict, recommend = map(
    subfl_command, ("deploy", "launch", "partition", "predict", "recommend")
)


@dataclass(frozen=True)
class Outcome:
    """A run directory, and how the command ended where one was run."""

    directory: Path
    code: int = 0
    stdout: str = ""
    stderr: str = ""

    @property
    def rounds(self) -> list[dict[str, Any]]:
        return RunDirectory(self.directory).rounds()

    @property
    def summary(self) -> dict[str, Any]:
        summary = RunDirectory(self.directory).summary()
        assert summary is not None, f"no summary; stderr: {self.stderr}"
        return summary

    @property
    def mixing(self) -> dict[int, np.ndarray]:
        return RunDirectory(self.directory).mixing()

    @property
    def complaint(self) -> str:
        """The one sentence that `subfl` printed about what went wrong; Ray may add lines about itself."""
        assert "Traceback" not in self.stderr, self.stderr
        said = [line for line in self.stderr.splitlines() if line.startswith("subfl: ")]
        assert len(said) == 1, self.stderr
        return said[0]

    def models(self) -> dict[int, dict[str, np.ndarray]]:
        from safetensors.numpy import load_file

        folder = self.directory / "clients"
        return {int(path.stem): load_file(path) for path in sorted(folder.glob("*.safetensors"))}

    def values(self, name: str) -> np.ndarray:
        """A per-client metric of every round, [rounds, clients]."""
        return np.array([record["clients"][name] for record in self.rounds], dtype=float)


def run_inline(directory: Path, *overrides: str) -> Outcome:
    config, _ = composed_config(list(overrides))
    simulate(config, directory)
    return Outcome(directory)


def command(
    *arguments: str,
    directory: Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    timeout: float = 400,
    fresh: bool = False,
) -> Outcome:
    """Run ``subfl ARGUMENTS`` for a run directory in a separate process.

    Args:
        directory: the run directory.
        cwd: the working directory.
        env: variables to add to this process's environment.
        timeout: seconds after which it is killed with its session, and the test fails.
        fresh: start the installed program instead of a fork of a process that has imported everything.
    """
    return finished(start(arguments, directory, cwd, env, fresh), directory, timeout)


def subfl(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 400) -> Outcome:
    """Run ``subfl ARGUMENTS`` in a separate process; the outcome's directory is `cwd`."""
    return finished(WarmProcess([str(SUBFL), *arguments], cwd, environment(env)), cwd, timeout)


def finished(process: Process, directory: Path, timeout: float = 400) -> Outcome:
    """The outcome of a process that was started; it is killed with its session if it hangs."""
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        raise AssertionError(f"subfl did not end within {timeout:.0f} s: {stdout}{stderr}") from None
    assert process.returncode is not None
    return Outcome(directory, process.returncode, stdout, stderr)


def wait_for_rounds(process: Process, directory: Path, rounds: int, seconds: float = 120) -> None:
    """Return once a run that was started has recorded so many rounds."""
    file, deadline = directory / "metrics.jsonl", time.monotonic() + seconds
    while not file.exists() or file.read_bytes().count(b"\n") < rounds:
        assert process.poll() is None, f"subfl ended early: {process.communicate()}"
        assert time.monotonic() < deadline, "no round within the time allowed"
        time.sleep(0.02)


def start(
    arguments: Sequence[str],
    directory: Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    fresh: bool = False,
) -> Process:
    """Start ``subfl`` for a run directory in a separate session; see `command`."""
    argv = [str(SUBFL), *arguments, f"hydra.run.dir={directory}"]
    if not fresh:
        return WarmProcess(argv, cwd, environment(env))
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(argv, cwd=cwd, env=environment(env), start_new_session=True, **pipes)


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a `subfl` that tests start."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", **(more or {})}

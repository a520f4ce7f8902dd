"""Starting runs, in this process or by the real command, and reading what they left."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from subfl_flower.cli import run
from subfl_flower.composition import composed_config, config_directory
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.simulation import simulate


def method_names(kind: str) -> list[str]:
    """The methods whose default data are of a kind, ``graph`` or ``ratings``."""
    names = sorted(path.stem for path in (config_directory() / "method").glob("*.yaml"))
    return [name for name in names if composed_config([f"method={name}"])[0].dataset.kind == kind]


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
    *arguments: str, directory: Path, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 400
) -> Outcome:
    """Run ``subfl ARGUMENTS`` in a separate process, which is killed with its children's session if it hangs."""
    process = start(arguments, directory, cwd, env)
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        stdout, stderr = process.communicate()
        raise AssertionError(f"subfl {arguments} did not end within {timeout:.0f} s: {stdout}{stderr}") from None
    return Outcome(directory, process.returncode, stdout, stderr)


def start(
    arguments: Sequence[str], directory: Path, cwd: Path, env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start ``subfl`` in a separate session."""
    return subprocess.Popen(
        [str(SUBFL), *arguments, f"hydra.run.dir={directory}"],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )

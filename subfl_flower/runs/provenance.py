"""Software versions and settings that a run's summary records."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from subfl_flower.config import Config

_PACKAGES = ("subfl-flower", "flwr", "ray", "torch", "numpy", "pymetis", "networkx")


def provenance(config: Config, num_clients: int | None) -> dict[str, Any]:
    """Settings that identify a run, versions of its software, and the commit.

    Args:
        config: configuration of the run.
        num_clients: number of clients; None where it was never known.
    """
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "method": config.method.name,
        "dataset": config.dataset.name,
        "partition": config.partition.name,
        "clients": num_clients,
        "seed": config.seed,
        "task": config.task.name,
        "metric": config.task.metric,
        "versions": versions,
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    """The checked-out commit of this code, where it is a checkout."""
    here = Path(__file__).resolve().parent
    if not (here.parents[1] / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True, timeout=5
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()

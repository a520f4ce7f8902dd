"""Software versions and settings that a run's summary records."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from subfl_flower import __version__
from subfl_flower.config import Config
from subfl_flower.storage.package_files import app_hash, commit

_PACKAGES = ("flwr", "ray", "torch", "numpy", "pymetis", "networkx")


def provenance(config: Config, num_clients: int | None) -> dict[str, Any]:
    """Settings that identify a run, versions of its software, the commit, and the app's hash.

    Args:
        config: configuration of the run.
        num_clients: number of clients; None where it was never known.
    """
    versions = {"subfl-flower": __version__}  # of the code that runs, which Flower may have brought
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
        "git_commit": commit(),
        "app_hash": app_hash(),
    }

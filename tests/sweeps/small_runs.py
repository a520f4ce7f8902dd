"""Overrides of runs of a second, and what can be compared of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from subfl_flower.runs.directory import RunDirectory

SMALL = ("method=fedavg", "dataset=digits", "model.hidden=8", "partition.clients=3", "federation.rounds=2")


def numbers(folder: Path) -> list[dict[str, Any]]:
    """The records of a run's rounds but for their seconds."""
    return [
        {key: value for key, value in record.items() if key != "seconds"} for record in RunDirectory(folder).rounds()
    ]


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

"""Origin of the runs of a page: software, data and protocol, with fingerprints."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from subfl_flower.evaluation.formats import MISSING
from subfl_flower.evaluation.rows import Row, flatten
from subfl_flower.evaluation.runs import Run
from subfl_flower.evaluation.table import Table, identity

_PROTOCOL = ("task", "federation", "optimizer")
_DATA = ("data", "split", "partition")
_SHOWN = 12


def protocol_fingerprint(run: Run) -> str | None:
    """SHA-256 of the settings by which methods are compared: task, federation, optimiser and the data set's share.

    None for a run without a configuration. Runs with equal fingerprints were trained for the same number of rounds
    and steps, by the same optimiser, on the same task.
    """
    if not run.config:
        return None
    sections = {name: run.config.get(name) for name in _PROTOCOL}
    sections["train_fraction"] = flatten(run.config).get("dataset.train_fraction")
    return hashlib.sha256(json.dumps(sections, sort_keys=True, default=str).encode()).hexdigest()


def origin_table(rows: Sequence[Row]) -> Table:
    """Fingerprints of data, split, partition and protocol by row; several of one kind where the runs differ."""
    cells = identity(rows).drop(columns="metric")
    for name in _DATA:
        cells[name] = [_shortened(run.fingerprints.get(name) for run in row.runs) for row in rows]
    cells["protocol"] = [_shortened(protocol_fingerprint(run) for run in row.runs) for row in rows]
    if cells["settings"].eq("").all():
        cells = cells.drop(columns="settings")
    title = "fingerprints; rows with the same ones were trained on the same data under the same protocol"
    return Table(title, cells, tuple(row.completed for row in rows))


def software(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Names and values of versions, commits and the app's hash that the runs recorded."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        versions = run.figures.get("versions") or {}
        named: dict[str, Any] = {"versions": ", ".join(f"{name} {number}" for name, number in versions.items())}
        named |= {"commit": run.figures.get("git_commit"), "app hash": run.figures.get("app_hash")}
        for name, value in named.items():
            if value:
                found.setdefault(name, {})[str(value)] = None
    return [(name, "; ".join(values)) for name, values in found.items()]


def _shortened(fingerprints: Iterable[str | None]) -> str:
    known = pd.unique(pd.Series([each[:_SHOWN] for each in fingerprints if each], dtype=object))
    return ", ".join(known) or MISSING

"""Figures of short runs of every method are those that were recorded: what is meant to change no number changes none.

They are recorded again, where a change of numbers is meant, by ``SUBFL_RECORD=1 pytest`` on this file.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from recorded_cases import CASES
from run_outcomes import Outcome, method_names, run_inline

RECORD = Path(__file__).with_name("recorded_figures.json")
DIGITS, TOLERANCE = 8, 1e-6
ABSENT = "absent"
"""Stands for a figure that a round does not have."""
NOT_FIGURES = (
    *("seconds", "cpu_seconds", "seconds_per_round", "versions", "git_commit", "app_hash", "run_id"),
    *("bytes_parts", "update_norm", "clipped", "excluded", "guarded"),
)
"""Entries that differ from run to run, bytes that FedAvg would have sent, and lengths of updates."""
OF_RUN = ("round", "metric", "clients", "figures", "clients_heard", "bytes_up", "bytes_down")
"""Entries of a round's record that repeat the run's or are sums over clients, and two groups that are flattened."""
KNOWN = (
    "metric",
    "method",
    "dataset",
    "partition",
    "clients",
    "seed",
    "task",
    "rounds",
    "best_validation",
    "tenth_percentile",
    "per_client",
    "figures",
    "popularity",
)
"""Entries of a summary that repeat settings, rounds or the case `popularity`."""


def figures(outcome: Outcome) -> dict[str, Any]:
    """All that a run measured and sent, as JSON: of rounds a list for each figure, and the last mixing matrix."""
    rounds = [_flat(record) for record in _plain(outcome.rounds)]
    names = list(dict.fromkeys(name for record in rounds for name in record))
    found: dict[str, Any] = {
        "rounds": {name: _short([record.get(name, ABSENT) for record in rounds]) for name in names}
    }
    found["summary"] = {name: value for name, value in _plain(outcome.summary).items() if name not in KNOWN}
    mixing = outcome.mixing
    found["mixing"] = _short(_plain(mixing[max(mixing)].tolist())) if mixing else None
    return found


def _short(values: list[Any]) -> Any:
    """A list, or what all of its entries are."""
    return {"all": values[0]} if all(value == values[0] for value in values) else values


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """A round's record without groups of figures; of clients' further figures, such as ``test.macro_f1``, the means.

    Numbers of examples are the data's.
    """
    flat = {name: value for name, value in record.items() if name not in OF_RUN}
    clients = {name: values for name, values in record["clients"].items() if not re.search(r"\.|_examples$", name)}
    flat |= {f"clients/{name}": values for name, values in clients.items()}
    return flat | {f"figures/{name}": value for name, value in record.get("figures", {}).items()}


def _plain(value: Any) -> Any:
    """Without what is no figure, floats rounded."""
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items() if name not in NOT_FIGURES}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def differences(found: Any, expected: Any, where: str = "") -> Iterator[str]:
    """Differences with their places; floats differ by more than `TOLERANCE`, relative or absolute."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for name in dict.fromkeys((*expected, *found)):
            yield from differences(found.get(name, ABSENT), expected.get(name, ABSENT), f"{where}/{name}")
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            yield from differences(one, other, f"{where}[{number}]")
    elif isinstance(found, float) and isinstance(expected, float):
        if not math.isclose(found, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            yield f"{where}: {found} is not {expected}"
    elif type(found) is not type(expected) or found != expected:
        yield f"{where}: {found} is not {expected}"


@cache
def recorded() -> dict[str, Any]:
    known: dict[str, Any] = json.loads(RECORD.read_text())
    return known


@pytest.fixture(scope="module", autouse=True)
def record_if_asked(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Write the record, one case a line, where the environment asks for it."""
    if os.environ.get("SUBFL_RECORD") != "1":
        return
    folder = tmp_path_factory.mktemp("recorded")
    made = (figures(run_inline(folder / str(number), *case)) for number, case in enumerate(CASES.values()))
    lines = [
        f"{json.dumps(name)}:{json.dumps(found, separators=(',', ':'), allow_nan=False)}"
        for name, found in zip(CASES, made, strict=True)
    ]
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n")


@pytest.mark.parametrize("name", CASES)
def test_figures_are_those_that_were_recorded(name: str, tmp_path: Path) -> None:
    found = figures(run_inline(tmp_path / "run", *CASES[name]))
    differing = list(differences(found, recorded()[name]))
    assert not differing, "\n".join([f"{len(differing)} figures differ:", *differing[:20]])


def test_every_method_is_recorded() -> None:
    methods = {
        override.removeprefix("method=") for case in CASES.values() for override in case if "method=" in override
    }
    assert methods == {*method_names("graph"), *method_names("ratings")}
    assert list(recorded()) == list(CASES)

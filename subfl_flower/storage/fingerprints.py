"""Comparison of data with the data that a run was started with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from subfl_flower.errors import SubflError

_PARTS = {
    "data": "the data differ",
    "split": "other examples train, validate or test",
    "partition": "clients hold other examples",
    "candidates": "other items are ranked",
}


def require_same_data(facts: Mapping[str, Any], before: Mapping[str, Any] | None, run: str, act: str) -> None:
    """Refuse to continue with data that have changed.

    Args:
        facts: facts on the present data, the content of a `data.json`.
        before: facts on the data of the run; None where the run has written none.
        run: name of the run in an error.
        act: name of the refused action.

    Raises:
        SubflError: files have changed, or the same files give other data; names the files, or what differs.
    """
    if before is None:
        raise SubflError(f"{run} has no data.json, which says what its data were; {act} needs it")
    now, then = facts.get("fingerprints", {}), before.get("fingerprints", {})
    differ = [said for part, said in _PARTS.items() if now.get(part) != then.get(part)]
    if not differ:
        return
    files, files_then = dict(now.get("files", {})), dict(then.get("files", {}))
    changed = sorted(name for name in files.keys() | files_then.keys() if files.get(name) != files_then.get(name))
    reason = f"{', '.join(changed)} changed" if changed else differ[0]
    raise SubflError(f"the data are not those of {run}: {reason} since the run; {act} needs the same data")

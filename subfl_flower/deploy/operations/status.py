"""Show the state of a run on the server's machine."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from subfl_flower.errors import SubflError
from subfl_flower.evaluation.formats import human_bytes
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.runs.live import NodeStatus
from subfl_flower.runs.status import RunStatus

_SECONDS_BETWEEN_LOOKS = 2.0
_ENDED = ("completed", "failed", "interrupted", "cut off")


def newest_run(folder: Path) -> Path:
    """The run below a folder whose rounds were written last.

    Raises:
        SubflError: there is none.
    """
    found = {file.parent for name in ("metrics.jsonl", "summary.json") for file in folder.rglob(name)}
    if not found:
        raise SubflError(f"{folder}: there is no run in it; name the folder that the run's first line named")
    return max(found, key=lambda run: max(file.stat().st_mtime for file in run.iterdir()))


def show_status(run: Path, watch: bool, as_json: bool) -> None:
    """Print the state of a run; with `watch` again and again, until the run ends.

    Raises:
        SubflError: there is no run in the folder, or a file of it is damaged.
    """
    if as_json:
        for status in _looks(run, watch):
            print(json.dumps(facts(status)), flush=True)
        return
    console = Console(highlight=False)
    if not (watch and console.is_terminal):
        for status in _looks(run, watch):
            print("\n".join(lines(run, status)), flush=True)
        return
    with Live(console=console, auto_refresh=False) as live:
        for status in _looks(run, watch):
            live.update(Text("\n".join(lines(run, status))), refresh=True)


def _looks(run: Path, watch: bool) -> Iterator[RunStatus]:
    while True:
        status = RunStatus.of(RunDirectory(run))
        yield status
        if not watch or status.state in _ENDED:
            return
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def facts(status: RunStatus) -> dict[str, Any]:
    """The state as JSON-compatible values."""
    live = None if status.live is None else status.live.model_dump(mode="json")
    return {**vars(status), "live": live}


def lines(run: Path, status: RunStatus, now: float | None = None) -> list[str]:
    """The state in lines for people.

    Args:
        run: the run's folder.
        status: of the run.
        now: the time of day, in seconds; None takes the present one.
    """
    now = time.time() if now is None else now
    found = [("run", f"{run}: {status.method} on {status.dataset}"), ("state", _state(status, now))]
    found.append(("round", f"{status.round} of {status.rounds}" + _metric(status)))
    if status.round:
        found.append(("seconds", f"{_mean(status):.1f} a round: {_parts(status)}"))
    found.append(("bytes", ", ".join(f"{human_bytes(size)} {way}" for way, size in status.traffic.items()) or "none"))
    if status.epsilon is not None:
        found.append(("epsilon", f"{status.epsilon:.4g} spent"))
    for client, count in sorted(status.failures.items()):
        last = status.last_failures.get(client)
        found.append(("failed", f"client {client} in {count} rounds" + (f", now: {last}" if last else "")))
    for word, counts in (("clipped", status.clipped), ("left out", status.excluded)):
        if counts:
            by_client = ", ".join(f"client {client} in {count} rounds" for client, count in sorted(counts.items()))
            found.append(("updates", f"{word}: {by_client}"))
    for refusal in status.refused:
        found.append(("refused", str(refusal.get("reason"))))
    found += [("node", _node(node, now)) for node in status.nodes]
    return [f"{name:8}{text}" for name, text in found]


def _state(status: RunStatus, now: float) -> str:
    if status.live is None or status.state in _ENDED:
        return status.state
    return f"{status.state} (process {status.live.process[0]}, {_ago(status.live.updated, now)})"


def _metric(status: RunStatus) -> str:
    return "" if status.validation is None else f", validation {status.validation:.3f}"


def _mean(status: RunStatus) -> float:
    return status.seconds["round"] / max(status.counted, 1)


def _parts(status: RunStatus) -> str:
    parts = [part for part in status.seconds if part != "round"]
    return ", ".join(f"{part} {status.seconds[part] / max(status.counted, 1):.1f}" for part in parts)


def _node(node: NodeStatus, now: float) -> str:
    hosted = f"clients {', '.join(map(str, node.clients))}" if node.clients else "no clients"
    heard = "not heard yet" if node.heard is None else f"heard {_ago(node.heard, now)}"
    return f"{node.node} ({hosted}): {heard}" + ("" if node.connected else ", not connected")


def _ago(moment: float, now: float) -> str:
    return f"{max(0.0, now - moment):.0f} s ago"

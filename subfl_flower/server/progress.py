"""Progress of a run: a bar in a terminal or a notebook, on request lines without one, else nothing."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from subfl_flower.flower.log import in_json
from subfl_flower.server.monitoring.monitor import RunMonitor

_SECONDS_BETWEEN_LINES = 5.0


class RunProgress:
    """Display of finished rounds, with the current metric, the rate and the time left, and of the phases between them.

    Args:
        title: name of the run.
        rounds: number of rounds.
        lines: where there is no terminal, print a line every few seconds instead of nothing; None shows nothing at all.
        monitor: is told the same.
    """

    def __init__(self, title: str, rounds: int, lines: bool | None = False, monitor: RunMonitor | None = None) -> None:
        self._monitor = monitor
        self._rounds = rounds
        self._title = title
        self._last_line = 0.0
        self._asked = Counter[str]()
        self._start = time.monotonic()
        console = Console(stderr=True)
        drawn = console.is_terminal or (console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None)
        self._lines = (lines or (lines is not None and console.is_jupyter)) and not in_json()
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[metric]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            disable=lines is None or not drawn,
        )
        self._task = self._bar.add_task(title, total=rounds, metric="", rate="")

    def __enter__(self) -> RunProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def ask(self, action: str) -> None:
        """Show a phase outside of rounds, which may take longer than many rounds."""
        self._asked[action] += 1
        if self._monitor is not None:
            self._monitor.ask(action)
        said = f"asks for {action}" + (f" ({self._asked[action]})" if self._asked[action] > 1 else "")
        self._bar.update(self._task, metric=said)
        self._print(said, due=self._asked[action] == 1)

    def wait(self, said: str) -> None:
        """Show that the run waits, also where there is neither a terminal nor a line for each round."""
        self._bar.update(self._task, metric=said)
        if self._monitor is not None:
            self._monitor.wait(said)
        if self._bar.disable and not in_json():
            print(f"{self._title}: {said}", file=sys.stderr, flush=True)

    def start_rounds(self) -> None:
        """Show the beginning of the rounds; the rate counts from here."""
        if self._monitor is not None:
            self._monitor.start_rounds()
        self._start = time.monotonic()

    def advance(self, record: Mapping[str, Any]) -> None:
        """Show a finished round; `record` is its entry in ``metrics.jsonl``."""
        if self._monitor is not None:
            self._monitor.advance(record)
        done = int(record["round"])
        rate = done / max(time.monotonic() - self._start, 1e-9)
        metric = " ".join(
            f"{name} {record[name]:.3f}" for name in ("validation", "test") if record.get(name) is not None
        )
        self._bar.update(self._task, completed=done, metric=metric, rate=f"{rate:.1f} rounds/s")
        self._asked.clear()
        self._print(f"round {done}/{self._rounds} {metric}", due=done in (1, self._rounds))

    def _print(self, what: str, due: bool) -> None:
        """Print a line, where one is due."""
        now = time.monotonic()
        if self._bar.disable and self._lines and (due or now - self._last_line > _SECONDS_BETWEEN_LINES):
            self._last_line = now
            print(f"{self._title}: {what}", file=sys.stderr, flush=True)

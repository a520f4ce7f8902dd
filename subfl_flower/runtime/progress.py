"""The progress of a run: a bar in a terminal, a line now and then where asked for, else nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 5.0


class RunProgress:
    """Shows rounds as they finish, with the current metric, the rate and the time left.

    Args:
        title: what is running.
        rounds: how many there are.
        lines: where there is no terminal, print a line every few seconds instead of nothing.
    """

    def __init__(self, title: str, rounds: int, lines: bool = False) -> None:
        self._rounds = rounds
        self._title = title
        self._lines = lines
        self._last_line = 0.0
        self._start = time.monotonic()
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[metric]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=rounds, metric="", rate="")

    def __enter__(self) -> RunProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, record: Mapping[str, Any]) -> None:
        """One round is finished; `record` is its entry in ``metrics.jsonl``."""
        done = int(record["round"])
        rate = done / max(time.monotonic() - self._start, 1e-9)
        metric = " ".join(
            f"{name} {record[name]:.3f}" for name in ("validation", "test") if record.get(name) is not None
        )
        self._bar.update(self._task, completed=done, metric=metric, rate=f"{rate:.1f} rounds/s")
        if self._bar.disable and self._lines:
            now = time.monotonic()
            if done in (1, self._rounds) or now - self._last_line > _SECONDS_BETWEEN_LINES:
                self._last_line = now
                print(f"{self._title}: round {done}/{self._rounds} {metric}", file=sys.stderr, flush=True)

"""Progress of a sweep: a table in a terminal, else a line for each job that ended."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from subfl_flower.commands.result_lines import result_of
from subfl_flower.errors import SubflError
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.sweeps.job import Outcome, newest

_ENDED_SHOWN = 5
_REMARKS = ("warning: ", "not used: ")


@dataclass
class _Line:
    """A job in the display; `outcome` is None until it ends, and `since` until it begins."""

    name: str
    rounds: int
    outcome: Outcome | None = None
    since: float | None = None


class Display:
    """Progress that is not shown, and the base of those that are; errors go to standard error in each.

    Attributes:
        said: remarks that were printed, each once.
        on_end: called with the outcome of each job; None for nothing.
    """

    on_end: Callable[[Outcome], None] | None = None

    def __init__(self) -> None:
        self.said: set[str] = set()
        self._lines: dict[Path, _Line] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def add(self, directory: Path, name: str, rounds: int) -> None:
        """Add a job.

        Args:
            directory: its folder.
            name: its name.
            rounds: number of its rounds.
        """
        self._lines[directory] = _Line(name, rounds)

    def begun(self, directory: Path) -> None:
        """Show that a job is in training."""
        self._lines[directory].since = time.monotonic()

    def ended(self, directory: Path, outcome: Outcome) -> None:
        """Show the outcome of a job."""
        with self._lock:
            self._lines[directory].outcome = outcome
            if outcome.status == "failed":
                self._print_error(f"subfl: {self._lines[directory].name} failed: {outcome.error}")
            self._show(self._lines[directory], outcome)
            if self.on_end is not None:
                self.on_end(outcome)

    def say(self, line: str) -> None:
        """Print a line that a job printed; remarks on data once."""
        with self._lock:
            if line not in self.said:
                self._print_error(line)
            if line.startswith(_REMARKS):
                self.said.add(line)

    def _print_error(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def _show(self, line: _Line, outcome: Outcome) -> None:
        return


class Lines(Display):
    """A line on standard output for each job that ended."""

    def _show(self, line: _Line, outcome: Outcome) -> None:
        done = sum(each.outcome is not None for each in self._lines.values())
        if outcome.status != "failed":
            print(f"[{done}/{len(self._lines)}] {line.name}: {result_text(outcome)}", flush=True)


class LiveTable(Display):
    """A table in the terminal: counts, the jobs in training, and the last ones that ended."""

    def __init__(self) -> None:
        super().__init__()
        self._live = Live(console=Console(stderr=True), refresh_per_second=2, get_renderable=self._table)

    def __enter__(self) -> Display:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def _print_error(self, line: str) -> None:
        self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _table(self) -> Table:
        lines = list(self._lines.items())
        counts = Counter(_word(line.outcome) for _, line in lines if line.outcome is not None)
        done = ", ".join(f"{count} {word}" for word, count in counts.items())
        table = Table(title=f"{sum(counts.values())} of {len(lines)} jobs ended" + (f": {done}" if done else ""))
        table.box, table.title_justify, table.show_header = box.SIMPLE, "left", False
        ended = [line for _, line in lines if line.outcome is not None]
        for line in ended[-_ENDED_SHOWN:]:
            assert line.outcome is not None
            style = "red" if line.outcome.status == "failed" else "dim"
            table.add_row(line.name, Text(line.outcome.error or result_text(line.outcome)), style=style)
        for directory, line in lines:
            if line.since is not None and line.outcome is None:
                table.add_row(line.name, _in_training(directory, line))
        return table


def display_for(jobs: int, show: bool = True) -> Display:
    """The display of a sweep of some jobs: a table where standard error is a terminal, else lines."""
    if not show or not jobs:
        return Display()
    return LiveTable() if sys.stderr.isatty() else Lines()


def result_text(outcome: Outcome) -> str:
    """The result of a job in one line."""
    return f"{result_of(outcome.summary)} ({_word(outcome)})"


def _word(outcome: Outcome) -> str:
    return f"{outcome.status} before" if outcome.reused else outcome.status


def _in_training(directory: Path, line: _Line) -> str:
    """Rounds, the latest figures and seconds of a job in training."""
    try:
        rounds = RunDirectory(newest(directory)).rounds()
    except SubflError:
        rounds = []
    last: dict[str, Any] = rounds[-1] if rounds else {}
    figures = [f"{name} {last[name]:.3f}" for name in ("validation", "test") if last.get(name) is not None]
    seconds = time.monotonic() - (line.since or 0.0)
    return " ".join([f"round {last.get('round', 0)}/{line.rounds}", *figures, f"{seconds:.0f} s"])

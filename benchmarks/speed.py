"""Seconds a round of the app's runtimes, as a ratio to the floor measured in the same run.

    .venv/bin/python benchmarks/speed.py --dataset cora --clients 10 50 --methods fedavg fedpub --rounds 30

Each measurement is a separate process: the floor, every runtime, the floor again; the floor's rounds of both count.
The floor has one thread, ``inline`` each number of ``--threads`` in turn, ``ray`` two actors of one core each. Seconds
a round are medians, after warm-up.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

FLOOR, INLINE, RAY = "floor", "inline", "ray"
RATIO_TARGET, RAY_TARGET_CLIENTS = 0.7, 50
DISJOINT_TARGETS = {
    ("inline", 1): {("fedavg", 10): 0.42, ("fedavg", 50): 0.42, ("fedpub", 10): 0.48, ("fedpub", 50): 0.38},
    ("inline", 2): {("fedavg", 10): 0.25, ("fedavg", 50): 0.27, ("fedpub", 10): 0.28, ("fedpub", 50): 0.20},
    ("ray", 1): {("fedavg", 50): 0.42, ("fedpub", 50): 0.28},
}
"""Ratios to the floor on Cora cut by METIS, by runtime and threads, then by method and clients."""
SERVER_TARGET = 0.15
"""Largest share of the server in a round of ``inline`` with one thread."""
INLINE_MEMORY_TARGET = 2 * 2**30
MINUTE_CLIENTS, MINUTE_ROUNDS, MINUTE_SECONDS = 50, 100, 60.0

Case = tuple[str, int]
"""The floor or a runtime, and its threads."""

_SUBFL = [sys.executable, "-c", "from subfl_flower.cli import main; main()"]
_FLOOR = [sys.executable, str(Path(__file__).resolve().parent / "floor.py")]
_PART_NAMES = ("client", "server", "transport")
_WIDTH = 120  # of the table where there is no terminal
_POLL_SECONDS = 0.05
_MEMORY_EVERY = 10  # polls: walking a tree of processes costs milliseconds


@dataclass
class Measurement:
    """Time and memory of one process, or of several equal ones.

    Attributes:
        seconds: of every round after warm-up.
        parts: of every round after warm-up, seconds in client, server and transport.
        startup: seconds from the start of the process to its first round.
        memory: peak resident bytes of the process and its children; shared pages count for each.
        total: seconds of the whole process.
        test: mean test accuracy after the last round.
    """

    seconds: list[float] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in _PART_NAMES})
    startup: float = 0.0
    memory: int = 0
    total: float = 0.0
    test: float = float("nan")

    def median(self) -> float:
        """Median seconds a round."""
        return statistics.median(self.seconds)

    def join(self, other: Measurement) -> Measurement:
        """Join two measurements: the rounds of both, the larger memory, the shorter times around the rounds."""
        return Measurement(
            seconds=self.seconds + other.seconds,
            parts={name: self.parts[name] + other.parts[name] for name in _PART_NAMES},
            startup=min(self.startup, other.startup),
            memory=max(self.memory, other.memory),
            total=min(self.total, other.total),
            test=other.test,
        )


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    method: str
    clients: int
    runtime: str
    seconds: float
    ratio: float
    client: float
    server: float
    transport: float
    startup: float
    memory_mib: float
    total: float
    test: float
    threads: int = 1


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table and the targets."""
    arguments = _arguments(argv)
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="subfl-speed-") as folder:
        for clients in arguments.clients:
            for method in arguments.methods:
                overrides = [
                    f"method={method}",
                    f"dataset={arguments.dataset}",
                    f"partition={arguments.partition}",
                    f"partition.clients={clients}",
                    f"federation.rounds={arguments.rounds}",
                    *arguments.overrides,
                ]
                with console.status(f"{method}, {clients} clients"):
                    cases = [
                        (runtime, threads)
                        for runtime in arguments.runtimes
                        for threads in (arguments.threads if runtime == INLINE else [1])
                    ]
                    found = measure_interleaved(overrides, cases, arguments.repeats, arguments.warmup, Path(folder))
                rows.extend(_rows(method, clients, found))
    console.print(_table(rows, f"{arguments.dataset}, {arguments.partition}, {arguments.rounds} rounds"))
    for line in targets(rows, arguments.partition, arguments.dataset):
        console.print(line, highlight=False)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def measure_interleaved(
    overrides: Sequence[str], cases: Sequence[Case], repeats: int, warmup: int, folder: Path
) -> dict[Case, Measurement]:
    """Measure the floor and the runtimes in turns, so that other load on the machine affects them equally.

    Args:
        overrides: overrides of `subfl`, without the runtime.
        cases: runtimes, ``inline`` or ``ray``, each with its number of threads.
        repeats: number of turns; a turn is floor, runtimes, floor.
        warmup: rounds of every process that do not count.
        folder: folder of the run directories.
    """
    found: dict[Case, Measurement] = {}
    for _ in range(repeats):
        for case in ((FLOOR, 1), *cases, (FLOOR, 1)):
            name, threads = case
            measured = measure(name, overrides, warmup, folder, threads)
            found[case] = found[case].join(measured) if case in found else measured
    return found


def measure(name: str, overrides: Sequence[str], warmup: int, folder: Path, threads: int = 1) -> Measurement:
    """Run the floor or the app once, in a separate process, and read its measurement.

    Raises:
        RuntimeError: the process failed; the message ends with its output.
    """
    directory = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder))
    environment = {**os.environ, "HYDRA_FULL_ERROR": "0"}
    command = [*(_FLOOR if name == FLOOR else _SUBFL), *overrides, f"hydra.run.dir={directory / 'run'}"]
    if name == RAY:
        environment.pop("OMP_NUM_THREADS", None)
        command += ["runtime=ray", "runtime.num_cpus=1", "runtime.total_cpus=2"]
    else:
        environment["OMP_NUM_THREADS"] = "1"
    if name == INLINE:
        command += ["runtime=inline", f"runtime.threads={threads}"]
    metrics, said = directory / "run" / "metrics.jsonl", directory / "log"
    start = time.monotonic()
    with said.open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=directory, stdout=log, stderr=log, start_new_session=True
        )
        try:
            first_round, memory, status = _watch(process.pid, metrics)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    total = time.monotonic() - start
    if status != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {status}:\n{said.read_text(errors='replace')[-2000:]}")
    return read_measurement(metrics, warmup, first_round - start, memory, total)


def _watch(pid: int, metrics: Path) -> tuple[float, int, int]:
    """Wait for a process; return the time of its first recorded round, its tree's peak memory and its exit status."""
    first_round, peak, polls = 0.0, 0, 0
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            return first_round, max(peak, usage.ru_maxrss * 1024), os.waitstatus_to_exitcode(status)
        if not first_round and metrics.exists() and metrics.stat().st_size:
            first_round = time.monotonic()
        if polls % _MEMORY_EVERY == 0:
            peak = max(peak, _tree_memory(pid))
        polls += 1
        time.sleep(_POLL_SECONDS)


def _tree_memory(pid: int) -> int:
    """Resident bytes of a process and all its descendants."""
    total = 0
    try:
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return 0
    for process in tree:
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total


def read_measurement(metrics: Path, warmup: int, first_round: float, memory: int, total: float) -> Measurement:
    """The measurement of a run from its ``metrics.jsonl``.

    Args:
        metrics: the file; a JSON object a round, with `seconds` and `test`.
        warmup: rounds at the start that do not count.
        first_round: seconds from the start of the process to the end of its first round.
        memory: peak bytes.
        total: seconds of the whole process.

    Raises:
        RuntimeError: there are no rounds after the warm-up.
    """
    records: list[dict[str, Any]] = [json.loads(line) for line in metrics.read_text().splitlines()]
    counted = [record["seconds"] for record in records[warmup:]]
    if not counted:
        raise RuntimeError(f"{len(records)} rounds leave none after {warmup} of warm-up; use more --rounds")
    return Measurement(
        seconds=[seconds["round"] for seconds in counted],
        parts={name: [seconds[name] for seconds in counted] for name in _PART_NAMES},
        startup=max(0.0, first_round - records[0]["seconds"]["round"]),
        memory=memory,
        total=total,
        test=records[-1]["test"],
    )


def _rows(method: str, clients: int, found: dict[Case, Measurement]) -> list[Row]:
    floor = found[FLOOR, 1].median()
    return [
        Row(
            method=method,
            clients=clients,
            runtime=name,
            seconds=one.median(),
            ratio=one.median() / floor,
            **{part: statistics.median(one.parts[part]) for part in _PART_NAMES},
            startup=one.startup,
            memory_mib=one.memory / 2**20,
            total=one.total,
            test=one.test,
            threads=threads,
        )
        for (name, threads), one in found.items()
    ]


def targets(rows: Iterable[Row], partition: str, dataset: str) -> list[str]:
    """A line for each target that these measurements cover: the target, the measured value, and if it is met."""
    lines = []
    disjoint = (partition, dataset) == ("metis", "cora")
    for row in rows:
        of_threads = f", {row.threads} threads" if row.threads > 1 else ""
        what = f"{row.method}, {row.clients} clients, {row.runtime}{of_threads}"
        if row.runtime == INLINE or (row.runtime == RAY and row.clients >= RAY_TARGET_CLIENTS):
            own = DISJOINT_TARGETS.get((row.runtime, row.threads), {}) if disjoint else {}
            target = own.get((row.method, row.clients), RATIO_TARGET)
            met = row.ratio <= target
            lines.append(f"{_verdict(met)} {what}: {row.ratio:.2f} of the floor (target: at most {target})")
        if row.runtime == INLINE and row.threads == 1 and disjoint:
            share = row.server / row.seconds
            lines.append(
                f"{_verdict(share < SERVER_TARGET)} {what}: the server takes {share:.2f} of a round (target: below "
                f"{SERVER_TARGET})"
            )
        if row.runtime == INLINE and row.clients == 50 and dataset == "cora":
            met = row.memory_mib * 2**20 < INLINE_MEMORY_TARGET
            lines.append(f"{_verdict(met)} {what}: peak {row.memory_mib:.0f} MiB (target: below 2048)")
        if partition == "overlapping" and dataset == "cora" and row.clients == MINUTE_CLIENTS and row.runtime != FLOOR:
            estimate = row.startup + MINUTE_ROUNDS * row.seconds
            lines.append(
                f"{_verdict(estimate <= 1.1 * MINUTE_SECONDS)} {what}: {MINUTE_ROUNDS} rounds with start-up take about "
                f"{estimate:.0f} s (target: about a minute)"
            )
    return lines


def _verdict(met: bool) -> str:
    return "met   " if met else "MISSED"


def _table(rows: Iterable[Row], title: str) -> Table:
    table = Table(title=title)
    for name in ("method", "clients", "runtime", "threads"):
        table.add_column(name)
    for name in ("ms a round", "of floor", "client", "server", "transport", "start-up s", "peak MiB", "test"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row.method,
            str(row.clients),
            row.runtime,
            str(row.threads),
            f"{1e3 * row.seconds:.0f}",
            f"{row.ratio:.2f}",
            *(f"{1e3 * seconds:.0f}" for seconds in (row.client, row.server, row.transport)),
            f"{row.startup:.1f}",
            f"{row.memory_mib:.0f}",
            f"{row.test:.3f}",
            end_section=row.runtime == RAY,
        )
    return table


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """Arguments of every benchmark of rounds: the cases, and how long to measure each."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="cora", help="as in conf/dataset; its files lie under SUBFL_DATA")
    parser.add_argument("--partition", default="metis", choices=("metis", "overlapping"))
    parser.add_argument("--clients", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--methods", nargs="+", default=["fedavg", "fedpub"], choices=("local", "fedavg", "fedpub"))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--warmup", type=int, default=5, help="rounds of each process that do not count")
    parser.add_argument("--json", type=Path, help="write the table there, too")
    parser.add_argument("overrides", nargs="*", help="further overrides of subfl, after --")
    return parser


def parsed(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of a parser made by `argument_parser`; at least one round must count."""
    arguments = parser.parse_args(argv)
    if arguments.rounds <= arguments.warmup:
        parser.error(f"--rounds {arguments.rounds} leaves none after --warmup {arguments.warmup}")
    return arguments


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--runtimes", nargs="*", default=[INLINE, RAY], choices=(INLINE, RAY))
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="numbers of threads of inline, in turn")
    parser.add_argument("--repeats", type=int, default=1, help="how often to go through floor, runtimes, floor")
    return parsed(parser, argv)


if __name__ == "__main__":
    main()

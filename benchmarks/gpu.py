"""Seconds a round on a GPU, as a ratio to the plain loop on the same GPU, measured in the same run.

    .venv/bin/python benchmarks/gpu.py --dataset cora --clients 10 50 --methods fedavg fedpub --json gpu.json

The cases are the loop of `floor.py` on the GPU, `runtime=inline` on it in float32 and in bfloat16, two actors of
`runtime=ray` that share it, and `runtime=inline` on the CPU. Without a GPU the command says so, and measures nothing.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from speed import FLOOR, INLINE, RAY, Measurement, argument_parser, measure, parsed

_ON_GPU, _ON_CPU = "runtime.device=cuda", "runtime.device=cpu"
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "loop on the GPU": (FLOOR, (_ON_GPU,)),
    "inline": (INLINE, (_ON_GPU,)),
    "inline, bfloat16": (INLINE, (_ON_GPU, "runtime.precision=bfloat16")),
    "ray, two actors": (RAY, (_ON_GPU, "runtime.num_gpus=0.5")),
    "inline on the CPU": (INLINE, (_ON_CPU, "runtime.threads=auto")),
}
"""The floor or a runtime, and its overrides, by name."""
LOOP = next(iter(CASES))


@dataclass(frozen=True)
class GPURow:
    """One line of the table: medians of a round, and the accuracy after the last one."""

    method: str
    clients: int
    case: str
    milliseconds: float
    of_loop: float
    client: float
    server: float
    test: float
    gpu: str


def rows_of(method: str, clients: int, found: dict[str, Measurement], gpu: str) -> list[GPURow]:
    """The lines of one method and number of clients, from the measurements by case."""
    loop = found[LOOP].median()
    return [
        GPURow(
            method=method,
            clients=clients,
            case=case,
            milliseconds=1e3 * one.median(),
            of_loop=one.median() / loop,
            client=1e3 * statistics.median(one.parts["client"]),
            server=1e3 * statistics.median(one.parts["server"]),
            test=one.test,
            gpu=gpu,
        )
        for case, one in found.items()
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure all cases, and print a table; say so where there is no GPU."""
    arguments = parsed(argument_parser(__doc__), argv)
    console = Console()
    if not torch.cuda.is_available():
        console.print("no GPU is visible here: nothing is measured")
        return
    gpu = torch.cuda.get_device_name()
    rows: list[GPURow] = []
    with tempfile.TemporaryDirectory(prefix="subfl-gpu-") as folder:
        for clients in arguments.clients:
            for method in arguments.methods:
                data = [f"dataset={arguments.dataset}", f"partition={arguments.partition}"]
                size = [f"partition.clients={clients}", f"federation.rounds={arguments.rounds}"]
                found: dict[str, Measurement] = {}
                for case in (*CASES, LOOP):
                    name, own = CASES[case]
                    given = [f"method={method}", *data, *size, *arguments.overrides, *own]
                    with console.status(f"{method}, {clients} clients, {case}"):
                        measured = measure(name, given, arguments.warmup, Path(folder))
                    found[case] = found[case].join(measured) if case in found else measured
                rows += rows_of(method, clients, found, gpu)
    console.print(table(rows, f"{arguments.dataset}, {arguments.partition}, {gpu}"))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def table(rows: Sequence[GPURow], title: str) -> Table:
    """All lines."""
    found = Table(title=title)
    for name in ("method", "clients", "case", "ms a round", "of loop", "client", "server", "test"):
        found.add_column(name, justify="left" if name in ("method", "case") else "right")
    for row in rows:
        figures = (f"{row.milliseconds:.0f}", f"{row.of_loop:.2f}", f"{row.client:.0f}", f"{row.server:.0f}")
        found.add_row(row.method, str(row.clients), row.case, *figures, f"{row.test:.3f}")
    return found


if __name__ == "__main__":
    main()

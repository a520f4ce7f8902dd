"""CPU seconds of a command's start, as a ratio to importing PyTorch, PyG and Flower alone.

    .venv/bin/python benchmarks/startup.py

Each measurement is a separate process, in turns: the imports, a run of one round on ``digits``, ``subfl --help``. User
and system time are counted together, so that what else the machine does matters little.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

RATIO_TARGET = 1.4
IMPORTS = "import torch, torch_geometric, flwr"
SUBFL = [sys.executable, "-c", "from subfl_flower.cli import main; main()"]
COMMANDS = {
    IMPORTS: [sys.executable, "-c", IMPORTS],
    "subfl dataset=digits federation.rounds=1": [*SUBFL, "dataset=digits", "federation.rounds=1"],
    "subfl --help": [*SUBFL, "--help"],
}


def cpu_seconds(command: list[str], folder: Path) -> float:
    """User and system seconds of a command that must succeed, in `folder`."""
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read().decode()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} has failed:\n{said}")
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure in turns, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="processes for each command")
    parser.add_argument("--json", type=Path, help="also write the seconds of every process to this file")
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.repeats + 1):
            for name, command in COMMANDS.items():
                seconds[name].append(cpu_seconds(command, Path(folder)))
    measured = {name: found[1:] for name, found in seconds.items()}  # the first one reads its files from the disk
    floor = statistics.median(measured[IMPORTS])
    table = Table("command", "CPU s", "of imports", "target")
    for name, found in measured.items():
        median = statistics.median(found)
        target = f"{RATIO_TARGET}" if "federation" in name else ""
        table.add_row(name, f"{median:.2f}", f"{median / floor:.2f}", target)
    Console().print(table)
    if options.json is not None:
        options.json.write_text(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()

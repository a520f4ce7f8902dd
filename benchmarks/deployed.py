"""Seconds of a deployed round: SuperNodes that fork for each message, and SuperNodes that start a program for each.

Real processes of this machine, on its loopback interface: one SuperLink, and SuperNodes with one client each. The two
kinds of SuperNode take turns, so that both meet the same load. The same run is done in one process, to compare numbers.

    .venv/bin/python benchmarks/deployed.py --rounds 8 --turns 2 --json deployed.json
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from subfl_flower.flower.ports import free_port
from subfl_flower.flower.process_tree import MARKER, guarded_launch
from subfl_flower.runs.directory import RunDirectory

KINDS = {"warm": "--warm", "cold": "--no-warm"}
PARTS = ("round", "startup", "client", "server", "transport")
_PATIENCE = 300.0


def main() -> None:
    """Measure, print a table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8, help="rounds of a run; the first is not counted")
    parser.add_argument("--turns", type=int, default=2, help="runs of each kind")
    parser.add_argument("--supernodes", type=int, default=3)
    parser.add_argument("--kinds", nargs="*", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("overrides", nargs="*", default=["method=fedpub", "dataset=digits", "model.hidden=16"])
    options = parser.parse_args()
    overrides = [*options.overrides, f"federation.rounds={options.rounds}"]
    with tempfile.TemporaryDirectory(prefix="subfl-deployed-") as scratch:
        found = measured(Path(scratch), options.supernodes, overrides, options.turns, options.kinds)
    for kind, seconds in found["seconds"].items():
        print(kind, "  ".join(f"{part} {value:.2f} s" for part, value in seconds.items()))
    if len(found["seconds"]) == 2:
        found["ratio"] = found["seconds"]["warm"]["round"] / found["seconds"]["cold"]["round"]
        print(f"a warm round takes {found['ratio']:.2f} of a cold one")
    print(f"largest difference of an accuracy from the run in one process: {found['difference']:.1g}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def measured(
    folder: Path, supernodes: int, overrides: Sequence[str], turns: int, kinds: Sequence[str]
) -> dict[str, Any]:
    """Median seconds of a round by kind and part, and the largest difference of an accuracy from one process's."""
    environment = {**os.environ, MARKER: uuid.uuid4().hex, "FLWR_HOME": str(folder / "user"), "OMP_NUM_THREADS": "1"}
    subfl = [sys.executable, "-P", "-m", "subfl_flower"]

    def command(*arguments: object) -> str:
        done = subprocess.run(
            [*subfl, *map(str, arguments)], cwd=folder, env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"subfl {' '.join(map(str, arguments))}: {done.stdout}{done.stderr}")
        return done.stdout

    def start(name: str, *arguments: object) -> subprocess.Popen[bytes]:
        home = {**environment, "FLWR_HOME": str(folder / name)}
        with (folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen([*subfl, *map(str, arguments)], cwd=folder, env=home, stdout=log, stderr=log)

    def log(name: str) -> str:
        return (folder / f"{name}.log").read_text(errors="replace")

    @contextmanager
    def nodes(kind: str) -> Iterator[None]:
        names = [f"node-{number}" for number in range(supernodes)]
        started = [
            start(
                name,
                *("deploy", "supernode", "--insecure", "--superlink", address, KINDS[kind]),
                *("--client", folder / "clients" / f"client-{number:02d}"),
            )
            for number, name in enumerate(names)
        ]
        wait_for(lambda: all("SuperNode ID" in log(name) for name in names), "the SuperNodes are connected")
        try:
            yield
        finally:
            for process in started:
                process.send_signal(signal.SIGTERM)
            for process in started:
                process.wait(60)

    data = [override for override in overrides if override.startswith("dataset")]
    command("partition", *data, "partition=metis", f"partition.clients={supernodes}", f"out={folder / 'clients'}")
    command(*overrides, "partition=metis", f"partition.clients={supernodes}", f"hydra.run.dir={folder / 'inline'}")
    alone = RunDirectory(folder / "inline").rounds()
    address = f"127.0.0.1:{free_port()}"
    rounds: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    difference = 0.0
    with guarded_launch(environment[MARKER], scratch=str(folder)):
        start("superlink", "deploy", "superlink", "--insecure", "--host", "127.0.0.1", "--port", address.split(":")[1])
        wait_for(lambda: "Uvicorn running" in log("superlink") or "started" in log("superlink"), "the SuperLink runs")
        (folder / "user").mkdir()
        (folder / "user" / "config.toml").write_text(f'[superlink.lab]\naddress = "{address}"\ninsecure = true\n')
        for _ in range(turns):
            for kind in kinds:
                with nodes(kind):
                    schema = f"schema={folder / 'clients' / 'federation.json'}"
                    said = command("deploy", "submit", *overrides, schema, "--connection", "lab")
                directory = Path(re.findall(r"run directory: (\S+)", said)[-1])
                records = RunDirectory(folder / directory).rounds()
                difference = max(difference, largest_difference(records, alone))
                rounds[kind] += [record["seconds"] for record in records[1:]]
                print(kind, "rounds of", "  ".join(f"{r['seconds']['round']:.2f} s" for r in records[1:]), flush=True)
    medians = {
        kind: {part: statistics.median(seconds[part] for seconds in found) for part in PARTS}
        for kind, found in rounds.items()
    }
    return {"seconds": medians, "rounds": rounds, "difference": difference, "overrides": list(overrides)}


def largest_difference(one: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]) -> float:
    """The largest difference of a client's test accuracy between two runs."""
    pairs = [
        (a, b)
        for left, right in zip(one, other, strict=True)
        for a, b in zip(left["clients"]["test"], right["clients"]["test"], strict=True)
    ]
    return max(abs(a - b) for a, b in pairs)


def wait_for(happened: Callable[[], bool], meaning: str) -> None:
    """Wait until something has happened.

    Raises:
        SystemExit: it did not within five minutes.
    """
    deadline = time.monotonic() + _PATIENCE
    while not happened():
        if time.monotonic() > deadline:
            raise SystemExit(f"{meaning}: did not happen within {_PATIENCE:.0f} s")
        time.sleep(0.1)


if __name__ == "__main__":
    main()

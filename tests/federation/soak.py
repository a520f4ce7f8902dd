"""A long run on real processes of this machine, whose nodes, ServerApp and SuperLink are killed or held up at random.

    PYTHONPATH=tests python tests/federation/soak.py --rounds 200 --folder soak --json soak.json

It carries out three runs of the same settings: one that is left alone, one that ends with each failure of a client
(``runtime.on_client_failure=stop``) and is resumed each time, and one that goes on without such clients (``continue``).
The second must have the numbers of the first; in the third no client may be blamed whose node was not disturbed. The
processes' memory, and processes and files that are left behind, are looked at throughout.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from local_federation import LocalFederation, command, kill, shared_arguments, wait_for

from subfl_flower.errors import SubflError
from subfl_flower.flower.process_tree import LaunchProcesses
from subfl_flower.node.durable_store import StateCard
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.server.checkpoint import Checkpoint
from subfl_flower.storage.tensor_file import MODEL_FILE, read_tensor_file

CLIENTS = {"node-0": (1,), "node-1": (0, 3), "node-2": (2,)}
"""The clients of each SuperNode; `node-0` is never disturbed, so that its memory can be watched for all rounds."""

FAULTS = ("node", "supernode", "executor", "message", "serverapp", "superlink", "slow")
"""Processes that are killed: all of a node, its SuperNode alone, its executor, the process of a message, the ServerApp,
the SuperLink; and a node that is held up for a while."""

RUNS = ("unbroken", "stop", "continue")
"""Runs of the same settings: left alone; ended by each failure, and resumed; going on without clients that fail."""

STOPS = ("serverapp", "superlink")
"""Faults that end a run on the server's side, whatever it does with failures of clients."""

_SAMPLE_SECONDS = 2.0
_TIMEOUT = 75.0
"""Seconds that a round waits; some nodes are held up for longer."""
_BLAME_SECONDS = 150.0
"""Time after the end of a fault within which a client's failure may come from it."""
_STALL_SECONDS = 600.0
_TRIES = 20
_SAME = 1e-6
"""Largest difference of figures that are the same."""


@dataclass
class Fault:
    """Something that was done to a process.

    Attributes:
        kind: one of `FAULTS`.
        node: the SuperNode's name; None for the server's processes.
        round: the finished rounds at that moment.
        began, ended: times of day; `ended` when the node was there again.
    """

    kind: str
    node: str | None
    round: int
    began: float
    ended: float | None = None


@dataclass
class Findings:
    """Outcome of a run.

    Attributes:
        rounds: the records of its rounds.
        summary: its summary.
        faults: what was done to it.
        stops: how often it ended and was resumed.
        reasons: last lines of the operator's log at each stop.
        blamed: client, round and reason of each failure that no fault explains.
        seconds: of the whole run.
    """

    rounds: list[dict[str, Any]]
    summary: dict[str, Any]
    faults: list[Fault]
    stops: int
    reasons: list[str]
    blamed: list[tuple[str, int, str]]
    seconds: float


class Memory:
    """Resident memory of all processes of a federation over time, by kind of process and number."""

    def __init__(self) -> None:
        self.samples: dict[tuple[str, int], list[tuple[int, int, int]]] = defaultdict(list)
        self._last = 0.0

    @property
    def is_due(self) -> bool:
        """True every few seconds."""
        return time.monotonic() - self._last >= _SAMPLE_SECONDS

    def sample(self, processes: Mapping[str, Sequence[psutil.Process]], done: int) -> None:
        """Note round, bytes and open files of each process."""
        self._last = time.monotonic()
        for kind, members in processes.items():
            for process in members:
                with contextlib.suppress(psutil.Error):
                    self.samples[kind, process.pid].append((done, process.memory_info().rss, process.num_fds()))

    def growth(self, least_samples: int = 40) -> dict[str, dict[str, float]]:
        """MiB and open files of long-lived processes: medians of the second and of the last quarter of life."""
        found: dict[str, dict[str, float]] = {}
        for (kind, pid), samples in self.samples.items():
            if len(samples) < least_samples:
                continue
            quarter = len(samples) // 4
            early, late = samples[quarter : 2 * quarter], samples[-quarter:]
            found[f"{kind} {pid}"] = {
                "samples": len(samples),
                "early_mib": _median([size for _, size, _ in early]) / 2**20,
                "late_mib": _median([size for _, size, _ in late]) / 2**20,
                "early_files": _median([files for _, _, files in early]),
                "late_files": _median([files for _, _, files in late]),
            }
        return found


class Soak:
    """A federation under faults.

    Args:
        folder: everything is below it; must not exist.
        rounds: of each run.
        seed: of the faults.
        overrides: further settings of the runs.
    """

    def __init__(self, federation: LocalFederation, partition: Path, rounds: int, seed: int) -> None:
        self.federation, self.partition, self.rounds = federation, partition, rounds
        self.memory = Memory()
        self._random = random.Random(seed)
        self._held: list[tuple[float, Fault, list[psutil.Process]]] = []
        self._hosted: dict[str, int] = {}

    @classmethod
    @contextlib.contextmanager
    def opened(cls, folder: Path, rounds: int, seed: int) -> Iterator[Soak]:
        """With a SuperLink and three SuperNodes; all are ended."""
        folder.mkdir()
        partition = folder / "partition"
        command("partition", "dataset=digits", "partition=metis", "partition.clients=4", f"out={partition}")
        place = folder / "federation"
        place.mkdir()
        before = os.environ.get("FLWR_HOME")
        with LocalFederation.opened(place) as federation:
            federation.schema = partition / "federation.json"
            federation.start_superlink()
            soak = cls(federation, partition, rounds, seed)
            for name in CLIENTS:
                federation.key(name)
                soak._start_node(name)
            for name in CLIENTS:
                federation.wait_for_node(name)
            yield soak
        os.environ.pop("FLWR_HOME", None)
        if before is not None:
            os.environ["FLWR_HOME"] = before

    # A run ---------------------------------------------------------------------------------------------------------

    def run(self, mode: str, faults: Sequence[str]) -> Findings:
        """Carry out a run with faults of these kinds, at random rounds; resume it for as long as it ends early."""
        federation, began = self.federation, time.time()
        due = sorted((self._random.randint(1, max(1, self.rounds - 2)), kind) for kind in faults)
        asked: tuple[str, ...] = (
            *shared_arguments(f"federation.rounds={self.rounds}", f"runtime.on_client_failure={mode}"),
            *(f"federation.round_timeout={_TIMEOUT:.0f}", "runtime.node_timeout=240"),
        )
        done: list[Fault] = []
        reasons: list[str] = []
        times: dict[int, float] = {}
        directory: Path | None = None
        for _ in range(_TRIES + len(faults)):
            submitted = federation.submit(*asked)
            deadline = time.monotonic() + _STALL_SECONDS
            while submitted.poll() is None:
                directory = directory or federation.run_directory()
                count = 0 if directory is None else _lines(directory / "metrics.jsonl")
                if count not in times and directory is not None:
                    times[count] = time.time()
                    deadline = time.monotonic() + _STALL_SECONDS
                assert time.monotonic() < deadline, f"no round within {_STALL_SECONDS:.0f} s: {federation.log('user')}"
                self._keep(done)
                if self.memory.is_due:
                    self.memory.sample(self.processes(), count)
                is_time = due and directory is not None and count >= due[0][0] and not self._is_disturbed(done)
                if is_time and (fault := self._disturb(due[0][1], count)) is not None:
                    _say(f"{mode}: {fault.kind} {fault.node or ''} after round {count}")
                    due.pop(0)
                    done.append(fault)
                    if fault.kind in STOPS:
                        kill(submitted)  # Flower takes a minute to see that a run is dead
                time.sleep(0.1)
            assert directory is not None, federation.log("user")
            summary = RunDirectory(directory).summary()
            if summary is not None and summary["status"] == "completed":
                break
            reason = federation.log("user").strip().splitlines()[-1:]
            reasons += reason
            _say(f"{mode}: ended after round {_lines(directory / 'metrics.jsonl')}: {' '.join(reason)[:300]}")
            self._wait_for_all(done)
            asked = (f"resume={directory}",)
        assert summary is not None and summary["status"] == "completed", reasons
        self._wait_for_all(done)
        records = RunDirectory(directory).rounds()
        assert _lines(directory / "metrics.jsonl") == len(records) == self.rounds
        blamed = _unexplained(records, times, done)
        return Findings(records, summary, done, len(reasons), reasons, blamed, time.time() - began)

    def _keep(self, faults: Sequence[Fault]) -> None:
        """Do what a service manager does: start again what has ended; and let held processes go on."""
        federation = self.federation
        for moment, fault, processes in list(self._held):
            if time.time() >= moment:
                for process in processes:
                    with contextlib.suppress(psutil.Error):
                        process.resume()
                fault.ended = time.time()
                self._held.remove((moment, fault, processes))
        assert federation.superlink is not None
        if federation.superlink.poll() is not None:
            federation.start_superlink()
            for fault in faults:
                fault.ended = fault.ended or (time.time() if fault.kind == "superlink" else None)
        for name, node in federation.nodes.items():
            if node.poll() is not None:
                self._start_node(name)
        for fault in faults:
            if fault.node is None or fault.ended is not None or fault.kind not in ("node", "supernode"):
                continue
            if federation.log(fault.node).count("SuperNode ID") > self._hosted[fault.node]:
                fault.ended = time.time()

    def _start_node(self, name: str) -> None:
        folders = [self.partition / f"client-{client:02d}" for client in CLIENTS[name]]
        key = self.federation.folder / f"{name}.key"
        self.federation.start_node(name, *folders, key=key, allowed=())

    @staticmethod
    def _is_disturbed(faults: Sequence[Fault]) -> bool:
        return any(fault.ended is None for fault in faults)

    def _wait_for_all(self, faults: list[Fault]) -> None:
        def is_quiet() -> bool:
            self._keep(faults)
            return not self._is_disturbed(faults)

        wait_for(is_quiet, "all nodes are there again")

    # Faults --------------------------------------------------------------------------------------------------------

    def _disturb(self, kind: str, done: int) -> Fault | None:
        """Do something to a process; None where there is no such process at this moment."""
        federation = self.federation
        node = None if kind in STOPS else self._random.choice([name for name in CLIENTS if name != "node-0"])
        fault = Fault(kind, node, done, time.time())
        processes = self.processes()
        if kind in STOPS:
            found = processes[kind]
            if not found:
                return None
            # The process alone, as when memory runs out, or everything that it started as well.
            if self._random.random() < 0.5:
                kill(federation.superlink if kind == "superlink" and federation.superlink else found[0])
            else:
                found[0].kill()
            fault.ended = None if kind == "superlink" else time.time()
            return fault
        assert node is not None
        self._hosted[node] = federation.log(node).count("SuperNode ID")
        if kind == "node":
            kill(federation.nodes[node])
        elif kind == "supernode":
            federation.nodes[node].kill()
        elif kind == "slow":
            tree = psutil.Process(federation.nodes[node].pid)
            members = [tree, *tree.children(recursive=True)]
            for member in members:
                with contextlib.suppress(psutil.Error):
                    member.suspend()
            seconds = self._random.uniform(2.0, 20.0) if self._random.random() < 0.7 else _TIMEOUT + 15.0
            self._held.append((time.time() + seconds, fault, members))
        else:
            found = [process for process in processes[kind] if _is_below(process, federation.nodes[node].pid)]
            if not found:
                return None
            found[0].kill()
            fault.ended = time.time()
        return fault

    def processes(self) -> dict[str, list[psutil.Process]]:
        """All processes of the federation by kind."""
        found: dict[str, list[psutil.Process]] = {kind: [] for kind in ("superlink", "serverapp", "supernode")}
        found |= {kind: [] for kind in ("executor", "template", "message", "submitter", "other")}
        for process in LaunchProcesses(self.federation.launch_id).running():
            with contextlib.suppress(psutil.Error):
                found[_kind(process, process.cmdline())].append(process)
        return found

    def orphans(self) -> list[str]:
        """Processes that belong to no living node or SuperLink."""
        federation = self.federation
        assert federation.superlink is not None
        owners = {federation.superlink.pid, *(node.pid for node in federation.nodes.values())}
        found = []
        for process in LaunchProcesses(federation.launch_id).running():
            with contextlib.suppress(psutil.Error):
                if process.pid not in owners and not any(_is_below(process, owner) for owner in owners):
                    found.append(f"{process.pid} {' '.join(process.cmdline())[:120]}")
        return found

    # What is left --------------------------------------------------------------------------------------------------

    def unsound_files(self, directory: Path, run_id: str) -> list[str]:
        """Files of a run, on the server and on the nodes, that cannot be read or should not be there."""
        wrong: list[str] = []
        with _noted(wrong):
            checkpoint = Checkpoint.read(RunDirectory(directory).checkpoint_folder)
            assert (checkpoint.run_id, checkpoint.server_round) == (run_id, self.rounds)
        wrong += [str(path) for path in directory.rglob(".*") if path.is_file()]
        there = RunDirectory(directory).rounds()[-1]["clients"]["ids"]  # another one's node is away at the end
        for clients in CLIENTS.values():
            for client in clients:
                folder = self.partition / f"client-{client:02d}" / "runs" / run_id
                wrong += [str(path) for path in folder.rglob(".*")]
                states = sorted((folder / "state").glob("*.safetensors"))
                if not states or (client in there and not (folder / MODEL_FILE).is_file()):
                    wrong.append(f"{folder} lacks a state or the model")
                for path in states:
                    with _noted(wrong):
                        _, card = read_tensor_file(path, StateCard)
                        assert card.client == client, path
        return wrong


def _kind(process: psutil.Process, line: Sequence[str]) -> str:
    text = " ".join(line)
    if "deploy submit" in text or "flwr run" in text:
        return "submitter"
    if "flwr-serverapp" in text:
        return "serverapp"
    if "warm.supernode" in text:
        return "supernode"
    if "warm.executor" in text:
        return "executor"
    if "warm/template.py" in text:
        return "message" if _is_message(process) else "template"
    return "superlink" if "flower-superlink" in text else "other"


def _is_message(process: psutil.Process) -> bool:
    """True for a fork that works on a message: it talks to its SuperNode."""
    return bool(process.net_connections(kind="tcp"))


def _is_below(process: psutil.Process, ancestor: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(parent.pid == ancestor for parent in process.parents())
    return False


def _unexplained(
    records: Sequence[Mapping[str, Any]], times: Mapping[int, float], faults: Sequence[Fault]
) -> list[tuple[str, int, str]]:
    """Failures of clients whose node was not disturbed within the round, or in the minutes before it."""
    nodes = {str(client): name for name, clients in CLIENTS.items() for client in clients}
    found = []
    for record in records:
        number = record["round"]
        began, ended = times.get(number - 1, 0.0), times.get(number, time.time())
        for client, reason in record["failures"].items():
            explained = any(
                (fault.node == nodes[client] or fault.kind in STOPS)
                and fault.began <= ended + 1.0
                and (fault.ended or time.time()) + _BLAME_SECONDS >= began
                for fault in faults
            )
            if not explained:
                found.append((client, number, reason))
    return found


def differences(one: Findings, other: Findings) -> dict[str, float]:
    """The largest difference of each figure between two runs; infinite where they are of other rounds or clients."""
    found: dict[str, float] = {}
    for left, right in zip(one.rounds, other.rounds, strict=True):
        found["bytes"] = max(found.get("bytes", 0.0), abs(left["bytes_up"] - right["bytes_up"]))
        for name, values in left["clients"].items():
            pairs = zip(values, right["clients"].get(name, []), strict=False)
            largest = max((abs((a or 0.0) - (b or 0.0)) for a, b in pairs), default=float("inf"))
            found[name] = max(found.get(name, 0.0), largest)
    return found


@contextlib.contextmanager
def _noted(wrong: list[str]) -> Iterator[None]:
    try:
        yield
    except (SubflError, AssertionError) as error:
        wrong.append(str(error))


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _median(values: Sequence[float]) -> float:
    return float(sorted(values)[len(values) // 2])


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def soak(folder: Path, rounds: int, seed: int, per_kind: int, only: Sequence[str] = RUNS) -> dict[str, Any]:
    """Carry out the runs of these names; all that was found."""
    faults = [kind for kind in FAULTS for _ in range(per_kind)]
    found: dict[str, Any] = {"rounds": rounds, "seed": seed}
    with Soak.opened(folder, rounds, seed) as soak:
        runs: dict[str, Findings] = {}
        for name in only:
            asked = [] if name == "unbroken" else faults
            _say(f"{name}: {rounds} rounds, {len(asked)} faults")
            run = runs[name] = soak.run("continue" if name == "continue" else "stop", asked)
            directory = soak.federation.run_directory()
            assert directory is not None
            found[name] = {
                "seconds": run.seconds,
                "stops": run.stops,
                "reasons": run.reasons,
                "faults": [vars(fault) for fault in run.faults],
                "blamed": run.blamed,
                "refused": run.summary.get("refused", []),
                "failures": sum(len(record["failures"]) for record in run.rounds),
                "unsound": soak.unsound_files(directory, run.summary["run_id"]),
                "test": run.summary.get("test_at_best_validation"),
                "seconds_per_round": run.summary.get("seconds_per_round"),
            }
            with contextlib.suppress(AssertionError):
                wait_for(lambda: not soak.orphans(), "no process is left behind", patience=30.0)
            found[name]["orphans"] = soak.orphans()
            found[name]["processes"] = {kind: len(members) for kind, members in soak.processes().items() if members}
            _say(f"{name}: {json.dumps({k: v for k, v in found[name].items() if k != 'faults'})[:1500]}")
        both = {"unbroken", "stop"} <= set(runs)
        found["differences"] = differences(runs["unbroken"], runs["stop"]) if both else {}
        found["memory"] = soak.memory.growth()
    return found


def problems(found: Mapping[str, Any]) -> list[str]:
    """All that must not be, in words.

    A resumed run has the numbers of the unbroken one; nobody is blamed or refused without a reason; no process and no
    unsound file is left; processes that live long do not grow by more than a tenth and 20 MiB, or by ten open files.
    """
    wrong = [f"{name} differs by {value:g}" for name, value in found["differences"].items() if value > _SAME]
    first, *_ = done = [name for name in RUNS if name in found]
    for name in done:
        run = found[name]
        wrong += [f"{name}: {what}: {run[what]}" for what in ("blamed", "refused", "unsound", "orphans") if run[what]]
        if run["processes"] != found[first]["processes"]:
            wrong.append(f"{name}: processes are {run['processes']}, not {found[first]['processes']}")
    for name, grown in found["memory"].items():
        if grown["late_mib"] > 1.1 * grown["early_mib"] + 20 or grown["late_files"] > grown["early_files"] + 10:
            wrong.append(f"{name} grows: {grown}")
    return wrong


def main() -> None:
    """Carry out the runs, and print what was found; exit with 1 where something must not be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument("--per-kind", type=int, default=3, help="faults of each kind in each run")
    parser.add_argument("--only", nargs="*", choices=RUNS, default=list(RUNS), help="the runs to carry out")
    parser.add_argument("--folder", type=Path, required=True, help="a new folder for all files")
    parser.add_argument("--json", type=Path, help="file for the findings")
    options = parser.parse_args()
    found = soak(options.folder.resolve(), options.rounds, options.seed, options.per_kind, options.only)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({key: found[key] for key in ("differences", "memory")}, indent=1))
    wrong = problems(found)
    print("\n".join(wrong) or "nothing is wrong")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()

"""Milliseconds that each part of a round takes: training steps, Adam, copies, packing, mixing, evaluation.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/profile_round.py method=fedpub dataset=cora partition.clients=50

The run is `runtime=inline` in this process, with the given overrides. Functions are timed where they are called, each
without the time of other parts inside it, so that the parts of a round add up to it. One thread by default; with more
(``runtime.threads=2``) the parts are those of all threads together.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import json
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

PARTS: dict[str, tuple[str, ...]] = {
    "unpack the message": ("wire.payload:unpack_choice", "wire.ragged:unpack_ragged", "client_app:_batch"),
    "rows of the message as tensors": (
        *("wire.batch:Batch.tensors", "wire.batch:Batch.take"),
        "clients.subgraphs.compact_rows:CompactRows.received",
    ),
    "rows of the state, to and fro": (
        *("node.state:CohortState.rows", "node.state:CohortState.replacing", "node.state:CohortState.copied"),
    ),
    "prepare graphs": (
        *("clients.subgraphs.subgraph:SubgraphClient.graph_chunk", "clients.recommendation.users:Users.graphs"),
    ),
    "forward and backward": (
        "clients.subgraphs.local_steps:LocalSteps.take",
        "clients.recommendation.user_parts:UserWork.work",
    ),
    "Adam": ("models.adam:adam_step",),
    "penalty gradients": ("clients.subgraphs.local_weights:LocalWeights.add_penalty_gradients",),
    "effective parameters": ("clients.subgraphs.local_weights:LocalWeights.effective",),
    "evaluation": (
        *("clients.subgraphs.subgraph:SubgraphClient.outputs", "tasks.settings:GraphTask.examples"),
        "clients.recommendation.user_parts:Prediction.figures",
    ),
    "embedding": ("clients.subgraphs.description:Description.of",),
    "best model so far": ("clients.subgraphs.subgraph:SubgraphClient.keep_best",),
    "select the upload": (
        *("clients.subgraphs.local_weights:LocalWeights.upload", "clients.subgraphs.compact_rows:CompactRows.spread"),
    ),
    "hide the upload": ("clients.recommendation.user_parts:UploadTransform.__call__",),
    "join chunks": ("wire.batch:Result.joined",),
    "pack": ("wire.payload:pack", "wire.ragged:pack_ragged"),
    "other client": ("client_app:_work",),
    "unpack and check replies": ("wire.replies:read_reply", "server.round_messages:collect"),
    "join replies": ("wire.replies:combine",),
    "mix": ("server.strategy:CohortStrategy.aggregate",),
    "make instructions": ("server.strategy:CohortStrategy.train_orders",),
    "other server": ("server.strategy:CohortStrategy.take", "server.round_messages:address"),
    "between the two": ("flower.delivery:send_and_wait",),
}
"""Functions by part, as ``module:name``; a class' method stands for that of all its subclasses."""

REST = "rest of the round"


class Clock:
    """Seconds by part, each without those of parts inside it; every thread has its own stack of parts."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._lock, self._local = threading.Lock(), threading.local()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a block as a part."""
        stack: list[float] = self._local.__dict__.setdefault("inside", [])
        stack.append(0.0)
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            inside = stack.pop()
            if stack:
                stack[-1] += spent
            with self._lock:
                self.seconds[name] += spent - inside

    def take(self) -> dict[str, float]:
        """The seconds since the last call."""
        with self._lock:
            taken = dict(self.seconds)
            self.seconds.clear()
        return taken


def timed(function: Callable[..., Any], part: str, clock: Clock) -> Callable[..., Any]:
    """A function that is timed as a part; of a context manager its beginning and its end."""
    inner = getattr(function, "__wrapped__", None)
    if inner is not None and inspect.isgeneratorfunction(inner):

        @contextlib.contextmanager
        def managed(*arguments: Any, **named: Any) -> Iterator[Any]:
            manager = function(*arguments, **named)
            with clock.part(part):
                value = manager.__enter__()
            try:
                yield value
            except BaseException:
                if not manager.__exit__(*sys.exc_info()):
                    raise
            else:
                with clock.part(part):
                    manager.__exit__(None, None, None)

        return managed

    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        with clock.part(part):
            return function(*arguments, **named)

    return call


def install(clock: Clock) -> None:
    """Time all functions of `PARTS`, wherever they were imported to."""
    _import_everything()
    for part, paths in PARTS.items():
        for path in paths:
            module_name, _, name = path.partition(":")
            module = importlib.import_module(f"subfl_flower.{module_name}")
            owner, _, method = name.rpartition(".")
            if owner:
                for cls in _family(getattr(module, owner)):
                    _replace_method(cls, method, part, clock)
            else:
                function = getattr(module, name)
                replacement = timed(function, part, clock)
                for other in [found for key, found in sys.modules.items() if key.startswith("subfl_flower")]:
                    if getattr(other, name, None) is function:
                        setattr(other, name, replacement)


def _import_everything() -> None:
    """Import all methods, whose classes override timed functions."""
    from subfl_flower.composition import config_directory

    root = config_directory().parent
    for side in ("clients", "strategies"):
        for path in sorted((root / side).rglob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            importlib.import_module(f"subfl_flower.{name}".removesuffix(".__init__"))
    importlib.import_module("subfl_flower.client_app")
    importlib.import_module("subfl_flower.simulation")


def _family(cls: type) -> list[type]:
    children: list[type] = type.__subclasses__(cls)
    return [cls, *(found for child in children for found in _family(child))]


def _replace_method(cls: type, method: str, part: str, clock: Clock) -> None:
    found = cls.__dict__.get(method)
    if found is None or getattr(found, "__isabstractmethod__", False):
        return
    if isinstance(found, classmethod):
        setattr(cls, method, classmethod(timed(found.__func__, part, clock)))
    else:
        setattr(cls, method, timed(found, part, clock))


def measure(overrides: Sequence[str], warmup: int) -> tuple[dict[str, float], float]:
    """Run, and return median milliseconds a round by part, and of a whole round.

    Args:
        overrides: of `subfl`.
        warmup: rounds at the start that do not count.
    """
    from subfl_flower.composition import composed_config
    from subfl_flower.simulation import simulate

    clock, taken = Clock(), list[dict[str, float]]()
    install(clock)
    loop: Any = importlib.import_module("subfl_flower.server.rounds")
    record = loop.round_record

    def end_of_round(*arguments: Any) -> Any:
        taken.append(clock.take())
        return record(*arguments)

    loop.round_record = end_of_round
    config, _ = composed_config(["runtime=inline", "runtime.threads=1", *overrides])
    with tempfile.TemporaryDirectory(prefix="subfl-profile-") as folder:
        directory = Path(folder) / "run"
        simulate(config, directory)
        lines = (directory / "metrics.jsonl").read_text().splitlines()
    whole = [json.loads(line)["seconds"]["round"] for line in lines][warmup:]
    if not whole:
        raise SystemExit(f"{len(lines)} rounds leave none after {warmup} of warm-up; use more federation.rounds")
    counted = taken[warmup:]
    parts = {part: 1e3 * statistics.median(found.get(part, 0.0) for found in counted) for part in PARTS}
    return {part: spent for part, spent in parts.items() if spent > 0}, 1e3 * statistics.median(whole)


def table(parts: dict[str, float], whole: float, title: str) -> Table:
    """The parts and their shares of a round, the largest first."""
    found = Table(title=title)
    for name in ("part", "ms a round", "share"):
        found.add_column(name, justify="left" if name == "part" else "right")
    rows = sorted(parts.items(), key=lambda item: -item[1])
    for part, spent in [*rows, (REST, max(0.0, whole - sum(parts.values()))), ("round", whole)]:
        found.add_row(part, f"{spent:.1f}", f"{100 * spent / whole:.0f} %", end_section=part == REST)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Measure one run, and print where its rounds' time goes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--warmup", type=int, default=3, help="rounds that do not count")
    parser.add_argument("--json", type=Path, help="write the milliseconds there, too")
    parser.add_argument("overrides", nargs="*", help="overrides of subfl")
    arguments = parser.parse_intermixed_args(argv)
    overrides = arguments.overrides
    if not any(override.startswith("federation.rounds=") for override in overrides):
        overrides = [*overrides, "federation.rounds=15"]
    parts, whole = measure(overrides, arguments.warmup)
    console = Console()
    console.print(table(parts, whole, " ".join(arguments.overrides)))
    if arguments.json:
        arguments.json.write_text(json.dumps({"overrides": overrides, "round": whole, "parts": parts}, indent=1))


if __name__ == "__main__":
    main()

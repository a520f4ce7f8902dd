"""Server aggregation alone: milliseconds to mix 50 clients' parameters.

.venv/bin/python benchmarks/aggregation.py --clients 50 --parameters 200000
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from subfl_flower.models.row_stack import RowStack
from subfl_flower.models.settings import ModelSettings
from subfl_flower.server.updates import Updates
from subfl_flower.strategies.subgraphs.fedpub import FedPUB
from subfl_flower.strategies.subgraphs.mixing import mix
from subfl_flower.subgraphs.models.choices import graph_network
from subfl_flower.wire.contract import RunContext
from subfl_flower.wire.roster import Roster, Shape

TARGET_MS = 50.0
HIDDEN, CLASSES = 128, 7


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--parameters", type=int, default=200_000, help="of one client's GCN")
    parser.add_argument("--zeros", type=float, default=0.7, help="share of pruned weights")
    parser.add_argument("--rows", type=float, default=0.28, help="share of the features that a client has")
    parser.add_argument("--repeats", type=int, default=25)
    arguments = parser.parse_args(argv)
    clients = arguments.clients

    rng = np.random.default_rng(0)
    stack = gcn_stack(clients, arguments.parameters, rng)
    pruned = {name: prune(values, arguments.zeros, rng) for name, values in stack.items()}
    matrix = rng.dirichlet(np.ones(clients), size=clients)
    average = np.tile(matrix[:1], (clients, 1))
    flat = rng.standard_normal((clients, arguments.parameters), dtype=np.float32)
    single = matrix.astype(np.float32)
    strategy, updates = fedpub(pruned)
    rows, row_updates = fedpub(with_rows(pruned, arguments.rows, rng))
    size = sum(values[0].size for values in stack.values())

    table = Table(title=f"{clients} clients, {size:,} parameters each")
    for name in ("aggregation", "median ms", "target"):
        table.add_column(name, justify="left" if name == "aggregation" else "right")
    cases: list[tuple[str, Callable[[], object], str]] = [
        ("NumPy: one matrix product", lambda: single @ flat, ""),
        ("mix, a matrix of different rows", lambda: mix(matrix, stack), f"< {TARGET_MS:.0f}"),
        ("mix, all rows alike (FedAvg)", lambda: mix(average, stack), f"< {TARGET_MS:.0f}"),
        (f"FedPUB.mixed, {arguments.zeros:.0%} zeros", lambda: strategy.mixed(matrix, updates), ""),
        (
            f"FedPUB.mixed, {arguments.zeros:.0%} zeros, {arguments.rows:.0%} of the features",
            lambda: rows.mixed(matrix, row_updates),
            "",
        ),
    ]
    for name, case, target in cases:
        table.add_row(name, f"{median_ms(case, arguments.repeats):.1f}", target)
    Console().print(table)


def gcn_stack(clients: int, parameters: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random parameters of a GCN, its input as wide as `parameters` entries a client allow; each [clients, ...]."""
    rest = HIDDEN + HIDDEN * HIDDEN + HIDDEN + HIDDEN * CLASSES + CLASSES
    shapes = {
        "conv1.weight": (max(1, (parameters - rest) // HIDDEN), HIDDEN),
        "conv1.bias": (HIDDEN,),
        "conv2.weight": (HIDDEN, HIDDEN),
        "conv2.bias": (HIDDEN,),
        "classifier.weight": (HIDDEN, CLASSES),
        "classifier.bias": (CLASSES,),
    }
    return {name: rng.standard_normal((clients, *shape), dtype=np.float32) for name, shape in shapes.items()}


def prune(values: np.ndarray, zeros: float, rng: np.random.Generator) -> np.ndarray:
    """A copy of a weight stack with a share of `zeros` among its entries; biases are not pruned."""
    if values.ndim < 3:
        return values
    return values * (rng.random(values.shape) >= zeros).astype(np.float32)


def with_rows(stack: dict[str, np.ndarray], share: float, rng: np.random.Generator) -> dict[str, Any]:
    """The stack, of whose first layer each client holds and sends the rows of some features alone."""
    first = stack["conv1.weight"]
    held = rng.random(first.shape[:2]) < share
    return {**stack, "conv1.weight": RowStack.of(first * held[:, :, None].astype(np.float32))}


def fedpub(stack: dict[str, Any]) -> tuple[FedPUB, Updates]:
    """The strategy, and a round in which all clients replied with their rows of `stack`."""
    clients = len(next(iter(stack.values())))
    ones = np.ones(clients)
    roster = Roster(
        tuple(range(clients)), (1,) * clients, ones, ones, ones, stack["conv1.weight"].shape[1], CLASSES, False
    )
    initial = {name: np.zeros(values.shape[1:], dtype=np.float32) for name, values in stack.items()}
    shape = Shape(roster.num_features, roster.num_classes)
    network = graph_network(ModelSettings(name="gcn", hidden=HIDDEN), shape.num_features, shape.num_classes)
    strategy = FedPUB(RunContext(FedPUB.Settings(), shape=shape, initial=initial, network=network), roster)
    nothing = np.zeros(clients, dtype=np.int64)
    wanted = np.zeros(stack["conv1.weight"].shape[:2], dtype=np.uint8)
    arrays = {**stack, "wanted_features": wanted}
    return strategy, Updates(1, np.arange(clients), arrays, {}, {}, nothing, nothing, 0.0)


def median_ms(case: Callable[[], object], repeats: int) -> float:
    """Median milliseconds of a call, after three that do not count."""
    for _ in range(3):
        case()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        case()
        seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds)


if __name__ == "__main__":
    main()

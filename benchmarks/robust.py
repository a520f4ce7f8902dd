"""Accuracy of FedAvg with one hostile client of ten, by rule of aggregation: the table of docs/threat_model.md.

.venv/bin/python benchmarks/robust.py
.venv/bin/python benchmarks/robust.py --partition metis --seeds 0 1 2 --dataset cora --rounds 100
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from subfl_flower import run

HERE = str(Path(__file__).parent)
HOSTILE = 0
"""Id of the client that `hostile_clients` makes hostile."""

# FedProx without its penalty is FedAvg, and its knobs are those of graphs alone, as the hostile clients' are.
FEDAVG = ("fedprox", "method.proximal=0")
ATTACKS: Mapping[str, Sequence[str]] = {
    "none": (),
    "update x 1e6": ("method.client=hostile_clients.ScaledUpdates", "+method.factor=1e6"),
    "update x -30": ("method.client=hostile_clients.ScaledUpdates", "+method.factor=-30"),
    "labels reversed": ("method.client=hostile_clients.FlippedLabels",),
}
RULES: Mapping[str, Sequence[str]] = {
    "mean, no bound": ("aggregation.norm_bound=null",),
    "mean, norm_bound (default)": (),
    "trimmed_mean": ("aggregation.rule=trimmed_mean",),
    "median": ("aggregation.rule=median",),
    "krum": ("aggregation.rule=krum",),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Print the mean test accuracy of honest clients in per cent, and its difference to the rule without attack."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--partition", default="random")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--json", type=Path, help="file for all accuracies")
    arguments = parser.parse_args(argv)
    if HERE not in sys.path:
        sys.path.insert(0, HERE)  # of hostile_clients

    found = {
        (rule, attack): [accuracy(arguments, (*RULES[rule], *ATTACKS[attack]), seed) for seed in arguments.seeds]
        for rule in RULES
        for attack in ATTACKS
    }
    title = f"{arguments.dataset}, {arguments.partition}, {arguments.clients} clients, {len(arguments.seeds)} seeds"
    table = Table(title=f"FedAvg, test accuracy (%), one hostile client: {title}")
    table.add_column("aggregation")
    for attack in ATTACKS:
        table.add_column(attack, justify="right")
    for rule in RULES:
        means = {attack: 100 * statistics.mean(found[rule, attack]) for attack in ATTACKS}
        gaps = {attack: "" if attack == "none" else f" ({means[attack] - means['none']:+.2f})" for attack in ATTACKS}
        table.add_row(rule, *(f"{means[attack]:.2f}{gaps[attack]}" for attack in ATTACKS))
    Console().print(table)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({" / ".join(key): values for key, values in found.items()}, indent=1))


def accuracy(arguments: argparse.Namespace, overrides: Sequence[str], seed: int) -> float:
    """Mean test accuracy over the other clients than the hostile one, at the best validation round."""
    with tempfile.TemporaryDirectory() as folder:
        result = run(
            FEDAVG[0],
            arguments.dataset,
            partition=arguments.partition,
            clients=arguments.clients,
            rounds=arguments.rounds,
            seed=seed,
            overrides=[FEDAVG[1], *overrides, "record.client_models=false"],
            run_dir=Path(folder) / "run",
            progress=False,
        )
        clients = result.summary["per_client"]
        tests = zip(clients["ids"], clients["test_at_best_validation"], strict=True)
        return statistics.mean(test for client, test in tests if client != HOSTILE)


if __name__ == "__main__":
    main()

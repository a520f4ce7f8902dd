"""Runs on disk, written by the code that real runs are written by, their figures from a seeded generator."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from subfl_flower.evaluation.summary import summarise
from subfl_flower.runs.directory import RunDirectory

MakeRun = Callable[..., RunDirectory]
FINAL_ACCURACY = {"local": 0.799, "fedavg": 0.692, "fedpub": 0.815}


def round_record(
    number: int,
    test: list[float],
    validation: list[float],
    as_received: list[float],
    *,
    bytes_each: int = 1000,
    metric: str = "accuracy",
) -> dict[str, Any]:
    """A record as the training loop makes it, from the clients' values."""
    clients = {
        "ids": list(range(len(test))),
        "test": test,
        "validation": validation,
        "test_as_received": as_received,
        "validation_as_received": as_received,
        "train_loss": [1.0 / number] * len(test),
        "num_examples": [50] * len(test),
        "bytes_up": [bytes_each] * len(test),
        "bytes_down": [bytes_each] * len(test),
    }
    means = {
        key: float(np.mean(clients[key]))
        for key in ("test", "validation", "test_as_received", "validation_as_received", "train_loss")
    }
    return {
        "round": number,
        "metric": metric,
        **means,
        "clients": clients,
        "bytes_up": bytes_each * len(test),
        "bytes_down": bytes_each * len(test),
        "seconds": {"round": 0.25, "client": 0.2, "server": 0.03, "transport": 0.02},
        "failures": {},
    }


def run_maker(folder: Path) -> MakeRun:
    """Writer of a run of 30 rounds (or as asked) into `folder` that converges as such a method does."""

    def make(
        name: str,
        method: str = "fedpub",
        seed: int = 0,
        clients: int = 10,
        rounds: int = 30,
        status: str | None = "completed",
        settings: Mapping[str, Any] | None = None,
        partition: Mapping[str, Any] | None = None,
        final: float | None = None,
        bytes_each: int | None = None,
        metric: str = "accuracy",
    ) -> RunDirectory:
        draw = np.random.default_rng([seed, *name.encode()])
        run = RunDirectory.create(folder / name)
        config = {
            "method": {"name": method, **(settings or {})},
            "dataset": {"name": "cora"},
            "partition": {"name": "metis", "clients": clients, "seed": 1234, **(partition or {})},
            "federation": {"rounds": rounds},
            "seed": seed,
        }
        run.write_config(config)
        level = FINAL_ACCURACY.get(method, 0.75) if final is None else final
        spread = draw.normal(0, 0.05, clients)
        records = []
        for number in range(1, rounds + 1):
            mean = level * (1 - 0.7 * np.exp(-number / 5))
            test = np.clip(mean + spread + draw.normal(0, 0.01, clients), 0, 1)
            validation = np.clip(mean + spread + draw.normal(0, 0.01, clients), 0, 1)
            size = (620_000 if method == "fedpub" else 1_000_000) if bytes_each is None else bytes_each
            record = round_record(
                number,
                test.tolist(),
                validation.tolist(),
                (test - 0.15).tolist(),
                bytes_each=0 if method == "local" and bytes_each is None else size,
                metric=metric,
            )
            records.append(record)
            run.append_round(record)
            if number % 5 == 0:
                scores = np.eye(clients) * 0.8 + draw.random((clients, clients)) * number / 30
                weights = np.exp(3 * scores)
                run.add_mixing(number, weights / weights.sum(axis=1, keepdims=True))
        if status is not None:
            head = {"status": status, "method": method, "dataset": "cora", "partition": config["partition"]["name"]}
            run.write_summary({**head, "clients": clients, "seed": seed, **summarise(records)})
        return run

    return make

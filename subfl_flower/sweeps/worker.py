"""A process of a sweep: it reads jobs from its input, a line each, trains them, and writes a line for each outcome."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from pathlib import Path
from typing import TextIO

import torch
from hydra.core.utils import env_override

from subfl_flower.code_folder import adopt
from subfl_flower.registry import validate
from subfl_flower.sweeps.job import train_job


def main(code: str, threads: int) -> None:
    """Train jobs until the input ends; a run in training then ends, too, because the sweep is dead.

    Args:
        code: the user's folder; empty for none.
        threads: PyTorch's threads.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries may print
    orders: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    busy = threading.Event()
    threading.Thread(target=_read, args=(orders, busy), daemon=True).start()
    torch.set_num_threads(threads)
    if code:
        adopt(Path(code))
    while (line := orders.get()) is not None:
        busy.set()
        _train(line, answers)
        busy.clear()


def _read(orders: queue.SimpleQueue[str | None], busy: threading.Event) -> None:
    for line in sys.stdin:
        orders.put(line)
    orders.put(None)
    if busy.is_set():
        os._exit(1)


def _train(line: str, answers: TextIO) -> None:
    order = json.loads(line)
    with env_override(order["environment"]):
        outcome = train_job(validate(order["config"]), Path(order["directory"]), order["redo"])
    told = {name: getattr(outcome, name) for name in ("status", "error", "bad_input", "reused")}
    answers.write(json.dumps({"directory": str(outcome.directory), "outcome": told}) + "\n")
    answers.flush()

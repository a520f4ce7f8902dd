"""Flower's SuperNode with an executor that forks for each message, and with waits that are short when they may be.

It takes the arguments of `flower-supernode`, which must be with `--isolation process`: Flower then leaves it to others
to run the tasks. Messages, authentication and the loop are Flower's.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import threading
import time
from logging import WARNING
from typing import Any, NoReturn

from flwr.common.constant import SubStatus
from flwr.supernode import start_client_internal as node_loop
from flwr.supernode.cli.flower_supernode import flower_supernode

from subfl_flower.flower.log import log, use_asked_format
from subfl_flower.flower.warm.adaptive_wait import AdaptiveWait

_EXECUTOR = "subfl_flower.flower.warm.executor"
_PAUSE_SECONDS = 2.0


class ExecutorProcess:
    """The process that runs this SuperNode's tasks; a new one takes the place of one that has ended.

    It ends with this process, however this one ends: it reads from a pipe that the system then closes.
    """

    def __init__(self, address: str) -> None:
        """Start it, for the SuperNode that listens on `address`, HOST:PORT."""
        self._command = [sys.executable, "-P", "-m", _EXECUTOR, address]
        self._process = self._started()
        threading.Thread(target=self._keep, name="warm-executor", daemon=True).start()

    def tell(self) -> None:
        """Have it look for a task now."""
        with contextlib.suppress(OSError):  # a full pipe says enough, and one without a reader will be replaced
            os.write(self._pipe, b"\n")

    def _keep(self) -> NoReturn:
        while True:
            self._process.wait()
            time.sleep(_PAUSE_SECONDS)  # a signal to all processes of a service reaches the executor, too
            log(WARNING, "the executor ended (code %s): it is started again", self._process.returncode)
            self._process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        # Ctrl-C is for the SuperNode alone, with which the executor ends.
        process = subprocess.Popen(self._command, stdin=subprocess.PIPE, start_new_session=True)
        assert process.stdin is not None
        self._pipe = process.stdin.fileno()
        os.set_blocking(self._pipe, False)
        return process


def main() -> None:
    """Run the SuperNode that the arguments of this process describe."""
    use_asked_format()
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    address = parser.parse_known_args()[0]
    host = f"[{address.host}]" if ":" in address.host else address.host
    executor = ExecutorProcess(f"{host}:{address.port}")
    loop: Any = node_loop
    if getattr(loop, "time", None) is time:
        loop.time = AdaptiveWait(executor.tell)
    end_tasks_of_ignored_messages(loop)
    flower_supernode()


def end_tasks_of_ignored_messages(loop: Any) -> None:
    """Have Flower's loop end the task that it has made for a message which it then ignores.

    It ignores a message whose run has ended while it came. The process of the task would wait for the rest of the
    message for two hours.

    Args:
        loop: Flower's module of the loop.
    """
    pull = loop._pull_and_store_message

    def pull_and_store(*, state: Any, **others: Any) -> int | None:
        create, made = state.create_task, []

        def create_task(*arguments: Any, **named: Any) -> int | None:
            made.append(create(*arguments, **named))
            return made[-1]

        state.create_task = create_task
        try:
            run_id: int | None = pull(state=state, **others)
        finally:
            del state.create_task
        if run_id is None:
            for task in made:
                if task is not None:
                    state.finish_task(task, sub_status=SubStatus.STOPPED, details="its message is ignored")
        return run_id

    loop._pull_and_store_message = pull_and_store


if __name__ == "__main__":
    main()

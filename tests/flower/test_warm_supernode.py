"""A SuperNode's executor: it is replaced when it ends, and ends with its SuperNode."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.constant import Status
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run, RunNotRunningException
from flwr.supernode import start_client_internal as node_loop
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

from subfl_flower.flower.ports import free_port
from subfl_flower.flower.programs import WARM_SUPERNODE, flower_environment
from subfl_flower.flower.warm.supernode import end_tasks_of_ignored_messages

EXECUTOR, TEMPLATE = "subfl_flower.flower.warm.executor", "warm/template.py"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A SuperNode that looks for a SuperLink that is not there."""
    local = ["--host", "127.0.0.1", "--port", str(free_port()), "--isolation", "process"]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", WARM_SUPERNODE, "--insecure", "--superlink", f"127.0.0.1:{free_port()}", *local],
        env={**flower_environment(), "FLWR_HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield process
    process.kill()
    process.wait()


def wait_for(what: Callable[[], Any], patience: float = 90.0) -> Any:
    deadline = time.monotonic() + patience
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def started(node: subprocess.Popen[bytes], name: str) -> psutil.Process | None:
    for process in psutil.Process(node.pid).children(recursive=True):
        try:
            if any(part.endswith(name) for part in process.cmdline()):
                return process
        except psutil.Error:
            continue
    return None


@pytest.mark.usefixtures("task_identity")
def test_a_message_whose_run_has_ended_leaves_no_task_that_waits_for_it() -> None:
    """Flower makes the task first, and a process would wait for the rest of the message."""
    loop = ModuleType("loop")
    loop._pull_and_store_message = node_loop._pull_and_store_message  # type: ignore[attr-defined]
    end_tasks_of_ignored_messages(loop)
    message = Message(RecordDict({"run": ConfigRecord({"round": 1})}), 7, "train")
    message.metadata.__dict__["_message_id"] = message.object_id
    tree = get_object_tree(message)

    def pulled(ends: bool) -> tuple[int | None, list[str]]:
        objects = ObjectStoreFactory().store()
        state = InMemoryNodeState(objects)
        state.set_node_id(7)
        state.store_run(Run.create_empty(message.metadata.run_id))

        def pull_object(_run: int, number: str) -> bytes:
            if ends:
                raise RunNotRunningException
            return get_all_nested_objects(message)[number].deflate()

        run = loop._pull_and_store_message(  # type: ignore[attr-defined]
            state=state,
            object_store=objects,
            node_config={},
            receive=lambda: (message, tree),
            get_run=None,
            get_fab=None,
            pull_object=pull_object,
            confirm_message_received=lambda *_: None,
            trusted_entities=None,
        )
        return run, [task.status.status for task in state.get_tasks()]

    assert pulled(ends=False) == (message.metadata.run_id, [Status.PENDING])
    assert pulled(ends=True) == (None, [Status.FINISHED])


def listening(node: subprocess.Popen[bytes]) -> set[str]:
    """The addresses that the node's processes listen on."""
    mine = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
    return {place.laddr.ip for process in mine for place in process.net_connections("tcp") if not place.raddr}


@pytest.mark.parametrize("ending", ["kill", "terminate"])
def test_the_executor_is_replaced_and_ends_with_its_supernode(node: subprocess.Popen[bytes], ending: str) -> None:
    template = wait_for(lambda: started(node, TEMPLATE))
    if ending == "kill":
        executor = started(node, EXECUTOR)
        assert executor is not None
        executor.kill()
        template.wait(60)
        wait_for(lambda: not executor.is_running() or executor.status() != psutil.STATUS_ZOMBIE)
        template = wait_for(lambda: started(node, TEMPLATE))
        assert started(node, EXECUTOR) != executor
    # Nothing can be reached from another machine.
    assert wait_for(lambda: listening(node)) == {"127.0.0.1"}
    executor = started(node, EXECUTOR)
    assert executor is not None
    getattr(node, ending)()
    node.wait(60)
    gone, alive = psutil.wait_procs([executor, template], 60)
    assert len(gone) == 2 and not alive

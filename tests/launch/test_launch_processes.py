import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil

from subfl_flower.flower.process_tree import MARKER, LaunchProcesses, guarded_launch

# A tree like a federation's: a process that ignores the request to end, and below it one whose parent dies,
# which has wiped its environment, as Ray's workers do.
STUBBORN = """
import os, pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sleeper = "import time; time.sleep(600)"
orphan = (
    "import sys; from subprocess import *; "
    f"print(Popen([sys.executable, '-c', {sleeper!r}], env={{}}, stdout=DEVNULL, stderr=DEVNULL).pid)"
)
pid = subprocess.run([sys.executable, "-c", orphan], capture_output=True, text=True, check=True).stdout
pathlib.Path(sys.argv[1]).write_text(f"{os.getpid()} {pid}")
time.sleep(600)
"""


def start_stubborn(launch_id: str, note: Path) -> list[psutil.Process]:
    environment = {**os.environ, MARKER: launch_id}
    subprocess.Popen([sys.executable, "-c", STUBBORN, str(note)], env=environment, start_new_session=True)
    wait_until(lambda: note.exists() and len(note.read_text().split()) == 2)
    return [psutil.Process(int(pid)) for pid in note.read_text().split()]


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_stubborn_process_and_an_adopted_orphan_are_ended_and_others_are_not(tmp_path: Path) -> None:
    launch_id = uuid.uuid4().hex
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        with guarded_launch(launch_id, str(tmp_path)) as processes:
            tree = start_stubborn(launch_id, tmp_path / "note")
            assert set(tree) <= processes.running()
            assert psutil.Process(stranger.pid) not in processes.running()
        assert not any(psutil.pid_exists(process.pid) for process in tree)
        assert stranger.poll() is None
        assert tmp_path.exists()
    finally:
        stranger.kill()
        stranger.wait()


def test_another_launch_is_left_alone(tmp_path: Path) -> None:
    launch_id = uuid.uuid4().hex
    with guarded_launch(launch_id, str(tmp_path)):
        tree = start_stubborn(launch_id, tmp_path / "note")
        assert LaunchProcesses(uuid.uuid4().hex).end(grace=0.0) == []
        assert not any(ended(process) for process in tree)


def test_when_the_launching_process_is_killed_its_guard_ends_the_rest(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    launch_id = uuid.uuid4().hex
    code = (
        "import subprocess, sys, os, time\n"
        "from subfl_flower.flower.process_tree import MARKER, guarded_launch\n"
        "launch_id, scratch = sys.argv[1:]\n"
        "with guarded_launch(launch_id, scratch):\n"
        "    env = dict(os.environ) | {MARKER: launch_id}\n"
        "    subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], env=env)\n"
        "    print('started', flush=True)\n"
        "    time.sleep(600)\n"
    )
    root = str(Path(__file__).resolve().parents[2])
    launching = subprocess.Popen(
        [sys.executable, "-c", code, launch_id, str(scratch)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert launching.stdout is not None
    assert launching.stdout.readline() == "started\n"
    children = psutil.Process(launching.pid).children(recursive=True)
    assert len(children) == 2  # the guard and the sleeper
    launching.kill()
    launching.wait()
    launching.stdout.close()
    wait_until(lambda: all(ended(child) for child in children))
    assert not scratch.exists()

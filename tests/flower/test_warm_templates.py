"""Processes that fork for messages: whose code they run, and what the end of one means for the others.

Flower's program is replaced by one of a few lines that installs a bundle, imports the app and calls it, because its own
wants a SuperNode. All else is real.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from subprocess import Popen  # the fixture replaces the module's
from typing import Any

import psutil
import pytest

from subfl_flower.flower.warm import templates as templates_module
from subfl_flower.flower.warm.templates import Templates

PROGRAM = """
import signal, sys
from pathlib import Path

from flwr.common.config import get_project_config
from flwr.supercore.object_ref import load_app


def install_from_fab(bundle, skip_prompt=False):
    folder = Path(sys.argv[2]) / "apps" / ("app." + __import__("hashlib").sha256(bundle).hexdigest()[:8])
    if not folder.exists():
        folder.mkdir(parents=True)
        for name in bundle.decode().split("|")[1:]:
            file, _, text = name.partition(":")
            (folder / file).write_text(text)
    return folder


def push_message():
    pass


def push_task_output():
    Path(sys.argv[3] + ".ended").touch()


def flwr_clientapp():
    def stop(*_):
        push_task_output()
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    folder = install_from_fab(sys.argv[1].encode(), skip_prompt=True)
    reference = get_project_config(folder)["tool"]["flwr"]["app"]["components"]["clientapp"]
    load_app(reference, ImportError, folder)(sys.argv[3])
    push_message()
    push_task_output()
"""
PROJECT = """
[project]
name = "app"
version = "1.0.0"
license = "Apache-2.0"
[tool.flwr.app]
publisher = "somebody"
fab-format-version = 1
flwr-version-target = "1.41.0"
[tool.flwr.app.components]
serverapp = "code:app"
clientapp = "code:app"
"""
CODE = """
import os, sys, time
from pathlib import Path
imported_by = os.getpid()
def app(place):
    import later
    Path(place).write_text(f"{later.NAME} {imported_by} {later.imported_by} {os.getpid()} {sys.argv[0]}")
    while Path(place + ".hold").exists():
        time.sleep(0.02)
"""
LATER = "import os\nimported_by = os.getpid()\nNAME = %r"
BOOT = (
    "import sys; sys.path.insert(0, {folder!r}); import template as w; "
    "w._PROGRAM = w._RUNTIME = 'program'; w._PACKAGES = ('wave',); "
    "w._GRACE_SECONDS = 0.2; w._main()"
)


def bundle(name: str, extra: str = "") -> str:
    return f"|pyproject.toml:{PROJECT}|code.py:{CODE}|later.py:{LATER % name}{extra}"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def wait_for(what: Callable[[], Any], patience: float = 60.0) -> Any:
    deadline = time.monotonic() + patience
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


@pytest.fixture
def templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Templates]:
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])))
    boot = BOOT.format(folder=str(Path(templates_module.__file__).parent))
    started = subprocess.Popen
    monkeypatch.setattr(
        templates_module.subprocess,
        "Popen",
        lambda command, **options: started([sys.executable, "-c", boot], **options),
    )
    templates = Templates()
    yield templates
    templates.end()


@pytest.fixture
def work(templates: Templates, tmp_path: Path) -> Callable[..., tuple[str, int]]:
    """Have a message of an app handled: what it says, and the number of the process."""
    count = iter(range(100))

    def handle(
        text: str, hash_of: str | None = None, hold: bool = False, options: Sequence[object] = ()
    ) -> tuple[str, int]:
        place = tmp_path / f"place-{next(count)}"
        if hold:
            Path(f"{place}.hold").touch()
        command = ["prog", text, str(tmp_path), str(place), *map(str, options)]
        process = templates.fork(command, digest(hash_of or text))
        assert process is not None
        wait_for(lambda: not psutil.pid_exists(process) or (place.exists() and place.read_text()))
        return place.read_text() if place.exists() else "", process

    return handle


def test_a_message_meets_the_code_of_its_app_imported_once(work: Callable[..., tuple[str, int]]) -> None:
    one, other = bundle("one"), bundle("other")
    for text, name in ((one, "one"), (other, "other")):
        said, process = work(text)  # installs the app, and imports it itself
        assert said == f"{name} {process} {process} {process} prog"
    said, first = work(one)
    name, imported, later, worker, _ = said.split()
    assert (name, int(later), int(worker)) == ("one", first, first) and int(imported) != first
    wait_for(lambda: not psutil.pid_exists(first))
    for text, name in ((other, "other"), (one, "one"), (other, "other"), (one, "one")):
        said, process = work(text)
        assert said.startswith(name) and said.endswith(f"{process} prog")
    # What the first fork had to import is there for the next ones.
    _, imported_again, later, worker, _ = work(one)[0].split()
    assert imported_again == imported == later != worker


def test_a_bundle_that_is_not_of_its_hash_is_not_run(work: Callable[..., tuple[str, int]]) -> None:
    one, other = bundle("one"), bundle("other")
    for text in (one, one):
        assert work(text)[0].startswith("one")
    assert work(other, hash_of=one)[0] == ""  # the server says that this is the first app
    assert work(one)[0].startswith("one")


def test_an_apps_module_that_a_new_program_would_import_is_not_passed_over(
    work: Callable[..., tuple[str, int]], templates: Templates, tmp_path: Path
) -> None:
    hiding = bundle("hiding", "|wave.py:")  # of a package that was imported before
    assert work(hiding)[0] == ""
    assert templates.fork(["prog", hiding, str(tmp_path), str(tmp_path / "x")], digest(hiding)) is None  # a new program


def test_the_end_of_a_worker_harms_nothing_and_leaves_nothing(
    work: Callable[..., tuple[str, int]], templates: Templates
) -> None:
    one = bundle("one")
    work(one)
    work(one)
    _, held = work(one, hold=True)
    psutil.Process(held).kill()
    wait_for(lambda: not psutil.pid_exists(held))  # a zombie would still exist
    assert work(one)[0].startswith("one")
    # The end of the process that has imported the app: its messages are left to new programs, and then it is back.
    forker = templates._apps[digest(one)]
    assert forker is not None
    psutil.Process(forker.process).kill()
    wait_for(lambda: not psutil.pid_exists(forker.process))
    assert templates.fork(["prog", one, "", ""], digest(one)) is None
    templates.keep()
    assert work(one)[0].startswith("one")
    # And of the one for any app.
    templates._program.kill()
    templates._program.wait()
    templates.keep()
    assert not templates.given_up
    assert work(bundle("two"))[0].startswith("two")


def test_a_worker_that_is_told_to_end_does_not_declare_its_task_ended(
    work: Callable[..., tuple[str, int]], tmp_path: Path
) -> None:
    """Flower's SuperNode waits without end for the reply of a task that has ended without one."""
    one = bundle("one")
    for _ in range(2):  # in the process for any app, and in the one that has imported the app
        work(one)
    places = sorted(tmp_path.glob("place-?"))
    assert [Path(f"{place}.ended").exists() for place in places] == [True, True]
    _, held = work(one, hold=True)
    psutil.Process(held).terminate()
    wait_for(lambda: not psutil.pid_exists(held))
    assert (tmp_path / "place-2").exists() and not (tmp_path / "place-2.ended").exists()


@pytest.mark.parametrize("imported", [False, True])
def test_a_worker_that_is_stuck_ends_after_its_supernode(work: Callable[..., tuple[str, int]], imported: bool) -> None:
    with Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as supernode:
        one = bundle("one")
        if imported:
            work(one)
        _, held = work(one, hold=True, options=("--parent-pid", supernode.pid))
        time.sleep(1.5)
        assert psutil.pid_exists(held)
        supernode.kill()  # a zombie until it is waited for
        wait_for(lambda: not psutil.pid_exists(held))


def test_processes_that_do_not_last_are_given_up(templates: Templates) -> None:
    for _ in range(3):
        templates._program.kill()
        templates._program.wait()
        templates.keep()
    assert templates.given_up
    assert templates.fork(["prog"], None) is None


def test_all_end_with_the_process_that_started_them(work: Callable[..., tuple[str, int]], templates: Templates) -> None:
    one = bundle("one")
    work(one)
    work(one)
    forker = templates._apps[digest(one)]
    assert forker is not None
    everyone = [forker.process, templates._program.pid]
    forker.end()
    templates._any_app.end()  # as the system does for a process that is gone
    templates._program.wait(20)
    wait_for(lambda: not any(psutil.pid_exists(process) for process in everyone))

"""A process with all that a ClientApp needs already imported, which forks for each message.

Flower starts a new process for each message, which imports PyTorch and the app again. A fork takes milliseconds. The
fork then does what Flower's program `flwr-clientapp` does, with the same arguments: it fetches the message and the app,
imports what is missing, and ends when it has replied.

The first of these processes has imported installed packages alone, and forks for any app. Asked for an app that Flower
has installed on this machine, it forks once for a further one, which imports that app's code and forks for no other.

This module is run as a script, and imports nothing of this package: the package belongs to the app, and comes with the
run. The site's gate (`gated_program`), where there is one, forgets what it has imported. A process that forks has
neither threads nor a CUDA context.

What a fork had to import of the app's code, such as the method of the run, is imported before the next fork.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import hashlib
import importlib
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import psutil

LONGEST = 2**16
"""Bytes of a request and of its answer."""

_PR_SET_PDEATHSIG = 1
_RUNTIME = "flwr.supernode.runtime.run_clientapp"
_PROGRAM = "flwr.supernode.cli.flwr_clientapp"
_PARENT = "--parent-pid"
_LOOK_SECONDS = 0.5
_GRACE_SECONDS = 10.0
"""Time that Flower's program may take to end after its SuperNode has."""
_GATE, _SITE = "subfl_flower.flower.warm.gated_program", "SUBFL_SITE"
_PACKAGES = (
    "torch",
    "torch_geometric",
    "httpcore",
    "scipy.sparse.csgraph",
    "scipy.sparse.linalg",
    "safetensors.numpy",
    "pydantic",
    "filelock",
    "psutil",
    "cryptography.hazmat.primitives.asymmetric.x25519",
    "cryptography.hazmat.primitives.ciphers.aead",
)
"""Installed packages that are imported in advance; one that is absent is left out."""


@dataclass(frozen=True)
class App:
    """An app that Flower has installed.

    Attributes:
        digest: SHA-256 of the bundle that it was installed from, in hexadecimal digits.
        folder: where it is.
    """

    digest: str
    folder: Path


def _no_gate(runtime: Any) -> None:
    """Leave Flower's module of a ClientApp's process as it is."""


_place_gate: Callable[[Any], None] = _no_gate


def _serve(channel: socket.socket, early: frozenset[str], app: App | None) -> None:
    """Fork for each request, and answer with the fork's number; end when the other end of `channel` is closed.

    A request is a mapping in JSON. With ``command`` the fork runs a command line of `flwr-clientapp`. With ``digest``
    and ``folder`` the fork imports that app, and serves the socket that comes with the request; it answers there.

    Args:
        channel: of the requests, a socket of whole messages.
        early: packages that were imported before an app's folder was searched.
        app: the one whose code is imported, and whose messages may be asked for; None: any.
    """
    learned, lesson = os.pipe()
    os.set_blocking(learned, False)
    os.set_blocking(lesson, False)
    while True:
        text, given, _, _ = socket.recv_fds(channel, LONGEST, 1)
        if not text:
            return
        _import_learned(learned)
        try:
            process = os.fork()
        except OSError as error:
            _answer(channel, {"error": str(error)})
        else:
            if process == 0:
                request = json.loads(text)
                channel.close()
                os.close(learned)
                if "command" in request:
                    _work(list(request["command"]), early, app, lesson)
                os.close(lesson)
                channel, app = socket.socket(fileno=given.pop()), App(request["digest"], Path(request["folder"]))
                if _import_app(channel, early, app):
                    _serve(channel, early, app)
                return
            else:
                _answer(channel, {"process": process})
        for descriptor in given:
            os.close(descriptor)


def _answer(channel: socket.socket, answer: Mapping[str, object]) -> None:
    channel.send(json.dumps(answer).encode())


def _import_packages() -> frozenset[str]:
    """Import Flower's ClientApp process and the packages; the names of all that these packages imported.

    Raises:
        RuntimeError: a fork would not be safe.
    """
    importlib.import_module(_PROGRAM)
    before = frozenset(sys.modules)
    for name in _PACKAGES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    if _SITE in os.environ:
        global _place_gate
        _place_gate = importlib.import_module(_GATE).gate_of_site()
    _prepare_to_fork()
    return frozenset(name.partition(".")[0] for name in frozenset(sys.modules) - before)


def _import_app(channel: socket.socket, early: frozenset[str], app: App) -> bool:
    """Import an app's code, and answer; True if this process may fork with it."""
    try:
        config = importlib.import_module("flwr.common.config").get_project_config(app.folder)
        _check_names(app.folder, early)
        reference = config["tool"]["flwr"]["app"]["components"]["clientapp"]
        importlib.import_module("flwr.supercore.object_ref").load_app(reference, ImportError, app.folder)
        _prepare_to_fork()
    except Exception as error:
        _answer(channel, {"error": f"{type(error).__name__}: {error}"})
        return False
    _answer(channel, {"process": os.getpid()})
    return True


def _prepare_to_fork() -> None:
    """Leave all that exists out of garbage collections, which would copy what forks share.

    Raises:
        RuntimeError: this process has a thread or a CUDA context, which a fork would not have.
    """
    torch = sys.modules.get("torch")
    if threading.active_count() > 1 or (torch is not None and torch.cuda.is_initialized()):
        raise RuntimeError("a module starts a thread or a CUDA context when it is imported")
    gc.collect()
    gc.freeze()


def _import_learned(learned: int) -> None:
    """Import the modules of the app that earlier forks had to import."""
    with contextlib.suppress(BlockingIOError):
        for name in os.read(learned, LONGEST).decode().split():
            with contextlib.suppress(Exception):  # the next fork will say what is wrong with it
                importlib.import_module(name)
        _prepare_to_fork()


def _work(command: list[str], early: frozenset[str], app: App | None, lesson: int) -> NoReturn:
    """Be the program of a command line; end as Python does, but for the time that it takes to forget all modules.

    Args:
        command: the program and its arguments.
        early: packages that were imported before an app's folder was searched.
        app: the one whose code is imported; None: none is.
        lesson: gets the names of the modules of that app which were imported in addition.
    """
    code: object = 1
    known = frozenset(sys.modules)
    try:
        end_after_supernode(command)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        importlib.invalidate_caches()
        if (numpy := sys.modules.get("numpy")) is not None:
            numpy.random.seed()  # from the system's entropy, as in a new process
        sys.argv = command
        runtime: Any = sys.modules[_RUNTIME]
        install = runtime.install_from_fab
        runtime.install_from_fab = _installed(app) if app else _checked(install, early)
        leave_unanswered_tasks_open(runtime)
        _place_gate(runtime)
        sys.modules[_PROGRAM].flwr_clientapp()
        code = 0
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
    if app is not None:
        found = [name for name in sorted(sys.modules.keys() - known) if _is_of(app, name)]
        with contextlib.suppress(OSError):
            os.write(lesson, "".join(f"{name}\n" for name in found).encode()[:LONGEST])
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def end_after_supernode(command: Sequence[str]) -> None:
    """Have this process end when its SuperNode has ended for a while, wherever it is stuck.

    Flower's program interrupts itself once when that happens. It may be waiting for an answer at that moment, and then
    waits on.

    Args:
        command: a command line of `flwr-clientapp`, which names the SuperNode's process.
    """
    if _PARENT not in command:
        return
    supernode = psutil.Process(int(command[command.index(_PARENT) + 1]))

    def watch() -> None:
        while supernode.is_running() and supernode.status() != psutil.STATUS_ZOMBIE:
            time.sleep(_LOOK_SECONDS)
        time.sleep(_GRACE_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="supernode", daemon=True).start()


def leave_unanswered_tasks_open(runtime: Any) -> None:
    """Have Flower's program say that its task has ended only where it has replied to the message.

    Told to end by a signal, it would else declare the task ended, and the message would have no reply at all. So the
    SuperNode misses this process instead, and replies with an error.
    """
    push_message, push_task_output = runtime.push_message, runtime.push_task_output
    replied = False

    def push_reply(*arguments: Any, **named: Any) -> None:
        nonlocal replied
        push_message(*arguments, **named)
        replied = True

    def push_output(*arguments: Any, **named: Any) -> None:
        if replied:
            push_task_output(*arguments, **named)

    runtime.push_message, runtime.push_task_output = push_reply, push_output


def _is_of(app: App, name: str) -> bool:
    """True for a module of the app's code."""
    file = getattr(sys.modules[name], "__file__", None)
    return file is not None and Path(file).is_relative_to(app.folder)


def _installed(app: App) -> Callable[..., Path]:
    """A stand-in for Flower's installation of an app that is installed already, and imported."""

    def require_same(bundle: bytes, **_: Any) -> Path:
        if hashlib.sha256(bundle).hexdigest() != app.digest:
            raise ImportError("the run's app is not the one that its hash names")
        return app.folder

    return require_same


def _checked(install: Callable[..., Path], early: frozenset[str]) -> Callable[..., Path]:
    """Flower's installation of an app, followed by a check of its names."""

    def install_and_check(bundle: bytes, **options: Any) -> Path:
        folder = install(bundle, **options)
        _check_names(folder, early)
        return folder

    return install_and_check


def _check_names(folder: Path, early: frozenset[str]) -> None:
    """Check that no module of an app would have been imported in the place of one that is imported already.

    Raises:
        ImportError: a new process would have imported the app's.
    """
    if hidden := early & {path.stem for path in folder.iterdir() if path.is_dir() or path.suffix == ".py"}:
        raise ImportError(
            f"the app's module {min(hidden)!r} has the name of an installed package; rename it, or start this "
            "SuperNode with --no-warm"
        )


def _main() -> None:
    # It ends with the process that started it: at the latest when it looks for a request, and on Linux at once.
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system forgets a fork that has ended
    channel = socket.socket(fileno=os.dup(0))
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    _serve(channel, _import_packages(), None)


if __name__ == "__main__":
    _main()

"""A ClientApp's process with the site's gate in front of the app: Flower's program, or a fork of `template`.

The gate is this package's, as it is installed on the node's machine. An app has a package of the same name, which is
imported later: so all modules of the installed one are forgotten here, and the gate goes on with those that it has.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from subfl_flower.flower.warm.template import end_after_supernode, leave_unanswered_tasks_open
from subfl_flower.trust.gate import Arrival, Gate, SiteSettings

_OWN = "subfl_flower"
_PROGRAM, _RUNTIME = "flwr.supernode.cli.flwr_clientapp", "flwr.supernode.runtime.run_clientapp"


def gate_of_site() -> Callable[[Any], None]:
    """A function that puts this site's gate into Flower's module of a ClientApp's process."""
    settings = SiteSettings.of(os.environ)
    assert settings is not None
    gate = Gate(settings)

    def place(runtime: Any) -> None:
        pull, install = runtime.pull_task_input, runtime.install_from_fab
        pulled: list[Any] = []

        def pull_and_keep(client: Any) -> Any:
            pulled[:] = pull(client)
            return tuple(pulled)

        def admit_and_install(bundle: bytes, **options: Any) -> Path:
            message, context, _, fab = pulled
            if hashlib.sha256(bundle).hexdigest() != fab.hash_str:
                raise ImportError("the run's app is not the one that its hash names")
            gate.admit(Arrival(message, context.node_id, bundle))
            return install(bundle, **options)

        runtime.pull_task_input, runtime.install_from_fab = pull_and_keep, admit_and_install

    for name in [name for name in sys.modules if name.partition(".")[0] == _OWN]:
        del sys.modules[name]
    return place


def main() -> None:
    """Run Flower's program for one message."""
    end_after_supernode(sys.argv)
    place = gate_of_site()
    program = importlib.import_module(_PROGRAM)
    place(sys.modules[_RUNTIME])
    leave_unanswered_tasks_open(sys.modules[_RUNTIME])
    program.flwr_clientapp()


if __name__ == "__main__":
    main()

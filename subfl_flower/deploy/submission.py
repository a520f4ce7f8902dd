"""A run on a federation's SuperLink, followed from any machine that has a connection to it."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from subfl_flower.code_folder import adopted
from subfl_flower.composition import composed_config, resumes
from subfl_flower.deploy.connections import require_connection
from subfl_flower.flower.app_folder import find_app
from subfl_flower.flower.programs import Flower, flower_environment
from subfl_flower.flower.submission import Outcome, Signals, overrides_toml, stage, submit
from subfl_flower.overrides import schema_in_place
from subfl_flower.server.run_schema import stated_schema

_RUNTIME = "runtime=deploy"


def submit_run(overrides: Sequence[str], connection: str, app: Path | None) -> Outcome:
    """Submit the app with `overrides`, copy the run's output to standard output and wait for its end.

    Must be called in the main thread, since it listens to signals: SIGINT, SIGTERM and SIGHUP stop the run.

    Args:
        overrides: Hydra overrides; `runtime=deploy` stands before them. `schema=FILE` is read here and its content
            submitted; the groups of ``conf`` in the user's folder travel with the app. Or `resume=RUN`, a folder of the
            SuperLink's machine.
        connection: a name in Flower's configuration.
        app: folder with another app's `pyproject.toml`; see `find_app`.

    Raises:
        SubflError: there is no such app or connection, an override is wrong, or no schema is stated.
    """
    folder = find_app(app)
    # A run to be resumed lies on the SuperLink's machine; the overrides are checked there.
    asked = list(overrides) if resumes(overrides) else [_RUNTIME, *schema_in_place(overrides)]
    if not resumes(overrides) and folder is None:
        stated_schema(composed_config(asked)[0])
    run_config = overrides_toml(asked)
    require_connection(connection)
    with tempfile.TemporaryDirectory(prefix="subfl-") as staged, Signals() as signals:
        stage(folder, run_config, Path(staged), own=adopted())
        return submit(Flower(flower_environment(), connection), Path(staged), signals.arrived)

"""The environment of a launch's processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from subfl_flower.composition import composed_config
from subfl_flower.flower.superlink import launch_environment
from subfl_flower.launch import command
from subfl_flower.launch.request import Request


def test_rays_processes_have_the_time_that_the_run_gives_its_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's own limit is 60 s, after which it ends a process that starts, and starts it again."""
    environment = launch_environment(tmp_path, tmp_path / "ray", "id", patience=900.5)
    assert environment["RAY_worker_register_timeout_seconds"] == "901"
    assert Request.patience == composed_config(["runtime=ray"])[0].runtime.node_timeout == 900.0
    monkeypatch.chdir(tmp_path)
    options = command.argparse.ArgumentParser()
    command.add_arguments(options)
    asked = command._request(options.parse_args(["runtime.node_timeout=1200"]))
    assert asked.patience == 1200.0

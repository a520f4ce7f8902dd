"""Checks on the server's side of `flwr run` with a line of overrides, without `subfl deploy submit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict
from flwr.superlink.grid.http_grid import HttpGrid

from subfl_flower import server_app
from subfl_flower.composition import composed_config
from subfl_flower.config import Config
from subfl_flower.data.federation_schema import FederationSchema
from subfl_flower.errors import SubflError
from subfl_flower.flower.log import FORMAT
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.sweeps.job import sole_user

FACTS = ("schema.features=64", "schema.classes=10")
SCHEMA = FederationSchema(dataset="digits", features=64, classes=10, partition="", clients=("0-9",))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Config]:
    """The configurations of runs that were begun; none of them does anything."""
    configs: list[Config] = []

    def run_federation(_grid: HttpGrid, config: Config, *_rest: Any, **_named: Any) -> None:
        configs.append(config)

    monkeypatch.setattr(server_app, "run_federation", run_federation)
    monkeypatch.chdir(tmp_path)
    return configs


def flwr_run(overrides: str) -> None:
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={"overrides": overrides})
    server_app.main(HttpGrid.__new__(HttpGrid), context)


def test_a_run_over_the_network_needs_a_schema(started: list[Config], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SubflError, match=r"^schema: the server of a deployment has no data .* schema\.classes=\.\.\.$"):
        flwr_run("method=fedavg dataset=digits schema.features=64")
    with pytest.raises(SubflError, match=r"^schema: the server of a deployment has no data .* or by schema\.items="):
        flwr_run("method=fedgnn")
    assert started == [] and capsys.readouterr().out == ""


def test_a_schema_is_stated_by_keys_or_by_a_file_of_the_servers_machine(started: list[Config], tmp_path: Path) -> None:
    SCHEMA.write(tmp_path / "my schema.json")
    flwr_run("method=fedavg dataset=digits schema.features=64 schema.classes=10 'schema.clients=[0-3,7]'")
    flwr_run("method=fedavg dataset=digits 'schema=my schema.json'")
    assert [config.data_schema for config in started] == [
        FederationSchema(features=64, classes=10, clients=("0-3", 7)),
        SCHEMA,
    ]
    assert {config.runtime.name for config in started} == {"deploy"}


def test_attack_a_run_that_goes_on_is_resumed_a_second_time(
    started: list[Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both would write to one folder, and every round would stand twice in the record."""
    run = RunDirectory.create(tmp_path / "run")
    run.write_config(composed_config(["runtime=deploy", "method=fedavg", "dataset=digits", *FACTS])[0].plain())
    with sole_user(run.path), pytest.raises(SubflError, match="another process is training this run; wait for it"):
        flwr_run("resume=run")
    assert started == []
    flwr_run("resume=run")
    assert len(started) == 1


def test_a_log_of_another_form_is_refused(started: list[Config], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FORMAT, "xml")
    with pytest.raises(SubflError, match=r"^SUBFL_LOG=xml: must be text or json$"):
        flwr_run("method=fedavg dataset=digits schema.features=64 schema.classes=10")
    assert started == []

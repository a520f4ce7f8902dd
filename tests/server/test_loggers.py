import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from matplotlib.image import imsave
from pydantic import TypeAdapter

from subfl_flower.errors import SubflError
from subfl_flower.loggers import LOGGERS, AnyLogger, Logger, build_loggers, scalars
from subfl_flower.loggers.outcome import Outcome
from subfl_flower.runs.directory import RunDirectory

CONFIGS = sorted((Path(__file__).parents[2] / "conf" / "logger").glob("*.yaml"))
CONFIGS = [path for path in CONFIGS if path.stem != "own"]  # a class of the user's own
CONFIG = {"method": {"name": "fedpub", "tau": 3}, "seed": 0}
SUMMARY = {"status": "completed", "method": "fedpub", "best_round": 2, "test_at_best_validation": 0.75}
SUMMARY |= {"per_client": {"ids": [0], "test_at_best_validation": [0.75]}}


def built(settings: dict[str, Any]) -> list[Logger]:
    return build_loggers(LOGGERS.parse(settings))


def record(number: int, test: float) -> dict[str, Any]:
    return {
        "round": number,
        "metric": "accuracy",
        "test": test,
        "validation": None,
        "clients": {"ids": [0, 1], "test": [test, test]},
        "bytes_up": 2048,
        "seconds": {"round": 0.5, "client": 0.25},
        "failures": {"3": "out of memory"},
    }


def log_three_rounds(settings: dict[str, Any], directory: RunDirectory) -> None:
    (logger,) = built(settings)
    logger.start(CONFIG, directory)
    for number, test in ((1, 0.5), (2, 0.75), (3, 0.625)):
        logger.log_round(record(number, test))
    logger.finish(SUMMARY)


@pytest.fixture
def outcome(tmp_path: Path) -> Outcome:
    """Two clients, one of them without a test metric; a figure of 3 x 2 pixels; a folder with a model."""
    picture = tmp_path / "convergence.png"
    imsave(picture, np.linspace(0, 1, 18).reshape(2, 3, 3))
    models = tmp_path / "clients"
    models.mkdir()
    (models / "0000.safetensors").write_bytes(b"weights")
    return Outcome({"client": [0, 1], "test": [0.75, None]}, {"convergence": picture}, models)


def log_with(settings: dict[str, Any], directory: RunDirectory, outcome: Outcome) -> None:
    (logger,) = built(settings)
    logger.start(CONFIG, directory)
    logger.log_round(record(1, 0.5))
    logger.attach(outcome)
    logger.finish(SUMMARY)


def test_scalars_are_the_plain_numbers_of_a_record() -> None:
    expected = {"test": 0.5, "bytes_up": 2048.0, "seconds/round": 0.5, "seconds/client": 0.25}
    assert scalars(record(1, 0.5)) == expected
    assert scalars(SUMMARY) == {"best_round": 2.0, "test_at_best_validation": 0.75}


def test_no_logger_is_built_for_none() -> None:
    assert built({"name": "none"}) == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_is_valid_and_spells_out_the_defaults(path: Path) -> None:
    settings = yaml.safe_load(path.read_text())
    adapter: TypeAdapter[Any] = TypeAdapter(AnyLogger)
    assert settings["name"] == path.stem
    assert settings == adapter.validate_python({"name": path.stem}).model_dump()


def test_there_is_a_config_for_every_logger() -> None:
    assert [path.stem for path in CONFIGS] == ["mlflow", "none", "tensorboard", "wandb"]


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_missing_package_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SubflError, match=rf"logger={name} .*pip install 'subfl-flower\[loggers\]'"):
        built({"name": name})


def test_a_folder_named_like_the_package_is_not_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb").mkdir()
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(SubflError, match=r"subfl-flower\[loggers\]"):
        built({"name": "wandb"})
    sys.modules.pop("wandb", None)


def test_tensorboard_events_read_back_by_round(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    directory = RunDirectory.create(tmp_path / "run")
    log_three_rounds({"name": "tensorboard"}, directory)
    events = accumulator.EventAccumulator(str(directory.tensorboard_folder))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("test")] == [
        (1, 0.5),
        (2, 0.75),
        (3, 0.625),
    ]
    assert [event.value for event in events.Scalars("seconds/client")] == [0.25] * 3
    assert [event.value for event in events.Scalars("summary/test_at_best_validation")] == [0.75]
    assert "validation" not in events.Tags()["scalars"]
    text = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| method.tau | 3 |" in text


def test_tensorboard_has_the_clients_the_figures_and_the_place_of_the_models(tmp_path: Path, outcome: Outcome) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    directory = RunDirectory.create(tmp_path / "run")
    log_with({"name": "tensorboard"}, directory, outcome)
    events = accumulator.EventAccumulator(str(directory.tensorboard_folder))
    events.Reload()
    texts = {name: events.Tensors(f"{name}/text_summary")[0] for name in ("clients", "models")}
    words = {name: text.tensor_proto.string_val[0].decode() for name, text in texts.items()}
    assert words["clients"].splitlines() == ["| client | test |", "| --- | --- |", "| 0 | 0.75 |", "| 1 | – |"]
    assert words["models"] == f"`{outcome.models}`" and texts["clients"].step == 1
    (image,) = events.Images("figures/convergence")
    assert (image.width, image.height) == (3, 2)


def test_tensorboard_rounds_are_on_disk_before_the_run_ends(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    directory = RunDirectory.create(tmp_path / "run")
    (logger,) = built({"name": "tensorboard"})
    logger.start(CONFIG, directory)
    logger.log_round(record(1, 0.5))
    events = accumulator.EventAccumulator(str(directory.tensorboard_folder))
    events.Reload()
    assert [event.value for event in events.Scalars("test")] == [0.5]
    logger.finish(SUMMARY)


def test_a_logger_that_never_started_has_nothing_to_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (logger,) = built({"name": "tensorboard"})
    logger.finish(SUMMARY)
    assert list(tmp_path.iterdir()) == []


def test_mlflow_keeps_metrics_parameters_and_status(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    log_three_rounds(
        {"name": "mlflow", "tracking_uri": uri, "experiment": "graphs"}, RunDirectory.create(tmp_path / "run")
    )
    client = mlflow.MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("graphs").experiment_id])
    assert run.data.params == {"method.name": "fedpub", "method.tau": "3", "seed": "0"}
    history = client.get_metric_history(run.info.run_id, "test")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 0.75), (3, 0.625)]
    assert run.data.metrics["summary/best_round"] == 2
    assert run.info.status == "FINISHED"


def test_mlflow_has_the_clients_the_figures_and_the_models(
    tmp_path: Path, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)  # artefacts of a local store lie below the working directory
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    log_with({"name": "mlflow", "tracking_uri": uri}, RunDirectory.create(tmp_path / "run"), outcome)
    client = mlflow.MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("subfl").experiment_id])
    number = run.info.run_id
    assert [each.path for each in client.list_artifacts(number)] == ["clients.json", "figures", "models"]
    assert [each.path for each in client.list_artifacts(number, "figures")] == ["figures/convergence.png"]
    (model,) = client.list_artifacts(number, "models")
    assert Path(client.download_artifacts(number, model.path)).read_bytes() == b"weights"
    table = json.loads(Path(client.download_artifacts(number, "clients.json")).read_text())
    assert table == {"columns": ["client", "test"], "data": [[0, 0.75], [1, None]]}
    assert run.info.status == "FINISHED"


def test_names_that_mlflow_refuses_are_written_otherwise(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    (logger,) = built({"name": "mlflow", "tracking_uri": uri})
    logger.start(CONFIG, RunDirectory.create(tmp_path / "run"))
    logger.log_round({**record(1, 0.5), "figures": {"test.hr@10": 0.25}})
    client = mlflow.MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("subfl").experiment_id])
    assert run.data.metrics["figures/test.hr_at_10"] == 0.25


def test_an_mlflow_that_fails_in_mid_run_costs_a_warning_not_the_run(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    (logger,) = built({"name": "mlflow", "tracking_uri": uri})
    logger.start(CONFIG, RunDirectory.create(tmp_path / "run"))
    client = mlflow.MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("subfl").experiment_id])
    client.delete_run(run.info.run_id)
    with pytest.warns(UserWarning, match="round 1 was not logged"):
        logger.log_round(record(1, 0.5))


def test_wandb_offline_keeps_its_files_in_the_run_directory(tmp_path: Path) -> None:
    pytest.importorskip("wandb.sdk")
    directory = RunDirectory.create(tmp_path / "run")
    log_three_rounds({"name": "wandb", "mode": "offline"}, directory)
    (recorded,) = (directory.path / "wandb").glob("offline-run-*/run-*.wandb")
    for _ in range(100):  # wandb's own process writes the file's end shortly after the run is finished
        content = recorded.read_bytes()
        if b"test_at_best_validation" in content:
            break
        time.sleep(0.1)
    assert b"test_at_best_validation" in content and b"0.625" in content


def test_wandb_offline_has_the_clients_the_figures_and_the_models(tmp_path: Path, outcome: Outcome) -> None:
    pytest.importorskip("wandb.sdk")
    directory = RunDirectory.create(tmp_path / "run")
    log_with({"name": "wandb", "mode": "offline"}, directory, outcome)
    (folder,) = (directory.path / "wandb").glob("offline-run-*")
    (table,) = folder.glob("files/media/table/clients_*.table.json")
    found = json.loads(table.read_text())
    assert (found["columns"], found["data"]) == (["client", "test"], [[0, 0.75], [1, None]])
    (picture,) = folder.glob("files/media/images/figures/convergence_*.png")
    assert picture.read_bytes() == outcome.figures["convergence"].read_bytes()
    (recorded,) = folder.glob("run-*.wandb")
    for _ in range(100):  # wandb's own process writes the file's end shortly after the run is finished
        content = recorded.read_bytes()
        if b"0000.safetensors" in content:
            break
        time.sleep(0.1)
    assert b"0000.safetensors" in content

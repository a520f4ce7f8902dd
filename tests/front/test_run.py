"""`run` trains exactly as the command does, refuses in the same words, and leaves the caller's process alone."""

from __future__ import annotations

import logging
import os
import random
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from given_graphs import model_bytes, numbers, people, ring
from hydra.core.global_hydra import GlobalHydra
from run_outcomes import SMALL_DIGITS, command

from subfl_flower import RunFailure, SubflError, run
from subfl_flower.api import DatasetSettings, RawGraph
from subfl_flower.data.datasets import StochasticBlockModelDataset
from subfl_flower.runs.directory import RunDirectory

SMALL = {"model": {"hidden": 16}, "method": {"random_blocks": 2, "random_block_nodes": 20}}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_equals_the_command_to_the_last_bit(here: Path) -> None:
    asked = ("method=fedpub", "partition.clients=3", "federation.rounds=3", "seed=4", "method.tau=5", *SMALL_DIGITS)
    commanded = command(*asked, directory=here / "commanded", cwd=here)
    assert commanded.code == 0, commanded.stderr
    result = run(
        "fedpub", "digits", clients=3, rounds=3, seed=4, overrides={**SMALL, "method.tau": 5}, run_dir="called"
    )
    assert result.path == here / "called"
    assert numbers(result.path) == numbers(commanded.directory)
    assert model_bytes(result.path) == model_bytes(commanded.directory) != {}
    assert result.config == RunDirectory(commanded.directory).config()
    left = [{path.relative_to(run).as_posix() for path in run.rglob("*")} for run in (result.path, commanded.directory)]
    assert left[0] == left[1]


def test_twice_in_one_process_gives_equal_numbers_and_does_not_share_a_folder(here: Path) -> None:
    first, second = (run("fedavg", "digits", clients=2, rounds=2, overrides=["model.hidden=8"]) for _ in range(2))
    assert numbers(first.path) == numbers(second.path)
    assert first.path != second.path
    assert {result.path.parents[1] for result in (first, second)} == {here / "outputs"}


def state() -> dict[str, Any]:
    """Everything global that a run could change and should not."""
    return {
        "argv": list(sys.argv),
        "modules": list(sys.path),
        "folder": Path.cwd(),
        "filters": list(warnings.filters),
        "level": logging.getLogger().level,
        "handlers": list(logging.getLogger().handlers),
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
        "python": random.getstate(),
        "threads": torch.get_num_threads(),
        "hydra": GlobalHydra.instance().hydra,
        "environment": dict(os.environ),
    }


def test_the_callers_process_stays_as_it_was(here: Path) -> None:
    warnings.simplefilter("error", DeprecationWarning)
    GlobalHydra.instance().hydra = marker = object()  # type: ignore[assignment]
    try:
        before = state()
        run("fedavg", "digits", clients=2, rounds=1, overrides=["model.hidden=8"])
        assert state() == before
        with pytest.raises(SubflError):
            run("fedavg", "digits", clients=0)
        assert state() == before and GlobalHydra.instance().hydra is marker
    finally:
        GlobalHydra.instance().clear()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"method": "fedpup"}, "method=fedpup: there is no such choice"),
        ({"method": 5}, "method: must be the name of a method, such as 'fedpub' (found int)"),
        ({"dataset": 3.5}, "dataset: must be the name of a choice"),
        ({"clients": "many"}, "partition.clients: Input should be a valid integer"),
        ({"clients": 0}, "partition.clients: Input should be greater than or equal to 1 (found 0)"),
        ({"rounds": 0}, "federation.rounds: Input should be greater than or equal to 1 (found 0)"),
        ({"overrides": ["method.tua=5"]}, "method.tua: there is no such setting"),
        ({"overrides": {"method": {"tua": 5}}}, "method.tua: there is no such setting"),
        ({"overrides": {"dataset": {"protocol": {"round": 5}}}}, "dataset.protocol.round: there is no such setting"),
        ({"overrides": "method.tau=5"}, "overrides: must be a list such as ['method.tau=5'] or a dict"),
        ({"overrides": [5]}, "overrides: each must be a text such as 'method.tau=5' (found 5)"),
        ({"overrides": {"method": {"tau": object()}}}, "method.tau: a setting is a text, a number, a list or a dict"),
        ({"overrides": ["seed=0,1"]}, "seed=0,1: a run has one value of each setting; sweep(...) trains several"),
        ({"overrides": ["seed"]}, "seed: an override is KEY=VALUE"),
        ({"runtime": "deploy"}, "runtime=deploy: SuperNodes are reached through their SuperLink"),
        ({"task": "rating_prediction"}, "dataset=digits holds a graph, and task=rating_prediction is for ratings"),
        ({"dataset": "custom"}, "dataset: give either dataset.path"),
    ],
)
def test_bad_input_is_refused_in_one_sentence_and_leaves_no_folder(
    here: Path, arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SubflError) as error:
        run(**arguments, run_dir=here / "refused")
    assert str(error.value).startswith(sentence) and "\n" not in str(error.value)
    assert not isinstance(error.value, RunFailure)
    assert list(here.iterdir()) == []


def test_a_folder_with_a_run_is_refused_and_kept(here: Path) -> None:
    result = run("fedavg", ring(), clients=2, rounds=1, run_dir="taken")
    before = numbers(result.path)
    with pytest.raises(SubflError, match="already holds a run"):
        run("fedavg", ring(), clients=2, rounds=2, run_dir="taken")
    assert numbers(result.path) == before


def test_values_of_all_kinds_reach_the_configuration(here: Path) -> None:
    nodes, edges = people()
    result = run(
        "fedavg",
        {"nodes": nodes, "edges": edges},
        clients=np.int64(2),
        rounds=1,
        overrides={
            "optimizer": {"lr": 5e-6},
            "record": {"client_models": False},
            "federation": {"min_clients": None},
            "dataset": {
                "features": {"missing": ["a, b", "it's"], "one_hot": {"ward": ["C", "B", "A"]}, "impute": "zero"}
            },
            "partition.seed": 3,
            "model": "sage",
        },
    )
    config = result.config
    assert config["optimizer"]["lr"] == 5e-6 and config["record"]["client_models"] is False
    assert config["federation"]["min_clients"] is None and config["partition"]["clients"] == 2
    assert config["partition"]["seed"] == 3 and config["model"]["name"] == "sage"
    assert config["dataset"]["features"]["missing"] == ["a, b", "it's"]
    assert config["dataset"]["features"]["one_hot"] == {"ward": ["C", "B", "A"]}


class Rings(DatasetSettings):
    """Rings of five nodes; the class of a node is that of its ring."""

    rings: int = 8

    def read(self, root: Path) -> RawGraph:
        own = np.arange(self.rings * 5)
        labels = own // 5 % 2
        edges = np.stack([own, own // 5 * 5 + (own + 1) % 5])
        return RawGraph(np.random.default_rng(1).normal(labels[:, None], size=(own.size, 3)), edges, labels)


def test_classes_and_objects_of_settings_are_choices(here: Path) -> None:
    asked = {"partition": "random", "clients": 2, "rounds": 1, "overrides": {"dataset": {"largest_component": False}}}
    by_object = run("fedavg", Rings(rings=6), **asked)
    assert by_object.config["dataset"] | {"protocol": None} == {
        "_target_": f"{Rings.__module__}.Rings",
        "name": "rings",
        "rings": 6,
        "train_fraction": 0.2,
        "largest_component": False,
        "row_normalize": False,
        "protocol": None,
    }
    assert len(by_object.graphs[0].y) + len(by_object.graphs[1].y) == 30
    by_class = run("fedavg", Rings, **asked)
    assert by_class.config["dataset"]["rings"] == 8
    built_in = run("fedavg", StochasticBlockModelDataset(communities=2, nodes_per_community=40), clients=2, rounds=1)
    assert built_in.config["dataset"]["name"] == "sbm" and built_in.config["dataset"]["communities"] == 2


class Linear(torch.nn.Module):
    """A network that sees no edges."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.last = torch.nn.Linear(in_channels, out_channels)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        return self.last(x)


def test_a_network_of_the_program_is_a_model(here: Path) -> None:
    result = run("fedavg", ring(), model=Linear, clients=2, rounds=1)
    graph, model = result.graphs[1], result.models[1]
    weight, bias = model.state_dict()["last.weight"], model.state_dict()["last.bias"]
    assert torch.allclose(model(graph.x, graph.edge_index), graph.x @ weight.T + bias, atol=1e-6)


def test_choices_in_the_working_directory_are_found_and_forgotten(here: Path) -> None:
    (here / "conf" / "method").mkdir(parents=True)
    built_in = Path(__file__).parents[2] / "conf" / "method" / "fedavg.yaml"
    (here / "conf" / "method" / "mine.yaml").write_text(built_in.read_text().replace("name: fedavg", "name: mine"))
    assert run("mine", ring(), clients=2, rounds=1).config["method"]["name"] == "mine"
    os.chdir("/")
    with pytest.raises(SubflError, match="method=mine: there is no such choice"):
        run("mine", ring(), clients=2, rounds=1, run_dir=here / "x")


def test_progress_is_silent_on_request_and_prints_lines_on_request(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("fedavg", ring(), clients=2, rounds=2, progress=False)
    assert "round" not in "".join(capsys.readouterr())
    run("fedavg", ring(), clients=2, rounds=2, progress=True)
    assert "fedavg on custom: round 2/2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("", "run_dir: must be the path of a folder (found '')"),
        (3, "run_dir: must be the path of a folder (found 3)"),
        ("a\0b", "run_dir: must be the path of a folder (found 'a\\x00b')"),
        ("~nobody-here/run", "run_dir: ~nobody-here/run begins with the home folder of an unknown user"),
        ("file", "file is not a folder; choose another folder (run_dir=...)"),
        ("a" * 300, "cannot be made: File name too long; choose another folder (run_dir=...)"),
        ("before", "before already holds a run, without its config.yaml; choose another folder (run_dir=...)"),
    ],
)
def test_a_folder_that_cannot_be_used_is_one_sentence(here: Path, folder: Any, words: str) -> None:
    (here / "file").write_text("mine")
    (here / "before").mkdir()
    (here / "before" / "metrics.jsonl").write_text('{"round": 1}')
    with pytest.raises(SubflError) as error:
        run("fedavg", ring(), clients=2, rounds=1, run_dir=folder)
    assert str(error.value).endswith(words)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"foo": 1}, "foo: there is no such setting"),
        ({"federation": 5}, "federation: "),
        ({"seed": "x"}, "seed: Input"),
    ],
)
def test_an_unknown_key_of_a_dict_is_named(overrides: dict[str, Any], words: str, here: Path) -> None:
    with pytest.raises(SubflError) as error:
        run("fedavg", "digits", overrides=overrides)
    assert str(error.value).startswith(words) and "an object of its settings" not in str(error.value)

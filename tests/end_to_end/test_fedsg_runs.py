"""Whole runs of FedSG, and of other methods with its network."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from run_outcomes import Outcome, command, partition, predict, run_inline

from subfl_flower.clients.subgraphs.fedsg import FedSGClient
from subfl_flower.data.folders.subgraph_folder import ClientFolder
from subfl_flower.data.graph import TEST
from subfl_flower.node.state import CohortState
from subfl_flower.subgraphs.models.exported import read_model
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Batch, Result

DATA = ("dataset=digits", "model.hidden=16", "federation.rounds=3", "federation.local_epochs=2")
FEDSG = (
    *DATA,
    *("method=fedsg", "method.random_blocks=2", "method.random_block_nodes=20", "record.mixing_every=1"),
    *("method.tau_feature=10", "method.tau_topology=5", "method.classifier=average"),
)
METRICS = ("train_loss", "validation", "test", "validation_as_received", "test_as_received")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run_inline(tmp_path_factory.mktemp("fedsg") / "run", *FEDSG, "runtime.chunk=1")


def topology_mixing(outcome: Outcome) -> np.ndarray:
    return np.array(outcome.summary["topology_mixing"])


def assert_same(found: Outcome, expected: Outcome) -> None:
    for name in METRICS:
        np.testing.assert_allclose(found.values(name), expected.values(name), atol=1e-4, err_msg=name)
    assert sorted(found.mixing) == [1, 2, 3]
    for server_round, matrix in found.mixing.items():
        np.testing.assert_allclose(matrix, expected.mixing[server_round], atol=1e-4)
    np.testing.assert_allclose(topology_mixing(found), topology_mixing(expected), atol=1e-4)
    for client, tensors in found.models().items():
        for name, values in tensors.items():
            np.testing.assert_allclose(values, expected.models()[client][name], atol=1e-3, err_msg=name)


def test_a_run_has_two_different_matrices_of_personal_averages(reference: Outcome) -> None:
    assert reference.summary["status"] == "completed"
    losses = reference.values("train_loss").mean(1)
    assert losses[0] > losses[-1]
    features, topology = reference.mixing[3], topology_mixing(reference)
    for matrix in (features, topology):
        assert matrix.shape == (10, 10) and (matrix > 0).all()
        np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-5)
        assert np.ptp(matrix, axis=0).max() > 1e-3
    assert np.abs(features - topology).max() > 1e-2


@pytest.mark.parametrize("place", [("runtime.nodes=3", "runtime.chunk=all"), ("runtime.nodes=2", "runtime.chunk=2")])
def test_placement_changes_nothing(reference: Outcome, place: tuple[str, ...], tmp_path: Path) -> None:
    assert_same(run_inline(tmp_path / "run", *FEDSG, *place), reference)


@pytest.mark.slow
def test_under_ray_it_gives_the_same(reference: Outcome, tmp_path: Path) -> None:
    ray = ("runtime=ray", "runtime.nodes=2", "runtime.total_cpus=2")
    outcome = command(*FEDSG, *ray, directory=tmp_path / "run", cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr
    assert_same(outcome, reference)


@pytest.mark.parametrize("method", ["fedavg", "local", "fedper", "oracle"])
def test_other_methods_train_its_network(method: str, tmp_path: Path) -> None:
    outcome = run_inline(tmp_path / "run", *DATA, f"method={method}", "model=decoupled")
    losses = outcome.values("train_loss").mean(1)
    assert losses.shape == (3,) and losses[0] > losses[-1]
    models = outcome.models()
    assert sorted(models) == list(range(10)) and "topology2.bias" in models[0] and "conv2.bias" in models[0]


def test_with_both_taus_zero_a_run_is_that_of_fedavg(inline_run: Callable[..., Outcome]) -> None:
    plain = inline_run(*FEDSG, "method.tau_feature=0", "method.tau_topology=0", "method.weight_decay=null")
    average = inline_run(*DATA, "method=fedavg", "model=decoupled", "method.weighting=uniform")
    for name in METRICS:
        np.testing.assert_allclose(plain.values(name), average.values(name), atol=1e-5, err_msg=name)


def test_an_exported_model_predicts_what_its_run_recorded(
    reference: Outcome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert partition([*DATA, f"out={tmp_path / 'folders'}"]) == 0
    client = 4
    (file,) = (path for path in (reference.directory / "clients").glob("*.safetensors") if int(path.stem) == client)
    assert read_model(file)[1].model.name == "decoupled"
    (folder,) = (path for path in (tmp_path / "folders").iterdir() if re.fullmatch(rf"client-0*{client}", path.name))
    capsys.readouterr()
    assert predict([str(file), str(folder), "--out", str(tmp_path / "p.csv")]) == 0
    table, graph = pd.read_csv(tmp_path / "p.csv"), ClientFolder.open(folder).graph()
    correct = (table["prediction"] == table["label"]).to_numpy()
    validation, test = reference.values("validation")[:, client], reference.values("test")[:, client]
    best = int(np.argmax(1 + validation.astype(np.float32)))
    assert correct[graph.roles == TEST].mean() == pytest.approx(test[best], abs=1e-6)


# Clients that send what they must not ---------------------------------------------------------------------------------


class Spoiled(FedSGClient):
    """Client 3 changes an embedding in round 2."""

    def train_chunk(self, batch: Batch, state: CohortState) -> Result:
        result = super().train_chunk(batch, state)
        if 3 not in batch.clients or batch.server_round != 2:
            return result
        uploads = {name: values.copy() for name, values in result.arrays.items()}
        self.spoil(uploads, result.clients.index(3))
        return replace(result, arrays=uploads)

    def spoil(self, uploads: Stack, row: int) -> None:
        uploads["topology_embedding"][row, 0] = math.nan


class Enormous(Spoiled):
    def spoil(self, uploads: Stack, row: int) -> None:
        uploads["feature_embedding"][row] = 1e30


class TooWide(FedSGClient):
    """The clients on client 3's node send a wider one in round 2."""

    def train_chunk(self, batch: Batch, state: CohortState) -> Result:
        result = super().train_chunk(batch, state)
        if 3 in self.cohort.client_ids and batch.server_round == 2:
            result.arrays["topology_embedding"] = np.tile(result.arrays["topology_embedding"], (1, 2))
        return result


class Extreme(Spoiled):
    """The largest and the smallest numbers that are accepted."""

    def spoil(self, uploads: Stack, row: int) -> None:
        uploads["feature_embedding"][row], uploads["topology_embedding"][row] = 1e12, 1e-40


@pytest.mark.parametrize(
    ("family", "failed", "reason"),
    [
        (Spoiled, ["3"], "its update of topology_embedding is not finite"),
        (Enormous, ["3"], "its update of feature_embedding is larger than 1e+12"),
        (
            TooWide,
            ["1", "3", "5", "7", "9"],
            "its node's reply cannot be read: its topology_embedding is float32 [32] for a client, "
            "where float32 [16] belongs",
        ),
        (Extreme, [], ""),
    ],
)
def test_embeddings_that_cannot_be_are_refused(
    family: type, failed: list[str], reason: str, inline_run: Callable[..., Outcome]
) -> None:
    outcome = inline_run(
        *(*FEDSG, f"method.client={__name__}.{family.__name__}"),
        *("runtime.nodes=2", "runtime.on_client_failure=continue"),
    )
    assert outcome.summary["status"] == "completed"
    for record in outcome.rounds:
        assert list(record["failures"]) == (failed if record["round"] == 2 else [])
        assert all(found.startswith(reason) for found in record["failures"].values())
    for matrix in (*outcome.mixing.values(), topology_mixing(outcome)):
        np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-5)

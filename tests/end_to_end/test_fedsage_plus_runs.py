"""FedSage+ from the command's overrides to the summary, wherever clients run and whoever fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from run_outcomes import SMALL_GENERATOR, Outcome, command, partition, predict, run_inline

from subfl_flower.clients.subgraphs.fedsage_plus import FedSagePlusClient
from subfl_flower.composition import composed_config
from subfl_flower.data.datasets import DigitsDataset
from subfl_flower.data.prepared.partition import prepare
from subfl_flower.errors import RunFailure
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Question

DATA = ("dataset=digits", "partition=overlap_rate", "partition.rate=0.3", "model.hidden=16")
SHORT = (*DATA, "federation.rounds=3", "federation.local_epochs=2", "runtime.threads=1")
METHOD = (*SHORT, "method=fedsage_plus", *SMALL_GENERATOR, "method.exchanges=2")
METRICS = ("train_loss", "validation", "test", "validation_as_received", "test_as_received")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run_inline(tmp_path_factory.mktemp("reference") / "run", *METHOD)


def assert_same_numbers(found: Outcome, expected: Outcome) -> None:
    for name in METRICS:
        np.testing.assert_allclose(found.values(name), expected.values(name), atol=1e-5, err_msg=name)
    for name, value in expected.summary["generator"].items():
        assert found.summary["generator"][name] == pytest.approx(value, rel=1e-4), name
    for phase, right in zip(found.summary["exchanges"], expected.summary["exchanges"], strict=True):
        assert {**phase, "seconds": 0} == {**right, "seconds": 0}


def test_its_phases_and_their_bytes(reference: Outcome) -> None:
    phases = reference.summary["exchanges"]
    assert [phase["action"] for phase in phases] == [*("generator", "gradients") * 2, "generator"]
    decoder = 4 * (5 * 8 * 4 + 5 * 4 + 4 * 64 + 64)  # heads and output: weights, biases
    assert phases[1]["bytes_up"] == phases[3]["bytes_up"] == 10 * 9 * decoder, "all others' gradients, from each client"
    assert phases[0]["bytes_down"] == 0 and phases[2]["bytes_down"] == phases[4]["bytes_down"] == 10 * decoder
    outgoing = phases[0]["bytes_up"] - 10 * decoder
    assert phases[1]["bytes_down"] == 9 * phases[0]["bytes_up"] and outgoing == 10 * 4 + visible_nodes() * (4 * 8 + 1)
    assert phases[4]["bytes_up"] == 10 * 5 * 8
    totals = reference.summary["bytes_up"], reference.summary["bytes_down"]
    rounds = [sum(record[name] for record in reference.rounds) for name in ("bytes_up", "bytes_down")]
    outside = [sum(phase[name] for phase in phases) for name in ("bytes_up", "bytes_down")]
    assert list(totals) == [a + b for a, b in zip(rounds, outside, strict=True)]
    figures = reference.summary["generator"]
    assert figures["clients_measured"] == 10 and figures["generated_nodes"] > 0
    assert 0 < figures["distance"] != figures["distance_of_mean"] > 0


def visible_nodes() -> int:
    """Of all clients, half of whose nodes are hidden."""
    config, _ = composed_config(list(METHOD))
    assert isinstance(config.dataset, DigitsDataset)
    prepared = prepare(config.dataset, config.partition, config.data.root, config.data.cache)
    return sum(n - round(n / 2) for n in (client["nodes"] for client in prepared.metadata["clients"]))


@pytest.mark.slow
def test_under_ray_it_gives_the_same(reference: Outcome, tmp_path: Path) -> None:
    found = command(
        *(*METHOD, "runtime=ray", "runtime.nodes=2", "runtime.total_cpus=2", "runtime.threads=1"),
        directory=tmp_path / "ray",
        cwd=tmp_path,
        timeout=400,
    )
    assert found.code == 0, found.stderr
    assert_same_numbers(found, reference)


class Refusing(FedSagePlusClient):
    """Client 3 says nothing of its generator."""

    def answer_of(self, client_id: int, question: Question) -> Stack:
        if client_id == 3 and question.phase == "generator":
            raise OSError("the disk is full")
        return super().answer_of(client_id, question)


def test_a_client_without_a_generator_stops_a_run_or_trains_on_its_own_graph(
    inline_run: Callable[..., Outcome],
) -> None:
    refusing = (*METHOD, f"method.client={__name__}.Refusing", "method.exchanges=1")
    with pytest.raises(RunFailure, match=r"client 3 failed in query\.generator: OSError: the disk is full"):
        inline_run(*refusing)
    found = inline_run(*refusing, "runtime.on_client_failure=continue")
    plain = inline_run(*SHORT, "method=fedsage")
    np.testing.assert_allclose(found.values("train_loss")[0, 3], plain.values("train_loss")[0, 3], atol=1e-6)
    others = np.delete(found.values("train_loss")[0] - plain.values("train_loss")[0], 3)
    assert np.abs(others).min() > 1e-4
    assert found.summary["generator"]["clients_measured"] == 9


@pytest.mark.parametrize("method", [METHOD, (*SHORT, "method=fedsage")], ids=["fedsage_plus", "fedsage"])
@pytest.mark.parametrize("model", ["sage", "gcn"])
def test_it_predicts_links_and_trains_either_network(
    method: tuple[str, ...], model: str, inline_run: Callable[..., Outcome]
) -> None:
    found = inline_run(*method, "task=link_prediction", f"model={model}", "model.hidden=16", "federation.rounds=2")
    assert found.summary["status"] == "completed" and found.summary["metric"] == "roc_auc"
    assert np.isfinite(found.values("test")).all()


@pytest.mark.parametrize(
    ("method", "mended"),
    [
        *(("fedsage_plus", True), ("fedgcn", True), ("fedgnn_subgraph", True), ("oracle", True)),
        *(("fedavg_whole_graph", True), ("fedsage", False), ("fedsg", False)),
    ],
)
def test_a_model_says_whether_its_graph_was_mended(
    method: str, mended: bool, inline_run: Callable[..., Outcome], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    knobs = SMALL_GENERATOR if method == "fedsage_plus" else ()
    found = inline_run(*SHORT, f"method={method}", *knobs, "federation.rounds=1")
    data = tmp_path / "folders"
    assert partition([*DATA[:3], f"out={data}"]) == 0
    capsys.readouterr()
    assert predict([str(found.directory / "clients" / "0002.safetensors"), str(data / "client-02")]) == 0
    assert ("Its graph was mended by nodes of other clients" in capsys.readouterr().out) == mended

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_outcomes import SMALL_DIGITS, Outcome

from subfl_flower.cli import run
from subfl_flower.data.prepared.partition import PreparedPartition, prepare
from subfl_flower.registry import validate
from subfl_flower.runs.directory import RunDirectory

Run = Callable[..., Outcome]
PNG = b"\x89PNG\r\n\x1a\n"
# Masks start at one and move by at most 0.01 a step: with this threshold they prune from the first step on.
PRUNING = "method.sparsity=0.5"
UNMASKED = ("dataset=digits", "model.hidden=16")


def analysis_of(outcome: Outcome) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((outcome.directory / "analysis.json").read_text())
    return found


def plots_of(outcome: Outcome) -> list[str]:
    return sorted(path.name for path in (outcome.directory / "plots").glob("*") if path.read_bytes().startswith(PNG))


def data_of(outcome: Outcome) -> PreparedPartition:
    config = validate(RunDirectory(outcome.directory).config())
    return prepare(config.dataset, config.partition, config.data.root, config.data.cache)


def test_a_run_of_fedpub_has_every_analysis(inline_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = inline_run(*SMALL_DIGITS, "federation.rounds=3", PRUNING)
    capsys.readouterr()
    assert run(["analyse", str(outcome.directory)]) == 0
    printed, said = capsys.readouterr()
    found = analysis_of(outcome)
    assert said == "" and found["left_out"] == []
    names = ["analysis-neighbours.png", "analysis-sharing.png", "analysis-similarity.png"]
    assert plots_of(outcome) == names
    for name in ("analysis.json", *(f"plots/{name}" for name in names)):
        assert str(outcome.directory / name) in printed

    partition = found["partition"]
    metadata = data_of(outcome).metadata
    assert partition["missing_edges"] == metadata["num_cross_edges"] / 2
    assert [client["nodes"] for client in partition["clients"]] == [c["nodes"] for c in metadata["clients"]]
    missing = np.array(found["similarity"]["missing_edges"])
    assert missing.sum() / 2 == partition["missing_edges"]  # no node belongs to two clients
    assert f"({100 * partition['missing_share']:.1f} %)" in printed
    label = np.array(found["similarity"]["label"])
    assert partition["heterogeneity"] == pytest.approx(np.median(1 - label[np.triu_indices(10, k=1)]))

    neighbours = found["neighbours"]
    assert neighbours["neighbour"] == missing.argmax(axis=1).tolist()
    assert f"{100 * neighbours['mean_on_neighbour']:.2f}" in printed
    sharing = found["parameter_sharing"]["most_similar"]
    assert 0 < np.mean(sharing["jaccard"]) < 1
    assert f"{100 * np.mean(sharing['jaccard']):.1f}" in printed


def test_metrics_are_those_that_training_saw_and_a_dense_computation_finds(inline_run: Run) -> None:
    outcome = inline_run(*SMALL_DIGITS, "federation.rounds=3", PRUNING)
    assert run(["analyse", str(outcome.directory), "--no-plots"]) == 0
    assert not (outcome.directory / "plots").exists()
    found = analysis_of(outcome)["neighbours"]
    best = outcome.values("validation").argmax(axis=0)
    np.testing.assert_allclose(found["own"], outcome.values("test")[best, np.arange(10)], atol=1e-6)
    models, prepared = outcome.models(), data_of(outcome)
    for client_id, neighbour in enumerate(found["neighbour"]):
        graph, model = prepared.client(neighbour), models[client_id]
        assert graph.labels is not None
        adjacency = np.eye(graph.num_nodes)
        adjacency[tuple(graph.edge_index)] = 1
        scale = adjacency.sum(1) ** -0.5
        adjacency *= scale[:, None] * scale
        features = graph.features if isinstance(graph.features, np.ndarray) else graph.features.toarray()
        hidden = np.maximum(adjacency @ (features @ model["conv1.weight"]) + model["conv1.bias"], 0)
        hidden = np.maximum(adjacency @ (hidden @ model["conv2.weight"]) + model["conv2.bias"], 0)
        predicted = (hidden @ model["classifier.weight"] + model["classifier.bias"]).argmax(1)
        expected = (predicted == graph.labels)[graph.roles == 2].mean()
        assert found["on_neighbour"][client_id] == pytest.approx(expected, abs=1e-6)


def test_functional_similarity_is_the_one_that_fedpub_mixes_by(inline_run: Run) -> None:
    outcome = inline_run(
        "dataset=digits", "model.hidden=16", "method.tau=2", "method.centred=false", "federation.rounds=1"
    )
    assert run(["analyse", str(outcome.directory), "--no-plots"]) == 0
    # the mixing matrix is softmax(2 cos) by row; a client's cosine with itself is 1
    mixing = outcome.mixing[1]
    expected = 1 + np.log(mixing / mixing.diagonal()[:, None]) / 2
    np.testing.assert_allclose(analysis_of(outcome)["similarity"]["functional"], expected, atol=1e-4)


def test_seeds_and_methods_are_compared_in_their_common_folder(
    inline_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        inline_run(*SMALL_DIGITS, "federation.rounds=2", PRUNING, "seed=0"),
        inline_run(*SMALL_DIGITS, "federation.rounds=2", PRUNING, "seed=1"),
        inline_run(*UNMASKED, "method=fedavg", "federation.rounds=2"),
    ]
    capsys.readouterr()
    assert run(["analyse", str(tmp_path)]) == 0
    printed, said = capsys.readouterr()
    assert (tmp_path / "analysis-neighbours.png").read_bytes().startswith(PNG)
    with (tmp_path / "analysis.csv").open(newline="") as file:
        fedpub, fedavg = csv.DictReader(file)
    means = [analysis_of(run)["neighbours"]["mean_on_neighbour"] for run in runs]
    assert float(fedpub["on_neighbour_mean"]) == pytest.approx(np.mean(means[:2]))
    assert float(fedpub["on_neighbour_std"]) == pytest.approx(np.std(means[:2], ddof=1))
    assert (float(fedavg["on_neighbour_mean"]), fedavg["on_neighbour_std"]) == (pytest.approx(means[2]), "")
    assert (fedpub["seeds"], fedpub["method"], fedavg["jaccard_most_similar_mean"]) == ("0 1", "fedpub", "")
    assert f"{100 * np.mean(means[:2]):.2f} ± {100 * np.std(means[:2], ddof=1):.2f}" in printed
    assert printed.count("whole graph") == 1  # all three runs have the same partition
    (line,) = said.splitlines()
    assert line.startswith(str(runs[2].directory)) and "fedavg prunes no weight" in line
    assert analysis_of(runs[2])["parameter_sharing"] is None
    assert plots_of(runs[2]) == ["analysis-neighbours.png", "analysis-similarity.png"]


def test_data_without_labels_is_analysed_without_them(
    inline_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    tables = tmp_path / "tables"
    tables.mkdir()
    nodes = "\n".join(f"{node},{rng.normal():.3f},{rng.normal():.3f}" for node in range(120))
    (tables / "nodes.csv").write_text(f"id,height,width\n{nodes}\n")
    ends = rng.integers(0, 120, size=(900, 2))
    (tables / "edges.csv").write_text("source,target\n" + "\n".join(f"{u},{v}" for u, v in ends) + "\n")
    outcome = inline_run(
        *("dataset=custom", f"dataset.path={tables}", "task=link_prediction", "method=fedavg"),
        *("model.hidden=8", "federation.rounds=1", "partition.clients=4"),
    )
    capsys.readouterr()
    assert run(["analyse", str(outcome.directory)]) == 0
    printed, said = capsys.readouterr()
    found = analysis_of(outcome)
    assert "custom has no labels" in said and "heterogeneity" in said and "label similarity:" not in printed
    assert found["partition"]["heterogeneity"] is None and found["similarity"]["label"] is None
    assert found["neighbours"]["metric"] == "roc_auc"
    np.testing.assert_allclose(found["neighbours"]["own"], outcome.values("test")[0], atol=1e-6)
    assert all(0 <= value <= 1 for value in found["neighbours"]["on_neighbour"])
    assert plots_of(outcome) == ["analysis-neighbours.png", "analysis-similarity.png"]


def test_a_run_without_models_still_has_a_partition(inline_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = inline_run(*UNMASKED, "method=local", "federation.rounds=1", "record.client_models=false")
    assert run(["analyse", str(outcome.directory)]) == 0
    printed, said = capsys.readouterr()
    assert "whole graph" in printed and "the run left no model of client 0" in said
    assert set(analysis_of(outcome)) == {"partition", "left_out"} and plots_of(outcome) == []


def test_a_single_client_has_nobody_to_be_compared_with(inline_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = inline_run(*UNMASKED, "method=local", "federation.rounds=1", "partition.clients=1")
    assert run(["analyse", str(outcome.directory)]) == 0
    assert "with a single client there is nothing to compare" in capsys.readouterr().err
    assert analysis_of(outcome)["partition"]["missing_edges"] == 0


def test_a_failed_job_of_a_sweep_is_left_out(
    inline_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = inline_run(*UNMASKED, "method=local", "federation.rounds=1")
    RunDirectory(tmp_path / "failed").write_summary({"status": "failed", "error": "no memory"})
    assert run(["analyse", str(tmp_path), "--no-plots"]) == 0
    assert f"{tmp_path / 'failed'} is left out: " in capsys.readouterr().err
    assert (outcome.directory / "analysis.json").is_file() and not (tmp_path / "failed" / "analysis.json").exists()


def test_data_can_be_described_without_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["analyse", "--data", "dataset=digits", "partition=random", "partition.clients=3"]) == 0
    printed, _ = capsys.readouterr()
    assert "digits, random, 3 clients" in printed and "client 2" in printed and "1,797" in printed
    assert list(tmp_path.iterdir()) == []


def test_what_the_user_can_mend_is_one_sentence_and_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunDirectory(tmp_path / "failed").write_summary({"status": "failed"})
    for arguments, words in (
        ([str(tmp_path / "nothing")], "nothing is not a folder"),
        ([str(tmp_path / "failed")], "config.yaml"),
        (["--data", "partition.clients=0"], "partition.clients: "),
    ):
        assert run(["analyse", *arguments]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("subfl analyse: ") and words in line
    assert run(["analyse"]) == 2
    assert run(["analyse", str(tmp_path), "--data", "dataset=digits"]) == 2
    assert run(["analyse", "--help"]) == 0

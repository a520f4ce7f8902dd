"""A prediction is the same wherever it is asked for, and speaks of the names in the user's tables."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from run_outcomes import Outcome, partition, predict, run_inline
from test_deployed_nodes import FolderGrid

from subfl_flower.composition import composed_config
from subfl_flower.node.open_nodes import forget_nodes
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.server.federation import run_federation

CLASSES = ("died", "home", "transferred")
CITIES = ("bern", "oslo", "rome")
RUN = ("method=fedavg", "model.hidden=4", "federation.rounds=4", "optimizer.lr=0.05")


def hospital(folder: Path, seed: int = 0) -> list[str]:
    """Sixty patients with ids of text, a category, two columns of very different size, and a fate."""
    rng = np.random.default_rng(seed)
    number = rng.permutation(60)
    nodes = pd.DataFrame(
        {
            "fate": [CLASSES[i % 3] if i % 10 else "" for i in number],
            "income": 1000 * (number % 3) + rng.integers(0, 300, 60) + 20000,
            "city": [CITIES[i % 3] if i % 4 else CITIES[i % 2] for i in number],
            "id": [f"p-{i:03d}" for i in number],
            "age": rng.integers(20, 90, 60),
        }
    )
    ends = rng.integers(0, 60, (2, 150))
    edges = pd.DataFrame({"source": [f"p-{i:03d}" for i in ends[0]], "target": [f"p-{i:03d}" for i in ends[1]]})
    folder.mkdir(exist_ok=True)
    nodes.to_csv(folder / "nodes.csv", index=False)
    edges.to_csv(folder / "edges.csv", index=False)
    return [
        "dataset=custom", f"dataset.path={folder}", "dataset.columns.label=fate", "dataset.train_fraction=0.5",
        "dataset.features.one_hot=[city]", "partition=overlap_rate", "partition.clients=5",
    ]  # fmt: skip


def table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False)


def predicted(tmp_path: Path, *arguments: object) -> pd.DataFrame:
    assert predict([*map(str, arguments), "--out", str(tmp_path / "p.csv")]) == 0
    return table(tmp_path / "p.csv")


def refused(capsys: pytest.CaptureFixture[str], arguments: list[object], *words: str) -> None:
    capsys.readouterr()
    assert predict([str(argument) for argument in arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("subfl predict: ") and all(word in line for word in words), line


@pytest.fixture
def hospital_run(tmp_path: Path) -> Outcome:
    return run_inline(tmp_path / "run", *hospital(tmp_path / "hospital"), *RUN)


def by_hand(parameters: dict[str, np.ndarray], nodes: pd.DataFrame, edges: pd.DataFrame, train: set[str]) -> np.ndarray:
    """The two-layer GCN's probabilities in dense float64, from what the tables say."""
    raw = pd.read_csv(nodes.attrs["path"])
    known = raw[raw["id"].isin(train)]
    columns = []
    for name in ("income", "city", "age"):
        if name == "city":
            columns += [(nodes[name] == city).astype(float) for city in CITIES]
        else:
            columns.append((nodes[name] - known[name].mean()) / known[name].std(ddof=0))
    features = np.stack(columns, axis=1)
    place = {name: row for row, name in enumerate(nodes["id"])}
    adjacency = np.eye(len(nodes))
    for source, target in edges[["source", "target"]].itertuples(index=False):
        if source in place and target in place:
            adjacency[place[source], place[target]] = adjacency[place[target], place[source]] = 1
    scale = adjacency.sum(1) ** -0.5
    hidden = features
    for layer in ("conv1", "conv2"):
        product = scale[:, None] * adjacency * scale @ hidden @ parameters[f"{layer}.weight"]
        hidden = np.maximum(product + parameters[f"{layer}.bias"], 0)
    outputs = hidden @ parameters["classifier.weight"] + parameters["classifier.bias"]
    shares = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def test_a_runs_predictions_are_those_of_its_models_on_the_tables(
    hospital_run: Outcome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    found = predicted(tmp_path, hospital_run.directory)
    out = capsys.readouterr().out
    each = [f"p_{name}" for name in CLASSES]
    assert list(found) == ["node", "client", "role", "prediction", *each, "label"]
    raw = pd.read_csv(tmp_path / "hospital" / "nodes.csv", keep_default_na=False)
    edges = pd.read_csv(tmp_path / "hospital" / "edges.csv")
    assert sorted(set(found["node"])) == sorted(raw["id"]) and found["node"].duplicated().any()
    fate = dict(zip(raw["id"], raw["fate"], strict=True))
    assert found["label"].tolist() == [fate[node] for node in found["node"]]
    assert ((found["role"] == "") == (found["label"] == "")).all()
    assert set(found["role"]) == {"train", "validation", "test", ""}
    train = set(found["node"][found["role"] == "train"])
    for client, parameters in hospital_run.models().items():
        rows = found[found["client"] == client]
        nodes = raw.set_index("id").loc[rows["node"]].reset_index()
        nodes.attrs["path"] = tmp_path / "hospital" / "nodes.csv"
        expected = by_hand(parameters, nodes, edges, train)
        np.testing.assert_allclose(rows[each].astype(float), expected, atol=2e-5)
        assert rows["prediction"].tolist() == [CLASSES[number] for number in expected.argmax(1)]
        right = rows["prediction"] == rows["label"]
        best = np.argmax(1 + hospital_run.values("validation").astype(np.float32)[:, client])
        assert right[rows["role"] == "test"].mean() == pytest.approx(
            hospital_run.values("test")[best, client], abs=1e-6
        )
    tested = found[found["role"] == "test"]
    share = (tested["prediction"] == tested["label"]).mean()
    assert f"test {share:.4f} ({len(tested)})" in out and f"{len(found)} predictions in" in out
    assert predict([str(hospital_run.directory)]) == 0
    shown = capsys.readouterr().out
    assert f"and {len(found) - 10} more" in shown and "p_died" not in shown and "transferred" in shown


def test_a_prediction_is_the_same_in_a_simulation_in_a_folder_and_on_a_node(
    hospital_run: Outcome, tmp_path: Path
) -> None:
    overrides = [*hospital(tmp_path / "hospital"), *RUN]
    assert partition([*overrides, f"out={tmp_path / 'folders'}"]) == 0
    folders = sorted((tmp_path / "folders").glob("client-*"))
    grid = FolderGrid(folders[:1], folders[1:])
    config, _ = composed_config([*overrides, "runtime=deploy", "runtime.node_timeout=1", f"schema={grid.schema}"])
    try:
        with grid.active():
            run_federation(grid, config, tmp_path / "deployed", threading.Event())
    finally:
        forget_nodes()
    (run,) = (folders[0] / "runs").iterdir()
    simulated = predicted(tmp_path, hospital_run.directory)
    columns = ["node", "prediction", "p_died", "p_home", "p_transferred", "label"]
    assert simulated["prediction"].nunique() > 1
    for client, folder in enumerate(folders):
        expected = simulated[simulated["client"] == client][columns].reset_index(drop=True)
        model = hospital_run.directory / "clients" / f"000{client}.safetensors"
        pd.testing.assert_frame_equal(predicted(tmp_path, model, folder)[columns], expected)
        own = predicted(tmp_path, folder / "runs" / run.name, folder)[columns]
        pd.testing.assert_frame_equal(own, expected, atol=1e-4, rtol=0)
        cards = [json.loads((folder / "runs" / run.name / "model.json").read_text())]
        cards.append(json.loads((folder / "client.json").read_text()))
        assert cards[0]["classes"] == cards[1]["classes"] == list(CLASSES)
        assert cards[0]["transform"] == cards[1]["transform"]
        assert cards[0]["transform"]["one_hot"] == {"city": list(CITIES)}
        assert cards[0]["data"] == cards[1]["data"] == hospital_fingerprint(hospital_run.directory)
        assert json.loads((folder / "names.json").read_text()) == expected["node"].tolist()


def hospital_fingerprint(run: Path) -> str:
    data = RunDirectory(run).data()
    assert data is not None
    return str(data["fingerprints"]["data"])


def test_new_patients_are_read_by_the_card_alone(hospital_run: Outcome, tmp_path: Path) -> None:
    raw = pd.read_csv(tmp_path / "hospital" / "nodes.csv", keep_default_na=False)
    edges = pd.read_csv(tmp_path / "hospital" / "edges.csv")
    new, train = tmp_path / "new", None
    new.mkdir()
    found = predicted(tmp_path, hospital_run.directory)
    train = set(found["node"][found["role"] == "train"])
    some = raw.iloc[:25][["city", "age", "id", "income"]]
    some.to_csv(new / "nodes.csv", index=False)
    edges[edges["source"].isin(some["id"]) & edges["target"].isin(some["id"])].to_csv(new / "edges.csv", index=False)
    rows = predicted(tmp_path, hospital_run.directory / "clients" / "0001.safetensors", new)
    nodes = some.copy()
    nodes.attrs["path"] = tmp_path / "hospital" / "nodes.csv"
    expected = by_hand(hospital_run.models()[1], nodes, edges, train)
    assert rows["node"].tolist() == some["id"].tolist() and "label" not in rows
    np.testing.assert_allclose(rows[[f"p_{name}" for name in CLASSES]].astype(float), expected, atol=2e-5)


def test_other_data_than_the_runs_are_refused(
    hospital_run: Outcome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = tmp_path / "hospital" / "nodes.csv"
    kept = nodes.read_text()
    nodes.write_text(kept.replace("p-000,", "q-000,"))
    (tmp_path / "hospital" / "edges.csv").write_text(
        (tmp_path / "hospital" / "edges.csv").read_text().replace("p-000", "q-000")
    )
    refused(capsys, [hospital_run.directory], "the data are not those of", "edges.csv, nodes.csv changed since the run")
    (hospital_run.directory / "data.json").unlink()
    refused(capsys, [hospital_run.directory], "the data are not those of", "0000.safetensors was trained on others")
    hospital(tmp_path / "hospital")
    assert len(predicted(tmp_path, hospital_run.directory)) > 60


def test_a_client_without_a_model_has_no_row(
    hospital_run: Outcome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (hospital_run.directory / "clients" / "0001.safetensors").unlink()
    capsys.readouterr()
    found = predicted(tmp_path, hospital_run.directory)
    out, err = capsys.readouterr()
    assert set(found["client"]) == {0, 2, 3, 4} and f"{len(found)} predictions" in out
    assert "warning: no row for clients without a model: 1" in err


def test_a_run_of_mended_graphs_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run_inline(tmp_path / "run", *hospital(tmp_path / "hospital"), *RUN[1:], "method=fedgcn")
    capsys.readouterr()
    rows = predicted(tmp_path, found.directory)
    assert set(rows["client"]) == set(range(5))
    assert "5 of 5 clients: the graph was mended by nodes of other clients in training" in capsys.readouterr().out


def test_runs_that_have_nothing_to_predict_are_refused(
    hospital_run: Outcome, tmp_path: Path, capsys: pytest.CaptureFixture[str], digits_run: Callable[..., Path]
) -> None:
    run = hospital_run.directory
    refused(capsys, [run, tmp_path / "hospital"], "is a run", "only --out may be given", "clients/0000.safetensors")
    refused(capsys, [run, "--row-normalize"], "only --out may be given")
    shutil.rmtree(run / "clients")
    refused(capsys, [run], "holds no models", "record.client_models is false")
    refused(capsys, [digits_run("task=link_prediction")], "is a run of task=link_prediction", "--pairs")
    refused(
        capsys, [digits_run("method=fedgnn", "dataset=synthetic_ratings")], "is a run on ratings", "subfl recommend"
    )


@pytest.fixture
def digits_run(tmp_path: Path) -> Callable[..., Path]:
    """A run that was only begun."""

    def made(*overrides: str) -> Path:
        folder = tmp_path / "-".join(overrides)
        config, _ = composed_config(overrides)
        RunDirectory.create(folder).write_config(config.plain())
        return folder

    return made

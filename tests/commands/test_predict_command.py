from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from run_outcomes import SMALL_DIGITS, Outcome, partition
from run_outcomes import predict as main
from safetensors.numpy import save
from sklearn.metrics import roc_auc_score
from torch_geometric.data import Data

from subfl_flower.composition import composed_config
from subfl_flower.config import Config
from subfl_flower.data.data_facts import DataFacts, ReadingSettings
from subfl_flower.data.datasets.custom_settings import GraphColumns
from subfl_flower.data.feature_transform import FeatureTransform
from subfl_flower.data.folders.subgraph_folder import ClientFolder, write_client_folder
from subfl_flower.data.graph import TEST, ClientGraph
from subfl_flower.models.settings import ModelSettings
from subfl_flower.storage.tensor_file import MODEL_FILE
from subfl_flower.subgraphs.models.exported import ExportedModel, ModelCard
from subfl_flower.tasks.choices import LinkPrediction, NodeClassification

Run = Callable[..., Outcome]
NODES = "id,label,height,width\na,cat,1,2\nb,dog,3,4\nc,,5,6\nd,cat,7,8\n"
EDGES = "source,target\na,b\nb,c\n"
ADJACENT = [(0, 1), (1, 2)]


def softmax(outputs: np.ndarray) -> np.ndarray:
    shares = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def by_hand(parameters: dict[str, np.ndarray], features: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The two-layer GCN in dense float64."""
    adjacency = np.eye(len(features))
    adjacency[edges[0], edges[1]] = adjacency[edges[1], edges[0]] = 1
    scale = adjacency.sum(1) ** -0.5
    operator = scale[:, None] * adjacency * scale
    hidden = features.astype(np.float64)
    for layer in ("conv1", "conv2"):
        hidden = np.maximum(operator @ hidden @ parameters[f"{layer}.weight"] + parameters[f"{layer}.bias"], 0)
    return hidden @ parameters["classifier.weight"] + parameters["classifier.bias"]


def card_of(config: Config, client: int, num_features: int, num_classes: int, **changes: Any) -> ModelCard:
    return ModelCard(
        model=config.model,
        task=config.task,
        num_features=num_features,
        num_classes=num_classes,
        dataset=config.dataset.name,
        client=client,
        method=config.method.name,
        run="run-0",
        **changes,
    )


def exported(folder: Path, task: str = "node_classification", **changes: Any) -> dict[str, np.ndarray]:
    """A random model of two features and two classes in `folder`; its parameters."""
    of_task = {
        "node_classification": NodeClassification(name="node_classification"),
        "link_prediction": LinkPrediction(name="link_prediction", dimensions=3),
    }[task]
    said: dict[str, Any] = dict(num_features=2, num_classes=2, dataset="custom", client=0, method="local", run="r")
    if task == "node_classification" and "num_classes" not in changes:
        said["classes"] = ("cat", "dog")
    card = ModelCard(model=ModelSettings(name="gcn", hidden=4), task=of_task, **(said | changes))
    rng = np.random.default_rng(1)
    parameters = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in card.gnn.shapes.items()}
    ExportedModel(parameters, card).write_with_card(folder / MODEL_FILE)
    return parameters


def tables(folder: Path, nodes: str = NODES) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "nodes.csv").write_text(nodes)
    (folder / "edges.csv").write_text(EDGES)
    return folder


def best_rounds(outcome: Outcome) -> np.ndarray:
    """The first round of each client's highest validation figure, as float32 keeps it."""
    best: np.ndarray = np.argmax((1 + outcome.values("validation").astype(np.float32)), axis=0)
    return best


def figures(out: str, metric: str) -> dict[str, float]:
    (line,) = [line for line in out.splitlines() if line.startswith(f"{metric}: ")]
    return {name.strip(): float(value) for name, value in re.findall(r"([a-z ]+?) (\d\.\d{4})", line.partition(":")[2])}


def refused(capsys: pytest.CaptureFixture[str], arguments: list[object], *words: str) -> None:
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("subfl predict: ") and all(word in line for word in words), line


def test_a_fed_pub_clients_model_predicts_what_its_run_recorded(
    inline_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = (*SMALL_DIGITS, "method=fedpub", "method.sparsity=0.3", "partition=metis", "partition.clients=3")
    overrides += ("federation.rounds=12",)
    outcome = inline_run(*overrides)
    config, _ = composed_config(overrides)
    assert partition([*overrides, f"out={tmp_path / 'folders'}"]) == 0
    best, validation, test = best_rounds(outcome), outcome.values("validation"), outcome.values("test")
    assert test.max() > 0.5
    for client, parameters in outcome.models().items():
        model = tmp_path / f"model-{client}"
        ExportedModel(parameters, card_of(config, client, 64, 10)).write_with_card(model / MODEL_FILE)
        folder = tmp_path / "folders" / f"client-0{client}"
        graph = ClientFolder.open(folder).graph()
        capsys.readouterr()
        assert main([str(model), str(folder), "--out", str(tmp_path / "p" / "predictions.csv")]) == 0
        out = capsys.readouterr().out
        table = pd.read_csv(tmp_path / "p" / "predictions.csv")
        each = [f"p_{digit}" for digit in range(10)]
        assert list(table) == ["node", "prediction", "probability", *each, "label"]
        np.testing.assert_array_equal(table["node"], graph.node_ids)
        np.testing.assert_array_equal(table["label"], graph.labels)
        correct = (table["prediction"] == table["label"]).to_numpy()
        at_best = test[best[client], client]
        assert correct[graph.roles == TEST].mean() == pytest.approx(at_best, abs=1e-6)
        shown = figures(out, "accuracy")
        assert shown["test"] == pytest.approx(at_best, abs=5.1e-5)
        assert shown["validation"] == pytest.approx(validation[best[client], client], abs=5.1e-5)
        expected = softmax(by_hand(parameters, np.asarray(graph.features), graph.edge_index))
        np.testing.assert_array_equal(table["prediction"], expected.argmax(1))
        np.testing.assert_allclose(table["probability"], expected.max(1), atol=1e-5)
        np.testing.assert_allclose(table[each], expected, atol=1e-5)


def test_a_link_predictors_figures_and_scores_are_its_runs(
    inline_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = (
        "dataset=digits", "method=fedavg", "task=link_prediction", "model.hidden=16", "partition.clients=3",
        "federation.rounds=6",
    )  # fmt: skip
    outcome = inline_run(*overrides)
    config, _ = composed_config(overrides)
    task = config.task
    assert isinstance(task, LinkPrediction)
    assert partition([*overrides, f"out={tmp_path / 'folders'}"]) == 0
    folder = tmp_path / "folders" / "client-01"
    graph = ClientFolder.open(folder).graph()
    parameters = outcome.models()[1]
    ExportedModel(parameters, card_of(config, 1, 64, 10)).write_with_card(tmp_path / "model" / MODEL_FILE)
    pairs, truth = held_out_pairs(task, graph)
    np.savetxt(
        tmp_path / "pairs.csv", graph.node_ids[pairs].T, fmt="%d", delimiter=",", header="source,target", comments=""
    )
    capsys.readouterr()
    arguments = [tmp_path / "model", folder, "--pairs", tmp_path / "pairs.csv", "--out", tmp_path / "scores.csv"]
    assert main([str(argument) for argument in arguments]) == 0
    shown = figures(capsys.readouterr().out, "roc_auc")
    best = best_rounds(outcome)[1]
    assert shown["test"] == pytest.approx(outcome.values("test")[best, 1], abs=5.1e-5)
    assert shown["validation"] == pytest.approx(outcome.values("validation")[best, 1], abs=5.1e-5)
    table = pd.read_csv(tmp_path / "scores.csv")
    assert list(table) == ["source", "target", "score"]
    np.testing.assert_array_equal(table[["source", "target"]].to_numpy().T, graph.node_ids[pairs])
    assert roc_auc_score(truth, table["score"]) == pytest.approx(shown["test"], abs=1e-4)
    outputs = by_hand(parameters, np.asarray(graph.features), task.visible(graph).edge_index)
    centred = outputs - outputs.mean(0)
    np.testing.assert_allclose(table["score"], (centred[pairs[0]] * centred[pairs[1]]).sum(1), rtol=1e-3, atol=1e-3)


def held_out_pairs(task: LinkPrediction, graph: ClientGraph) -> tuple[np.ndarray, np.ndarray]:
    """The pairs and truth that the test figure is measured on."""
    held_out = task.examples([graph], torch.device("cpu"))._clients[0].held_out[1]
    return held_out[0].numpy(), held_out[1]


def test_tables_are_predicted_under_their_own_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parameters = exported(tmp_path / "model", classes=("dog", "cat"))
    assert main([str(tmp_path / "model"), str(tables(tmp_path / "g")), "--out", str(tmp_path / "p.csv")]) == 0
    expected = softmax(by_hand(parameters, np.array([[1, 2], [3, 4], [5, 6], [7, 8]]), np.array(ADJACENT).T))
    rows = [line.split(",") for line in (tmp_path / "p.csv").read_text().splitlines()]
    assert rows[0] == ["node", "prediction", "probability", "p_dog", "p_cat", "label"]
    names = [("dog", "cat")[number] for number in expected.argmax(1)]
    assert [(row[0], row[1], row[-1]) for row in rows[1:]] == list(
        zip("abcd", names, ["cat", "dog", "", "cat"], strict=True)
    )
    np.testing.assert_allclose([[float(value) for value in row[3:5]] for row in rows[1:]], expected, atol=1e-5)
    np.testing.assert_allclose([float(row[2]) for row in rows[1:]], expected.max(1), atol=1e-5)
    right = sum(name == label for name, label in zip(names, ["cat", "dog", "", "cat"], strict=True))
    out = capsys.readouterr().out
    assert figures(out, "accuracy") == {"labelled nodes": pytest.approx(right / 3, abs=1e-4)}
    assert "features as they are" in out


def test_a_pyg_file_without_labels_is_shown_in_ten_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parameters = exported(tmp_path / "model")
    features = np.random.default_rng(0).random((12, 2)).astype(np.float32)
    edges = np.array([[0, 1, 5], [1, 2, 6]])
    torch.save(Data(x=torch.from_numpy(features), edge_index=torch.from_numpy(edges)), tmp_path / "g.pt")
    assert main([str(tmp_path / "model"), str(tmp_path / "g.pt")]) == 0
    out = capsys.readouterr().out
    shown = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    expected = softmax(by_hand(parameters, features, edges))
    assert [row[:2] for row in shown] == [[str(node), ("cat", "dog")[expected[node].argmax()]] for node in range(10)]
    assert all(len(row) == 3 for row in shown) and "and 2 more" in out and "accuracy" not in out


@pytest.mark.parametrize("by", ["the card", "the option"])
def test_rows_are_normalised_where_training_did_so(tmp_path: Path, by: str, capsys: pytest.CaptureFixture[str]) -> None:
    known = {"transform": FeatureTransform(row_normalize=True)} if by == "the card" else {}
    parameters = exported(tmp_path / "model", **known)
    option = [] if by == "the card" else ["--row-normalize"]
    arguments = [str(tmp_path / "model"), str(tables(tmp_path / "g")), "--out", str(tmp_path / "p.csv")]
    assert main([*arguments, *option]) == 0
    shifted = np.array([[0, 1], [2, 3], [4, 5], [6, 7]])  # the least entry is subtracted first
    expected = softmax(by_hand(parameters, shifted / shifted.sum(1, keepdims=True), np.array(ADJACENT).T))
    np.testing.assert_allclose(pd.read_csv(tmp_path / "p.csv")["probability"], expected.max(1), atol=1e-5)
    if by == "the card":
        refused(capsys, [*arguments, "--row-normalize"], "--row-normalize: the model's card says how")


def test_features_are_found_by_name_and_treated_as_in_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transform = FeatureTransform(
        columns=("age", "city"), one_hot={"city": ("rome", "oslo")},
        fill=(40, 0, 0), mean=(50, 0, 0), scale=(10, 1, 1),
    )  # fmt: skip
    parameters = exported(
        tmp_path / "model", num_features=3, num_classes=3, classes=("a", "b", "c"), transform=transform
    )
    nodes = "note,city,id,age,label\nx,oslo,a,60,c\ny,rome,b,,a\nz,kyiv,c,45,\nw,,d,50,c\n"
    arguments = [tmp_path / "model", tables(tmp_path / "g", nodes), "--out", tmp_path / "p.csv"]
    assert main([str(argument) for argument in arguments]) == 0
    out, err = capsys.readouterr()
    features = np.array([[1, 0, 1], [-1, 1, 0], [-0.5, 0, 0], [0, 0, 0]])
    expected = softmax(by_hand(parameters, features, np.array(ADJACENT).T))
    table = pd.read_csv(tmp_path / "p.csv", keep_default_na=False)
    assert table["label"].tolist() == ["c", "a", "", "c"]
    np.testing.assert_allclose(table[["p_a", "p_b", "p_c"]], expected, atol=1e-5)
    assert "features as in training" in out
    assert "not used: nodes.csv: columns note, which the model does not read" in err
    assert "warning: nodes.csv: 1 nodes have a city that is none of the categories" in err and "'kyiv'" in err
    refused(capsys, [tmp_path / "model", tables(tmp_path / "h")], "the model reads the columns age, city")


def test_files_are_read_as_in_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reading = ReadingSettings(
        encoding="latin-1", columns=GraphColumns(id="Patient", label="fate"), unlabelled=("?",), missing=("NA",)
    )
    transform = FeatureTransform(columns=("height", "width"), fill=(2, 3))
    parameters = exported(tmp_path / "model", classes=("gu\xe9ri", "mort"), transform=transform, reading=reading)
    folder = tables(tmp_path / "g")
    rows = "Patient,fate,height,width\na,mort,1,2\nb,?,3,NA\nc,gu\xe9ri,NA,6\nd,mort,7,8\n"
    (folder / "nodes.csv").write_bytes(rows.encode("latin-1"))
    arguments = [str(tmp_path / "model"), str(folder), "--out", str(tmp_path / "p.csv")]
    assert main(arguments) == 0
    expected = softmax(by_hand(parameters, np.array([[1, 2], [3, 3], [2, 6], [7, 8]]), np.array(ADJACENT).T))
    table = pd.read_csv(tmp_path / "p.csv", keep_default_na=False)
    np.testing.assert_allclose(table[["p_gu\xe9ri", "p_mort"]], expected, atol=1e-5)
    assert table["label"].tolist() == ["mort", "", "gu\xe9ri", "mort"]
    without = "\n".join(",".join(line.split(",")[:1] + line.split(",")[2:]) for line in rows.splitlines())
    (folder / "nodes.csv").write_bytes(without.encode("latin-1"))
    capsys.readouterr()
    assert main(arguments) == 0
    assert "label" not in pd.read_csv(tmp_path / "p.csv") and "accuracy" not in capsys.readouterr().out


@pytest.mark.parametrize("classes", [("died", "home", "transferred"), ("0.5", "1.5", "2.5")])
def test_labels_are_compared_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], classes: tuple[str, str, str]
) -> None:
    first, second, third = classes
    parameters = exported(tmp_path / "model", num_classes=3, classes=classes)
    expected = by_hand(parameters, np.array([[1, 2], [3, 4], [5, 6], [7, 8]]), np.array(ADJACENT).T).argmax(1)
    folder = tables(tmp_path / "g", NODES.replace("cat", third).replace("dog", second))
    arguments = [tmp_path / "model", folder, "--out", tmp_path / "p.csv"]
    assert main([str(argument) for argument in arguments]) == 0
    assert pd.read_csv(tmp_path / "p.csv", dtype=str, keep_default_na=False)["label"].tolist() == [
        third, second, "", third,
    ]  # fmt: skip
    right = (expected == [2, 1, -1, 2]).sum()
    assert figures(capsys.readouterr().out, "accuracy") == {"labelled nodes": pytest.approx(right / 3, abs=1e-4)}
    (tmp_path / "p.csv").unlink()
    tables(tmp_path / "g", NODES.replace("cat", "zed").replace("dog", first))
    if first == "died":
        refused(capsys, arguments, "class zed is none of the model's classes (died, home, transferred)")
    else:
        refused(capsys, arguments, "2 labels are none of dataset.classes, the first is 'zed'")
    assert not (tmp_path / "p.csv").exists()
    tables(tmp_path / "g", NODES.replace("cat", "zed").replace("dog", "zod"))
    refused(capsys, arguments, *(["classes zed, zod are none"] if first == "died" else ["3 labels are none"]))


def test_class_numbers_of_a_pyg_file_are_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parameters = exported(tmp_path / "model", num_classes=3, classes=("1", "2", "3"))
    features = np.random.default_rng(0).random((4, 2)).astype(np.float32)
    graph = Data(x=torch.from_numpy(features), edge_index=torch.tensor(ADJACENT).T, y=torch.tensor([3, 1, -1, 3]))
    torch.save(graph, tmp_path / "g.pt")
    assert main([str(tmp_path / "model"), str(tmp_path / "g.pt"), "--out", str(tmp_path / "p.csv")]) == 0
    table = pd.read_csv(tmp_path / "p.csv", dtype={"label": str}, keep_default_na=False)
    assert list(table)[3:6] == ["p_1", "p_2", "p_3"] and table["label"].tolist() == ["3", "1", "", "3"]
    expected = softmax(by_hand(parameters, features, np.array(ADJACENT).T))
    np.testing.assert_array_equal(table["prediction"], 1 + expected.argmax(1))
    exported(tmp_path / "numbers", num_classes=3)
    refused(capsys, [tmp_path / "numbers", tmp_path / "g.pt"], "class 3 is none of the model's classes (0, 1, 2)")


def test_a_folder_with_other_features_is_refused_or_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = FeatureTransform(columns=("age", "height"), mean=(50, 170), scale=(10, 20))
    exported(tmp_path / "model", transform=trained)
    graph = ClientGraph(
        client_id=3,
        node_ids=np.array([4, 9]),
        features=np.array([[1, 2], [3, 4]], dtype=np.float32),
        edge_index=np.array([[0, 1], [1, 0]]),
        labels=np.array([1, 0]),
        num_classes=2,
        roles=np.array([0, 2], dtype=np.int8),
        shareable=np.zeros(2, dtype=bool),
    )

    def folder(name: str, classes: tuple[str, str] = ("dog", "cat"), **changes: Any) -> Path:
        facts = DataFacts(classes=classes, transform=trained.model_copy(update=changes))
        said: dict[str, Any] = dict(dataset="custom", partition="", num_clients=None, overlapping=False, key=b"k" * 32)
        ids = np.array(["x1", "x2"], dtype=object)
        write_client_folder(tmp_path / name, graph, facts=facts, names=ids, **said)
        return tmp_path / name

    arguments = [str(tmp_path / "model"), str(folder("same")), "--out", str(tmp_path / "p.csv")]
    assert main(arguments) == 0
    assert capsys.readouterr().err == ""
    table = pd.read_csv(tmp_path / "p.csv")
    assert table["node"].tolist() == ["x1", "x2"] and table["label"].tolist() == ["cat", "dog"]
    refused(capsys, [arguments[0], folder("scaled", mean=(51, 170))], "holds features that were scaled otherwise than")
    assert main([arguments[0], str(folder("filled", fill=(51, 170)))]) == 0
    assert "warning: missing features of" in capsys.readouterr().err
    other = folder("order", columns=("height", "age"))
    refused(capsys, [arguments[0], other], "has the features height, age, and the model reads age, height")
    refused(
        capsys, [arguments[0], folder("owls", ("owl", "cat"))], "class owl is none of the model's classes (cat, dog)"
    )
    refused(capsys, [arguments[0], tmp_path / "same", "--row-normalize"], "--row-normalize: a client's folder holds")


def test_weights_are_read_where_the_model_knows_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported(tmp_path / "plain")
    exported(tmp_path / "weighted", reading=ReadingSettings(edge_weights="unique"))
    folder = tables(tmp_path / "g")
    refused(capsys, [tmp_path / "weighted", folder], "has no edge weights, and the graph", "trained on has some")
    (folder / "edges.csv").write_text("source,target,weight\na,b,2\nb,c,0.5\n")
    for model in ("plain", "weighted"):
        assert main([str(tmp_path / model), str(folder)]) == 0
    assert "weight" in capsys.readouterr().err


def test_scores_of_pairs_of_a_table_use_all_its_edges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parameters = exported(tmp_path / "model", "link_prediction")
    (tmp_path / "pairs.csv").write_text("source,target\nd,a\nb,c\nb,b\n")
    arguments = [tmp_path / "model", tables(tmp_path / "g"), "--pairs", tmp_path / "pairs.csv"]
    assert main([str(argument) for argument in [*arguments, "--out", tmp_path / "s.csv"]]) == 0
    outputs = by_hand(parameters, np.array([[1, 2], [3, 4], [5, 6], [7, 8]]), np.array(ADJACENT).T)
    centred = outputs - outputs.mean(0)
    table = pd.read_csv(tmp_path / "s.csv")
    assert table["source"].tolist() == ["d", "b", "b"] and table["target"].tolist() == ["a", "c", "b"]
    expected = [centred[3] @ centred[0], centred[1] @ centred[2], centred[1] @ centred[1]]
    np.testing.assert_allclose(table["score"], expected, rtol=1e-4)
    (tmp_path / "pairs.csv").write_text("source,target\na,b\nz,c\n")
    refused(capsys, arguments, "pairs.csv", "unknown source, first in row 2 (z)", "a node of the graph")
    (tmp_path / "pairs.csv").write_text("from,to\na,b\n")
    refused(capsys, arguments, "pairs.csv", "source and target is missing")
    refused(capsys, arguments[:2], "--pairs: the model predicts links")


def test_every_edge_of_a_users_own_graph_is_seen(tmp_path: Path) -> None:
    parameters = exported(tmp_path / "model", "link_prediction")
    features = np.random.default_rng(0).random((20, 2)).astype(np.float32)
    edges = np.array([(a, b) for a in range(20) for b in range(a + 1, 20) if (a * b) % 3 == 1]).T
    graph = Data(x=torch.from_numpy(features), edge_index=torch.from_numpy(edges))
    torch.save(graph, tmp_path / "g.pt")
    (tmp_path / "pairs.csv").write_text("source,target\n0,1\n4,7\n19,2\n")
    arguments = [tmp_path / "model", tmp_path / "g.pt", "--pairs", tmp_path / "pairs.csv", "--out", tmp_path / "s.csv"]
    assert main([str(argument) for argument in arguments]) == 0
    outputs = by_hand(parameters, features, edges)
    centred = outputs - outputs.mean(0)
    expected = [centred[0] @ centred[1], centred[4] @ centred[7], centred[19] @ centred[2]]
    np.testing.assert_allclose(pd.read_csv(tmp_path / "s.csv")["score"], expected, rtol=1e-3, atol=1e-5)


def test_a_runs_own_file_with_a_card_in_it_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "0000.safetensors")
    assert main([str(tmp_path / "0000.safetensors"), str(tables(tmp_path / "g"))]) == 0
    assert "local's model of client 0" in capsys.readouterr().out
    (tmp_path / "0000.safetensors").write_bytes(save({"x": np.zeros(1)}))
    refused(
        capsys,
        [tmp_path / "0000.safetensors", tmp_path / "g"],
        "0000.safetensors",
        "a model of a graph: it does not say",
    )


def test_bad_input_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported(tmp_path / "model")
    exported(tmp_path / "wide", num_features=3)
    graph = tables(tmp_path / "g")
    refused(capsys, [tmp_path / "wide", graph], "the model reads 3 features a node", "g has 2")
    refused(capsys, [tmp_path / "model"], "GRAPH: a model needs a graph", "model is no run of a simulation")
    refused(capsys, [tmp_path / "absent", graph], "absent does not exist")
    refused(capsys, [tmp_path / "model", tmp_path / "absent"], "absent does not exist")
    refused(capsys, [tmp_path / "model", tmp_path / "model"], "nodes.csv")
    refused(capsys, [tmp_path / "model", graph, "--pairs", tmp_path / "p.csv"], "--pairs: the model classifies nodes")
    refused(capsys, [tmp_path / "model", graph, "--out", "/dev/null/p.csv"], "cannot write /dev/null/p.csv")
    (graph / "client.json").write_text("{}")
    refused(capsys, [tmp_path / "model", graph], "client.json", "schema")
    assert main([]) == 2 and main(["--help"]) == 0

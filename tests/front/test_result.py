"""Results: figures as recorded, models that give the recorded figures, and predictions of the command."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path

import matplotlib.figure
import numpy as np
import pandas as pd
import pytest
import torch
from given_graphs import PEOPLE, people, ratings, ring, written
from run_outcomes import command, subfl

from subfl_flower import RunResult, SubflError, load_run, predict, run
from subfl_flower.front.client_models import UnknownClient
from subfl_flower.runs.directory import RunDirectory


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def patients(folder: Path) -> RunResult:
    """FED-PUB on tables with a category and gaps."""
    nodes, edges = people()
    overrides = {"model": {"hidden": 8}, "method": {"random_blocks": 2, "random_block_nodes": 10}}
    overrides["dataset"] = {**PEOPLE["dataset"], "train_fraction": 0.5}
    data = {"nodes": nodes, "edges": edges}
    return run("fedpub", data, clients=3, rounds=4, overrides=overrides, run_dir=folder / "patients")


@pytest.fixture(scope="module")
def films(folder: Path) -> RunResult:
    return run("fedgnn", ratings(), rounds=2, run_dir=folder / "films")


def called(folder: Path, *arguments: str) -> None:
    """Run a command of `subfl` in a folder."""
    done = subfl(*arguments, cwd=folder)
    assert done.code == 0, done.stderr


def best_test(run: RunResult, client: int) -> float:
    """A client's test figure of the round in which it validated best, the earliest of equals."""
    of_client = [record["clients"] for record in RunDirectory(run.path).rounds()]
    validation = [clients["validation"][clients["ids"].index(client)] for clients in of_client]
    best = of_client[validation.index(max(validation))]
    return best["test"][best["ids"].index(client)]


@pytest.mark.parametrize("model", ["gcn", "sage", "decoupled", "gat", "sgc", "appnp"])
def test_a_model_gives_the_figure_that_was_recorded(folder: Path, model: str) -> None:
    result = run("fedavg", "digits", model=model, clients=3, rounds=4, run_dir=folder / model)
    assert list(result.models) == [0, 1, 2]
    for client, module in result.models.items():
        graph = result.graphs[client]
        assert isinstance(module, torch.nn.Module)
        outputs = module(graph.x, graph.edge_index)
        right = outputs.argmax(dim=1) == graph.y
        assert float(right[graph.test_mask].float().mean()) == pytest.approx(best_test(result, client), abs=1e-6)
        assert float(right[graph.val_mask].float().mean()) == pytest.approx(module.card.validation, abs=1e-6)


def test_a_model_is_a_module_that_can_be_saved_and_trained_further(patients: RunResult) -> None:
    graph, module = patients.graphs[1], load_run(patients.path).models[1]
    assert set(module.state_dict()) == set(RunDirectory(patients.path).client_models() and _tensors(patients, 1))
    before = module(graph.x, graph.edge_index)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    loss = torch.nn.functional.cross_entropy(before[graph.train_mask], graph.y[graph.train_mask])
    loss.backward()
    optimizer.step()
    after = module(graph.x, graph.edge_index)
    assert torch.nn.functional.cross_entropy(after[graph.train_mask], graph.y[graph.train_mask]) < loss
    torch.testing.assert_close(patients.models[1](graph.x, graph.edge_index), before)
    assert "client 1, fedpub on custom" in repr(module)


def _tensors(result: RunResult, client: int) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(RunDirectory(result.path).client_models()[client])


def test_edges_count_in_both_directions_and_once(patients: RunResult) -> None:
    graph, module = patients.graphs[0], patients.models[0]
    forward = graph.edge_index[:, graph.edge_index[0] < graph.edge_index[1]]
    expected = module(graph.x, graph.edge_index)
    torch.testing.assert_close(module(graph.x, forward.repeat(1, 2)), expected)
    assert not torch.allclose(module(graph.x, forward[:, 1:]), expected)


def test_wrong_arguments_of_a_model_are_refused(patients: RunResult) -> None:
    graph, module = patients.graphs[0], patients.models[0]
    with pytest.raises(SubflError, match=r"x: the model reads \[nodes, \d+\] \(found \[\d+, 2\]\)"):
        module(graph.x[:, :2], graph.edge_index)
    with pytest.raises(SubflError, match="x: 1 edges name a node outside"):
        module(graph.x, torch.tensor([[0], [999]]))
    with pytest.raises(UnknownClient, match=r"^the run has no model of client 7; its clients are 0 to 2$"):
        patients.models[7]
    assert patients.models.get(7) is None and 7 not in patients.models


def test_weights_of_edges_reach_a_model(folder: Path) -> None:
    data = ring(edge_weight=torch.linspace(0.2, 3, 96))
    result = run("fedavg", data, clients=2, rounds=2, run_dir=folder / "weighted")
    graph, module = result.graphs[0], result.models[0]
    right = module(graph.x, graph.edge_index, graph.edge_weight).argmax(dim=1) == graph.y
    assert float(right[graph.test_mask].float().mean()) == pytest.approx(best_test(result, 0), abs=1e-6)
    assert not torch.allclose(
        module(graph.x, graph.edge_index), module(graph.x, graph.edge_index, graph.edge_weight), atol=1e-4
    )


def test_metrics_are_those_of_the_records(patients: RunResult) -> None:
    frame = patients.metrics
    assert list(frame.columns) == ["run", "round", "client", "metric", "value"]
    for record in RunDirectory(patients.path).rounds():
        of_round = frame[(frame["round"] == record["round"]) & (frame.metric == "test")]
        assert of_round[of_round.client.isna()].value.tolist() == [record["test"]]
        by_client = dict(zip(record["clients"]["ids"], record["clients"]["test"], strict=True))
        assert dict(zip(of_round.client.dropna(), of_round.value[of_round.client.notna()], strict=True)) == by_client
    assert set(frame.run) == {str(patients.path)}


def test_summary_mixing_and_configuration_are_those_of_the_files(patients: RunResult) -> None:
    files = RunDirectory(patients.path)
    assert {key: patients.summary[key] for key in files.summary() or {}} == files.summary()
    assert patients.config == files.config() and patients.config["method"]["name"] == "fedpub"
    assert list(patients.mixing) == [4] and patients.mixing[4].shape == (3, 3)
    np.testing.assert_allclose(patients.mixing[4].sum(axis=1), 1, atol=1e-6)


def test_what_a_run_looks_like(patients: RunResult) -> None:
    assert re.fullmatch(
        r"<RunResult fedpub on custom, metis, 3 clients, seed 0: test accuracy 0\.\d{4} .*>", repr(patients)
    )
    page = patients._repr_html_()
    assert page.startswith("<table>") and "<script" not in page and str(patients.path) in page
    assert isinstance(patients.plot(), matplotlib.figure.Figure)
    assert patients.plot()._repr_png_().startswith(b"\x89PNG")
    lines = patients.plot().axes[0].get_lines()
    tests = lines[0].get_ydata()
    assert tests.tolist() == pytest.approx([100 * record["test"] for record in RunDirectory(patients.path).rounds()])


def test_names_in_a_table_are_escaped(folder: Path) -> None:
    result = run("fedavg", ring(), clients=2, rounds=1, run_dir=folder / "<script>alert(1)<")
    assert "<script" not in result._repr_html_() and "&lt;script&gt;alert(1)&lt;" in result._repr_html_()


def test_own_predictions_are_those_of_the_command(patients: RunResult, folder: Path) -> None:
    called(folder, "predict", str(patients.path), "--out", "own.csv")
    with (folder / "own.csv").open(newline="") as file:
        expected = list(csv.DictReader(file))
    found = patients.predict()
    assert list(found.columns) == list(expected[0])
    assert len(found) == len(expected) == 48
    for name in ("node", "role", "prediction", "label"):
        assert found[name].fillna("").tolist() == [row[name] for row in expected]
    for name in ("p_died", "p_home"):
        assert [f"{value:.6f}" for value in found[name]] == [row[name] for row in expected]
    only = patients.predict(client=2)
    pd.testing.assert_frame_equal(only, found[found.client == 2].reset_index(drop=True))


def test_predictions_for_other_graphs_are_those_of_each_model(patients: RunResult, folder: Path) -> None:
    nodes, edges = people()
    new = {"nodes": nodes.head(20).drop(columns="label"), "edges": edges[edges.source.isin(nodes.id[:20])]}
    new["edges"] = new["edges"][new["edges"].target.isin(nodes.id[:20])]
    (folder / "new").mkdir()
    for name, table in new.items():
        table.to_csv(folder / "new" / f"{name}.csv", index=False)
    called(folder, "predict", f"{patients.path}/clients/0002.safetensors", "new", "--out", "new.csv")
    with (folder / "new.csv").open(newline="") as file:
        expected = list(csv.DictReader(file))
    found = predict(patients, new)
    assert found.columns.tolist() == ["node", "client", "prediction", "probability", "p_died", "p_home"]
    assert found.groupby("client").size().tolist() == [20, 20, 20]
    third = found[found.client == 2]
    assert third.node.tolist() == [row["node"] for row in expected]
    assert [f"{value:.6f}" for value in third.p_home] == [row["p_home"] for row in expected]
    of_files = predict(str(patients.path), folder / "new", client=2)
    pd.testing.assert_frame_equal(of_files, third.reset_index(drop=True))
    one = predict(patients.path / "clients" / "0002.safetensors", new)
    pd.testing.assert_frame_equal(one, of_files.drop(columns="client"))


def test_scores_of_pairs_of_nodes(folder: Path) -> None:
    result = run("fedavg", ring(), task="link_prediction", clients=2, rounds=2, run_dir=folder / "links")
    outputs = result.models[1](ring().x, ring().edge_index).detach()
    outputs = outputs - outputs.mean(dim=0)
    expected = [float(outputs[one] @ outputs[other]) for one, other in ((0, 1), (5, 30))]
    found = result.predict(ring(), client=1, pairs=[(0, 1), (5, 30)])
    assert found.columns.tolist() == ["source", "target", "client", "score"]
    assert found.score.tolist() == pytest.approx(expected, rel=1e-4)
    table = pd.DataFrame({"source": [0, 5], "target": [1, 30]})
    assert result.predict(ring(), client=1, pairs=table).score.tolist() == found.score.tolist()
    for arguments, words in (
        ({}, "give a graph, data=..., and pairs of its nodes"),
        ({"data": ring()}, "pairs: the model predicts links"),
        ({"data": ring(), "pairs": [(0, 99)]}, r"1 x unknown target, first in row 1 \(99\)"),
        ({"data": ring(), "pairs": [(0, 1, 2)]}, "pairs: each must be two ids"),
    ):
        with pytest.raises(SubflError, match=words):
            result.predict(**arguments)


def test_the_best_items_of_users_are_those_of_the_command(films: RunResult, folder: Path) -> None:
    called(folder, "recommend", str(films.path), "--all", "n=3", "out=best.csv")
    with (folder / "best.csv").open(newline="") as file:
        expected = list(csv.DictReader(file))
    found = films.predict(n=3)
    assert found.columns.tolist() == ["user", "item", "score"] == list(expected[0])
    assert found.user.tolist() == [row["user"] for row in expected]
    assert found.item.tolist() == [row["item"] for row in expected]
    assert [f"{value:.4f}" for value in found.score] == [row["score"] for row in expected]
    assert films.predict(n=3, client=4).item.tolist() == found[found.user == found.user.unique()[4]].item.tolist()


def test_scores_of_users_and_items_are_those_of_the_list(films: RunResult) -> None:
    best = films.predict(n=5)
    asked = best.sample(frac=1, random_state=0)[["user", "item"]]
    found = predict(films, asked.rename(columns={"user": "userId", "item": "movieId"}))
    both = found.merge(best, on=["user", "item"])
    assert found.user.tolist() == asked.user.tolist() and len(both) == len(best) == 60
    np.testing.assert_allclose(both.score_x, both.score_y, atol=1e-5)
    with pytest.raises(SubflError, match=r"1 x unknown user, first in row 1 \(me\); the run knows 12 users"):
        films.predict(pd.DataFrame({"user": ["me"], "item": [100]}))


def test_a_run_on_ratings_has_no_graphs_and_no_models(films: RunResult) -> None:
    assert len(films.models) == 0
    with pytest.raises(SubflError, match="is a run on ratings; it has no graphs"):
        films.graphs  # noqa: B018
    with pytest.raises(SubflError, match=r"n: must be a whole number, 1 or more \(found 0\)"):
        films.predict(n=0)
    assert math.isfinite(films.summary["test_at_best_validation"]) and "rmse" in repr(films)


def test_a_folder_without_a_run_is_refused(folder: Path) -> None:
    for ask in (load_run, lambda path: predict(path, ring())):
        with pytest.raises(SubflError, match="nowhere"):
            ask(folder / "nowhere")
    with pytest.raises(SubflError, match=r"^data: a model needs a graph"):
        predict(written(ring(), folder / "model.pt"))


def test_a_result_of_the_command_is_loaded(folder: Path) -> None:
    done = command("method=fedavg", "partition.clients=2", "federation.rounds=1", directory=folder / "cli", cwd=folder)
    assert done.code == 0, done.stderr
    result = load_run(folder / "cli")
    assert result.summary["test_at_best_validation"] == done.summary["test_at_best_validation"]
    assert len(result.models) == 2 and len(result.predict()) == sum(len(graph.y) for graph in result.graphs.values())


@pytest.mark.parametrize("value", [None, 3, ""])
def test_what_is_no_path_is_refused(value: object) -> None:
    for call, argument in ((load_run, "path"), (predict, "run")):
        with pytest.raises(SubflError, match=rf"^{argument}: must be the path of a .*\(found {value!r}\)"):
            call(value)


def test_pairs_are_refused_by_a_run_that_classifies_nodes(patients: RunResult) -> None:
    with pytest.raises(SubflError, match=r"^pairs: they are for link prediction, and this is a run of task=node_class"):
        patients.predict(pairs=[("a", "b")])

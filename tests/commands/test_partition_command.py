from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from run_outcomes import partition as main
from torch_geometric.data import Data

from subfl_flower.composition import composed_config
from subfl_flower.data.federation_schema import FederationSchema
from subfl_flower.data.folders.subgraph_folder import ClientFolder
from subfl_flower.data.folders.user_folder import UserFolder
from subfl_flower.data.prepared.partition import PreparedPartition, prepare
from subfl_flower.errors import SubflError
from subfl_flower.node.shared_key import SharedKey
from subfl_flower.subgraphs import domain as graph_kind

NODES = "id,label,height,width\na,cat,1,2\nb,dog,3,4\nc,,5,6\nd,cat,7,8\ne,dog,9,9\n"
EDGES = "source,target\na,b\nb,c\nd,e\n"


def prepared(*overrides: str) -> PreparedPartition:
    config, _ = composed_config(overrides)
    return prepare(config.dataset, config.partition, config.data.root, config.data.cache)


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str], *words: str) -> None:
    capsys.readouterr()
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    (line,) = err.strip().splitlines()
    assert out == "" and line.startswith("subfl partition: ") and all(word in line for word in words), line


def site(folder: Path, nodes: str = NODES) -> list[str]:
    folder.mkdir(exist_ok=True)
    (folder / "nodes.csv").write_text(nodes)
    (folder / "edges.csv").write_text(EDGES)
    return ["dataset=custom", f"dataset.path={folder}", "dataset.train_fraction=0.5", "partition=whole"]


@pytest.mark.parametrize("overlapping", [False, True])
def test_each_folder_holds_one_client_and_nothing_of_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], overlapping: bool
) -> None:
    overrides = ("dataset=digits", f"partition={'overlapping' if overlapping else 'metis'}", "partition.clients=10")
    assert main([*overrides, "method=local", f"out={tmp_path / 'out'}"]) == 0
    shown = capsys.readouterr()
    expected = prepared(*overrides)
    whole, roles = expected.graph()
    folders = [ClientFolder.open(tmp_path / "out" / f"client-{client:02d}") for client in range(10)]
    schema = tmp_path / "out" / "federation.json"
    assert sorted((tmp_path / "out").iterdir()) == [*(folder.path for folder in folders), schema]
    assert json.loads(schema.read_text()) == {
        **{"format": "subfl-federation", "version": 1, "dataset": "digits", "partition": expected.key},
        **{"clients": ["0-9"], "features": 64, "classes": 10, "names": "", "overlapping": overlapping},
    }
    graphs = [folder.graph() for folder in folders]
    holders = np.bincount(np.concatenate([graph.node_ids for graph in graphs]), minlength=whole.num_nodes)
    assert (holders > 1).any() == overlapping
    assert whole.labels is not None
    for client, (folder, graph) in enumerate(zip(folders, graphs, strict=True)):
        said, ids = folder.description, graph.node_ids
        assert (said.client_id, said.num_clients, said.dataset, said.overlapping) == (client, 10, "digits", overlapping)
        assert expected.directory.name.endswith(said.partition) and len(said.partition) == 16
        assert sorted(path.name for path in folder.path.iterdir()) == [
            "client.json",
            "clients.key",
            "graph.safetensors",
        ]
        np.testing.assert_array_equal(ids, expected.client(client).node_ids)
        np.testing.assert_array_equal(graph.features, whole.features[ids])
        np.testing.assert_array_equal(graph.labels, whole.labels[ids])
        np.testing.assert_array_equal(graph.roles, roles[ids])
        np.testing.assert_array_equal(graph.shareable, holders[ids] > 1)
        inside = np.isin(whole.edge_index, ids).all(axis=0)
        np.testing.assert_array_equal(ids[graph.edge_index], whole.edge_index[:, inside])
        row = [str(n) for n in (client, said.num_nodes, said.num_edges, said.train, said.validation, said.test)]
        assert any([cell.strip() for cell in line.split("│")[1:-1]] == row for line in shown.out.splitlines()), row
    keys = {folder.key_path.read_bytes() for folder in folders}
    assert len(keys) == 1 and len(keys.pop()) == 32
    assert str(tmp_path / "out") in shown.out
    one = [client for client, graph in enumerate(graphs) if len(np.unique(graph.labels)) == 1]
    said = f"warning: {len(one)} of 10 clients have nodes of one class only, the first is client {one[:1]}\n"
    unheld = expected.graph()[0].num_nodes - np.count_nonzero(holders)
    lacking = f"warning: no client holds {unheld} of 1797 nodes\n" if unheld else ""
    assert shown.err == lacking + (said.translate({91: None, 93: None}) if one else "")


def test_every_partition_has_a_key_of_its_own_unless_one_is_given(tmp_path: Path) -> None:
    overrides = ["dataset=digits", "partition.clients=2"]
    assert main([*overrides, f"out={tmp_path / 'a'}"]) == main([*overrides, f"out={tmp_path / 'b'}"]) == 0
    keys = [SharedKey(tmp_path / name / "client-01" / "clients.key").read() for name in ("a", "b")]
    assert keys[0] != keys[1]
    assert main([*overrides, f"out={tmp_path / 'c'}", f"key={tmp_path / 'a' / 'client-00' / 'clients.key'}"]) == 0
    assert SharedKey(tmp_path / "c" / "client-01" / "clients.key").read() == keys[0]


def test_folders_of_a_hundred_clients_have_three_digits(tmp_path: Path) -> None:
    overrides = ["dataset=digits", "dataset.train_fraction=0.8", "partition=random", "partition.clients=101"]
    assert main([*overrides, f"out={tmp_path}"]) == 0
    names = [f"client-{client:03d}" for client in range(101)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [*names, "federation.json"]


def test_a_site_makes_the_folder_of_its_own_graph(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"s" * 32)
    own = ["dataset.classes=[cat,cow,dog]", "client=3", f"key={tmp_path / 'key'}", f"out={tmp_path / 'out'}"]
    assert main([*site(tmp_path / "site"), *own]) == 0
    folder = ClientFolder.open(tmp_path / "out" / "client-03")
    graph = folder.graph()
    assert (folder.description.client_id, folder.description.num_clients, folder.description.partition) == (3, None, "")
    assert folder.key_path.read_bytes() == b"s" * 32
    np.testing.assert_array_equal(graph.node_ids, range(5))
    np.testing.assert_array_equal(graph.labels, [0, 2, -1, 0, 2])
    assert graph.num_classes == 3
    np.testing.assert_array_equal(graph.edge_index, [[0, 1, 1, 2, 3, 4], [1, 0, 2, 1, 4, 3]])
    np.testing.assert_array_equal(graph.features, pd.read_csv(tmp_path / "site" / "nodes.csv")[["height", "width"]])
    assert not graph.shareable.any()
    names = folder.names()
    assert names is not None and names.tolist() == list("abcde")
    assert folder.description.classes == ("cat", "cow", "dog")
    found = folder.description.transform
    assert found is not None and found.columns == ("height", "width") and found.scale is None


def test_each_folder_names_its_own_nodes_and_no_others(tmp_path: Path) -> None:
    rows = [f"patient-{n},{'died' if n % 3 else 'home'},{n},{n * n % 7},{'ab'[n % 2]}" for n in range(40)]
    (tmp_path / "nodes.csv").write_text("\n".join(["id,label,x,y,ward", *rows, ""]))
    edges = [f"patient-{n},patient-{(n * 7 + 1) % 40}" for n in range(40)]
    (tmp_path / "edges.csv").write_text("\n".join(["source,target", *edges, ""]))
    overrides = ["dataset=custom", f"dataset.path={tmp_path}", "partition=random", "partition.clients=3"]
    overrides += ["dataset.features.one_hot=[ward]", "dataset.train_fraction=0.5"]
    assert main([*overrides, f"out={tmp_path / 'out'}"]) == 0
    held: list[str] = []
    for path in sorted((tmp_path / "out").glob("client-*")):
        folder = ClientFolder.open(path)
        graph, names = folder.graph(), folder.names()
        assert names is not None and names.tolist() == [f"patient-{n}" for n in graph.node_ids]
        held += names.tolist()
        text = "".join(file.read_text("latin-1") for file in path.iterdir())
        assert all((f'patient-{n}"' in text) == (f"patient-{n}" in names) for n in range(40))
        said = json.loads((path / "client.json").read_text())
        assert said["classes"] == ["died", "home"] and said["transform"]["one_hot"] == {"ward": ["a", "b"]}
        assert said["data"] == prepared(*overrides).data["fingerprints"]["data"] and len(said["data"]) == 64
        ward = np.array([["ab"[n % 2] == letter for letter in "ab"] for n in graph.node_ids])
        np.testing.assert_array_equal(np.asarray(graph.features)[:, 2:], ward)
    assert sorted(held) == sorted(f"patient-{n}" for n in range(40))


def test_a_site_scales_nothing_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = "id,label,height,flag,width\na,cat,1,0,2\nb,dog,3,1,4\nc,,5,1,6\nd,cat,7,0,8\ne,dog,9,1,9\n"
    arguments = [*site(tmp_path / "site", nodes), "dataset.classes=[cat,dog]", "client=1"]
    assert main([*arguments, f"out={tmp_path / 'out'}"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "are not scaled" in line]
    assert len(lines) == 1 and lines[0].startswith("warning: height, width are not scaled: ")
    for option in ("dataset.row_normalize=true", "dataset.features.standardize=true"):
        assert main([*arguments, option, f"out={tmp_path / option}"]) == 0
        assert "not scaled" not in capsys.readouterr().err
    scaled = ClientFolder.open(tmp_path / option / "client-01").graph().features
    np.testing.assert_array_equal(np.asarray(scaled)[:, 1], [0, 1, 1, 0, 1])
    assert np.abs(scaled).max() < 3
    whole = [argument for argument in arguments if argument != "client=1"]
    assert main([*whole, f"out={tmp_path / 'whole'}"]) == 0
    assert "not scaled" not in capsys.readouterr().err
    found = ClientFolder.open(tmp_path / "whole" / "client-00").description.transform
    assert found is not None and found.scale is not None


def test_a_site_states_the_categories_that_all_sites_agree_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = "id,label,city,x\na,cat,oslo,1\nb,dog,oslo,1\nc,,rome,0\nd,cat,rome,1\ne,dog,,0\n"
    arguments = [*site(tmp_path / "site", nodes), "dataset.classes=[cat,dog]", "client=0", f"out={tmp_path / 'out'}"]
    refused(
        capsys,
        [*arguments, "dataset.features.one_hot=[city]"],
        "dataset.features.one_hot: a site that makes its own folder must state the categories",
        "dataset.features.one_hot={city:[a,b]}",
    )
    assert main([*arguments, "dataset.features.one_hot={city:[bern,oslo,rome]}"]) == 0
    features = np.asarray(ClientFolder.open(tmp_path / "out" / "client-00").graph().features)
    np.testing.assert_array_equal(features[:, :3], [[0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 0]])
    assert "not scaled" not in capsys.readouterr().err


def test_a_pyg_file_of_a_site_needs_the_classes_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = Data(x=torch.rand(4, 2), edge_index=torch.tensor([[0, 1], [1, 2]]), y=torch.tensor([1, 3, 1, 3]))
    torch.save(graph, tmp_path / "g.pt")
    arguments = ["dataset=custom", f"dataset.path={tmp_path / 'g.pt'}", "dataset.train_fraction=0.5"]
    arguments += ["partition=whole", "client=0", f"out={tmp_path / 'out'}"]
    refused(capsys, arguments, "dataset.classes: a site that makes its own folder must name all classes")
    assert main([*arguments, "dataset.classes=[1,2,3]"]) == 0
    folder = ClientFolder.open(tmp_path / "out" / "client-00")
    assert folder.description.classes == ("1", "2", "3") and folder.names() is None
    np.testing.assert_array_equal(folder.graph().labels, [0, 2, 0, 2])


def test_what_a_source_has_and_a_run_does_not_use_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*site(tmp_path / "site"), f"out={tmp_path / 'out'}", "dataset.features.ignore=[width]"]
    assert main(arguments) == 0
    assert "not used: nodes.csv: columns width (dataset.features.ignore)" in capsys.readouterr().err


def test_sites_with_other_labels_number_the_classes_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classes = "dataset.classes=[1,5,9]"
    for client, labels in ((0, "1 5 9 1 5"), (1, "9 9 5 5 9")):
        rows = [f"{name},{label},1,{client}" for name, label in zip("abcde", labels.split(), strict=True)]
        arguments = site(tmp_path / f"site-{client}", "\n".join(["id,label,x,y", *rows, ""]))
        refused(capsys, [*arguments, f"client={client}", f"out={tmp_path}"], "dataset.classes", "common order")
        assert main([*arguments, classes, f"client={client}", f"out={tmp_path}"]) == 0
        assert main([*arguments, classes, f"client={client}", f"out={tmp_path / str(client)}"]) == 0
    written = {path.read_bytes() for path in tmp_path.rglob("federation.json")}
    assert len(written) == 1 and len(list(tmp_path.rglob("federation.json"))) == 3
    schema = FederationSchema.read(tmp_path / "federation.json")
    assert (schema.partition, schema.clients, schema.features, schema.classes) == ("", None, 2, 3)
    assert schema.names == ClientFolder.open(tmp_path / "client-00").description.names_digest != ""
    found = [ClientFolder.open(tmp_path / f"client-0{client}").graph() for client in (0, 1)]
    assert [graph.num_classes for graph in found] == [3, 3]
    np.testing.assert_array_equal(found[0].labels, [0, 1, 2, 0, 1])
    np.testing.assert_array_equal(found[1].labels, [2, 2, 1, 1, 2])
    refused(
        capsys,
        [*site(tmp_path / "site"), classes, "client=2", f"out={tmp_path}"],
        "4 labels are none of dataset.classes, the first is 'cat'; the classes are 1, 5, 9",
    )


def test_a_schema_of_other_data_is_never_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*site(tmp_path / "site"), "client=1", f"out={tmp_path / 'out'}"]
    assert main([*arguments, "client=0", "dataset.classes=[cat,dog]"]) == 0
    before = (tmp_path / "out" / "federation.json").read_bytes()
    refused(capsys, [*arguments, "dataset.classes=[dog,cat]"], "federation.json is of other data; choose another")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["client-00", "federation.json"]
    assert (tmp_path / "out" / "federation.json").read_bytes() == before


def test_a_schema_is_the_same_whoever_writes_it_and_of_ratings_has_items(tmp_path: Path) -> None:
    arguments = ["method=fedgnn", "dataset=synthetic_ratings", "dataset.num_users=6", "dataset.num_items=16"]
    for name in "ab":
        assert main([*arguments, "dataset.ratings_per_user=8", f"out={tmp_path / name}"]) == 0
    first, second = ((tmp_path / name / "federation.json").read_bytes() for name in "ab")
    assert first == second
    said, user = json.loads(first), UserFolder.open(tmp_path / "a" / "client-04").description
    assert (said["items"], said["clients"], said["partition"]) == (16, ["0-5"], user.partition)
    assert (said["user_values"], said["item_values"]) == (list(user.user_values), list(user.item_values))
    assert not {"features", "classes"} & set(said) and user.user_values


def test_what_is_there_is_never_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "client-01").mkdir()
    (tmp_path / "client-01" / "mine").write_text("precious")
    refused(capsys, ["dataset=digits", "partition.clients=2", f"out={tmp_path}"], f"{tmp_path} holds client-01 already")
    assert [path.name for path in tmp_path.iterdir()] == ["client-01"]
    assert (tmp_path / "client-01" / "mine").read_text() == "precious"


@pytest.mark.parametrize("failure", [SubflError("the disk is full"), KeyboardInterrupt()])
def test_all_folders_appear_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException) -> None:
    written = []
    real = graph_kind.write_client_folder

    def second_fails(path: Path, *rest: object, **named: object) -> None:
        if written:
            raise failure
        written.append(path)
        real(path, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(graph_kind, "write_client_folder", second_fails)
    arguments = ["dataset=digits", "partition.clients=3", f"out={tmp_path}"]
    assert main(arguments) == (2 if isinstance(failure, SubflError) else 130)
    assert len(written) == 1 and list(tmp_path.iterdir()) == []


def test_folders_that_are_in_place_go_when_a_later_one_cannot_be_placed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if Path(target) == tmp_path / "client-02":
            raise OSError(28, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    refused(capsys, ["dataset=digits", "partition.clients=3", f"out={tmp_path}"], "cannot be written: No space left")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["out: a folder is required"]),
        (["out="], ["out: a folder is required"]),
        (["dataset=nope", "out={tmp}"], ["dataset=nope", "available"]),
        (["partition.clients=-1", "out={tmp}"], ["partition.clients"]),
        (["client=3", "out={tmp}"], ["client: ", "partition=whole"]),
        (["partition=whole", "client=three", "out={tmp}"], ["client: must be", "'three'"]),
        (["partition=whole", "client=-1", "out={tmp}"], ["client: must be", "'-1'"]),
        (["partition=whole", "partition.clients=2", "out={tmp}"], ["partition.clients", "found 2"]),
        (["key={tmp}/absent", "out={tmp}"], ["absent", "No such file"]),
        (["dataset=digits", "partition.clients=2", "out=/dev/null/x"], ["out: /dev/null/x cannot be written"]),
    ],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    refused(capsys, [argument.format(tmp=tmp_path) for argument in arguments], *words)
    assert list(tmp_path.iterdir()) == []


def test_the_whole_graph_is_one_clients(tmp_path: Path) -> None:
    assert main(["dataset=digits", "partition=whole", f"out={tmp_path}"]) == 0
    said = json.loads((tmp_path / "client-00" / "client.json").read_text())
    assert (said["clients"], said["num_nodes"], len(said["partition"])) == (1, 1797, 16)


def test_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "out=DIR" in capsys.readouterr().out

from __future__ import annotations

import gzip
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from subfl_flower.data.datasets import (
    CiteSeerDataset,
    ComputersDataset,
    CoraDataset,
    DatasetSettings,
    OgbnArxivDataset,
    PhotoDataset,
    PubMedDataset,
)
from subfl_flower.data.description import file_digests
from subfl_flower.data.partitions import MetisPartition
from subfl_flower.data.prepared.partition import prepare
from subfl_flower.errors import SubflError

CORA, PHOTO = "Planetoid/Cora/raw", "Amazon/Photo/raw"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize("benchmark_root", [CORA], indirect=True)
def test_cora_has_the_papers_size_and_nothing_is_written_beside_it(
    benchmark_root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = sorted(benchmark_root.rglob("*"))
    graph = CoraDataset().load(benchmark_root)
    assert (graph.num_nodes, graph.num_edges, graph.num_features, graph.num_classes) == (2485, 10138, 1433, 7)
    assert sp.issparse(graph.features) and graph.features.dtype == np.float32
    np.testing.assert_allclose(graph.features.sum(axis=1), 1.0, atol=1e-5)
    assert sorted(benchmark_root.rglob("*")) == before
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("benchmark_root", [CORA], indirect=True)
def test_cora_whole_has_2708_papers(benchmark_root: Path) -> None:
    graph = CoraDataset(largest_component=False, row_normalize=False).load(benchmark_root)
    assert (graph.num_nodes, graph.num_edges) == (2708, 10556)  # as PyG documents it
    assert set(np.unique(graph.features.data)) == {1.0}


@pytest.mark.parametrize("benchmark_root", [PHOTO], indirect=True)
def test_photo_has_the_papers_size_and_is_prepared_in_seconds(benchmark_root: Path, tmp_path: Path) -> None:
    start = time.perf_counter()
    prepared = prepare(PhotoDataset(), MetisPartition(clients=10), benchmark_root, tmp_path / "cache")
    assert time.perf_counter() - start < 20
    graph, roles = prepared.graph()
    assert (graph.num_nodes, graph.num_edges, graph.num_features, graph.num_classes) == (7487, 238086, 745, 8)
    np.testing.assert_allclose(graph.features.sum(axis=1), 1.0, atol=1e-5)
    assert int((roles == 0).sum()) == round(7487 * 0.2)
    held = sum(client["edges"] for client in prepared.metadata["clients"])
    assert held + prepared.cross_edges().shape[1] == 238086


@pytest.mark.parametrize("benchmark_root", [CORA], indirect=True)
@pytest.mark.parametrize("name", ["ind.cora.allx", "ind.cora.graph", "ind.cora.test.index"])
@pytest.mark.parametrize("keep", [0, 100])
def test_a_damaged_planetoid_file_is_named(benchmark_root: Path, name: str, keep: int) -> None:
    file = benchmark_root / CORA / name
    file.write_bytes(file.read_bytes()[:keep] + b"?" * (keep > 0))
    with pytest.raises(SubflError, match=f"{name} is damaged"):
        CoraDataset().load(benchmark_root)


@pytest.mark.parametrize("benchmark_root", [PHOTO], indirect=True)
def test_a_damaged_amazon_file_is_named(benchmark_root: Path) -> None:
    file = benchmark_root / PHOTO / "amazon_electronics_photo.npz"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(SubflError, match=r"amazon_electronics_photo\.npz is damaged"):
        PhotoDataset().load(benchmark_root)


@pytest.mark.parametrize(
    ("dataset", "folder", "missing"),
    [
        (PhotoDataset(), PHOTO, "amazon_electronics_photo.npz"),
        (ComputersDataset(), "Amazon/Computers/raw", "amazon_electronics_computers.npz"),
        (OgbnArxivDataset(), "ogbn_arxiv/raw", "edge.csv.gz, node-feat.csv.gz, node-label.csv.gz"),
    ],
)
def test_without_network_the_missing_files_and_their_place_are_named(
    no_network: None, tmp_path: Path, dataset: DatasetSettings, folder: str, missing: str
) -> None:
    with pytest.raises(SubflError) as caught:
        dataset.load(tmp_path)
    assert missing in str(caught.value) and f"put the missing files into {tmp_path / folder}" in str(caught.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and not path.name.endswith(".lock")] == []


def arxiv_root(root: Path) -> Path:
    raw = root / "ogbn_arxiv" / "raw"
    raw.mkdir(parents=True)
    for name, text in (
        ("edge", "0,1\n1,2\n2,1\n3,3\n"),
        ("node-feat", "0.5,-1\n1,2\n3,4\n5,6\n"),
        ("node-label", "1\n0\n2\n2\n"),
    ):
        (raw / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode()))
    return root


def test_ogbn_arxiv_is_read_from_ogbs_raw_layout(tmp_path: Path) -> None:
    graph = OgbnArxivDataset().load(arxiv_root(tmp_path))
    np.testing.assert_array_equal(graph.features, [[0.5, -1], [1, 2], [3, 4]])  # node 3 is isolated
    np.testing.assert_array_equal(graph.edge_index, [[0, 1, 1, 2], [1, 0, 2, 1]])
    np.testing.assert_array_equal(graph.labels, [1, 0, 2])


def test_a_damaged_ogb_file_is_named(tmp_path: Path) -> None:
    root = arxiv_root(tmp_path)
    for content in (b"not gzip", gzip.compress(b"0,1\nx,2\n"), gzip.compress(b"0,1\n" * 999)[:-9]):
        (root / "ogbn_arxiv" / "raw" / "edge.csv.gz").write_bytes(content)
        with pytest.raises(SubflError, match=r"edge\.csv\.gz is damaged"):
            OgbnArxivDataset().load(root)


@pytest.mark.parametrize("benchmark_root", [CORA], indirect=True)
def test_the_fingerprint_follows_the_raw_files(benchmark_root: Path) -> None:
    before = file_digests(CoraDataset().files(benchmark_root))
    assert before == file_digests(CoraDataset().files(benchmark_root))
    (benchmark_root / CORA / "ind.cora.tx").write_bytes(b"other")
    assert file_digests(CoraDataset().files(benchmark_root)) != before


@pytest.mark.parametrize(
    ("dataset", "rounds", "local_epochs", "train_fraction"),
    [
        (CoraDataset(), 100, 1, 0.2),
        (CiteSeerDataset(), 100, 1, 0.2),
        (PubMedDataset(), 100, 1, 0.2),
        (ComputersDataset(), 200, 3, 0.2),
        (PhotoDataset(), 200, 2, 0.2),
        (OgbnArxivDataset(), 200, 2, 0.05),
    ],
)
def test_protocols_are_the_papers(
    dataset: DatasetSettings, rounds: int, local_epochs: int, train_fraction: float
) -> None:
    assert (dataset.protocol.rounds, dataset.protocol.local_epochs) == (rounds, local_epochs)
    assert dataset.train_fraction == train_fraction

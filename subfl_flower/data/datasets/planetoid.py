"""The three citation networks of Planetoid."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from subfl_flower.data.cleaning import RawGraph
from subfl_flower.data.datasets.settings import DatasetSettings
from subfl_flower.data.raw_files import damaged
from subfl_flower.data.source import Protocol, PublicSettings

_PARTS = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")


class PlanetoidDataset(PublicSettings, DatasetSettings):
    """A citation network: papers, bag-of-words features, subject areas.

    Source: Yang, Cohen, Salakhutdinov, Revisiting Semi-Supervised Learning with Graph Embeddings, ICML
    2016. Raw files in PyG's layout, `<root>/Planetoid/<Name>/raw/ind.<name>.*`, downloaded by
    PyG where they are absent.
    """

    folder: ClassVar[str]

    row_normalize: bool = True
    protocol: Protocol = Protocol(rounds=100, local_epochs=1)

    def read(self, root: Path) -> RawGraph:
        """Read the raw files; download them where absent.

        Raises:
            SubflError: files are missing and cannot be downloaded, or a file is damaged.
        """
        from torch_geometric.io import read_planetoid_data  # slow to import, and most runs open a cache

        paths = self.files(root)
        try:
            data = read_planetoid_data(str(paths[0].parent), self.folder)
            _check_test_index(paths)
        except Exception as error:
            raise damaged(_culprit(paths), error) from error
        return RawGraph(data.x.numpy(), data.edge_index.numpy(), data.y.numpy())

    def raw_files(self, root: Path) -> tuple[Path, list[str]]:
        """The eight files, in PyG's layout."""
        return root / "Planetoid" / self.folder / "raw", [f"ind.{self.folder.lower()}.{part}" for part in _PARTS]

    def download(self, folder: Path) -> Path:
        """Download by PyG."""
        from torch_geometric.datasets import Planetoid

        return Path(Planetoid(str(folder), self.folder).raw_dir)


def _check_test_index(paths: list[Path]) -> None:
    """Check that every test node has a row in `ty`: PyG accepts a truncated list of test nodes."""
    listed, rows = len(_part(paths, "test.index")), len(_part(paths, "ty"))
    if listed != rows:
        raise ValueError(f"{listed} test nodes for {rows} rows of labels")


def _culprit(paths: list[Path]) -> Path:
    """The file that cannot be read; the list of test nodes if each file can."""
    for path in paths:
        try:
            if path.stat().st_size == 0:
                return path
            _part(paths, path.name.split(".", 2)[2])
        except Exception:
            return path
    return paths[_PARTS.index("test.index")]


def _part(paths: list[Path], name: str) -> Any:
    from torch_geometric.io.planetoid import read_file

    path = paths[_PARTS.index(name)]
    return read_file(str(path.parent), path.name.split(".")[1], name)


class CoraDataset(PlanetoidDataset):
    """Cora: 2,485 papers and 10,138 directed edges in its largest component, 1,433 words, 7 classes."""

    folder: ClassVar[str] = "Cora"
    name: Literal["cora"] = "cora"


class CiteSeerDataset(PlanetoidDataset):
    """CiteSeer: 2,120 papers and 7,358 directed edges in its largest component, 3,703 words, 6 classes."""

    folder: ClassVar[str] = "CiteSeer"
    name: Literal["citeseer"] = "citeseer"


class PubMedDataset(PlanetoidDataset):
    """PubMed: 19,717 papers, 88,648 directed edges, 500 words, 3 classes."""

    folder: ClassVar[str] = "PubMed"
    name: Literal["pubmed"] = "pubmed"

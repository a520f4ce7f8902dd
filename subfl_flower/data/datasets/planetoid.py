"""The three citation networks of Planetoid."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from subfl_flower.data.cleaning import RawGraph
from subfl_flower.data.datasets.settings import DatasetSettings, Protocol
from subfl_flower.data.raw_files import present_or_downloaded
from subfl_flower.errors import SubflError

_PARTS = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")


class PlanetoidDataset(DatasetSettings):
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

        paths = self._raw_files(root)
        try:
            data = read_planetoid_data(str(paths[0].parent), self.folder)
            _check_test_index(paths)
        except Exception as error:
            raise SubflError(
                f"{_damaged(paths)} is damaged ({type(error).__name__}: {error}); "
                "replace it, or delete it to download it again"
            ) from error
        return RawGraph(data.x.numpy(), data.edge_index.numpy(), data.y.numpy())

    def files(self, root: Path) -> list[Path]:
        """The raw files, downloaded where absent.

        Raises:
            SubflError: one is missing and cannot be downloaded.
        """
        return self._raw_files(root)

    def _raw_files(self, root: Path) -> list[Path]:
        def download(temporary: Path) -> Path:
            from torch_geometric.datasets import Planetoid

            return Path(Planetoid(str(temporary), self.folder).raw_dir)

        names = [f"ind.{self.folder.lower()}.{part}" for part in _PARTS]
        return present_or_downloaded(root / "Planetoid" / self.folder / "raw", names, download, self.name)


def _check_test_index(paths: list[Path]) -> None:
    """Check that every test node has a row in `ty`: PyG accepts a truncated list of test nodes."""
    listed, rows = len(_part(paths, "test.index")), len(_part(paths, "ty"))
    if listed != rows:
        raise ValueError(f"{listed} test nodes for {rows} rows of labels")


def _damaged(paths: list[Path]) -> Path:
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

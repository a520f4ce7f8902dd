"""The two co-purchase networks of Amazon."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from subfl_flower.data.cleaning import RawGraph
from subfl_flower.data.datasets.settings import DatasetSettings
from subfl_flower.data.raw_files import damaged
from subfl_flower.data.source import Protocol, PublicSettings


class AmazonDataset(PublicSettings, DatasetSettings):
    """A co-purchase network: goods, bag-of-words features of their reviews, categories.

    Source: Shchur et al., Pitfalls of Graph Neural Network Evaluation, arXiv 1811.05868. Raw file in PyG's
    layout, `<root>/Amazon/<Name>/raw/amazon_electronics_<name>.npz`, downloaded by PyG where it is absent.
    """

    folder: ClassVar[str]

    row_normalize: bool = True

    def read(self, root: Path) -> RawGraph:
        """Read the raw file; download it where absent.

        Raises:
            SubflError: the file is missing and cannot be downloaded, or is damaged.
        """
        from torch_geometric.io import read_npz  # slow to import, and most runs open a cache

        [path] = self.files(root)
        try:
            data = read_npz(str(path))
        except Exception as error:
            raise damaged(path, error) from error
        return RawGraph(data.x.numpy(), data.edge_index.numpy(), data.y.numpy())

    def raw_files(self, root: Path) -> tuple[Path, list[str]]:
        """The one file, in PyG's layout."""
        return root / "Amazon" / self.folder / "raw", [f"amazon_electronics_{self.folder.lower()}.npz"]

    def download(self, folder: Path) -> Path:
        """Download by PyG."""
        from torch_geometric.datasets import Amazon

        return Path(Amazon(str(folder), self.folder).raw_dir)


class ComputersDataset(AmazonDataset):
    """Computers: 13,381 goods and 491,556 directed edges in its largest component, 767 words, 10 classes."""

    folder: ClassVar[str] = "Computers"
    name: Literal["computers"] = "computers"
    protocol: Protocol = Protocol(rounds=200, local_epochs=3)


class PhotoDataset(AmazonDataset):
    """Photo: 7,487 goods and 238,086 directed edges in its largest component, 745 words, 8 classes."""

    folder: ClassVar[str] = "Photo"
    name: Literal["photo"] = "photo"
    protocol: Protocol = Protocol(rounds=200, local_epochs=2)

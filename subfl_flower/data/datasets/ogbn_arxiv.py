"""The arXiv citation network of the Open Graph Benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from subfl_flower.data.cleaning import RawGraph
from subfl_flower.data.datasets.settings import DatasetSettings
from subfl_flower.data.raw_files import damaged
from subfl_flower.data.source import Protocol, PublicSettings

_EDGES, _FEATURES, _LABELS = "edge.csv.gz", "node-feat.csv.gz", "node-label.csv.gz"


class OgbnArxivDataset(PublicSettings, DatasetSettings):
    """ogbn-arxiv: 169,343 papers, 2,315,598 directed edges once symmetrised, 128 features, 40 classes.

    Source: Hu et al., Open Graph Benchmark, NeurIPS 2020. Raw files in OGB's layout,
    `<root>/ogbn_arxiv/raw/*.csv.gz`; downloaded with the package `ogb` (the extra `ogb`) where absent.
    """

    name: Literal["ogbn_arxiv"] = "ogbn_arxiv"
    train_fraction: float = Field(default=0.05, gt=0, lt=1)
    protocol: Protocol = Protocol(rounds=200, local_epochs=2)

    def read(self, root: Path) -> RawGraph:
        """Read the raw files; download them where absent.

        Raises:
            SubflError: files are missing and cannot be downloaded, or a file is damaged.
        """
        edges, features, labels = self.files(root)
        return RawGraph(
            features=_table(features, np.float32),
            edge_index=_table(edges, np.int64).T,
            labels=_table(labels, np.int64).ravel(),
        )

    def raw_files(self, root: Path) -> tuple[Path, list[str]]:
        """The edges, features and labels, in OGB's layout."""
        return root / "ogbn_arxiv" / "raw", [_EDGES, _FEATURES, _LABELS]

    def download(self, folder: Path) -> Path:
        """Download by OGB."""
        try:
            from ogb.nodeproppred import NodePropPredDataset
        except ImportError as error:
            raise ImportError("downloading needs the package ogb: pip install 'subfl-flower[ogb]'") from error
        NodePropPredDataset("ogbn-arxiv", root=str(folder))
        return folder / "ogbn_arxiv" / "raw"


def _table(path: Path, dtype: type) -> np.ndarray:
    import pandas as pd  # slow to import, and most runs open a cache

    try:
        return pd.read_csv(path, header=None, dtype=dtype).to_numpy()
    except (OSError, EOFError, ValueError) as error:
        raise damaged(path, error) from error

"""Douban, Flixster and YahooMusic as subsampled by Monti et al., with their split."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from subfl_flower.data.graph import TEST, TRAIN
from subfl_flower.data.ratings.datasets.downloads import fetched
from subfl_flower.data.ratings.settings import RatingDatasetSettings
from subfl_flower.data.ratings.splits import SplitName
from subfl_flower.data.ratings.table import RawRatings
from subfl_flower.data.raw_files import damaged
from subfl_flower.data.source import Protocol, PublicSettings
from subfl_flower.installed import optional_module

_FILE = "training_test_dataset.mat"
_REPOSITORY = "https://raw.githubusercontent.com/riannevdberg/gc-mc/master/gcmc/data"


class MontiDataset(PublicSettings, RatingDatasetSettings):
    """A matrix of 3,000 users and 3,000 items, without timestamps and titles; some users rated nothing.

    Source: Monti, Bronstein, Bresson, Geometric Matrix Completion with Recurrent Multi-Graph Neural Networks, NeurIPS
    2017, Section 4; the split is theirs; GC-MC uses it as well. File `<root>/<name>/training_test_dataset.mat`
    (MATLAB 7.3), downloaded from GC-MC's repository where absent. MATLAB stores matrices column by column. As in
    GC-MC, users are the rows of MATLAB's matrix `M`; an entry is a rating where `Otraining` or `Otest` is 1.
    """

    rating_range: ClassVar[tuple[float, float]]

    split: SplitName = "given"
    protocol: Protocol = Protocol(rounds=400, local_epochs=1)

    def read(self, root: Path) -> RawRatings:
        """Read the matrices; download them where absent.

        Raises:
            SubflError: the file is missing and cannot be downloaded, or is damaged.
        """
        h5py = optional_module("h5py", "douban", f"dataset={self.name}")  # slow to import, and most runs open a cache
        [path] = self.files(root)
        try:
            with h5py.File(path) as file:
                matrix, train, test = (_matrix(file, name) for name in ("M", "Otraining", "Otest"))
            if not matrix.shape == train.shape == test.shape:
                raise ValueError(f"M, Otraining and Otest have the shapes {matrix.shape}, {train.shape}, {test.shape}")
            train, test = train != 0, test != 0
            if np.any(train & test):
                raise ValueError(f"{np.count_nonzero(train & test)} ratings both train and test")
        except (OSError, KeyError, ValueError) as error:
            raise damaged(path, error) from error
        users, items = np.nonzero(train | test)
        return RawRatings(
            source=str(path),
            users=users,
            items=items,
            values=matrix[users, items],
            roles=np.where(test[users, items], TEST, TRAIN).astype(np.int8),
            scale=self.rating_range,
            all_users=np.arange(matrix.shape[0]),
            all_items=np.arange(matrix.shape[1]),
        )

    def raw_files(self, root: Path) -> tuple[Path, list[str]]:
        """The one file."""
        return root / self.name, [_FILE]

    def download(self, folder: Path) -> Path:
        """Download from GC-MC's repository."""
        return fetched(f"{_REPOSITORY}/{self.name}/{_FILE}", folder / _FILE).parent


def _matrix(file: Any, name: str) -> np.ndarray:
    """A matrix of a MATLAB file, as MATLAB shows it: float64 `[rows, columns]`."""
    if name not in file:
        raise KeyError(f"it has no matrix {name}")
    stored = np.asarray(file[name], dtype=np.float64)
    if stored.ndim != 2:
        raise ValueError(f"{name} is no matrix")
    return stored.T


class DoubanDataset(MontiDataset):
    """Douban: 136,891 ratings 1..5 of films, books and music, of which 13,689 test."""

    rating_range: ClassVar[tuple[float, float]] = (1.0, 5.0)
    name: Literal["douban"] = "douban"


class FlixsterDataset(MontiDataset):
    """Flixster: 26,173 ratings 0.5..5 of films, in steps of a half."""

    rating_range: ClassVar[tuple[float, float]] = (0.5, 5.0)
    name: Literal["flixster"] = "flixster"


class YahooMusicDataset(MontiDataset):
    """YahooMusic: 5,335 ratings 1..100 of music."""

    rating_range: ClassVar[tuple[float, float]] = (1.0, 100.0)
    name: Literal["yahoo_music"] = "yahoo_music"

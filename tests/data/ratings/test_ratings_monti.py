from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from subfl_flower.data.graph import TEST
from subfl_flower.data.ratings.datasets import monti
from subfl_flower.data.ratings.datasets.monti import DoubanDataset, FlixsterDataset, MontiDataset, YahooMusicDataset
from subfl_flower.errors import SubflError

# Users are rows: user 0 rated items 0 and 2, user 1 item 2; nobody rated item 1, and user 2 nothing.
MATRIX = np.array([[1.0, 0.0, 4.0, 0.0], [0.0, 0.0, 2.0, 5.0], [0.0, 0.0, 0.0, 0.0]])
TEST_ENTRIES = np.array([[0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]], dtype=float)
TRAIN_ENTRIES = (MATRIX > 0) - TEST_ENTRIES


def write_matlab(path: Path, **matrices: Any) -> None:
    """As MATLAB 7.3 does: column by column, which HDF5 shows transposed."""
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        for name, matrix in ({"M": MATRIX, "Otraining": TRAIN_ENTRIES, "Otest": TEST_ENTRIES} | matrices).items():
            if matrix is not None:
                file[name] = np.asarray(matrix).T


@pytest.mark.parametrize("dataset", [DoubanDataset(), FlixsterDataset(), YahooMusicDataset()])
def test_a_matrix_becomes_a_table(tmp_path: Path, dataset: MontiDataset) -> None:
    write_matlab(tmp_path / dataset.name / "training_test_dataset.mat")
    loaded = dataset.model_copy(update={"validation_fraction": 0.0}).load(tmp_path, 0)
    ratings = loaded.ratings
    assert loaded.user_names == ["0", "1", "2"] and loaded.item_names == ["0", "1", "2", "3"] and loaded.titles is None
    assert ratings.offsets.tolist() == [0, 2, 4, 4] and ratings.items.tolist() == [0, 2, 2, 3]
    assert ratings.values.tolist() == [1, 4, 2, 5] and ratings.roles.tolist() == [0, 2, 0, 0]
    assert ratings.scale == {"douban": (1, 5), "flixster": (0.5, 5), "yahoo_music": (1, 100)}[dataset.name]


@pytest.mark.parametrize("benchmark_root", ["douban"], indirect=True)
def test_the_numbers_of_douban(benchmark_root: Path) -> None:
    ratings = DoubanDataset().load(benchmark_root, 1234).ratings
    assert (ratings.num_users, ratings.num_items, len(ratings)) == (3000, 3000, 136_891)
    assert [int(ratings.counts(role).sum()) for role in (0, 1, 2)] == [117_042, 6_160, 13_689]
    assert np.unique(ratings.values).tolist() == [1, 2, 3, 4, 5]
    # The constant row of the published comparison: predicting the mean of what does not test.
    seen = ratings.roles != TEST
    errors = ratings.values[~seen] - ratings.values[seen].mean()
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(0.911, abs=0.001)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Otest": None}, r"is damaged \(.*it has no matrix Otest.*\); replace it, or delete it"),
        ({"M": MATRIX[:2]}, r"is damaged \(M, Otraining and Otest have the shapes \(2, 4\), \(3, 4\), \(3, 4\)\)"),
        ({"M": MATRIX[0]}, r"is damaged \(M is no matrix\)"),
        ({"Otest": MATRIX > 0}, r"is damaged \(3 ratings both train and test\)"),
        ({"M": np.zeros((3, 4))}, r"4 x rating off the scale 1\.\.5, first in row 1 \(user 0, item 0: 0\)"),
        ({"M": MATRIX * 2}, r"2 x rating off the scale 1\.\.5, first in row 2 \(user 0, item 2: 8\)"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_matlab(tmp_path / "douban" / "training_test_dataset.mat", **change)
    with pytest.raises(SubflError, match=rf"training_test_dataset\.mat:? {message}"):
        DoubanDataset().load(tmp_path, 0)


def test_a_file_that_is_not_matlabs_is_named(tmp_path: Path) -> None:
    (tmp_path / "flixster").mkdir()
    (tmp_path / "flixster" / "training_test_dataset.mat").write_bytes(b"MATLAB 5.0")
    with pytest.raises(SubflError, match=r"training_test_dataset\.mat is damaged"):
        FlixsterDataset().load(tmp_path, 0)


def test_what_is_absent_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_matlab(tmp_path / "site" / "yahoo_music" / "training_test_dataset.mat")
    monkeypatch.setattr(monti, "_REPOSITORY", (tmp_path / "site").as_uri())
    assert YahooMusicDataset().read(tmp_path / "root").values.tolist() == [1, 4, 2, 5]
    with pytest.raises(SubflError, match=r"^dataset=douban: training_test_dataset\.mat not found and not downloaded"):
        DoubanDataset().read(tmp_path / "root")


def test_there_are_no_timestamps(tmp_path: Path) -> None:
    write_matlab(tmp_path / "douban" / "training_test_dataset.mat")
    with pytest.raises(SubflError, match="dataset=douban: split=time needs timestamps"):
        DoubanDataset(split="time").load(tmp_path, 0)

"""Lists of items by user, told apart from tables of ratings."""

from __future__ import annotations

from pathlib import Path

import pytest

from subfl_flower.data.ratings.datasets.custom import CustomRatingsDataset
from subfl_flower.errors import SubflError


@pytest.mark.parametrize(
    ("content", "both"),
    [
        ("1 10 5\n2 11 4\n3 12 3\n", "a user, an item and a rating, or a user and 2 items"),
        ("1 10 5 1600000000\n2 11 4 1600000000\n", "a user, an item, a rating and a time, or a user and 3 items"),
    ],
)
def test_lines_that_may_be_ratings_are_refused(tmp_path: Path, content: str, both: str) -> None:
    path = tmp_path / "r.txt"
    path.write_text(content)
    with pytest.raises(SubflError, match=rf"r\.txt: every line has [34] whole numbers, which may be {both}; write"):
        CustomRatingsDataset(path=path).read(tmp_path)
    path.write_text(content + "4 13\n")  # no rating
    assert CustomRatingsDataset(path=path).read(tmp_path).implicit


def test_the_lines_of_all_files_of_a_folder_count(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("0 1 2\n1 3 4\n")
    (tmp_path / "test.txt").write_text("0 3 4\n")
    with pytest.raises(SubflError, match=r"train\.txt and .*test\.txt: every line has 3 whole numbers"):
        CustomRatingsDataset(path=tmp_path).read(tmp_path)
    (tmp_path / "test.txt").write_text("0 3\n1\n")
    assert CustomRatingsDataset(path=tmp_path).read(tmp_path).items.tolist() == ["1", "2", "3", "4", "3"]


@pytest.mark.parametrize("train", ["0\t1 2\n1\t3\n", "0\t1\t2\n1\t3\n", "0 1 2\n1\t3\n"])
def test_lists_may_have_tabs(tmp_path: Path, train: str) -> None:
    (tmp_path / "train.txt").write_text(train)
    (tmp_path / "test.txt").write_text("0\t3\n")
    raw = CustomRatingsDataset(path=tmp_path).read(tmp_path)
    assert raw.users.tolist() == ["0", "0", "1", "0"] and raw.items.tolist() == ["1", "2", "3", "3"]


def test_a_table_with_tabs_and_without_names_is_no_list(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("1\t10\t5\n2\t11\t4\n")
    with pytest.raises(SubflError, match=r"the first row seems to be data: dataset\.header="):
        CustomRatingsDataset(path=tmp_path / "r.txt").read(tmp_path)

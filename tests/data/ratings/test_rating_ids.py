"""Ids of ratings that stand in several files: which of them are the same, and which columns hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from subfl_flower.data.ratings.datasets.custom import CustomRatingsDataset
from subfl_flower.data.ratings.settings import LoadedRatings
from subfl_flower.errors import SubflError

RATED = "user,item,rating\nu1,a,3\nu1,b,4\nu2,a,2\nu2,c,5\n"


def load(folder: Path, files: dict[str, str], path: str = ".", **said: Any) -> LoadedRatings:
    for name, content in files.items():
        (folder / name).write_text(content)
    tables = {of: folder / f"{of}.csv" for of in ("users", "items") if f"{of}.csv" in files}
    return CustomRatingsDataset(path=folder / path, **tables, **said).load(folder, 0)


def test_a_point_in_ids_counts_alike_in_all_files_of_a_folder(tmp_path: Path) -> None:
    train = "user,item,rating,title\nu1,1.0,3,One\nu2,B00,1,B\nu2,2.0,2,Two\n"
    test = "user,item,rating,title\nu1,2.0,3,\nu2,1.0,1,\n"
    loaded = load(tmp_path, {"train.csv": train, "test.csv": test})
    assert loaded.item_names == ["1.0", "2.0", "B00"] and loaded.titles == ["One", "Two", "B"]
    assert loaded.ratings.items.tolist() == [0, 1, 0, 1, 2] and loaded.ratings.roles.tolist() == [0, 2, 2, 0, 0]
    loaded = load(tmp_path, {"train.csv": train.replace("B00", "3"), "test.csv": test.replace("2.0", "2")})
    assert loaded.item_names == ["1", "2", "3"] and loaded.titles == ["One", "Two", "B"]


def test_an_id_with_a_point_in_one_file_and_without_in_another_is_refused(tmp_path: Path) -> None:
    train, test = "user,item,rating\n1.0,a,3\nx,a,1\n", "user,item,rating\n1,b,3\n"
    with pytest.raises(
        SubflError, match=r"1 x user written both as a whole number and with a point, the first is 1\.0"
    ):
        load(tmp_path, {"train.csv": train, "test.csv": test})


@pytest.mark.parametrize(("rated", "side"), [("1.0", "1.0"), ("1.0", "1"), ("1.0", "1.00"), ("1", "1.0")])
def test_side_tables_match_a_point_in_both_directions(tmp_path: Path, rated: str, side: str) -> None:
    ratings = RATED.replace("u1", rated).replace("u2", "x")
    files = {"ratings.csv": ratings, "users.csv": f"user,age\n{side},20\n"}
    loaded = load(tmp_path, files, "ratings.csv")
    assert loaded.user_names == [rated, "x"] and loaded.user_attributes is not None
    assert loaded.user_attributes.vocabularies == {"age": ["20"]}
    assert loaded.user_attributes.offsets.tolist() == [0, 1, 1]


def test_an_id_that_may_be_two_users_is_neither(tmp_path: Path) -> None:
    ratings = "user,item,rating\n1.0,a,3\n1.00,b,4\nx,a,2\nx,c,5\n"
    with pytest.raises(
        SubflError, match=r"2 x user written both as a whole number and with a point, the first is 1\.0"
    ):
        load(tmp_path, {"ratings.csv": ratings, "users.csv": "user,age\n1,20\n"}, "ratings.csv")


def test_a_stated_column_of_a_side_table_decides(tmp_path: Path) -> None:
    files = {"ratings.csv": RATED, "items.csv": "item,name,title\na,N,T\nb,N2,T2\n"}
    loaded = load(tmp_path, files, "ratings.csv", columns={"title": "name"})
    assert loaded.titles == ["N", "N2", "c"]
    files = {"ratings.csv": RATED.replace("item", "asin"), "items.csv": "asin,item_id,title\na,9,T\nb,8,T2\n"}
    loaded = load(tmp_path, files, "ratings.csv", columns={"item": "asin"})
    assert loaded.titles == ["T", "T2", "c"]
    files["items.csv"] = "item,title\na,T\nb,T2\n"  # the stated name is that of the ratings alone
    assert load(tmp_path, files, "ratings.csv", columns={"item": "asin"}).titles == ["T", "T2", "c"]


def test_a_stated_title_of_ratings_decides_though_items_are_given(tmp_path: Path) -> None:
    ratings = "user,item,rating,title,name\nu1,a,3,T,N\nu1,b,4,T2,N2\nu2,a,2,T,N\nu2,b,5,T2,N2\n"
    files = {"ratings.csv": ratings, "items.csv": "item,genre\na,x\nb,y\n"}
    assert load(tmp_path, files, "ratings.csv", columns={"title": "name"}).titles == ["N", "N2"]


def test_a_side_table_without_rows_is_told(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"ratings.csv": RATED, "users.csv": "user,age\n"}, "ratings.csv")
    assert loaded.user_attributes is None and loaded.notes.warnings == ("users.csv has no rows",)

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from subfl_flower.data.description import file_digests
from subfl_flower.data.ratings.datasets.custom import CustomRatingsDataset
from subfl_flower.errors import SubflError

ROWS = (
    "user,item,rating,timestamp,title,shop\nann,7,4.5,30,,x\nbob,7,2,10,Seven,x\nann,12,1,20,Twelve,y\nann,3,5,10,,y\n"
)


def written(folder: Path, content: str) -> CustomRatingsDataset:
    (folder / "ratings.csv").write_text(content)
    return CustomRatingsDataset(path=folder / "ratings.csv", validation_fraction=0.0, split="leave_one_out")


def test_a_csv_file_with_everything(tmp_path: Path) -> None:
    loaded = written(tmp_path, ROWS).load(tmp_path, 0)
    assert loaded.user_names == ["ann", "bob"] and loaded.item_names == ["3", "7", "12"]
    assert loaded.titles == ["3", "Seven", "Twelve"]
    assert loaded.ratings.offsets.tolist() == [0, 3, 4] and loaded.ratings.items.tolist() == [0, 1, 2, 1]
    assert loaded.ratings.values.tolist() == [5, 4.5, 1, 2] and loaded.ratings.scale == (1.0, 5.0)
    assert loaded.ratings.roles.tolist() == [0, 2, 1, 0]


def test_parquet_and_csv_give_the_same(tmp_path: Path) -> None:
    from_csv = written(tmp_path, ROWS)
    pd.read_csv(tmp_path / "ratings.csv").to_parquet(tmp_path / "ratings.parquet")
    from_parquet = from_csv.model_copy(update={"path": tmp_path / "ratings.parquet"})
    one, other = from_csv.load(tmp_path, 0), from_parquet.load(tmp_path, 0)
    assert (one.item_names, one.titles) == (other.item_names, other.titles)
    assert one.ratings.values.tolist() == other.ratings.values.tolist()
    assert one.ratings.roles.tolist() == other.ratings.roles.tolist()
    assert file_digests(from_csv.files(tmp_path)) != file_digests(from_parquet.files(tmp_path))


def test_three_columns_do_and_leading_zeros_make_other_ids(tmp_path: Path) -> None:
    dataset = written(tmp_path, "rating,item,user\n3,01,a\n4,1,a\n5,1,b\n")
    loaded = dataset.model_copy(update={"scale": (0.0, 10.0)}).load(tmp_path, 0)
    assert loaded.item_names == ["01", "1"] and loaded.titles is None and loaded.ratings.scale == (0.0, 10.0)
    assert loaded.ratings.items.tolist() == [0, 1, 1]
    with pytest.raises(SubflError, match="split=time needs timestamps"):
        dataset.model_copy(update={"split": "time"}).load(tmp_path, 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("user,stars\na,3\n", r"the column item is missing; its columns are user, stars; dataset\.columns\.item="),
        ("user,item,rating\na,b,1\n,b,2\n", r"ratings\.csv: 1 x empty user, first in row 2; every row needs one"),
        ("user,item,rating\na,b,1\na,c,good\n", r"1 x rating that is no number, first in row 2 \(good\); mend or drop"),
        ("user,item,rating\na,b,1\na,c,\n", r"1 x empty rating, first in row 2; every row needs one; remove such"),
        (
            "user,item,rating,timestamp\na,b,1,5\na,c,2,\na,d,x,1.5\n",
            r"1 x rating that is no number, first in row 3 \(x\); .*; 1 x empty timestamp, first in row 2; every row",
        ),
        (
            "user,item,rating,timestamp\na,b,1,5\na,c,2,inf\n",
            r"1 x timestamp that is neither a .*, first in row 2 \(inf",
        ),
        (
            "user,item,rating,timestamp\na,b,1,5\na,c,2,noon\n",
            r"1 x timestamp that is neither a number nor an ISO date, first in row 2 \(noon\); write seconds",
        ),
        ("", r"ratings\.csv cannot be read as a table: it is empty"),
        ("user,item,rating\n", r"ratings\.csv holds no ratings"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(SubflError, match=message):
        written(tmp_path, content).load(tmp_path, 0)


def test_files_that_are_not_there_or_no_tables_are_named(tmp_path: Path) -> None:
    with pytest.raises(SubflError, match=r"dataset=custom_ratings: .*none\.csv does not exist \(looked for at /"):
        file_digests(CustomRatingsDataset(path=tmp_path / "none.csv").files(tmp_path))
    (tmp_path / "ratings.xls").write_text(ROWS)
    with pytest.raises(SubflError, match=r"ratings\.xls is no table; its name must end in \.csv, "):
        CustomRatingsDataset(path=tmp_path / "ratings.xls").load(tmp_path, 0)


def attributes(folder: Path, **tables: str) -> CustomRatingsDataset:
    """The ratings of the first test with tables of `users`, `items`."""
    for name, content in tables.items():
        (folder / f"{name}.csv").write_text(content)
    return written(folder, ROWS).model_copy(update={name: folder / f"{name}.csv" for name in tables})


def test_tables_of_attributes(tmp_path: Path) -> None:
    users = "town,user,age,tag\nYork,bob,04,\nBath,ann,,a| b |\nRome,zoe,4,z\n,ann,,c|a\n"
    loaded = attributes(tmp_path, users=users, items="item,genre\n12,War|Film-Noir\n7,War\n9,Drama\n").load(tmp_path, 0)
    assert loaded.user_names == ["ann", "bob"] and loaded.item_names == ["3", "7", "12"]
    found = loaded.user_attributes
    assert found is not None and found.vocabularies == {"town": ["Bath", "York"], "age": ["04"], "tag": ["a", "b", "c"]}
    assert found.offsets.tolist() == [0, 4, 6] and found.codes.tolist() == [0, 3, 4, 5, 1, 2]
    found = loaded.item_attributes
    assert found is not None and found.vocabularies == {"genre": ["Film-Noir", "War"]}
    assert found.offsets.tolist() == [0, 0, 1, 3] and found.codes.tolist() == [1, 0, 1]


def test_attributes_from_parquet_are_those_from_csv(tmp_path: Path) -> None:
    """Whole numbers with a gap between them are fractions there."""
    dataset = attributes(tmp_path, users="user,age,town\nann,41,York\nbob,,Bath\n")
    table = pd.DataFrame({"user": ["ann", "bob"], "age": [41, np.nan], "town": ["York", "Bath"]})
    table.to_parquet(tmp_path / "users.parquet")
    one = dataset.load(tmp_path, 0).user_attributes
    other = dataset.model_copy(update={"users": tmp_path / "users.parquet"}).load(tmp_path, 0).user_attributes
    assert one is not None and one.vocabularies == {"age": ["41"], "town": ["Bath", "York"]}
    assert other is not None and other.vocabularies == one.vocabularies
    assert one.codes.tolist() == other.codes.tolist() == [0, 2, 1]


def test_a_table_of_ids_alone_says_nothing(tmp_path: Path) -> None:
    loaded = attributes(tmp_path, users="user\nann\n", items="item,genre\n3,\n").load(tmp_path, 0)
    assert loaded.user_attributes is None and loaded.item_attributes is None


def test_the_digest_follows_the_tables_of_attributes(tmp_path: Path) -> None:
    dataset = attributes(tmp_path, users="user,age\nann,1\n")
    first = file_digests(dataset.files(tmp_path))
    assert first != file_digests(dataset.model_copy(update={"users": None}).files(tmp_path))
    (tmp_path / "users.csv").write_text("user,age\nann,2\n")
    assert first != file_digests(dataset.files(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,age\nann,1\n", r"users\.csv: the column user is missing; its columns are name, age; dataset"),
        ("user,age\nann,1\n,2\n", r"users\.csv: 1 x empty user, first in row 2; every row needs one"),
        ("", r"users\.csv cannot be read as a table: it is empty"),
    ],
)
def test_a_table_of_attributes_that_cannot_be_used_is_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(SubflError, match=message):
        attributes(tmp_path, users=content).load(tmp_path, 0)


def test_lists_within_a_table_of_attributes_are_refused(tmp_path: Path) -> None:
    pd.DataFrame({"item": ["3", "7"], "genre": [None, ["War"]]}).to_parquet(tmp_path / "items.parquet")
    dataset = written(tmp_path, ROWS).model_copy(update={"items": tmp_path / "items.parquet"})
    with pytest.raises(
        SubflError,
        match=r"items\.parquet: genre is a list in row 2; several values are text, parted",
    ):
        dataset.load(tmp_path, 0)
    with pytest.raises(SubflError, match=r"none\.csv does not exist"):
        file_digests(dataset.model_copy(update={"items": tmp_path / "none.csv"}).files(tmp_path))

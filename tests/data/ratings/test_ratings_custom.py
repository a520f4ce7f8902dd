from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from subfl_flower.data.ratings.custom import CustomRatingsDataset
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
    assert loaded.ratings.roles.tolist() == [0, 2, 0, 0]


def test_parquet_and_csv_give_the_same(tmp_path: Path) -> None:
    from_csv = written(tmp_path, ROWS)
    pd.read_csv(tmp_path / "ratings.csv").to_parquet(tmp_path / "ratings.parquet")
    from_parquet = from_csv.model_copy(update={"path": tmp_path / "ratings.parquet"})
    one, other = from_csv.load(tmp_path, 0), from_parquet.load(tmp_path, 0)
    assert (one.item_names, one.titles) == (other.item_names, other.titles)
    assert one.ratings.values.tolist() == other.ratings.values.tolist()
    assert one.ratings.roles.tolist() == other.ratings.roles.tolist()
    assert from_csv.raw_fingerprint(tmp_path) != from_parquet.raw_fingerprint(tmp_path)


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
        ("user,item\na,b\n", r"ratings\.csv: the column rating is missing; its columns are user, item$"),
        ("user,stars\na,3\n", r"the column item and rating is missing; its columns are user, stars$"),
        ("user,item,rating\na,b,1\n,b,2\n", r"ratings\.csv: 1 x empty user, first in row 2; every row needs one"),
        ("user,item,rating\na,b,1\na,c,good\n", r"1 x rating that is no number, first in row 2 \(good\); mend or drop"),
        ("user,item,rating\na,b,1\na,c,\n", r"1 x rating that is no finite number, first in row 2 \(user a, item c"),
        (
            "user,item,rating,timestamp\na,b,1,5\na,c,2,\na,d,2,1.5\n",
            r"2 x timestamp that is no whole number, first in row 2; every row needs one, for example seconds",
        ),
        ("user,item,rating,timestamp\na,b,1,5\na,c,2,inf\n", r"1 x timestamp that is no whole number, first in row 2"),
        (
            "user,item,rating,timestamp\na,b,1,5\na,c,2,noon\n",
            r"1 x timestamp that is no number, first in row 2 \(noon",
        ),
        ("", r"ratings\.csv cannot be read as csv"),
        ("user,item,rating\n", r"ratings\.csv holds no ratings"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(SubflError, match=message):
        written(tmp_path, content).load(tmp_path, 0)


def test_files_that_are_not_there_or_no_tables_are_named(tmp_path: Path) -> None:
    with pytest.raises(SubflError, match=r"dataset=custom_ratings: .*none\.csv does not exist \(looked for at /"):
        CustomRatingsDataset(path=tmp_path / "none.csv").raw_fingerprint(tmp_path)
    (tmp_path / "ratings.txt").write_text(ROWS)
    with pytest.raises(SubflError, match=r"ratings\.txt is neither \.csv nor \.parquet"):
        CustomRatingsDataset(path=tmp_path / "ratings.txt").load(tmp_path, 0)

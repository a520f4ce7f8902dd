from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from subfl_flower.data.graph import TEST, TRAIN, VALIDATION
from subfl_flower.data.ratings.datasets.custom import CustomRatingsDataset
from subfl_flower.data.ratings.settings import LoadedRatings
from subfl_flower.errors import SubflError

ROWS = [("ann", "7", "4.5", "30"), ("bob", "7", "2", "10"), ("ann", "12", "1", "20"), ("ann", "3", "5", "10")]
HEADER = ("user", "item", "rating", "timestamp")


def text(delimiter: str, header: tuple[str, ...] | None = HEADER, rows: list[tuple[str, ...]] = ROWS) -> str:
    return "".join(delimiter.join(row) + "\n" for row in ([header] if header else []) + rows)


def load(path: Path, **said: Any) -> LoadedRatings:
    return CustomRatingsDataset(path=path, **{"split": "leave_one_out", **said}).load(path.parent, 0)


def check(loaded: LoadedRatings) -> None:
    assert loaded.user_names == ["ann", "bob"] and loaded.item_names == ["3", "7", "12"]
    assert loaded.ratings.offsets.tolist() == [0, 3, 4] and loaded.ratings.items.tolist() == [0, 1, 2, 1]
    assert loaded.ratings.values.tolist() == [5, 4.5, 1, 2] and loaded.ratings.roles.tolist() == [0, 2, 1, 0]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("r.CSV", text(","), {}),
        ("r.tsv", text("\t"), {}),
        ("r.txt", text(";"), {}),
        ("r.data", text("|"), {}),
        ("r.dat", text("::", None), {}),
        ("r.csv", text("::", None), {}),
        ("r.dat", text("::"), {}),
        ("r.inter", text("\t", ("user_id:token", "item_id:token", "rating:float", "timestamp:float")), {}),
        ("r.csv", text(",", ("userId", "movieId", "Rating", "TIMESTAMP")), {}),
        ("r.csv", text(", ", ("User ID", "movie_id", "rating", "timestamp")), {}),
        ("r.csv", text(",", None), {"header": HEADER}),
        ("r.data", text("\t", None), {"header": HEADER}),
        ("r.dat", text("::", None), {"header": HEADER}),
        ("r.csv", text(",", ("who", "what", "stars", "when")), {
            "columns": {"user": "who", "item": "what", "rating": "stars", "timestamp": "when"},
        }),
    ],
)  # fmt: skip
@pytest.mark.parametrize("packed", [False, True])
def test_a_table_may_be_written_in_many_ways(
    tmp_path: Path, name: str, content: str, said: dict[str, Any], packed: bool
) -> None:
    path = tmp_path / (name + (".gz" if packed else ""))
    path.write_bytes(gzip.compress(content.encode()) if packed else content.encode())
    check(load(path, **said))


def test_other_encodings_are_stated(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    for encoding in ("latin-1", "utf-16", "cp1252"):
        path.write_text("user,item,rating\nJosé,é,1\nJosé,b,2\n", encoding=encoding)
        assert load(path, encoding=encoding).user_names == ["José"]
        with pytest.raises(SubflError, match=r"dataset\.encoding"):
            load(path)


def test_ids_are_text(tmp_path: Path) -> None:
    ids = ["NA", "null", "007", "7", "1e5", "12345678901234567890", "1.50", "=x|y"]
    path = tmp_path / "r.csv"
    pairs = [
        f"{name},{other},{row}\n" for row in (0, 1) for name, other in zip(ids, ids[row:] + ids[:row], strict=True)
    ]
    path.write_text("user,item,rating\n" + "".join(pairs))
    assert set(load(path).user_names) == set(ids) == set(load(path).item_names)
    path.write_text("user,item,rating\n1.0, 2,1\n1,3.0,3\n 2,2.0,1\n")
    assert load(path).user_names == ["1", "2"] and load(path).item_names == ["2", "3"]
    path.write_text("user,item,rating\na,1,1\na,1.0,2\nb,x,2\n")
    with pytest.raises(
        SubflError, match=r"1 x item written both as a whole number and with a point, the first is 1\.0"
    ):
        load(path)


def test_columns_of_a_type_in_parquet(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "user": pd.Series(["ann", "bob", "ann", "ann"], dtype="category"),
            "item": pd.Series([7, 7, 12, 3], dtype="Int64"),
            "rating": [4.5, 2, 1, 5],
            "timestamp": pd.to_datetime([30, 10, 20, 10], unit="s"),
            "tags": [["a"], [], [], []],
        }
    )
    table.drop(columns="tags").to_parquet(tmp_path / "r.parquet")
    check(load(tmp_path / "r.parquet"))
    table.drop(columns="tags").astype({"item": float}).to_parquet(tmp_path / "r.parquet")
    check(load(tmp_path / "r.parquet"))
    liked = table.drop(columns="tags").assign(rating=[True, False, True, False])
    liked.to_parquet(tmp_path / "r.parquet")
    assert load(tmp_path / "r.parquet").ratings.values.tolist() == [0, 1, 1, 0]
    table.to_parquet(tmp_path / "r.parquet")
    check(load(tmp_path / "r.parquet"))
    assert load(tmp_path / "r.parquet").notes.dropped == ("r.parquet: columns tags",)
    with pytest.raises(SubflError, match="tags is a list in row 1"):
        load(tmp_path / "r.parquet", columns={"title": "tags"})
    with pytest.raises(SubflError, match=r"dataset\.header is for files without names"):
        load(tmp_path / "r.parquet", header=HEADER)


@pytest.mark.parametrize(
    ("content", "said", "message"),
    [
        (text(",", None), {}, r"the first row seems to be data: dataset\.header=\[user,item,rating,timest"),
        ("1,1,5\n1,2,4\n", {}, r"has '1' more than once; .*; if the first row is data, dataset\.header=\[user,item"),
        (text(","), {"header": HEADER}, r"its first row names the columns \(user, item, rating, timestamp\); state no"),
        ("userId,movieId\na,b\n", {"header": ("user", "item")}, r"its first row names the columns \(userId, movieId\)"),
        (text(",", None), {"header": HEADER[:3]}, r"4 x row with 4 fields, more than the 3"),
        ("user,item,rating,rating\na,b,1,2\n", {}, r"the header has 'rating' more than once"),
        ("user,item,movieId,rating\na,b,c,2\n", {}, r"the columns item and movieId may both be the item; state"),
        ("user,item,rating\na,b,1\na,c\n", {}, r"1 x row with 2 fields, fewer than the 3 .*, first in row 2"),
        ("# 2024\nuser,item,rating\na,b,1\n", {}, r"begins with a remark \(# 2024\); its first row must name"),
        ('user,item,rating\na,b,"3,5"\n', {}, r"1 x rating that is no number, .*\(3,5\); .*decimals have a point"),
        ('user,item,rating\na,b,"1,234.5"\n', {}, r"\(1,234\.5\); .*thousands no comma"),
        ("user;item;rating\na;b;1 234,5\n", {}, r"\(1 234,5\); .*decimals have a point"),
        ("user,item,rating\na,b,like\n", {}, r"\(like\); mend or drop them: a rating is a number, or true or false"),
        ("user,item,rating\na,b,NA\n", {}, r"\(NA\); mend or drop them: a missing number is an empty field"),
        ("user,item,rating\na,b,inf\n", {}, r"1 x rating that is no finite number, first in row 1 \(inf\)"),
        ("user,item,rating\na,b,1\n", {"columns": {"rating": "stars"}}, r"there is no column stars \(dataset\.c"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence(tmp_path: Path, content: str, said: dict[str, Any], message: str) -> None:
    (tmp_path / "r.csv").write_text(content)
    with pytest.raises(SubflError, match=message) as found:
        load(tmp_path / "r.csv", **said)
    assert "\n" not in str(found.value)


def test_what_is_left_out_is_noted(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(",user,item,rating,shop\n0,a,b,1,s\n,,,,\n1,a,c,2,s\n")
    notes = load(tmp_path / "r.csv").notes
    assert notes.dropped == (
        "r.csv: 1 rows without any content", "r.csv: column 1, which has no name: row numbers", "r.csv: columns shop",
    )  # fmt: skip


SPLIT = "user,item,rating,split\na,x,1,train\na,y,2,{0}\na,z,3,{1}\nb,x,3,Train\n"


@pytest.mark.parametrize(("validation", "test"), [("val", "TEST"), ("Valid", "test"), ("validation", "Test")])
def test_a_column_may_state_the_split(tmp_path: Path, validation: str, test: str) -> None:
    (tmp_path / "r.csv").write_text(SPLIT.format(validation, test))
    for split in ("auto", "given"):
        loaded = load(tmp_path / "r.csv", split=split, validation_fraction=0.5)
        assert loaded.ratings.roles.tolist() == [TRAIN, VALIDATION, TEST, TRAIN] and loaded.split == "given"
    drawn = load(tmp_path / "r.csv", split="leave_one_out")
    assert drawn.split == "leave_one_out" and drawn.ratings.counts(TEST).tolist() == [1, 0]
    assert drawn.notes.dropped == ("r.csv: the column split, because dataset.split=leave_one_out",)


def test_a_split_may_be_stated_in_numbers(tmp_path: Path) -> None:
    table = pd.DataFrame({"user": list("aaab"), "item": list("xyzx"), "rating": [1, 2, 3, 3], "part": [0.0, 1, 2, 0]})
    table.to_parquet(tmp_path / "r.parquet")
    loaded = load(tmp_path / "r.parquet", split="auto", columns={"split": "part"})
    assert loaded.ratings.roles.tolist() == [0, 1, 2, 0]
    table.to_csv(tmp_path / "r.csv", index=False)
    assert load(tmp_path / "r.csv", split="auto", columns={"split": "part"}).ratings.roles.tolist() == [0, 1, 2, 0]


def test_without_a_stated_split_auto_draws_as_the_task_says(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(text(","))
    check(load(tmp_path / "r.csv", split="auto", drawn_split="leave_one_out"))
    assert load(tmp_path / "r.csv", split="auto", test_fraction=0.5).split == "random"
    with pytest.raises(SubflError, match=r"split=given needs a split of the source's own, and it has none"):
        load(tmp_path / "r.csv", split="given")


@pytest.mark.parametrize(
    ("validation", "test", "message"),
    [
        ("dev", "test", r"1 x unknown split, first in row 2 \('dev'\); allowed are train, validation and test, or 0"),
        ("", "", r"2 x unknown split, first in row 2 \(''\)"),
        ("3", "2", r"1 x unknown split, first in row 2 \('3'\)"),
    ],
)
def test_another_value_of_the_split_is_refused(tmp_path: Path, validation: str, test: str, message: str) -> None:
    (tmp_path / "r.csv").write_text(SPLIT.format(validation, test))
    with pytest.raises(SubflError, match=message):
        load(tmp_path / "r.csv", split="auto")
    assert load(tmp_path / "r.csv", split="leave_one_out").split == "leave_one_out"  # the column does not matter


def write_folder(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)
    return folder


PARTS = {
    "train__csv": "user,item,rating,timestamp\na,x,1,1600000000\nb,x,3,1600000000\n",
    "valid__TSV": "item\tuser\trating\ttimestamp\ny\ta\t2\t1600000001500\n",
    "test__csv": "user,item,rating,timestamp\na,z,3,1600000001\n",
    "notes__md": "nothing",
}


def test_a_folder_may_hold_the_parts_of_a_split(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "d", **PARTS)
    loaded = load(path, split="auto", validation_fraction=0.9)
    assert loaded.user_names == ["a", "b"] and loaded.item_names == ["x", "y", "z"] and loaded.split == "given"
    assert loaded.ratings.roles.tolist() == [0, 1, 2, 0] and loaded.ratings.values.tolist() == [1, 2, 3, 3]
    assert loaded.time_span == ("2020-09-13", "2020-09-13")
    by_time = load(path, split="leave_one_out")  # the validation rating is the newest, in milliseconds
    assert by_time.ratings.roles.tolist() == [0, 2, 1, 0]
    assert by_time.notes.dropped == (
        "the split into train.csv and valid.TSV and test.csv, because dataset.split=leave_one_out",
    )
    assert [file.name for file in CustomRatingsDataset(path=path).files(tmp_path)] == [
        "train.csv", "valid.TSV", "test.csv",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test__csv": None}, r"d holds no table test \(.*; a folder of ratings needs train and test"),
        ({"val__csv": "user,item\n"}, r"d holds several tables validation \(val\.csv, valid\.TSV\)"),
        ({"test__csv": "user,item,timestamp\na,z,3\n"}, r"test\.csv: the column rating is missing, which train"),
        ({"test__csv": "user,item,rating\na,z,3\n"}, r"test\.csv: the column timestamp is missing, which train"),
        ({"test__csv": "user,item,rating,timestamp\na,z,3,2020-01-01\n"}, r"of test\.csv are dates and those of tr"),
        ({"test__csv": "user,item,rating,timestamp\na,x,3,1600000000\n"}, r"1 x user and item that stand in mo"),
        ({"test__csv": "user,item,rating,timestamp\na,x,,1600000000\n"}, r"test\.csv: 1 x empty rating, first in"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, str | None], message: str) -> None:
    files = {name: content for name, content in (PARTS | change).items() if content is not None}
    with pytest.raises(SubflError, match=message) as found:
        load(write_folder(tmp_path / "d", **files), split="auto")
    assert "\n" not in str(found.value)


def test_lists_of_items_are_read_as_lightgcn_writes_them(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "d", train__txt="0 3 10 2\n1 2\n2\n\n10 3 3\n", test__txt="0 11\n1 10 3 \n2 4\n")
    loaded = load(path, split="auto", validation_fraction=0)
    assert loaded.implicit and loaded.user_names == ["0", "1", "2", "10"] and loaded.titles is None
    assert loaded.item_names == ["2", "3", "4", "10", "11"]
    assert loaded.ratings.offsets.tolist() == [0, 4, 7, 8, 9]
    assert loaded.ratings.items.tolist() == [0, 1, 3, 4, 0, 1, 3, 2, 1]
    assert loaded.ratings.roles.tolist() == [0, 0, 0, 2, 0, 2, 2, 2, 0]
    assert loaded.ratings.values.tolist() == [1] * 9 and loaded.ratings.scale == (0.0, 1.0)
    assert "1 of 10 ratings repeat a user and item" in loaded.notes.dropped[0]
    alone = load(path / "train.txt", split="leave_one_out")
    assert alone.user_names == ["0", "1", "2", "10"] and np.diff(alone.ratings.offsets).tolist() == [3, 1, 0, 1]


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (
            "0 3 10\n1 11 2\n",
            r"2 x user and item that stand in more than one of train, .* the first is user 0, item 10",
        ),
        ("0 3\n1 2\n0 4\n", r"train\.txt: 1 x user on a second line; every line is a user and all its items"),
        ("0 3\n1 x\n", r"train\.txt: line 2 is not a user and items, whole numbers with blanks between them"),
        ("0 3\n1 2.5\n", r"line 2 is not a user and items"),
    ],
)
def test_lists_of_items_that_cannot_be_used_are_refused(tmp_path: Path, train: str, message: str) -> None:
    path = write_folder(tmp_path / "d", train__txt=train, test__txt="0 10\n1 11\n")
    with pytest.raises(SubflError, match=message):
        load(path, split="auto")


SIDE = "user,item,rating\n1,10,3\n2,10,4\n2,20,5\n"


@pytest.mark.parametrize("header", ["item", "item_id", "itemId", "movieId", "item_id:token"])
def test_side_tables_are_matched_by_id(tmp_path: Path, header: str) -> None:
    (tmp_path / "r.csv").write_text(SIDE)
    (tmp_path / "items.csv").write_text(f",{header},genre,title\n0,10.0,War,Ten\n1,20.0,,\n2,30.0,Noir,Thirty\n")
    loaded = load(tmp_path / "r.csv", items=tmp_path / "items.csv")
    assert loaded.item_names == ["10", "20"] and loaded.titles == ["Ten", "20"]
    assert loaded.item_attributes is not None and loaded.item_attributes.vocabularies == {"genre": ["War"]}
    assert loaded.notes.dropped == (
        "items.csv: column 1, which has no name: row numbers",
        "items.csv: 1 of 3 ids, which are no item of r.csv (first: 30)",
    )


def test_titles_of_ratings_come_before_those_of_items(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("user,item,rating,title\n1,10,3,Ten\n2,10,4,Other\n2,20,5,\n")
    (tmp_path / "items.csv").write_text("item,title\n10,X\n20,Twenty\n")
    loaded = load(tmp_path / "r.csv", items=tmp_path / "items.csv")
    assert loaded.titles == ["Ten", "Twenty"] and loaded.item_attributes is None
    (tmp_path / "r.csv").write_text(SIDE)
    (tmp_path / "items.csv").write_text("item,name\n10,X\n20,Twenty\n")
    named = load(tmp_path / "r.csv", items=tmp_path / "items.csv", columns={"title": "name"})
    assert named.titles == ["X", "Twenty"]


def test_a_side_table_that_knows_nobody_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(SIDE)
    (tmp_path / "items.csv").write_text("item,genre\n0010,War\n0020,Noir\n")
    (tmp_path / "users.csv").write_text("userId,age\nu1,3\n")
    with pytest.raises(SubflError, match=r"^items\.csv: none of its 2 ids is an item of r\.csv \(first: 0010\)"):
        load(tmp_path / "r.csv", items=tmp_path / "items.csv")
    with pytest.raises(SubflError, match=r"^users\.csv: none of its 1 ids is a user of r\.csv \(first: u1\)"):
        load(tmp_path / "r.csv", users=tmp_path / "users.csv")

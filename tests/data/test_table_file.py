from __future__ import annotations

import gzip
import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from subfl_flower.data.tables.table_file import Table, TableFormat, open_table, require_table, table_suffix
from subfl_flower.errors import SubflError


def opened(folder: Path, content: str | bytes, name: str = "t.csv", **format: object) -> Table:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_table(path, TableFormat(**format))  # type: ignore[arg-type]


def rows(table: Table) -> list[list[str]]:
    return [list(row) for row in zip(*(column.tolist() for column in table.columns.values()), strict=True)]


ROWS = [["007", "NA", "1e5"], ["b", "", "x;y"], ["None", "nan", "null"]]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "a,b,c\n007,NA,1e5\nb,,x;y\nNone,nan,null\n"),
        ("T.CSV", 'a,b,c\r\n"007",NA,1e5\r\n b ,"",x;y\r\nNone,nan,null'),
        ("t.csv", "\ufeffa,b,c\n\n007, NA ,1e5\n\nb,,x;y\nNone,nan,null\n\n"),
        ("t.csv", 'a;b;c\n007;NA;1e5\nb;;"x;y"\nNone;nan;null\n'),
        ("t.csv", "a\tb\tc\n007\tNA\t1e5\nb\t\tx;y\nNone\tnan\tnull\n"),
        ("t.tsv", "a\tb\tc\n007\tNA\t1e5\nb\t\tx;y\nNone\tnan\tnull\n"),
        ("t.dat", "a::b::c\n007::NA::1e5\nb::::x;y\nNone::nan::null\n"),
        ("t.txt", "a|b|c\n007|NA|1e5\nb||x;y\nNone|nan|null\n"),
    ],
)
def test_a_file_of_text_has_the_fields_that_its_owner_wrote(tmp_path: Path, name: str, content: str) -> None:
    for packed in (False, True):
        data = content.encode()
        table = opened(tmp_path, gzip.compress(data) if packed else data, name + (".gz" if packed else ""))
        assert list(table.columns) == ["a", "b", "c"] and rows(table) == ROWS


def test_quotes_hold_delimiters_and_line_ends(tmp_path: Path) -> None:
    assert rows(opened(tmp_path, 'a,b\n"x, ""y""","1\n2"\n')) == [['x, "y"', "1\n2"]]
    assert rows(opened(tmp_path, 'a\tb\nsaid "no\t5\n', "t.inter")) == [['said "no', "5"]]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", r"t\.csv cannot be read as a table: it is empty$"),
        ("\n \n", "it is empty"),
        (
            "a,b\n1,2,3\n4,5\n6,7,8\n",
            "2 x row with 3 fields, more than the 2 that the header names, first in row 1; name",
        ),
        ("a,b\n1,2\n4\n", "1 x row with 1 fields, fewer than the 2 that the header names, first in row 2; complete"),
        ("a,b\n1\n4,5,6\n", "1 x row with 1 fields, fewer .*; 1 x row with 3 fields, more .* first in row 2"),
        ("a,b,a\n1,2,3\n", "the header has 'a' more than once"),
        ("a,b, a\n1,2\n", "the header has 'a' more than once; .*; 1 x row with 2 fields, fewer than the 3"),
        ("a,b\n1\0,2\n", "1 x field with a NUL byte"),
        ('a,b\n1,"2\n3,4\n', r"unexpected end of data \(line 3\); a field with quotes"),
        ('a,b\n1,"2"x\n', r"cannot be read as a table: .*line 2"),
        (",a\nx,1\nx,2\n", "column 1 has values and no name; give it one in the header"),
        (b"PK\x03\x04rest", "t.csv is a zip archive; unpack it"),
        (b"PAR1rest", "is a Parquet file; give it a name that ends in .parquet"),
        ("a,b\n1,2\n".encode("utf-16"), r"is encoded in UTF-16; dataset\.encoding=utf-16 reads it"),
        ("a,b\né,2\n".encode("latin-1"), r"is not encoded in utf-8 \(byte 0xe9 at 4\); state dataset\.encoding"),
    ],
)
def test_a_file_of_another_form_is_refused_in_one_sentence(tmp_path: Path, content: str | bytes, sentence: str) -> None:
    with pytest.raises(SubflError, match=sentence) as refused:
        opened(tmp_path, content)
    assert "\n" not in str(refused.value)


def test_a_file_packed_in_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SubflError, match="cannot be read"):
        opened(tmp_path, gzip.compress(b"a,b\n" + b"1,2\n" * 5000)[:-20], "t.csv.gz")
    with zipfile.ZipFile(tmp_path / "z.csv", "w") as archive:
        archive.writestr("t.csv", "a,b\n")
    with pytest.raises(SubflError, match=r"z\.csv is a zip archive"):
        open_table(tmp_path / "z.csv")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "cp1252"])
def test_other_encodings_are_read_where_they_are_stated(tmp_path: Path, encoding: str) -> None:
    assert rows(opened(tmp_path, "a,b\né,ü\n".encode(encoding), encoding=encoding)) == [["é", "ü"]]


def test_a_header_is_stated_or_implied(tmp_path: Path) -> None:
    assert list(opened(tmp_path, "1,2\n3,4\n", header=("a", "b")).columns) == ["a", "b"]
    names = ("user", "item", "rating", "timestamp")
    table = opened(tmp_path, "1::2::3.5::99\n1::3::4::98\n", "r.dat", implied_header=names)
    assert list(table.columns) == list(names) and rows(table) == [["1", "2", "3.5", "99"], ["1", "3", "4", "98"]]
    assert "user" in opened(tmp_path, "user::item::rating\n1::2::3\n", "r.dat", implied_header=names).columns


@pytest.mark.parametrize(
    ("content", "kept", "said"),
    [
        (",a\n0,x\n1,y\n", ["a"], "column 1, which has no name: row numbers"),
        ("a,\nx,\ny,\n", ["a"], "column 2, which has no name and is empty"),
        ("Unnamed: 0,a\n7,x\n3,y\n", ["a"], r"column 1 \(Unnamed: 0\): row numbers"),
        ("Unnamed: 0,a\nq,x\nq,y\n", ["Unnamed: 0", "a"], ""),
    ],
)
def test_row_numbers_that_a_program_left_are_dropped_and_said(
    tmp_path: Path, content: str, kept: list[str], said: str
) -> None:

    table = opened(tmp_path, content)
    assert list(table.columns) == kept and len(table.dropped) == bool(said)
    assert not said or re.search(f"t.csv: {said}$", table.dropped[0])


def test_rows_without_content_are_skipped_and_counted(tmp_path: Path) -> None:
    table = opened(tmp_path, "a,b\n1,2\n,\n , \n3,4\n")
    assert rows(table) == [["1", "2"], ["3", "4"]] and table.dropped == ["t.csv: 2 rows without any content"]


def test_a_long_file_is_read_block_by_block(tmp_path: Path) -> None:
    count = 150_000
    table = opened(tmp_path, "a,b\n" + "".join(f"{i}, {i % 7}\n" for i in range(count)))
    assert len(table) == count
    assert table.columns["a"].tolist() == [str(i) for i in range(count)]
    assert table.columns["b"].tolist() == [str(i % 7) for i in range(count)]
    with pytest.raises(SubflError, match=r"1 x row with 3 fields, .* first in row 100001;"):
        opened(tmp_path, "a,b\n" + "1,2\n" * 100_000 + "1,2,3\n" + "1,2\n" * 10)


def test_parquet_keeps_numbers_and_makes_text_of_the_rest(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            " id ": ["a ", None, "NA"],
            "whole": pd.array([1, None, 3], dtype="Int64"),
            "part": [1.5, np.nan, 2.0],
            "flag": [True, False, True],
            "day": pd.to_datetime(["2020-01-01T00:00:00", "2020-01-02T03:04:05", None]),
        }
    )
    frame.to_parquet(tmp_path / "t.parquet")
    table = open_table(tmp_path / "t.parquet")
    assert table.columns["id"].tolist() == ["a", "", "NA"]
    assert table.columns["whole"].tolist() == ["1", "", "3"]
    assert table.columns["flag"].tolist() == ["True", "False", "True"]
    assert table.columns["day"].tolist() == ["2020-01-01T00:00:00", "2020-01-02T03:04:05", ""]
    np.testing.assert_array_equal(table.columns["part"], [1.5, np.nan, 2.0])
    frame.set_index(" id ").to_parquet(tmp_path / "t.parquet")
    assert list(open_table(tmp_path / "t.parquet").columns) == ["id", "whole", "part", "flag", "day"]
    pd.DataFrame({"a": [[1], [2]]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(SubflError, match=r"t\.parquet: a is a list in row 1"):
        open_table(tmp_path / "t.parquet").columns["a"]


def test_a_path_must_be_that_of_a_table(tmp_path: Path) -> None:
    assert [table_suffix(Path(name)) for name in ("A.CSV.GZ", "u.data", "r.dat", "x.parquet", "t.xlsx")] == [
        ".csv", ".data", ".dat", ".parquet", None,
    ]  # fmt: skip
    with pytest.raises(SubflError, match=r"here: .*t\.csv does not exist \(looked for at /"):
        require_table(tmp_path / "t.csv", "here")
    (tmp_path / "t.xlsx").write_text("a")
    with pytest.raises(SubflError, match=r"here: .*t\.xlsx is no table; its name must end in \.csv"):
        require_table(tmp_path / "t.xlsx", "here")

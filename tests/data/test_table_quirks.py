"""Tables as other programs leave them: read as they were meant, or refused in a sentence, never changed in silence."""

from __future__ import annotations

import bz2
import lzma
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet
from pydantic import TypeAdapter, ValidationError

from subfl_flower.data.datasets import CustomDataset
from subfl_flower.data.datasets.custom_settings import FeatureSettings
from subfl_flower.data.tables.columns import Problems, matched, read_ids, read_table
from subfl_flower.data.tables.table_file import Encoding, Table, TableFormat, open_table, require_table
from subfl_flower.errors import SubflError

EDGES = "source,target\nn0,n1\nn1,n2\n"


def opened(folder: Path, content: str | bytes, name: str = "t.csv", **format: object) -> Table:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_table(path, TableFormat(**format))  # type: ignore[arg-type]


def rows(table: Table) -> list[list[str]]:
    return [list(row) for row in zip(*(table.columns[name].tolist() for name in table.columns), strict=True)]


def loaded(folder: Path, nodes: str, edges: str = EDGES, **settings: object):  # type: ignore[no-untyped-def]
    (folder / "nodes.csv").write_text(nodes)
    (folder / "edges.csv").write_text(edges)
    return CustomDataset(path=folder, **settings).load(folder)  # type: ignore[arg-type]


TITLES = {3: '"Cut to', 7: 'Pipe 12"'}


@pytest.mark.parametrize("delimiter", [",", "\t"])
@pytest.mark.parametrize("last", [True, False])
def test_a_stray_quote_never_swallows_rows(tmp_path: Path, delimiter: str, last: bool) -> None:
    order = ["user", "rating", "title"] if last else ["user", "title", "rating"]
    lines = [{"user": f"u{i}", "rating": "5", "title": TITLES.get(i, f"T{i}")} for i in range(10)]
    content = "".join(delimiter.join(line[name] for name in order) + "\n" for line in lines)
    with pytest.raises(SubflError, match="1 x field that goes on over several lines which look like rows, first in r"):
        opened(tmp_path, delimiter.join(order) + "\n" + content)


@pytest.mark.parametrize(
    ("content", "row"),
    [('id,title\na,"Cut\nb,x\nc,12"\n', 1), ('id,a\nz,1\n"x,1\ny",2\n', 2), ('id,t\na,"Cut\r\nb,x12"\r\nc,1\r\n', 1)],
)
def test_two_columns_and_the_first_column_are_guarded(tmp_path: Path, content: str, row: int) -> None:
    with pytest.raises(SubflError, match=f"1 x field that goes on over several lines .* first in row {row};"):
        opened(tmp_path, content)


def test_a_text_of_several_lines_is_read_where_it_looks_like_no_rows(tmp_path: Path) -> None:
    text = "Great, really.\n\nSaw it twice.\nOnce, twice, and thrice"
    assert rows(opened(tmp_path, f'id,title\na,"{text}"\nb,"one\ntwo"\n')) == [["a", text], ["b", "one\ntwo"]]


def test_no_id_or_label_has_a_line_break(tmp_path: Path) -> None:
    with pytest.raises(
        SubflError, match=r"1 x id with a line break, first in row 2 \('n\\n1'\); .*; 1 x label with a line"
    ):
        loaded(tmp_path, 'id,label,f\nn0,a,1\n"n\n1","b\nc",2\nn2,a,1\n')
    with pytest.raises(SubflError, match=r"1 x source with a line break, first in row 1"):
        loaded(tmp_path, "id,label,f\nn0,a,1\nn1,b,3\nn2,b,2\n", 'source,target\n"n0\nn1",n2\n')


def test_whole_numbers_of_parquet_with_gaps_keep_every_digit(tmp_path: Path) -> None:
    labels = [10**17, 10**17 + 1, None, 10**17]
    parquet.write_table(pa.table({"id": ["a", "b", "c", "d"], "label": labels}), tmp_path / "t.parquet")
    texts = open_table(tmp_path / "t.parquet").columns["label"].tolist()
    assert texts == ["100000000000000000", "100000000000000001", "", "100000000000000000"]


def test_rounded_ids_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    known = {"id": (), "score": ()}
    for kind, limit in ((np.float64, 2.0**53), (np.float32, 2.0**24)):
        pd.DataFrame({"id": np.array([1, limit], kind), "score": [1e300, 1]}).to_parquet(path)
        assert len(read_table(path, known, ["id"])[0]) == 2
        pd.DataFrame({"id": np.array([1, 2 * limit], kind)}).to_parquet(path)
        with pytest.raises(SubflError, match="1 x id that is a rounded number, first in row 2 "):
            read_table(path, known, ["id"])


def test_ids_match_as_written_and_then_without_a_point(tmp_path: Path) -> None:
    known = {"1.0": 0, "2": 1, "x": 2}
    assert matched(np.array(["1.0", "1", "2.0", "2", "x", "3", "x.0"], object), known).tolist() == [
        0,
        0,
        1,
        1,
        2,
        -1,
        -1,
    ]
    graph = loaded(tmp_path, "id,label,f\n1.0,a,1\n2.0,b,5\nx,a,3\n", "source,target\n1.0,2.0\n")
    assert {frozenset(pair) for pair in graph.edge_index.T.tolist()} == {frozenset((0, 1))}
    problems = Problems(tmp_path)
    read_ids(opened(tmp_path, "id\n1.0\n1.00\nx\n"), "id", "id", problems)
    with pytest.raises(SubflError, match=r"2 x id written both .* the first is 1\.0;"):
        problems.require_none()


@pytest.mark.parametrize(
    ("content", "kept", "dropped"),
    [
        ("Unnamed: 0.1,a\n3,x\n1,y\n", ["a"], "t.csv: column 1 (Unnamed: 0.1): row numbers"),
        ("Unnamed: 0_level_0,a\n3,x\n1,y\n", ["a"], "t.csv: column 1 (Unnamed: 0_level_0): row numbers"),
        ("Unnamed: 0,a\n7,x\n7,y\n", ["a"], "t.csv: column 1 (Unnamed: 0): row numbers, some of them more than once"),
        (",a\n0,x\n1,y\n0,z\n", ["a"], "t.csv: column 1, which has no name: row numbers, some of them more than once"),
        ("a,b,,,\n1,2,,,\n3,4,,,\n", ["a", "b"], "t.csv: columns 3, 4, 5, which have no names and are empty"),
        ("Unnamed: 0.1,a\n3.5,x\n1,y\n", ["Unnamed: 0.1", "a"], ""),
        ("Unnamed: tree,a\n3,x\n1,y\n", ["Unnamed: tree", "a"], ""),
    ],
)
def test_leftover_columns_are_dropped_and_said(tmp_path: Path, content: str, kept: list[str], dropped: str) -> None:
    table = opened(tmp_path, content)
    assert list(table.columns) == kept and table.dropped == ([dropped] if dropped else [])


def test_columns_without_a_name_that_hold_something_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SubflError, match="column 1 has values and no name"):
        opened(tmp_path, ",a\n5,x\n5,y\n")
    with pytest.raises(SubflError, match="the header has a column without a name more than once"):
        opened(tmp_path, ",a,\n5,x,1\n5,y,1\n")


@pytest.mark.parametrize(
    ("numbers", "said"), [((2, 0, 1), True), ((3, 1, 2), True), ((5, 6, 7), True), ((7, 5, 6), False)]
)
def test_a_feature_that_counts_the_rows_in_any_order_is_remarked(
    tmp_path: Path, numbers: tuple[int, ...], said: bool
) -> None:
    nodes = "id,label,X\n" + "".join(f"n{i},{'ab'[i % 2]},{number}\n" for i, number in enumerate(numbers))
    graph = loaded(tmp_path, nodes, features=FeatureSettings(standardize=False))
    assert any("the feature X counts the rows" in warning for warning in graph.notes.warnings) == said


def test_a_header_in_the_middle_is_refused(tmp_path: Path) -> None:
    content = "user,item\n" + "u,i\n" * 5000
    with pytest.raises(SubflError, match=r"2 x row that repeats the header, first in row 5001; remove"):
        opened(tmp_path, content + content + content)
    assert len(opened(tmp_path, content + "user,i\n")) == 5001


def test_characters_without_width_count_as_blanks(tmp_path: Path) -> None:
    table = opened(tmp_path, "id\u200b,label\u2060\nx\u200b,\u200chome\u200d\n\ufeffy,home \u00a0\u200b\n")
    assert list(table.columns) == ["id", "label"] and rows(table) == [["x", "home"], ["y", "home"]]
    inner = loaded(tmp_path, "id,label,f\nn0,a,1\nn\u200b1,b,5\nn2,a,2\n", "source,target\nn0,n2\n")
    assert inner.node_names.tolist()[1] == "n\u200b1"
    with pytest.raises(SubflError, match=r"unknown source, first in row 1 \('n\\u200b0'\)"):
        loaded(tmp_path, "id,label,f\nn0,a,1\nn1,b,5\n", "source,target\nn\u200b0,n1\n")


def test_one_column_has_one_meaning(tmp_path: Path) -> None:
    with pytest.raises(SubflError, match="the column a is both source and target"):
        loaded(tmp_path, "id,f\nn0,1\nn1,5\n", "a,b\nn0,n1\n", columns={"source": "a", "target": "a"})


def test_a_quote_after_a_blank_is_read_in_any_file(tmp_path: Path) -> None:
    assert rows(opened(tmp_path, 'id\tlabel\nn0\t "a"\n', "t.tsv")) == [["n0", "a"]]


def test_an_index_that_repeats_a_column_is_left_out(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": ["a", "b"], "f": [1, 2]})
    path = tmp_path / "t.parquet"
    frame.set_index("id", drop=False).to_parquet(path)
    assert rows(open_table(path)) == [["a", 1], ["b", 2]]
    frame.set_index(pd.Index(["b", "a"], name="id")).to_parquet(path)
    with pytest.raises(SubflError, match="its index and a column are both named id and differ"):
        open_table(path)
    frame.set_index(["id", pd.Index([9, 4])])[["f"]].to_parquet(path)
    assert list(open_table(path).columns) == ["id", "f"]


@pytest.mark.parametrize("name", ["base64", "rot13", "undefined", "", "utf-99"])
def test_codecs_that_are_none_of_text_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="must be an encoding that Python knows for text"):
        TypeAdapter(Encoding).validate_python(name)
    assert TypeAdapter(Encoding).validate_python("utf-16-le") == "utf-16-le"


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("id,label,ns::f0\na,b,1\n", ["id", "label", "ns::f0"]),
        ("id;label;x(a,b,c,d)\n1;2;3\n4;5;6\n", ["id", "label", "x(a,b,c,d)"]),
        ("id::a|b|c\n1::x\n2::y|z\n", ["id", "a|b|c"]),
        ("sep=;\nid;a,b,c\n1;2\n", ["id", "a,b,c"]),
        ('"sep=,"\r\n\r\nid,a\r\n1,2\r\n', ["id", "a"]),
        ('\ufeff\ufeff"id",a\n1,2\n', ["id", "a"]),
        ("only\n1\n2\n", ["only"]),
        ("first name\nana\nbo\n", ["first name"]),
    ],
)
def test_the_first_rows_tell_the_delimiter(tmp_path: Path, content: str, names: list[str]) -> None:
    table = opened(tmp_path, content)
    assert list(table.columns) == names and len(table) >= 1


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    table = opened(tmp_path, '\ufeff"id",a\n1,2\n'.encode("utf-16-le"), encoding="utf-16-le")
    assert list(table.columns) == ["id", "a"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            '"user" "item" "rating"\n"1" "a" "b" 5\n"2" "c" "d" 4\n',
            "no delimiter was found, .* parted by blanks; comma",
        ),
        ("1 2\n3 4\n5 6\n", "no delimiter was found"),
        ("# Directed graph: x.txt\n# FromNodeId\tToNodeId\n0\t1\n0\t2\n", r"begins with a remark \(# Directed graph"),
        ("# Nodes: 3, Edges: 2\n0 1\n0 2\n", "begins with a remark .*; no delimiter was found"),
        ("id,a\nx," + "y" * 200_000 + "\n", "a field has more than 131,072 characters, or its closing quote is"),
        (bz2.compress(b"id,a\n1,2\n"), "is packed by bzip2; unpack it"),
        (lzma.compress(b"id,a\n1,2\n"), "is packed by xz; unpack it"),
        (b"PK\x03\x04[Content_Types].xml", "a zip archive; .* save it as CSV where it is an Excel workbook"),
        (b"id,a\n" + b"12,3\n" * 30_000 + b"\xe9,1\n", r"byte 0xe9 at 150005\)"),
    ],
)
def test_files_of_other_forms_are_named(tmp_path: Path, content: str | bytes, sentence: str) -> None:
    with pytest.raises(SubflError, match=sentence):
        opened(tmp_path, content)


def test_a_parquet_column_of_lists_is_refused_where_it_is_used(tmp_path: Path) -> None:
    pd.DataFrame({"id": ["n0", "n1"], "f": [1, 5], "emb": [[1.0], [2.0]], "s": [{"a": 1}, {"a": 2}]}).to_parquet(
        tmp_path / "nodes.parquet"
    )
    (tmp_path / "edges.csv").write_text("source,target\nn0,n1\n")
    ignoring = FeatureSettings(ignore=["emb", "s"])
    assert CustomDataset(path=tmp_path, features=ignoring).load(tmp_path).columns == ("f",)
    for ignored, sentence in (("s", "emb is a list in row 1"), ("emb", "s is a struct in row 1")):
        with pytest.raises(SubflError, match=rf"nodes\.parquet: {sentence}"):
            CustomDataset(path=tmp_path, features=FeatureSettings(ignore=[ignored])).load(tmp_path)


def test_a_table_is_a_plain_file(tmp_path: Path) -> None:
    (tmp_path / "nodes.parquet").mkdir()
    with pytest.raises(SubflError, match=r"nodes\.parquet is a folder; a table is one file"):
        require_table(tmp_path / "nodes.parquet", "here")
    os.mkfifo(tmp_path / "t.csv")
    with pytest.raises(SubflError, match=r"t\.csv is no plain file"):
        require_table(tmp_path / "t.csv", "here")
    with pytest.raises(SubflError, match=r"t\.csv is no plain file"):
        open_table(tmp_path / "t.csv")


@pytest.mark.timeout(20)
def test_a_table_of_very_many_columns_is_read_in_seconds(tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(60_000)]
    assert list(opened(tmp_path, ",".join(names) + "\n" + ",".join("1" * 60_000) + "\n").columns) == names

"""Tables written with random quirks: a reader gets what was meant, or says in one sentence why not."""

from __future__ import annotations

import csv
import gzip
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from subfl_flower.data.datasets import CustomDataset
from subfl_flower.data.datasets.custom_settings import FeatureSettings
from subfl_flower.errors import SubflError

TRICKY = [
    *("NA", "None", "null", "nan", "007", "7", "1e5", "1E5", "100000", "0x1F", "True", "-1", "a b", "ü", "x;y", "a,b"),
    *('"q"', "10000000000000000001", "10000000000000000002"),
]
IDS = st.one_of(st.sampled_from(TRICKY), st.from_regex("[a-zA-Z0-9_.-]{1,6}", fullmatch=True))
NAMES = st.from_regex("[b-hj-km-z][a-z0-9]{0,4}", fullmatch=True)  # none that means something
MISSING = {"na", "nan", "null", "none", "n/a", "#n/a", "inf", "-inf", "+inf", "infinity", "-infinity"}
NUMBERS = st.one_of(st.integers(-(10**6), 10**6).map(str), st.floats(-1e6, 1e6, allow_nan=False, width=32).map(repr))


@dataclass(frozen=True)
class Style:
    """Form of a table's file."""

    delimiter: str
    quote_all: bool
    bom: bool
    line_end: str
    packed: bool
    blanks: bool
    index: bool
    upper_header: bool
    blank_lines: bool
    extra_field: bool

    def write(self, path: Path, header: list[str], rows: list[list[str]]) -> Path:
        """Write a table; the file's path."""
        names = [
            name.upper() if self.upper_header and name in ("id", "label", "source", "target") else name
            for name in header
        ]
        text = io.StringIO(newline="")
        quoting = csv.QUOTE_ALL if self.quote_all else csv.QUOTE_MINIMAL
        writer = csv.writer(text, delimiter=self.delimiter, quoting=quoting, lineterminator=self.line_end)
        writer.writerow(([""] if self.index else []) + names)
        for number, row in enumerate(rows):
            fields = [f" {field} " if self.blanks else field for field in row]
            writer.writerow(([str(number)] if self.index else []) + fields + (["9"] if self.extra_field else []))
            if self.blank_lines:
                text.write(self.line_end)
        content = text.getvalue().encode("utf-8-sig" if self.bom else "utf-8")
        path = path.with_name(path.name + (".gz" if self.packed else ""))
        path.write_bytes(gzip.compress(content) if self.packed else content)
        return path


STYLES = st.builds(
    Style,
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    quote_all=st.booleans(),
    bom=st.booleans(),
    line_end=st.sampled_from(["\n", "\r\n"]),
    packed=st.booleans(),
    blanks=st.booleans(),
    index=st.booleans(),
    upper_header=st.booleans(),
    blank_lines=st.booleans(),
    extra_field=st.sampled_from([False] * 9 + [True]),
)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[str], list[str], list[str], list[list[str]], list[tuple[int, int]]]:
    """Ids, labels, names of features, features and edges."""
    ids = draw(st.lists(IDS, min_size=2, max_size=8, unique=True))
    labels = draw(st.lists(st.one_of(st.just(""), IDS), min_size=len(ids), max_size=len(ids)))
    names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    rows = [[draw(NUMBERS) for _ in names] for _ in ids]
    node = st.integers(0, len(ids) - 1)
    return ids, labels, names, rows, draw(st.lists(st.tuples(node, node), max_size=10))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(graph=graphs(), style=STYLES, edge_style=STYLES, order=st.randoms(use_true_random=False))
def test_what_is_read_is_what_was_meant(
    tmp_path: Path, graph: tuple, style: Style, edge_style: Style, order: object
) -> None:  # type: ignore[type-arg]
    ids, labels, names, rows, edges = graph
    for old in tmp_path.iterdir():
        old.unlink()
    header = ["id", "label", *names]
    columns = list(range(len(header)))
    order.shuffle(columns)  # type: ignore[attr-defined]
    table = [[node, label, *row] for node, label, row in zip(ids, labels, rows, strict=True)]
    style.write(tmp_path / "nodes.csv", [header[c] for c in columns], [[row[c] for c in columns] for row in table])
    edge_style.write(tmp_path / "edges.csv", ["source", "target"], [[ids[a], ids[b]] for a, b in edges])
    try:
        found = CustomDataset(path=tmp_path, features=FeatureSettings(standardize=False)).load(tmp_path)
    except SubflError as error:
        assert "\n" not in str(error) and ".csv" in str(error)
        assert must_or_may_be_refused(ids, labels, style, edge_style, len(edges)), str(error)
        return
    assert not style.extra_field and not (edge_style.extra_field and edges)
    assert found.node_names is not None and same(found.node_names.tolist(), ids)
    assert found.features.shape == (len(ids), len(names))
    features = found.features if isinstance(found.features, np.ndarray) else found.features.toarray()
    shown = [names.index(header[c]) for c in columns if c >= 2]
    np.testing.assert_array_equal(features, [[float(row[c]) for c in shown] for row in rows])
    numbers = np.full(len(ids), -1) if found.labels is None else found.labels
    classes = found.class_names or ()
    assert same([classes[number] if number >= 0 else "" for number in numbers], labels)
    meant = {frozenset(edge) for edge in edges if edge[0] != edge[1]}
    assert {frozenset(pair) for pair in found.edge_index.T.tolist()} == meant


def same(found: list[str], meant: list[str]) -> bool:
    """Compare ids with those that were written; whole numbers in a column of such may have lost their point."""
    plain = [text.removesuffix(".0").removesuffix(".") if is_whole(text) else text for text in meant]
    return found == meant or found == [text.partition(".")[0] if is_whole(text) else text for text in meant] == plain


def is_whole(text: str) -> bool:
    head, _, tail = text.partition(".")
    return head.removeprefix("-").isdecimal() and head.isascii() and not tail.strip("0")


def must_or_may_be_refused(ids: list[str], labels: list[str], style: Style, edge_style: Style, num_edges: int) -> bool:
    """A reason to refuse a file that the reader is known by."""
    known = set(ids)
    points = any("." in text and is_whole(text) and text.partition(".")[0] in known for text in ids)
    found = {text for text in labels if text}

    def number(text: str) -> bool:
        try:
            float(text)
        except ValueError:
            return False
        return text.lower() not in ("nan", "inf", "infinity") and "_" not in text

    # Measurements, with words for missing ones or without, and a few words among mostly fractions.
    fractions = {text for text in found if number(text) and float(text) % 1}
    words = {text for text in found if not number(text) and text.lower() not in MISSING}
    measured = bool(fractions) and (not words or 2 * len(fractions) > len(found))
    return style.extra_field or (edge_style.extra_field and num_edges > 0) or points or measured

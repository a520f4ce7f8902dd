"""Tables with any mixture of the quirks that people's tables have: what is read is what was meant, or one sentence."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from subfl_flower.data.ratings.datasets.custom import CustomRatingsDataset
from subfl_flower.errors import SubflError

IDS = [
    "NA",
    "null",
    "nan",
    "007",
    "7",
    "8",
    "1e5",
    "1.0",
    "2.0",
    "1.50",
    "a b",
    "ü",
    "-3",
    "=x",
    "12345678901234567890",
]
ALIASES = {
    "user": ["user", "User", "user_id", "userId", " USER ", "user_id:token"],
    "item": ["item", "itemId", "item_id", "movieId", "movie_id", "item_id:token"],
    "rating": ["rating", "Rating", "rating:float"],
    "timestamp": ["timestamp", "Timestamp", "timestamp:float"],
}
FORMS = ["seconds", "fraction", "milliseconds", "microseconds", "zulu", "naive", "zone", "order"]
START = datetime(2001, 1, 1, tzinfo=UTC)
BY_SUFFIX = {
    ".csv": ",;|\t",
    ".CSV": ",;|\t",
    ".txt": ",;|\t",
    ".data": ",;\t",
    ".tsv": "\t",
    ".TSV": "\t",
    ".inter": "\t",
}


@dataclass
class Written:
    name: str
    content: bytes
    encoding: str
    pairs: list[tuple[str, str]]
    values: list[float]
    seconds: list[int] | None


def time_as(form: str, seconds: int) -> str:
    moment = START + timedelta(seconds=seconds)
    whole = int(moment.timestamp())
    return {
        "seconds": str(whole),
        "fraction": f"{whole}.5",
        "milliseconds": str(whole * 1000),
        "microseconds": str(whole * 10**6),
        "zulu": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "naive": moment.strftime("%Y-%m-%d %H:%M:%S"),
        "zone": (moment + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S+02:00"),
        "order": str(seconds),
    }[form]


@st.composite
def tables(draw: st.DrawFn) -> Written:
    suffix = draw(st.sampled_from(sorted(BY_SUFFIX)))
    delimiter = draw(st.sampled_from(BY_SUFFIX[suffix]))
    ids = draw(st.sampled_from([IDS, ["1", "2", "3", "10"], ["1.0", "2.0", "30.0"], ["1", "2.0", "3"]]))
    size = draw(st.integers(3, 14))
    pairs = draw(st.lists(st.tuples(st.sampled_from(ids), st.sampled_from(ids)), min_size=size, max_size=size))
    values = draw(st.lists(st.sampled_from(["1", "2.5", "4", "5.0", "-1", "1e1", "0"]), min_size=size, max_size=size))
    form = draw(st.none() | st.sampled_from(FORMS))
    seconds = draw(st.lists(st.integers(0, 10**7), min_size=size, max_size=size, unique=True)) if form else None
    columns = {"user": [user for user, _ in pairs], "item": [item for _, item in pairs], "rating": list(values)}
    if form and seconds:
        columns["timestamp"] = [time_as(form, second) for second in seconds]
    named = {draw(st.sampled_from(ALIASES[meaning])): column for meaning, column in columns.items()}
    if draw(st.booleans()):
        named["shop"] = draw(st.lists(st.sampled_from(["", "a, b", 'say "no"', "x;y|z"]), min_size=size, max_size=size))
        if suffix == ".inter":
            named["shop"] = ["s"] * size
    order = draw(st.permutations(list(named)))
    rows = [order, *map(list, zip(*(named[name] for name in order), strict=True))]
    if draw(st.booleans()):
        rows = [["", *rows[0]], *([str(row), *fields] for row, fields in enumerate(rows[1:]))]
    quote = draw(st.booleans()) and suffix != ".inter"
    blank = draw(st.sampled_from(["", " "])) if not quote else ""
    lines = []
    for fields in rows:
        texts = []
        for field in fields:
            special = suffix != ".inter" and any(mark in field for mark in (delimiter, '"'))
            text = '"' + field.replace('"', '""') + '"' if quote or special else field
            texts.append(text if special else f"{blank}{text}{blank}")
        lines.append(delimiter.join(texts))
        if draw(st.integers(0, 5)) == 0:
            lines.append("")
    text = draw(st.sampled_from(["\n", "\r\n"])).join([*lines, ""])
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-16", "latin-1"]))
    mark = "\ufeff" if encoding == "utf-8" and draw(st.booleans()) else ""
    content = (mark + text).encode(encoding)
    packed = draw(st.booleans())
    event(f"{suffix} {form} {encoding}")
    name = f"ratings{suffix}{'.gz' if packed else ''}"
    content = gzip.compress(content) if packed else content
    return Written(name, content, encoding, pairs, [float(value) for value in values], seconds)


def meant(ids: list[str]) -> list[str]:
    """`1.0` is 1 where all ids of the column are whole numbers."""
    whole = all(text.lstrip("-").replace(".0", "").isdigit() for text in ids)
    return [text.removesuffix(".0") if whole else text for text in ids]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(written=tables())
def test_what_is_read_is_what_was_meant(tmp_path_factory: pytest.TempPathFactory, written: Written) -> None:
    path = tmp_path_factory.mktemp("tables") / written.name
    path.write_bytes(written.content)
    raw = CustomRatingsDataset(path=path, encoding=written.encoding).read(Path())
    assert raw.users.tolist() == meant([user for user, _ in written.pairs])
    assert raw.items.tolist() == meant([item for _, item in written.pairs])
    assert raw.values.tolist() == written.values
    if written.seconds is None:
        assert raw.timestamps is None
    else:
        assert raw.timestamps is not None
        assert np.argsort(raw.timestamps).tolist() == np.argsort(written.seconds).tolist()
        if raw.per_second is not None:
            found = raw.timestamps // raw.per_second - int(START.timestamp())
            assert found.tolist() == written.seconds
    assert not raw.notes.warnings


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    written=tables(), place=st.floats(0, 1), damage=st.sampled_from(["cut", "byte", "delimiter", "line", "encoding"])
)
def test_a_damaged_table_is_read_or_refused_in_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, written: Written, place: float, damage: str
) -> None:
    content = bytearray(written.content)
    at = int(place * (len(content) - 1))
    if damage == "cut":
        del content[at:]
    elif damage == "byte":
        content[at] ^= 0x91
    elif damage == "delimiter":
        content[at:at] = b","
    elif damage == "line":
        content[at:at] = b'\n"'
    path = tmp_path_factory.mktemp("tables") / written.name
    path.write_bytes(bytes(content))
    encoding = "utf-8" if damage == "encoding" else written.encoding
    dataset = CustomRatingsDataset(path=path, encoding=encoding, split="leave_one_out")
    try:
        loaded = dataset.load(Path(), 0)
    except SubflError as error:
        event("refused")
        assert "\n" not in str(error) and str(error)
    else:
        assert np.isfinite(loaded.ratings.values).all() and len(loaded.ratings) <= len(written.pairs)

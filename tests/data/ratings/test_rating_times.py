from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from subfl_flower.data.ratings.datasets.custom import CustomRatingsDataset
from subfl_flower.data.ratings.table import RawRatings
from subfl_flower.errors import SubflError


def read(folder: Path, *times: str) -> RawRatings:
    rows = [f"u{row},i,{row},{time}" for row, time in enumerate(times)]
    (folder / "ratings.csv").write_text("\n".join(["user,item,rating,timestamp", *rows, ""]))
    return CustomRatingsDataset(path=folder / "ratings.csv").read(folder)


def order(raw: RawRatings) -> list[int]:
    assert raw.timestamps is not None and raw.timestamps.dtype == np.int64
    return np.argsort(raw.timestamps, kind="stable").tolist()


@pytest.mark.parametrize(
    ("times", "per_second", "first"),
    [
        (["978300037", "978300000", "978300074"], 1, 978300000),
        (["978300000.75", "978300000.5", "1e9"], 100, 97830000050),
        (["978300000002", "978300000001", "978300000003"], 1000, 978300000001),
        (["978300000000000.2", "978300000000000.1", "978300000000000.3"], 10**7, 9783000000000001),
        (["1600000000000000001", "1600000000000000000", "1600000000000000002"], 10**9, 1600000000000000000),
        (["2020-01-02", "2020-01-01", "2020-01-02T00:00:01Z"], 10**9, 1577836800 * 10**9),
        (["2020-01-01 12:00:00.000000002", "2020-01-01 13:00+01:00", "2020-01-01T12:01"], 10**9, 1577880000 * 10**9),
        (["2020-01-01T12:00:00-0030", "2020-01-01 12:00:01 UTC", "2020-01-01T12:31:00+00"], 10**9, 1577880001 * 10**9),
        (["0002-01-01", "0001-01-01", "9999-12-31"], 10**6, -62135596800 * 10**6),
    ],
)
def test_times_are_kept_exactly(tmp_path: Path, times: list[str], per_second: int, first: int) -> None:
    raw = read(tmp_path, *times)
    assert raw.timestamps is not None and order(raw) == [1, 0, 2]
    assert (raw.per_second, int(raw.timestamps.min())) == (per_second, first) and not raw.notes.warnings


@pytest.mark.parametrize("times", [["3", "1", "2"], ["0.3", "0.1", "0.2"], ["-1", "-9", "-5"], ["9e15", "5", "1e12"]])
def test_numbers_that_are_no_times_are_an_order(tmp_path: Path, times: list[str]) -> None:
    raw = read(tmp_path, *times)
    assert order(raw) == np.argsort([float(time) for time in times]).tolist() and raw.per_second is None


def test_seconds_among_milliseconds_are_told_by_their_size(tmp_path: Path) -> None:
    raw = read(tmp_path, "978300100000", "978300099", "978300101", "978300098500")
    assert raw.timestamps is not None and raw.per_second == 1000
    assert raw.timestamps.tolist() == [978300100000, 978300099000, 978300101000, 978300098500]
    (warning,) = raw.notes.warnings
    assert warning.startswith("ratings.csv: 2 of 4 timestamps are in ") and "each was read by its size" in warning


@pytest.mark.parametrize("missing", ["0", "-1", "-99999999999"])
def test_a_number_for_a_missing_time_does_not_hide_two_units(tmp_path: Path, missing: str) -> None:
    raw = read(tmp_path, "1700000000", "1600000000000", missing, "1650000000", "1500000000000")
    assert order(raw) == [2, 4, 1, 3, 0] and raw.per_second == (1000 if missing == "0" else None)
    (warning,) = raw.notes.warnings
    assert (
        warning.startswith("ratings.csv: 2 of 4 timestamps are in ")
        and "numbers of 0 or less (1) count as the oldest" in warning
    )


def test_a_time_far_off_does_not_change_the_unit(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(
        "user,item,rating,timestamp\na,x,1,1600000000\na,y,1,1600000002\nb,x,1,9999999999999\n"
    )
    (tmp_path / "test.csv").write_text("user,item,rating,timestamp\na,z,1,1600000001\n")
    raw = CustomRatingsDataset(path=tmp_path).read(tmp_path)
    assert order(raw) == [0, 3, 1, 2]


@pytest.mark.parametrize(
    ("times", "known"),
    [
        (["202405311200", "202406301200", "202306301200"], False),
        (["2024053112", "2024063012", "0"], False),
        (["202405311260", "202406301200", "202306301200"], True),
        (["2024053112", "2024063024", "1600000000"], True),
    ],
)
def test_digits_of_dates_are_no_seconds(tmp_path: Path, times: list[str], known: bool) -> None:
    raw = read(tmp_path, *times)
    assert order(raw) == [2, 0, 1] and (raw.per_second is not None) == known


def test_an_empty_file_has_no_way_of_writing_times(tmp_path: Path) -> None:
    header = "user,item,rating,timestamp\n"
    (tmp_path / "train.csv").write_text(header + "a,x,1,2024-01-02\nb,x,1,9999-12-31\n")
    (tmp_path / "validation.csv").write_text(header)
    (tmp_path / "test.csv").write_text(header + "a,y,1,2024-01-01\n")
    raw = CustomRatingsDataset(path=tmp_path).read(tmp_path)
    assert order(raw) == [2, 0, 1] and raw.per_second == 10**6
    assert raw.timestamps is not None and raw.timestamps[2] == 1704067200 * 10**6
    for name in ("train.csv", "test.csv"):
        (tmp_path / name).write_text(header)
    assert CustomRatingsDataset(path=tmp_path).read(tmp_path).values.size == 0


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (["5", "", "", "6"], "2 x empty timestamp, first in row 2; every row needs one"),
        (["5", "noon", "6"], r"1 x timestamp that is neither a number nor an ISO date, first in row 2 \(noon\); write"),
        (["2020-01-01", "2020-02-30", "01/02/2020"], r"2 x timestamp that is neither .* row 2 \(2020-02-30\)"),
        (["2020-01-01T00:00+25:00"], r"1 x timestamp that is neither"),
        (["5", "6", "2020-01-01"], r"1 x timestamp that is an ISO date among numbers, first in row 3 \(2020-01-01\)"),
        (["2020-01-01", "6", "2020-01-01"], r"1 x timestamp that is a number among ISO dates, first in row 2 \(6\)"),
        (["1600000000", "1600000001", "978300000000"], r"1 x timestamp in milliseconds, first in row 3 .* other years"),
        (
            ["1600000000", "5", "1600000001000"],
            r"1 x timestamp of a year before 1973 or after 2099, first in row 2 \(5",
        ),
        (["1", "99999999999999999999"], r"1 x timestamp that is too large, first in row 2"),
        (["1", "nan"], r"1 x timestamp that is neither a number"),
        (["1", "inf"], r"1 x timestamp that is neither a number"),
    ],
)
def test_odd_times_are_refused_in_one_sentence(tmp_path: Path, times: list[str], message: str) -> None:
    with pytest.raises(SubflError, match=message) as found:
        read(tmp_path, *times)
    assert "\n" not in str(found.value) and "ratings.csv: " in str(found.value)


def test_times_of_parquet(tmp_path: Path) -> None:
    moments = [datetime(2020, 1, 1, 12, 0, second, 5, tzinfo=UTC) for second in (3, 1, 2)]
    columns = {
        "zoned": pd.Series(moments),
        "naive": pd.Series(moments).dt.tz_localize(None),
        "whole": pd.Series([3, 1, 2], dtype="Int64") + 1577880000,
        "fraction": pd.Series([3.5, 1.5, 2.5]) + 1577880000,
        "small": pd.Series([30, 10, 20], dtype="int8"),
    }
    for name, column in columns.items():
        table = pd.DataFrame({"user": ["a", "b", "c"], "item": 1, "rating": [1, 2, 3], "timestamp": column})
        table.to_parquet(tmp_path / "ratings.parquet")
        raw = CustomRatingsDataset(path=tmp_path / "ratings.parquet").read(tmp_path)
        assert order(raw) == [1, 2, 0], name
        if name in ("zoned", "naive"):
            assert raw.timestamps is not None and raw.per_second is not None
            assert int(raw.timestamps.min()) * 10**9 // raw.per_second == (1577880001 * 10**6 + 5) * 1000

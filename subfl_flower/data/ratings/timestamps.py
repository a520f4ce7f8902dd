"""Times of ratings: numbers since 1970 in any unit, or ISO dates, converted to ordered whole numbers."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from itertools import pairwise

import numpy as np

from subfl_flower.data.tables.columns import Problems, texts_of
from subfl_flower.data.tables.table_file import Table
from subfl_flower.errors import SubflError

_UNITS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
_SMALLEST = np.array([1e11, 1e14, 1e17])
"""Least numbers of a time since 1970 in the next finer unit: the year 5138 and, in the finer unit, 1973."""
_PLAUSIBLE = (1e8, 4.1e9)
"""Plausible times of ratings in seconds since 1970: 1973 to 2099."""
_YEAR = 366 * 86400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST = 2**63 - 1
_DIGITS = frozenset("0123456789")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,2})?")
_ISO = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"([T ](?P<time>[0-9]{2}:[0-9]{2}(:[0-9]{2})?)([.,](?P<fraction>[0-9]{1,9}))?"
    r" ?(?P<zone>Z|UTC|[+-][0-9]{2}(:?[0-9]{2})?)?)?"
)


@dataclass(frozen=True, eq=False)
class Times:
    """The times of a column.

    Attributes:
        values: int64 `[rows]`, larger is newer; seconds since 1970 multiplied by `per_second`, where they are times.
        per_second: factor from seconds to `values`, a whole number.
        dates: true if they were written as dates; else they are numbers, which may define only an order.
        warnings: sentences for the user.
    """

    values: np.ndarray
    per_second: int
    dates: bool
    warnings: tuple[str, ...] = ()

    @property
    def of_calendar(self) -> bool:
        """True if the numbers are times since 1970, judged by their size."""
        if self.dates or not self.values.size:
            return self.dates
        low, high = int(self.values.min()) / self.per_second, int(self.values.max()) / self.per_second
        return low >= 0 and _PLAUSIBLE[0] <= high <= _PLAUSIBLE[1] and not self._are_digits_of_dates()

    @classmethod
    def joined(cls, parts: Mapping[str, Times]) -> Times:
        """Times of several files of one data set, one after the other, in the finest of their units.

        Dates far from now are in the coarsest unit.

        Args:
            parts: times by file name, at least one.

        Raises:
            SubflError: some are dates and others numbers, or their units do not fit together.
        """
        filled = {name: part for name, part in parts.items() if part.values.size} or dict(parts)
        (first, one), *others = filled.items()
        for name, part in others:
            if part.dates != one.dates:
                with_dates, with_numbers = (first, name) if one.dates else (name, first)
                raise SubflError(
                    f"the timestamps of {with_dates} are dates and those of {with_numbers} numbers; "
                    "write all in one way"
                )
        finest = max(part.per_second for part in filled.values())
        if one.dates and not all(part._fits(finest) for part in filled.values()):  # dates far from now
            finest = min(part.per_second for part in filled.values())
        for name, part in filled.items():
            if not part._fits(finest):
                raise SubflError(f"the timestamps of {name} are not in the unit of the other files; write all in one")
        values = [
            part.values * (finest // part.per_second)
            if part.per_second <= finest
            else part.values // (part.per_second // finest)
            for part in filled.values()
        ]
        warnings = tuple(warning for part in parts.values() for warning in part.warnings)
        return cls(np.concatenate(values), finest, one.dates, warnings)

    def _fits(self, per_second: int) -> bool:
        """True if the times are whole numbers of 64 bits in another unit."""
        largest = max(abs(int(self.values.min())), abs(int(self.values.max()))) if self.values.size else 0
        return largest * per_second // self.per_second <= _MOST

    def _are_digits_of_dates(self) -> bool:
        """True if all numbers above 0 read as `yyyymmddhh` or `yyyymmddhhmm`, and so are no counts of seconds."""
        known = self.values[self.values > 0]
        for digits, size in ((10, 1), (12, 1000)):
            if self.per_second % size or not known.size:
                continue
            numbers = known // (self.per_second // size) * 10 ** (12 - digits)
            year, month, day = numbers // 10**8, numbers // 10**6 % 100, numbers // 10**4 % 100
            hour, minute = numbers // 100 % 100, numbers % 100
            right = (year >= 1970) & (year <= 2099) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)
            if np.all(right & (hour < 24) & (minute < 60)):
                return True
        return False


def day_of(value: int, per_second: int) -> str:
    """The day of a time since 1970, in UTC, as an ISO date."""
    return (_EPOCH + timedelta(seconds=value // per_second)).date().isoformat()


def read_times(table: Table, column: str, problems: Problems) -> Times | None:
    """The times in a column; None where there is a problem with them.

    Numbers, whole or not, are seconds, milliseconds, microseconds or nanoseconds since 1970; their size determines the
    unit. Other numbers define only an order. ISO dates and date-times without a zone are in UTC.

    Args:
        table: the table.
        column: its name.
        problems: empty and odd times are added to it.
    """
    values = table.columns[column]
    if values.dtype.kind == "i":
        return _of_numbers(values.astype(np.int64), 1, table, problems)
    different = set(values.tolist()) if values.dtype == object else {""}
    if "" not in different and set().union(*different) <= _DIGITS:  # most tables, however large
        with contextlib.suppress(ValueError, OverflowError):
            return _of_numbers(values.astype(np.int64), 1, table, problems)
    texts = texts_of(values)
    different = set(texts.tolist())
    if "" in different:
        problems.add_rows(
            texts == "", "empty timestamp", "every row needs one, or leave the column out if the order does not matter"
        )
        different.remove("")
    numbers = {text for text in different if _NUMBER.fullmatch(text)}
    dates = {text: time for text in different - numbers if (time := _iso_time(text)) is not None}
    if odd := different - numbers - dates.keys():
        advice = "write seconds since 1970, or dates such as 2024-05-31T12:00:00"
        problems.add_rows(_are(texts, odd), "timestamp that is neither a number nor an ISO date", advice, texts)
    if numbers and dates:
        few = numbers if _are(texts, numbers).sum() < _are(texts, set(dates)).sum() else set(dates)
        what, among = ("a number", "ISO dates") if few is numbers else ("an ISO date", "numbers")
        problems.add_rows(_are(texts, few), f"timestamp that is {what} among {among}", "write all in one way", texts)
    if "" in texts or odd or (numbers and dates):
        return None
    if dates:
        return _of_exact(texts, dates, 10**9, dates=True)
    return _of_texts(texts, numbers, table, problems)


def _are(texts: np.ndarray, among: set[str]) -> np.ndarray:
    return np.fromiter((text in among for text in texts.tolist()), dtype=bool, count=len(texts))


def _iso_time(text: str) -> int | None:
    """Nanoseconds since 1970; None where the text is no ISO date."""
    match = _ISO.fullmatch(text)
    if match is None:
        return None
    try:
        time = datetime.fromisoformat(f"{match['date']}T{match['time'] or '00:00'}")
        zone = (match["zone"] or "Z").replace(":", "")
        offset = timedelta(0)
        if zone not in ("Z", "UTC"):
            sign = -1 if zone[0] == "-" else 1
            offset = sign * timedelta(hours=int(zone[1:3]), minutes=int(zone[3:5] or 0))
            timezone(offset)  # refuses offsets that no zone has
    except ValueError:
        return None
    whole = (time.replace(tzinfo=UTC) - _EPOCH) - offset
    return (whole.days * 86400 + whole.seconds) * 10**9 + int((match["fraction"] or "").ljust(9, "0"))


def _of_texts(texts: np.ndarray, different: set[str], table: Table, problems: Problems) -> Times | None:
    decimals = 0
    if any(not text.lstrip("+-").isdigit() for text in different):
        exact = {text: Decimal(text) for text in different}
        decimals = min(9, max(max(-int(number.as_tuple().exponent), 0) for number in exact.values()))
        largest = max(map(abs, exact.values()))
        while decimals and largest.scaleb(decimals) > _MOST:
            decimals -= 1
        scaled = {text: int(number.scaleb(decimals)) for text, number in exact.items()}
    else:
        scaled = {text: int(text) for text in different}
    if scaled and max(map(abs, scaled.values())) > _MOST:
        large = {text for text, number in scaled.items() if abs(number) > _MOST}
        problems.add_rows(_are(texts, large), "timestamp that is too large", "write seconds since 1970", texts)
        return None
    values = np.fromiter((scaled[text] for text in texts.tolist()), dtype=np.int64, count=len(texts))
    return _of_numbers(values, 10**decimals, table, problems)


def _of_exact(texts: np.ndarray, exact: Mapping[str, int], per_second: int, dates: bool) -> Times:
    step = 1
    while max(map(abs, exact.values()), default=0) // step > _MOST:  # dates far from now: microseconds suffice
        step *= 1000
    values = np.fromiter((exact[text] // step for text in texts.tolist()), dtype=np.int64, count=len(texts))
    return Times(values, per_second // step, dates)


def _of_numbers(values: np.ndarray, denominator: int, table: Table, problems: Problems) -> Times | None:
    """Times from numbers `values / denominator`, whose unit follows from their size."""
    if not values.size:
        return Times(values, 1, dates=False)
    sizes = np.array(list(_UNITS.values()))
    unit = np.searchsorted(_SMALLEST, np.abs(values / denominator), side="right")
    seconds = values / denominator / sizes[unit]
    timely = (seconds >= _PLAUSIBLE[0]) & (seconds <= _PLAUSIBLE[1])  # others may mean a missing time
    found = np.unique(unit[timely]).tolist()
    strange = ~timely & (values > 0)
    if len(found) < 2 or np.count_nonzero(strange) >= np.count_nonzero(timely):  # of one unit; or only an order
        finest = found[0] if len(found) == 1 else int(unit.max())
        return Times(values, denominator * int(sizes[finest]), dates=False)
    if strange.any():
        advice = "the others are times in several units; write all in one unit"
        problems.add_rows(strange, "timestamp of a year before 1973 or after 2099", advice, values / denominator)
        return None
    return _of_several_units(values, denominator, unit, table, problems)


def _of_several_units(
    values: np.ndarray, denominator: int, unit: np.ndarray, table: Table, problems: Problems
) -> Times | None:
    """Times from numbers whose sizes indicate several units; numbers of 0 or less are no times."""
    timely = values > 0
    names, sizes = list(_UNITS), np.array(list(_UNITS.values()))
    found = np.unique(unit[timely]).tolist()
    counts = np.bincount(unit[timely], minlength=len(sizes))
    few = min(found, key=lambda position: int(counts[position]))
    others = " and ".join(names[position] for position in found if position != few)
    seconds = values / denominator / sizes[unit]
    spans = [(float(own.min()), float(own.max())) for own in (seconds[timely & (unit == at)] for at in found)]
    if not _touch(sorted(spans)):
        advice = f"they would be of other years than those in {others}; write all in one unit"
        problems.add_rows(timely & (unit == few), f"timestamp in {names[few]}", advice, values / denominator)
        return None
    finest = int(sizes[found[-1]])
    if denominator * finest > 10**9:
        values, denominator = values // denominator, 1
    factors = finest // sizes[unit].clip(max=finest)
    values = np.maximum(values, -(_MOST // factors)) * factors
    said = f"{table.path.name}: {counts[few]} of {counts.sum()} timestamps are in {names[few]} and the others in"
    without = np.count_nonzero(~timely)
    rest = f"; numbers of 0 or less ({without}) count as the oldest" if without else ""
    return Times(values, denominator * finest, False, (f"{said} {others}; each was read by its size{rest}",))


def _touch(spans: Sequence[tuple[float, ...]]) -> bool:
    """True if sorted spans of time overlap, or their gaps are at most a year or the length of the longest span."""
    longest = max(high - low for low, high in spans)
    ends = np.maximum.accumulate([high for _, high in spans]).tolist()
    gaps = [later[0] - end for end, (_, later) in zip(ends, pairwise(spans), strict=False)]
    return max(gaps) <= max(longest, _YEAR)

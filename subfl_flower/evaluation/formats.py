"""Numbers as text, in the unit of their metric."""

from collections.abc import Callable

from subfl_flower.evaluation.rows import Row, Spread
from subfl_flower.evaluation.summary import lower_is_better

MISSING = "–"

Format = Callable[[Spread, Row], str]
"""Text of a figure of a row."""


def scale(metric: str) -> float:
    """Factor from a stored to a displayed value: 100 for fractions, 1 for errors, which have a unit."""
    return 1.0 if lower_is_better(metric) else 100.0


def digits(metric: str) -> int:
    """Decimals of a displayed value: two of a percentage, four of an error."""
    return 4 if lower_is_better(metric) else 2


def unit_suffix(metric: str) -> str:
    """Suffix of a metric's name that gives the unit of its values."""
    return "" if lower_is_better(metric) else " (%)"


def axis_text(metric: str) -> str:
    """The axis label of a metric over all clients; an error is over all their ratings together."""
    over = "over all clients' ratings" if lower_is_better(metric) else "mean over clients"
    return f"{metric}{unit_suffix(metric)}, {over}"


def shown(value: float, metric: str) -> str:
    """A scaled value as text: two decimals and % for fractions, four decimals for errors."""
    return f"{value:.{digits(metric)}f}" + ("" if scale(metric) == 1 else " %")


def human_bytes(size: float) -> str:
    """A number of bytes in decimal units: 999 B, 1.50 kB, 23.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} B" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def in_unit_of(metric: str) -> Format:
    """Mean and deviation of a metric in its unit."""
    return plain(scale(metric), digits(metric))


def plain(factor: float, decimals: int) -> Format:
    """`mean ± deviation` of values times `factor`; the mean alone of one value."""

    def text(found: Spread, _: Row) -> str:
        mean = f"{factor * found.mean:.{decimals}f}"
        return mean if found.std is None else f"{mean} ± {factor * found.std:.{decimals}f}"

    return text


def in_own_unit(found: Spread, row: Row) -> str:
    """Mean and deviation in the unit of the row's metric."""
    return in_unit_of(row.metric)(found, row)


def in_bytes(found: Spread, _: Row) -> str:
    """The mean as a number of bytes."""
    return human_bytes(found.mean)

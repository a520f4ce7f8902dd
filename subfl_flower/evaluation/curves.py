"""Runs as curves over one configuration key: for each method the test metric at each of the key's values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from subfl_flower.errors import SubflError
from subfl_flower.evaluation.rows import CLIENTS, Row, flatten, group_runs, measured, setting_text
from subfl_flower.evaluation.runs import Run
from subfl_flower.evaluation.summary import number


@dataclass(frozen=True)
class Curve:
    """A method on the same data with the same other settings.

    `points` holds the row of the runs with each value of the key, in ascending order. It is empty where the method has
    no such key, or a word instead of a number: `row` is then a reference that holds at any value.
    """

    row: Row
    points: Mapping[float, Row]

    @property
    def rows(self) -> list[Row]:
        """The rows whose figures the curve shows."""
        return list(self.points.values()) or [self.row]


def value_text(value: float) -> str:
    """A value of the key as it is shown."""
    return f"{value:.12g}"


def build_curves(runs: Sequence[Run], key: str) -> list[Curve]:
    """Group runs into curves, in the order of the runs, a method's references after its curve.

    Args:
        runs: runs that differ in the key, and perhaps in other settings.
        key: a dotted key of their configurations, such as `partition.rate`.

    Raises:
        SubflError: no run has the key, or none has a number there.
    """
    settings = {id(run): {**flatten(run.config), CLIENTS: run.clients, **measured(run)} for run in runs}
    _check(list(settings.values()), key)
    curves = []
    for row in group_runs(runs, along=key):
        points: dict[float, list[Run]] = {}
        words: dict[str, list[Run]] = {}
        for run in row.runs:
            value = number(settings[id(run)].get(key))
            if value is not None:
                points.setdefault(value, []).append(run)
            else:
                words.setdefault(setting_text(settings[id(run)], key), []).append(run)
        if points:
            curves.append(Curve(row, {value: row.part(points[value]) for value in sorted(points)}))
        for word, of_word in words.items():
            reference = row.part(of_word)
            if points or key in settings[id(of_word[0])]:
                reference.settings = ", ".join(filter(None, (row.settings, f"{key}={word}")))
            curves.append(Curve(reference, {}))
    return curves


def _check(settings: Sequence[Mapping[str, Any]], key: str) -> None:
    found = [flat[key] for flat in settings if key in flat]
    if any(number(value) is not None for value in found):
        return
    keys = dict.fromkeys(name for flat in settings for name in flat if name != "seed")
    numeric = [
        name for name in keys if len({flat.get(name) for flat in settings if number(flat.get(name)) is not None}) > 1
    ]
    allowed = f"those whose numbers differ between these runs are {', '.join(numeric) or 'none'}"
    if not found:
        raise SubflError(f"--curve {key}: no run's configuration has this key; {allowed}")
    words = ", ".join(dict.fromkeys(setting_text(flat, key) for flat in settings if key in flat))
    raise SubflError(f"--curve {key}: a curve needs a key with numbers, and this one's values are {words}; {allowed}")

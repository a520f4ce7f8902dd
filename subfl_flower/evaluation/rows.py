"""Runs grouped into the rows of a table: same data, same method, same settings, other seeds."""

import json
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

from subfl_flower.evaluation.runs import Run
from subfl_flower.evaluation.summary import number

# Sections that determine the clients' data; a difference here is another experiment for every method.
_DATA_SECTIONS = ("dataset", "partition", "task", "data")
# Settings that change no number of the table, or are averaged over.
_NOT_SETTINGS = ("seed", "hydra", "logger", "record", "resume", "data.root")
_COLUMNS = ("method.name", "dataset.name", "partition.name")
CLIENTS = "partition.clients"

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)


class Spread(NamedTuple):
    """Mean and sample standard deviation (divisor n - 1; None for a single value) over seeds."""

    mean: float
    std: float | None

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Spread | None":
        """The spread of the values that are there; None when none is."""
        present = [value for value in values if number(value) is not None and value is not None]
        if not present:
            return None
        mean = math.fsum(present) / len(present)
        if len(present) == 1:
            return cls(mean, None)
        return cls(mean, math.sqrt(math.fsum((value - mean) ** 2 for value in present) / (len(present) - 1)))


MEASURED = ("privacy.user_level_epsilon", "privacy.per_coordinate_epsilon", "privacy.whole_upload_epsilon")
"""Keys of curves that no configuration has; runs on such a curve may differ in the key's whole section."""


@dataclass
class Row:
    """Runs that differ in their seed only.

    `counted` are the runs that enter the figures: the completed ones, the newest of each seed; where none was
    completed, those that reached a round. `relative_bytes` is the whole traffic divided by FedAvg's on the same data.
    """

    data: tuple[str, str, str]
    method: str
    settings: str
    metric: str
    runs: list[Run]
    counted: list[Run]
    relative_bytes: float | None = None

    def part(self, runs: Sequence[Run]) -> "Row":
        """The row of some of its runs."""
        return replace(self, runs=list(runs), counted=_counted(runs), relative_bytes=None)

    def spread(self, figure: str) -> Spread | None:
        """Mean and deviation of a figure of the summary, such as `test_at_best_validation`."""
        return Spread.of(number(run.figures.get(figure)) for run in self.counted)

    def further(self, figure: str) -> Spread | None:
        """Mean and deviation of a further figure of the best rounds, such as `test.ndcg@10`."""
        return Spread.of(number((run.figures.get("figures") or {}).get(figure)) for run in self.counted)

    @property
    def worst_client(self) -> Spread | None:
        """Test metric of the worst client."""
        return Spread.of(run.worst_client for run in self.counted)

    @property
    def bias_row(self) -> Spread | None:
        """Test error of the bias row on the same ratings."""
        return Spread.of(run.bias_row for run in self.counted)

    @property
    def popularity(self) -> Spread | None:
        """Test metric of ranking the same items by popularity."""
        return Spread.of(run.popularity for run in self.counted)

    @property
    def user_level_epsilon(self) -> Spread | None:
        """Epsilon of all uploads of a user together; infinite where a run has no bound."""
        found = [run.user_level_epsilon for run in self.counted]
        return Spread(math.inf, None) if math.inf in found else Spread.of(found)

    @property
    def model_bytes(self) -> Spread | None:
        """Bytes of one client's model in float32."""
        return Spread.of(run.model_bytes for run in self.counted)

    @property
    def weights_kept(self) -> Spread | None:
        """Share of the model's weights that remain after pruning."""
        return Spread.of(run.weights_kept for run in self.counted)

    @property
    def bytes_exchanged(self) -> Spread | None:
        """Bytes up and down of a whole run outside of rounds; `traffic` includes them."""
        return Spread.of(run.bytes_exchanged for run in self.counted)

    @property
    def seconds_per_round(self) -> Spread | None:
        """Wall-clock seconds of a round."""
        return Spread.of(run.seconds_per_round for run in self.counted)

    @property
    def traffic(self) -> float | None:
        """Mean bytes up and down of a whole run."""
        up, down = self.spread("bytes_up"), self.spread("bytes_down")
        return None if up is None or down is None else up.mean + down.mean

    @property
    def completed(self) -> bool:
        """True if the figures are those of completed runs."""
        return bool(self.counted) and all(run.status == "completed" for run in self.counted)

    @property
    def panel(self) -> tuple[str, str, str, str]:
        """Data set, partition, clients and metric; rows that share them are drawn in one panel."""
        return (*self.data, self.metric)

    @property
    def label(self) -> str:
        """The method with the settings in which it differs from its other rows."""
        return f"{self.method} ({self.settings})" if self.settings else self.method

    @property
    def note(self) -> str:
        """Note for the reader: runs that were cut short, left out, or lost clients."""
        notes = []
        for status, count in Counter(run.status for run in self.runs if run.status != "completed").items():
            several = f"{count} " if count > 1 or len(self.runs) > 1 else ""
            notes.append(f"{several}{status}" + (", left out" if self.completed else ""))
        eligible = [run for run in self.runs if run.status == "completed"] if self.completed else self.runs
        if repeats := len(eligible) - len({str(run.seed) for run in eligible}):
            notes.append(f"{repeats} older of a repeated seed left out")
        if failures := sum(run.client_failures for run in self.runs):
            notes.append(f"{failures} client failure{'s' if failures > 1 else ''}")
        return "; ".join(notes)


def build_rows(runs: Sequence[Run]) -> list[Row]:
    """Group runs by data, method and differing settings, in the order of the runs."""
    settings = {id(run): flatten(run.config) for run in runs}
    rows = group_runs(runs)
    for row in rows:
        row.relative_bytes = _relative_to_fedavg(row, rows, settings)
    return rows


def group_runs(runs: Sequence[Run], along: str | None = None) -> list[Row]:
    """Rows as of `build_rows`, without relative bytes.

    Args:
        runs: the runs.
        along: a dotted key that does not separate rows: a row then holds the runs of all its values.
    """
    settings = {id(run): flatten(run.config) for run in runs}

    def data_of(run: Run) -> tuple[str, str, str, str]:
        return run.dataset, run.partition, "any" if along == CLIENTS else str(run.clients or "?"), run.metric

    data_groups = _group(runs, data_of)
    rows: list[Row] = []
    for (dataset, partition, clients, metric), on_data in data_groups.items():
        data_keys = _differing([settings[id(run)] for run in on_data], True, along)
        for method, of_method in _group(on_data, lambda run: run.method).items():
            own_keys = _differing([settings[id(run)] for run in of_method], False, along)
            keyed: dict[tuple[str, ...], list[Run]] = {}
            for run in of_method:
                values = tuple(setting_text(settings[id(run)], key) for key in (*data_keys, *own_keys))
                keyed.setdefault(values, []).append(run)
            for group in keyed.values():
                own = settings[id(group[0])]
                where = _describe(own, data_keys)
                data = (dataset, partition + (f" ({where})" if where else ""), clients)
                rows.append(Row(data, method, _describe(own, own_keys), metric, group, _counted(group)))
    return [row for group in _group(rows, lambda row: row.panel).values() for row in group]


def measured(run: Run) -> dict[str, Any]:
    """Figures that a run computed from its settings, by `MEASURED` keys."""
    found = run.figures.get("privacy") or {}
    return {key: found.get(key.partition(".")[2]) for key in MEASURED}


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested configuration by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def setting_text(flat: Mapping[str, Any], key: str) -> str:
    """A value of a flat configuration as it is shown; `unset` where it has no such key."""
    if key not in flat:
        return "unset"
    value = flat[key]
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _counted(runs: Sequence[Run]) -> list[Run]:
    pool = [run for run in runs if run.status == "completed"] or [run for run in runs if run.rounds]
    return list({str(run.seed): run for run in pool}.values())  # paths come in natural order: the newest stays


def _relative_to_fedavg(row: Row, rows: Sequence[Row], settings: Mapping[int, Mapping[str, Any]]) -> float | None:
    """Traffic divided by that of the FedAvg row on the same data with the most similar other settings."""
    own = settings[id(row.runs[0])]

    def distance(other: Row) -> int:
        return len(_differing([own, settings[id(other.runs[0])]], in_data=False))

    baselines = [b for b in rows if b.method == "fedavg" and b.panel == row.panel and b.traffic]
    if not baselines or row.traffic is None or not row.completed:
        return None
    baseline = min(baselines, key=distance)
    return row.traffic / baseline.traffic if baseline.completed and baseline.traffic else None


def _group(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _differing(settings: Sequence[Mapping[str, Any]], in_data: bool, along: str | None = None) -> list[str]:
    """Keys but `along`, of the data's sections or of the others, whose values differ otherwise than by the seed."""
    keys = dict.fromkeys(key for flat in settings for key in flat)
    return [
        key
        for key in keys
        if key != along
        and not (along in MEASURED and key.split(".")[0] == along.split(".")[0])
        and (key.split(".")[0] in _DATA_SECTIONS) == in_data
        and not any(key == skipped or key.startswith(f"{skipped}.") for skipped in (*_NOT_SETTINGS, *_COLUMNS))
        and len({setting_text(flat, key) for flat in settings}) > 1
        and not (key.endswith(".seed") and all(flat.get(key) == flat.get("seed") for flat in settings))
    ]


def _describe(flat: Mapping[str, Any], keys: Sequence[str]) -> str:
    return ", ".join(f"{key}={setting_text(flat, key).rstrip('/').rsplit('/', 1)[-1]}" for key in keys)

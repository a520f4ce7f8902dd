"""Runs grouped into the rows of a table: same data, same method, same settings, other seeds."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import pandas as pd

from subfl_flower.evaluation.runs import FINGERPRINTS, RESULT, SPLITS, VALIDATION, Run, by_number, one_line
from subfl_flower.evaluation.summary import lower_is_better

# Sections that determine the clients' data; a difference here is another experiment for every method.
_DATA_SECTIONS = ("dataset", "partition", "task", "data")
# Settings that change no number of the table, are averaged over, or have a column.
_NOT_SETTINGS = (
    *("seed", "hydra", "logger", "record", "resume", "data.root"),
    *("method.name", "dataset.name", "partition.name"),
)
DEVELOPMENT = "record.test"
"""Setting whose value false makes a run one of development, which shares no row with others."""

CLIENTS = "partition.clients"
PANEL = ("dataset", "partition", "clients", "metric")
"""The columns that rows of one panel of a figure share."""

PRIVACY_LOSS = "privacy.user_level_epsilon"
MEASURED = (PRIVACY_LOSS, "privacy.per_coordinate_epsilon", "privacy.whole_upload_epsilon")
"""Keys of curves that no configuration has; runs on such a curve may differ in the key's whole section."""

BOUNDS = frozenset({"oracle", "fedavg_whole_graph", "central", "central_gnn", "central_mf"})
"""Methods that see data which a federation may not share; they compete with no other."""

RELATIVE_BYTES = "bytes_relative_to_fedavg"
"""Figure of `Row.compared`: the whole traffic divided by FedAvg's on the same data."""


BYTES_OF_SKIPPING = "bytes_relative_to_fedavg_that_skips"
"""Figure of `Row.compared`: the whole traffic divided by that of a FedAvg which leaves out absent features' rows."""


class Spread(NamedTuple):
    """Mean and sample standard deviation (divisor n - 1; None for a single value) over seeds."""

    mean: float
    std: float | None

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Spread | None":
        """The spread of the values that are there; None when none is."""
        known = pd.Series(list(values), dtype="float64").dropna()
        if known.empty:
            return None
        several = len(known) > 1 and math.isfinite(known.sum())
        return cls(float(known.mean()), float(known.std()) if several else None)


@dataclass
class Row:
    """Runs that differ in their seed and their split only.

    Attributes:
        data: data set, partition, clients.
        method: the method's name.
        settings: the settings in which the row differs from the method's other rows.
        metric: the test metric.
        runs: all runs.
        figures: a line for each of `counted`, by default the runs' `values`.
        compared: figures that compare the row with others.
        fedavg: the row of FedAvg on the same data with the most similar other settings.
        marks: reasons for which the row must not be compared with the others on the same data.
    """

    data: tuple[str, str, str]
    method: str
    settings: str
    metric: str
    runs: list[Run]
    figures: pd.DataFrame | None = None
    compared: dict[str, Spread] = field(default_factory=dict)
    fedavg: "Row | None" = None
    marks: list[str] = field(default_factory=list)

    def part(self, runs: Sequence[Run]) -> "Row":
        """The row of some of its runs."""
        return replace(self, runs=list(runs), figures=None, compared={}, fedavg=None)

    @cached_property
    def counted(self) -> list[Run]:
        """The runs that enter the figures: the completed ones, the newest of each split and seed.

        Where none was completed, those that reached a round.
        """
        pool = [run for run in self.runs if run.status == "completed"] or [run for run in self.runs if run.rounds]
        return list({run.trial: run for run in pool}.values())  # paths come in natural order: the newest stays

    @cached_property
    def values(self) -> pd.DataFrame:
        """The figures by seed: a line for each of `counted`, a column a figure."""
        found = self.figures
        return pd.DataFrame([run.values for run in self.counted], dtype="float64") if found is None else found

    def spread(self, figure: str) -> Spread | None:
        """Mean and deviation of a figure, such as `test_at_best_validation`; None where no run has it."""
        return self.compared.get(figure) or Spread.of(self.values.get(figure, ()))

    def mean(self, figure: str) -> float | None:
        """Mean of a figure; None where no run has it."""
        found = self.spread(figure)
        return found.mean if found else None

    @property
    def traffic(self) -> float | None:
        """Mean bytes up and down of a whole run."""
        up, down = self.mean("bytes_up"), self.mean("bytes_down")
        return None if up is None or down is None else up + down

    @property
    def completed(self) -> bool:
        """True if the figures are those of completed runs."""
        return bool(self.counted) and all(run.status == "completed" for run in self.counted)

    @property
    def judged_by(self) -> str:
        """The figure that ranks the row: `Run.judged_by`, and validation where some of its runs have no test."""
        return VALIDATION if any(run.development for run in self.counted) else RESULT

    @property
    def is_bound(self) -> bool:
        """True for methods that compete with no other."""
        return self.method in BOUNDS

    @property
    def panel(self) -> tuple[str, str, str, str]:
        """Data set, partition, clients and metric; rows that share them are drawn in one panel."""
        return (*self.data, self.metric)

    @property
    def label(self) -> str:
        """The method with the settings in which it differs from its other rows."""
        return f"{self.method} ({self.settings})" if self.settings else self.method

    @property
    def seeds(self) -> str:
        """The seeds that are counted, separated by blanks; of several splits each after its split and a slash."""
        several = len(self.splits) > 1
        names = [f"{run.split.replace(', ', '+')}/{run.seed}" if several else str(run.seed) for run in self.counted]
        return " ".join(names)

    @property
    def splits(self) -> list[str]:
        """The different splits of the runs that are counted."""
        return list(dict.fromkeys(run.split for run in self.counted))

    @property
    def seeds_text(self) -> str:
        """The number of runs, and that of splits where there are several."""
        return f"{len(self.counted)}" + (f" ({len(self.splits)} splits)" if len(self.splits) > 1 else "")

    @property
    def below_floor(self) -> bool:
        """True where the mean test figure is worse than that of a baseline without learning on the same examples."""
        result, floor = self.mean(RESULT), self.mean("floor")
        if result is None or floor is None:
            return False
        return result > floor if lower_is_better(self.metric) else result < floor

    def _guarded(self) -> list[str]:
        """Clients whose updates the server scaled back or left out, and in how many of their rounds."""
        words = {"clipped": "scaled back", "excluded": "left out"}
        notes = []
        for kind, word in words.items():
            times: Counter[str] = Counter()
            for run in self.counted:
                times.update((run.figures.get("guarded") or {}).get(kind) or {})
            if times:
                (client, most), *others = times.most_common()
                more = f" and of {len(others)} others" if others else ""
                notes.append(f"updates of client {client} {word} in {most} rounds{more}")
        return notes

    @property
    def note(self) -> str:
        """Note for the reader: runs that were cut short, left out, or lost clients; a floor; other data."""
        notes = []
        for status, count in Counter(run.status for run in self.runs if run.status != "completed").items():
            several = f"{count} " if count > 1 or len(self.runs) > 1 else ""
            notes.append(f"{several}{status}" + (", left out" if self.completed else ""))
        eligible = [run for run in self.runs if run.status == "completed"] if self.completed else self.runs
        if repeats := len(eligible) - len({run.trial for run in eligible}):
            notes.append(f"{repeats} older of a repeated seed left out")
        if failures := sum(run.client_failures for run in self.runs):
            notes.append(f"{failures} client failure{'s' if failures > 1 else ''}")
        notes += self._guarded()
        if self.below_floor:
            notes.append("below its floor")
        notes += self.marks
        return "; ".join(notes)


def build_rows(runs: Sequence[Run]) -> list[Row]:
    """Group runs by data, method and differing settings, in the order of the runs; splits and seeds share a row."""
    settings, rows = _settings(runs), group_runs(runs)
    _mark(rows)
    for row in rows:
        row.fedavg = _nearest_fedavg(row, rows, settings)
        if row.fedavg and row.traffic is not None and row.completed and row.fedavg.completed:
            row.compared[RELATIVE_BYTES] = Spread(row.traffic / (row.fedavg.traffic or 1.0), None)
        skipping = row.mean("bytes_of_own_features")
        if skipping and row.traffic is not None and row.completed:
            row.compared[BYTES_OF_SKIPPING] = Spread(row.traffic / skipping, None)
    return rows


def _mark(rows: Sequence[Row]) -> None:
    """Mark the rows on the same data whose splits, or whose fingerprints in a shared split, are not those of others."""
    for row in rows:
        others = [other for other in rows if other is not row and other.panel == row.panel]
        if any(set(other.splits) != set(row.splits) for other in others if other.counted and row.counted):
            row.marks.append("other splits than other rows")
        alike = [(run, theirs) for run in row.counted for each in others for theirs in each.counted]
        names = {name for run, theirs in alike if run.split == theirs.split for name in run.differs_from(theirs)}
        if names:
            row.marks.append(f"other {' and '.join(name for name in FINGERPRINTS if name in names)} than other rows")


def group_runs(runs: Sequence[Run], along: str | None = None) -> list[Row]:
    """Rows as of `build_rows`, without comparisons.

    Args:
        runs: the runs.
        along: a dotted key that does not separate rows: a row then holds the runs of all its values.
    """
    settings, by_path = _settings(runs), {str(run.path): run for run in runs}
    about = pd.DataFrame(
        [
            (run.dataset, run.partition, "any" if along == CLIENTS else str(run.clients or "?"), run.metric, run.method)
            for run in runs
        ],
        columns=[*PANEL, "method"],
        index=settings.index,
    )
    rows: list[Row] = []
    for (dataset, partition, clients, metric), on_data in about.groupby(list(PANEL), sort=False):
        data_keys = _differing(settings.loc[on_data.index], True, along)
        for method, of_method in on_data.groupby("method", sort=False):
            own_keys = _differing(settings.loc[of_method.index], False, along)
            named = of_method[["method"]].set_axis([""], axis=1)  # a foreign configuration may have a key `method`
            keyed = named.join(settings[[*data_keys, *own_keys]])
            for _, alike in keyed.groupby(list(keyed), sort=False):
                where = _describe(alike.iloc[0], data_keys)
                data = (dataset, partition + (f" ({where})" if where else ""), clients)
                own = [by_path[path] for path in alike.index]
                rows.append(Row(data, method, _describe(alike.iloc[0], own_keys), metric, own))
    panels = list(dict.fromkeys(row.panel for row in rows))
    methods = list(dict.fromkeys(row.method for row in rows))
    return sorted(rows, key=lambda row: (panels.index(row.panel), methods.index(row.method), by_number(row.settings)))


def privacy_losses(run: Run) -> dict[str, Any]:
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
    """A value of a flat configuration as it is shown, on one line; `unset` where it has no such key."""
    if key not in flat:
        return "unset"
    value = flat[key]
    return one_line(value) if isinstance(value, str) else json.dumps(value, default=str)


def _settings(runs: Sequence[Run]) -> pd.DataFrame:
    """The configurations as text: a line a run, by path, and a column a dotted key."""
    flat = [flatten(run.config) for run in runs]
    for run, settings in zip(runs, flat, strict=True):
        if not run.development:  # older runs lack the key
            settings.pop(DEVELOPMENT, None)
    keys = dict.fromkeys(key for settings in flat for key in settings)
    texts = {key: [setting_text(settings, key) for settings in flat] for key in keys}
    return pd.DataFrame(texts, index=[str(run.path) for run in runs], dtype=object)


def nearest_row(row: Row, others: Sequence[Row]) -> Row:
    """The one of several rows whose settings differ least from a row's; the first of equals."""

    def distance(other: Row) -> int:
        return len(_differing(_settings([row.runs[0], other.runs[0]]), in_data=False))

    return min(others, key=distance)


def _nearest_fedavg(row: Row, rows: Sequence[Row], settings: pd.DataFrame) -> Row | None:
    """The row of FedAvg on the same data with the most similar other settings."""

    def distance(other: Row) -> int:
        return len(_differing(settings.loc[[str(row.runs[0].path), str(other.runs[0].path)]], in_data=False))

    baselines = [other for other in rows if other.method == "fedavg" and other.panel == row.panel and other.traffic]
    return min(baselines, key=distance, default=None)


def _differing(settings: pd.DataFrame, in_data: bool, along: str | None = None) -> list[str]:
    """Keys but `along`, of the data's sections or of the others, whose values differ otherwise than by the seed."""
    section = str(along).partition(".")[0] if along in MEASURED else None
    return [
        key
        for key in settings.columns[settings.nunique() > 1]
        if key != along
        and key.split(".")[0] != section
        and (key.split(".")[0] in _DATA_SECTIONS) == in_data
        and key not in SPLITS
        and (key == DEVELOPMENT or not any(key == out or key.startswith(f"{out}.") for out in _NOT_SETTINGS))
        and not (key.endswith(".seed") and settings[key].equals(settings.get("seed")))
    ]


def _describe(settings: Mapping[str, str], keys: Sequence[str]) -> str:
    return ", ".join(f"{key}={settings[key].rstrip('/').rsplit('/', 1)[-1]}" for key in keys)

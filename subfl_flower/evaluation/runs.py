"""Runs as the report reads them: search in folders, loading, and figures."""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from subfl_flower.errors import SubflError
from subfl_flower.evaluation.summary import clients_heard, exchanged, number, summarise
from subfl_flower.runs.directory import RunDirectory

SUMMARY_FIGURES = (
    "best_validation",
    "test_at_best_validation",
    "test_as_received_at_best_validation",
    "test_last",
    "best_round",
    "bytes_up",
    "bytes_down",
)
"""Figures that every summary has, in the order of the columns."""

SPLITS = ("partition.seed", "dataset.fold", "task.seed")
"""Settings that draw test examples or their candidates; figures are averaged over their values."""

FINGERPRINTS = ("data", "split", "partition", "candidates")
"""Names of the digests of a run's data, in the order in which a difference is told."""

RESULT = "test_at_best_validation"
"""The main figure of a run."""

VALIDATION = "best_validation"
"""The main figure of a run that records no test."""

FLOORS = {"test.majority": "majority class", "bias_row": "bias row", "popularity": "popularity"}
"""Figures of baselines without learning, to compare a result with, and their names."""

MODES = ("personal_on_own", "personal_on_all", "global_on_own", "global_on_all")
"""Evaluation modes of a run that records them: which model, on whose test examples."""

_FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Run:
    """One run, read whole. The configuration is empty where the run wrote none."""

    directory: RunDirectory
    config: Mapping[str, Any]
    rounds: Sequence[Mapping[str, Any]]
    summary: Mapping[str, Any] | None

    @classmethod
    def load(cls, path: Path) -> "Run":
        """Read the run in `path`; SubflError names the file that cannot be read."""
        directory = RunDirectory(path)
        summary, rounds = directory.summary(), directory.rounds()
        try:
            config = directory.config()
        except SubflError:
            if summary is None:
                raise
            config = {}
        return cls(directory, config, rounds, summary)

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.directory.path

    @cached_property
    def figures(self) -> Mapping[str, Any]:
        """The summary's figures; without a summary, and for keys that it lacks, those of the round records."""
        return {**summarise(self.rounds), **(self.summary or {})}

    @property
    def status(self) -> str:
        """`completed`, `interrupted`, `failed`; `unfinished` without a summary: still running, or killed."""
        return "unfinished" if self.summary is None else str(self.summary.get("status", "completed"))

    @property
    def method(self) -> str:
        """The method's name."""
        return self._setting("method")

    @property
    def dataset(self) -> str:
        """The data set's name."""
        return self._setting("dataset")

    @property
    def partition(self) -> str:
        """The partitioner's name."""
        return self._setting("partition")

    @property
    def clients(self) -> int | None:
        """Number of clients; None where unknown."""
        partition = self.config.get("partition")
        configured = partition.get("clients") if isinstance(partition, Mapping) else None
        found = self.figures.get("clients", configured)
        if found is None and self.rounds:
            found = max(map(clients_heard, self.rounds)) or None
        return found

    @property
    def seed(self) -> Any:
        """The run's seed."""
        return self.figures.get("seed", self.config.get("seed"))

    @property
    def split(self) -> str:
        """The settings that draw test examples, or the candidates among which they are ranked; runs share them or not.

        Empty where the configuration has none.
        """
        found = []
        for key in SPLITS:
            section, _, name = key.partition(".")
            values = self.config.get(section)
            if isinstance(values, Mapping) and values.get(name) is not None:
                found.append(f"{key}={one_line(values[name])}")
        return ", ".join(found)

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Digests of the data, the split, the partition and the candidates, by these names, as far as they are known.

        Of a deployment the data's is that of all clients' own digests.
        """
        facts = self.directory.data() or self.summary or {}
        found = facts.get("fingerprints") or {}
        known = {name: found[name] for name in FINGERPRINTS if isinstance(found.get(name), str)}
        if "data" not in known and isinstance(found.get("clients"), Mapping):
            text = json.dumps(found["clients"], sort_keys=True, default=str)
            known["data"] = hashlib.sha256(text.encode()).hexdigest()
        return known

    def differs_from(self, other: "Run") -> list[str]:
        """Names of the fingerprints that both runs have, and that differ."""
        both = self.fingerprints.keys() & other.fingerprints.keys()
        return [name for name in FINGERPRINTS if name in both and self.fingerprints[name] != other.fingerprints[name]]

    @property
    def trial(self) -> tuple[str, str]:
        """The split and the seed, which tell the runs of a row apart."""
        return self.split, str(self.seed)

    @property
    def metric(self) -> str:
        """Metric of validation and test, for instance `accuracy`."""
        return one_line(self.figures.get("metric") or "accuracy")

    @property
    def development(self) -> bool:
        """True for a run that records no figure of test examples (``record.test=false``)."""
        record = self.config.get("record")
        return isinstance(record, Mapping) and record.get("test") is False

    @property
    def judged_by(self) -> str:
        """The figure that ranks the run: the test at the best validation round, or without tests the validation."""
        return VALIDATION if self.development else RESULT

    @property
    def best_record(self) -> Mapping[str, Any] | None:
        """The record of the round that the figures are quoted from; None where no round is known."""
        best = self.figures.get("best_round")
        return next((record for record in self.rounds if record["round"] == best), None)

    @cached_property
    def values(self) -> dict[str, float | None]:
        """Figures of the run by name, None where unknown; the columns of tables and of CSV files.

        Besides figures of the summary and further ones of the best round (`test.ndcg@10`):

        - `worst_client` and `tenth_percentile`, the test metric of the worst client, and the one that nine of ten
          clients reach. None for rankings: each user has one test item, so that the worst user's is nearly always a
          miss.
        - the evaluation modes, see `MODES`.
        - `bias_row` and `popularity`, the test metric of these two on the same ratings.
        - `floor`, the one of `FLOORS` that the run has.
        - `user_level_epsilon` of all uploads of a user together, infinite without a bound.
        - `update_cosine`, of protected changes of parameters with the true ones.
        - `model_bytes` of one client's model in float32, zeros of pruned weights included.
        - `weights_kept`, the share of the weight matrices' entries that are not zero in the best round.
        - `bytes_exchanged`, up and down outside of rounds, which the totals include.
        - `bytes_of_own_features`, of FedAvg's models without the rows of features that a client does not have.
        - `seconds_per_round`.
        """
        found, privacy = self.figures, self.figures.get("privacy")
        parameters, phases = found.get("model_parameters"), found.get("exchanges")
        sparsity = number((self.best_record or {}).get("sparsity"))
        named = {name: found.get(name) for name in SUMMARY_FIGURES} | (found.get("figures") or {})
        ranked = "@" in self.metric
        named["worst_client"] = None if ranked else (found.get("worst_client") or {}).get("test")
        named["tenth_percentile"] = None if ranked else found.get("tenth_percentile")
        named |= {mode: (found.get("evaluation_modes") or {}).get(mode) for mode in MODES}
        named |= {floor: (found.get(floor) or {}).get("test") for floor in ("bias_row", "popularity")}
        named["model_bytes"] = _FLOAT32_BYTES * parameters if parameters else None
        named["weights_kept"] = None if sparsity is None else 1 - sparsity
        named["bytes_exchanged"] = None if phases is None else sum(exchanged(phases).values())
        parts = found.get("bytes_parts") or {}
        named["bytes_of_own_features"] = parts.get("own_features")
        named["seconds_per_round"] = self.seconds_per_round
        values = {name: number(value) for name, value in named.items()}
        values["floor"] = next((value for name in self.floors if (value := values.get(name)) is not None), None)
        values["update_cosine"] = number((privacy or {}).get("update_cosine"))
        epsilon = number((privacy or {}).get("user_level_epsilon"))
        return values | {"user_level_epsilon": math.inf if privacy and epsilon is None else epsilon}

    @property
    def floors(self) -> list[str]:
        """Those of `FLOORS` that are in the metric's unit: the majority class is an accuracy."""
        return [name for name in FLOORS if name != "test.majority" or self.metric == "accuracy"]

    @property
    def seconds_per_round(self) -> float | None:
        """Mean wall-clock seconds of a finished round, without set-up."""
        spent = [record["seconds"]["round"] for record in self.rounds if (record.get("seconds") or {}).get("round")]
        return sum(spent) / len(spent) if spent else None

    @property
    def seconds_by_part(self) -> dict[str, float]:
        """Mean seconds of a finished round by part, such as ``client`` and ``transport``."""
        parts = [record.get("seconds") or {} for record in self.rounds]
        names = dict.fromkeys(name for part in parts for name in part if name != "round")
        return {name: sum(part.get(name, 0.0) for part in parts) / len(parts) for name in names}

    @property
    def client_failures(self) -> int:
        """Number of failures of clients, summed over rounds."""
        return sum(len(record.get("failures") or {}) for record in self.rounds)

    def _setting(self, group: str) -> str:
        configured = self.config.get(group)
        if isinstance(configured, Mapping):
            configured = configured.get("name")
        return one_line(self.figures.get(group) or configured or "unknown")


def one_line(value: object) -> str:
    """A value as text without line ends, which would leave a cell of a table or a comment of LaTeX."""
    return " ".join(str(value).split())


def load_runs(paths: Sequence[Path]) -> list[Run]:
    """Every run in `paths`, each a run or a folder searched recursively, once, in natural order of each path.

    Raises:
        SubflError: a path does not exist or holds no run, or a run's file cannot be read.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            raise SubflError(f"{path} is not a folder; give run directories or folders that contain some")
        inside = sorted(_run_folders(path), key=lambda folder: natural(str(folder)))
        if not inside:
            raise SubflError(f"no run found in {path} (a run is a folder with metrics.jsonl or summary.json)")
        found.update(dict.fromkeys(folder.resolve() for folder in inside))
    return [Run.load(_relative_to_here(folder)) for folder in found]


def common_folder(paths: Sequence[Path], runs: Sequence[Run]) -> Path:
    """Folder for files on several runs: the one folder given, or the deepest that holds all runs."""
    if len(paths) == 1:
        return paths[0]
    return _relative_to_here(Path(os.path.commonpath([run.path.resolve() for run in runs])))


def _run_folders(top: Path) -> Iterator[Path]:
    for folder, inside, _ in os.walk(top, followlinks=True):
        if RunDirectory.is_run(Path(folder)):
            inside.clear()
            yield Path(folder)
        else:
            inside[:] = [name for name in inside if not name.startswith(".")]


def natural(text: str) -> list[tuple[int, str]]:
    """A sort key that puts job 10 of a sweep after job 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]


def by_number(text: str) -> list[tuple[float, str]]:
    """A sort key that puts the setting 0.03 before 0.1, and 1e-6 before 1e-5."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)", text)
    return [(float(part), "") if place % 2 else (-1.0, part) for place, part in enumerate(parts)]


def _relative_to_here(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path

"""Files that a run writes; no other module knows their names.

A run directory holds `config.yaml` (the resolved configuration), `data.json` (facts on the data of a simulation, with
fingerprints), `metrics.jsonl` (one JSON object a round), `summary.json`, `mixing.npz` (mixing matrices of some rounds),
`clusters.npz` (clusters of users as of some rounds) and `clients/<id>.safetensors` (each client's best model) or
`users/<node>.safetensors` (a recommender and its users); of a deployed run also `status.json` (its nodes, while it goes
on). The server writes it during the run, `subfl report` and `resume=` read it, `subfl analyse` adds `analysis.json`. If
a run is killed at any moment, every file is either whole or absent; only the last line of `metrics.jsonl` may be torn.
"""

import json
import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel

from subfl_flower.errors import SubflError, UnusableFolder
from subfl_flower.runs.files import (
    mend_last_line,
    parse_object,
    plain_values,
    read_file,
    write_whole,
    writing,
)
from subfl_flower.runs.live import LiveStatus
from subfl_flower.runs.round_arrays import Clustering, RoundArrays, check_clustering
from subfl_flower.runs.shapes import Data, Round, Summary, require_shape
from subfl_flower.storage.durable_files import force_to_disk, make_private_folder, private_opener

_CONFIG = "config.yaml"
_ROUNDS = "metrics.jsonl"
_SUMMARY = "summary.json"
_MIXING = "mixing.npz"
_CLUSTERS = "clusters.npz"
_ANALYSIS = "analysis.json"
_DATA = "data.json"
_LIVE = "status.json"


class RunDirectory:
    """One run on disk. Opening one changes nothing; `create` starts a new one.

    Args:
        path: the run's folder, for instance `outputs/2026-01-01/12-00-00`.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._mixing = RoundArrays(self.path / _MIXING, "mixing matrices")
        self._clusters = RoundArrays(self.path / _CLUSTERS, "clusters of users")
        self._last_line_is_whole = False

    @classmethod
    def create(cls, path: Path) -> "RunDirectory":
        """Start a run in `path`, which may exist (Hydra makes it) but must not hold a run.

        Raises:
            SubflError: `path` holds a run already, is not a folder, or cannot be written.
        """
        run = cls(path)
        occupied = UnusableFolder(path, "already holds a run")
        if cls.is_run(run.path) or (run.path / _CONFIG).exists():
            raise occupied
        with writing(run.path):
            make_private_folder(run.path)
            try:  # made exclusively: of two jobs that start at once in one folder, one is refused
                open(run.path / _ROUNDS, "xb", opener=private_opener).close()
            except FileExistsError:
                raise occupied from None
        return run

    @classmethod
    def reopen(cls, path: Path, server_round: int) -> "RunDirectory":
        """Continue the run in `path` after one of its rounds; records of later rounds are removed.

        Raises:
            SubflError: `path` lacks a record of a round up to `server_round`, or cannot be written.
        """
        run = cls(path)
        kept = run.rounds_up_to(server_round)
        for arrays in (run._mixing, run._clusters):
            arrays.cut(server_round)
        lines = [json.dumps(record, allow_nan=False, separators=(",", ":")) + "\n" for record in kept]
        write_whole(run.path / _ROUNDS, "".join(lines).encode())
        (run.path / _SUMMARY).unlink(missing_ok=True)
        for unfinished in run.path.glob(".*.tmp"):  # of a process that was killed
            unfinished.unlink(missing_ok=True)
        return run

    def clear(self) -> None:
        """Remove everything that a run writes, so that one can be started here; other files stay.

        Raises:
            SubflError: a file cannot be removed.
        """
        with writing(self.path):
            for path in self.files():
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def files(self) -> list[Path]:
        """All files and folders that a run writes, and that are there.

        The configuration is last: until it is gone, it tells whose files the others are.
        """
        folders = ("clients", "checkpoint", "state", "users", "plots", "tensorboard")
        names = (_SUMMARY, _MIXING, _CLUSTERS, _ANALYSIS, _DATA, _LIVE, self.report_page.name, _ROUNDS, _CONFIG)
        found = (*self.path.glob(".*.tmp"), *(self.path / name for name in (*folders, *names)))
        return [path for path in found if path.exists()]

    @staticmethod
    def is_run(path: Path) -> bool:
        """True if `path` is a folder that holds a run, finished or not."""
        return any((Path(path) / name).is_file() for name in (_ROUNDS, _SUMMARY))

    @property
    def plots_folder(self) -> Path:
        """Folder for the figures of the report; not created here."""
        return self.path / "plots"

    def analysis_plots(self) -> list[Path]:
        """The figures that `subfl analyse` drew, by name."""
        return sorted(self.plots_folder.glob("analysis-*.png"))

    @property
    def report_page(self) -> Path:
        """The file of the report's HTML page."""
        return self.path / "report.html"

    @property
    def tensorboard_folder(self) -> Path:
        """Folder for the events of the TensorBoard logger; not created here."""
        return self.path / "tensorboard"

    @property
    def checkpoint_folder(self) -> Path:
        """Folder for the server's resumable state; not created here."""
        return self.path / "checkpoint"

    @property
    def recommender_folder(self) -> Path:
        """Folder for recommenders and their users, one file for each node of a simulation; not created here."""
        return self.path / "users"

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write the resolved configuration as YAML, keys in the order given."""
        text = yaml.safe_dump(plain_values(config), sort_keys=False, allow_unicode=True)
        write_whole(self.path / _CONFIG, text.encode())

    def write_data(self, facts: Mapping[str, Any]) -> None:
        """Write facts on the data, with their fingerprints, to `data.json` in one step."""
        write_whole(self.path / _DATA, json.dumps(plain_values(facts, finite=True), indent=1).encode() + b"\n")

    def data(self) -> dict[str, Any] | None:
        """Facts on the data that the run was started with; None where none were written, as in a deployment.

        Raises:
            SubflError: the file is not a JSON object, or its fingerprints are none.
        """
        return self._object(_DATA, Data)

    def write_live(self, status: LiveStatus) -> None:
        """Write the present state of a deployed run to `status.json` in one step."""
        write_whole(self.path / _LIVE, status.model_dump_json(indent=1).encode() + b"\n")

    def live(self) -> LiveStatus | None:
        """State of a deployed run, as its server wrote it last; None where it wrote none.

        Raises:
            SubflError: the file is not a JSON object, or a value is of another kind.
        """
        found = self._object(_LIVE, LiveStatus)
        return None if found is None else LiveStatus.model_validate(found)

    def append_round(self, record: Mapping[str, Any]) -> None:
        """Append one round as one line of JSON; the operating system has it when this returns.

        NumPy values become plain numbers and lists. A value that is not finite (a diverged loss) becomes `null`,
        because JSON has no NaN. A last line torn by a killed process is removed first.
        """
        line = json.dumps(plain_values(record, finite=True), allow_nan=False, separators=(",", ":")).encode() + b"\n"
        path = self.path / _ROUNDS
        with writing(path):
            make_private_folder(path.parent)
            with open(path, "ab+", opener=private_opener) as file:
                if not self._last_line_is_whole:
                    mend_last_line(file)
                    self._last_line_is_whole = True
                file.write(line)

    def force_rounds_to_disk(self) -> None:
        """Wait until the rounds appended so far would survive a power cut."""
        path = self.path / _ROUNDS
        with writing(path):
            force_to_disk(path)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write `summary.json` in one step; values as in `append_round`."""
        text = json.dumps(plain_values(summary, finite=True), allow_nan=False, indent=2)
        write_whole(self.path / _SUMMARY, text.encode() + b"\n")

    def write_analysis(self, analysis: Mapping[str, Any]) -> Path:
        """Write results of `subfl analyse` to `analysis.json` in one step, as `append_round` does; return its path."""
        path = self.path / _ANALYSIS
        text = json.dumps(plain_values(analysis, finite=True), allow_nan=False)  # on one line: it holds matrices
        write_whole(path, text.encode() + b"\n")
        return path

    def add_mixing(self, round: int, matrix: NDArray[np.floating]) -> None:
        """Add a round's mixing matrix, `[clients, clients]`, to `mixing.npz`, which is replaced in one step.

        Raises:
            SubflError: the matrix is not square.
        """
        matrix = np.array(matrix)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise SubflError(f"the mixing matrix of round {round} must be clients x clients, not {matrix.shape}")
        self._mixing.add(round, {"": matrix})

    def add_clusters(
        self, round: int, client_ids: NDArray[np.int64], labels: NDArray[np.int64], points: NDArray[np.float32]
    ) -> None:
        """Add a `Clustering` of a round to `clusters.npz`, which is replaced in one step.

        Raises:
            SubflError: the shapes are not `[K]`, `[K]` and `[K, 2]`, an id comes twice, or a label is below -1.
        """
        clustering = Clustering(
            np.array(client_ids, dtype=np.int64), np.array(labels, dtype=np.int64), np.array(points, dtype=np.float32)
        )
        check_clustering(clustering, f"round {round}")
        self._clusters.add(round, vars(clustering))

    @property
    def config_path(self) -> Path:
        """The file of the resolved configuration."""
        return self.path / _CONFIG

    def config(self) -> dict[str, Any]:
        """The resolved configuration.

        Raises:
            SubflError: it is absent, unreadable, or not a YAML mapping.
        """
        path = self.config_path
        try:
            config = yaml.safe_load(read_file(path))
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            raise SubflError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
        if not isinstance(config, dict):
            raise SubflError(f"{path} must hold a mapping of settings, found {type(config).__name__}")
        return config

    def rounds(self) -> list[dict[str, Any]]:
        """The finished rounds, in order of their number.

        A torn last line is left out. Of a round that was recorded twice, because a resumed run repeated it,
        the later record counts.

        Raises:
            SubflError: a line before the last one is not a round record, or a value is of another kind.
        """
        path = self.path / _ROUNDS
        if not path.exists():
            return []
        records: dict[int, dict[str, Any]] = {}
        lines = read_file(path).split(b"\n")
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            record = parse_object(line)
            if record is not None and "round" in record:
                require_shape(Round, record, path, f", line {number}")
                records[record["round"]] = record
            elif number < len(lines):
                raise SubflError(f"{path}, line {number}: not a round record (a JSON object with 'round')")
        return [records[number] for number in sorted(records)]

    def rounds_up_to(self, server_round: int) -> list[dict[str, Any]]:
        """The rounds up to one of them.

        Raises:
            SubflError: the record of one is missing.
        """
        kept = [record for record in self.rounds() if record["round"] <= server_round]
        if [record["round"] for record in kept] != list(range(1, server_round + 1)):
            raise SubflError(f"{self.path / _ROUNDS} does not hold all rounds up to {server_round}, the checkpoint's")
        return kept

    def summary(self) -> dict[str, Any] | None:
        """The summary; None for a run that is still running or was killed.

        Raises:
            SubflError: the file is not a JSON object, or a value is of another kind.
        """
        return self._object(_SUMMARY, Summary)

    def analysis(self) -> dict[str, Any] | None:
        """Results of `subfl analyse`; None where the run was not analysed.

        Raises:
            SubflError: the file is not a JSON object.
        """
        return self._object(_ANALYSIS)

    @property
    def finished(self) -> datetime | None:
        """Local time of the last change of the summary; None without one."""
        path = self.path / _SUMMARY
        return datetime.fromtimestamp(path.stat().st_mtime) if path.exists() else None

    def _object(self, name: str, shape: type[BaseModel] | None = None) -> dict[str, Any] | None:
        path = self.path / name
        if not path.exists():
            return None
        found = parse_object(read_file(path))
        if found is None:
            raise SubflError(f"{path} is not a JSON object")
        if shape is not None:
            require_shape(shape, found, path)
        return found

    def mixing(self) -> dict[int, NDArray[np.floating]]:
        """The mixing matrices kept, `[clients, clients]` each, by round, ascending; empty when none."""
        return {number: arrays[""] for number, arrays in self._mixing.read("").items()}

    def clusters(self) -> dict[int, Clustering]:
        """The clusters of users kept, by round, ascending; empty when none.

        Raises:
            SubflError: the file is damaged.
        """
        found = self._clusters.read("client_ids", "labels", "points")
        clusterings = {number: Clustering(**arrays) for number, arrays in found.items()}
        for number, clustering in clusterings.items():
            check_clustering(clustering, f"{self.path / _CLUSTERS}, round {number}")
        return clusterings

    def client_models(self) -> dict[int, Path]:
        """The file of each client's model, by client id; empty where the run wrote none."""
        return {int(file.stem): file for file in sorted((self.path / "clients").glob("[0-9]*.safetensors"))}

    def client_file(self, client_id: int) -> Path:
        """The path of one client's model."""
        if client_id < 0:
            raise SubflError(f"a client id is 0 or more, not {client_id}")
        return self.path / "clients" / f"{client_id:04d}.safetensors"

"""Sweeps from Python: every combination of some values, a run each, and their results together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from subfl_flower.composition import composed_config
from subfl_flower.config import Config
from subfl_flower.errors import SubflError
from subfl_flower.front.arguments import Arguments, Overrides
from subfl_flower.front.given_data import given_data
from subfl_flower.front.result import RunResult
from subfl_flower.front.run import train
from subfl_flower.front.surroundings import undisturbed
from subfl_flower.front.tables import html_rows
from subfl_flower.overrides import swept

if TYPE_CHECKING:
    import pandas as pd

    from subfl_flower.evaluation.rows import Row


_SHOWN = ("dataset", "partition", "clients", "method", "settings", "metric", "seeds", "text")


class SweepResult(Sequence[RunResult]):
    """Runs of a sweep, in the order of its combinations.

    Args:
        path: the sweep's folder.
        runs: the runs that have a folder.
        failures: reason of each run that failed, by its overrides.

    Attributes:
        path: the sweep's folder; ``subfl report`` makes a page of it.
        runs: results of each run.
        failures: reason of each run that failed, by its overrides.

    Example:
        >>> result = sweep(method=["fedavg", "fedpub"], dataset="cora", seed=range(3))
        >>> result.table()
        >>> result[0].summary
    """

    def __init__(self, path: Path, runs: Sequence[RunResult], failures: Mapping[str, str]) -> None:
        self.path = path
        self.runs = list(runs)
        self.failures = dict(failures)

    def __getitem__(self, place: Any) -> Any:
        return self.runs[place]

    def __len__(self) -> int:
        return len(self.runs)

    @property
    def metrics(self) -> pd.DataFrame:
        """All figures of all rounds of all runs, one line a number; columns as of `RunResult.metrics`."""
        from subfl_flower.evaluation.frame import metric_frame

        return metric_frame(run._run for run in self.runs)

    def table(self) -> pd.DataFrame:
        """Mean and standard deviation over seeds, a line for each method with its settings.

        Columns are ``dataset``, ``partition``, ``clients``, ``method``, ``settings`` (those in which rows of one method
        differ), ``metric``, ``seeds`` (number of runs), ``mean`` and ``std`` (sample standard deviation, missing for
        one seed) of the test metric at the round of the best mean validation metric, ``text`` (both in words, in
        percent for fractions), ``bytes_up`` and ``bytes_down`` (means of whole runs) and ``note`` (runs that were left
        out).
        """
        import pandas as pd

        from subfl_flower.evaluation.rows import build_rows

        return pd.DataFrame([_line(row) for row in build_rows([run._run for run in self.runs])])

    def __repr__(self) -> str:
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return f"<SweepResult {len(self.runs)} runs{failed}, {self.path}>"

    def _repr_html_(self) -> str:
        table = self.table()
        shown = [name for name in _SHOWN if name in table]
        return html_rows(shown, table[shown].values.tolist())


def sweep(
    method: Any = None,
    dataset: Any = None,
    *,
    partition: Any = None,
    clients: Any = None,
    rounds: Any = None,
    seed: Any = None,
    model: Any = None,
    task: Any = None,
    runtime: str | None = "inline",
    overrides: Overrides = (),
    folder: str | Path | None = None,
    progress: bool | None = None,
) -> SweepResult:
    """Train every combination of the values that are given as lists.

    Args:
        method, dataset, partition, clients, rounds, seed, model, task: as of `run`, each one value, or a list, tuple or
            range of values. The last argument varies fastest.
        runtime: as of `run`.
        overrides: as of `run`; in a text such as ``"method.tau=1,5"`` commas separate values of the sweep, while lists
            in a dict are values of settings.
        folder: folder of the sweep, with a folder for each run; None: ``multirun/<date>/<time>``.
        progress: as of `run`, of each run.

    Returns:
        The runs. A run that fails while it runs does not end the sweep.

    Raises:
        SubflError: a combination cannot be used; nothing is trained before all combinations have been checked.
        KeyboardInterrupt: Ctrl-C; finished runs stay.

    Example:
        >>> from subfl_flower import sweep
        >>> sweep(method=["fedavg", "fedpub"], dataset="cora", seed=range(3), rounds=100).table()
    """
    choices = {
        "method": method,
        "dataset": dataset,
        "partition": partition,
        "model": model,
        "task": task,
        "runtime": runtime,
        "clients": clients,
        "rounds": rounds,
        "seed": seed,
    }
    with undisturbed():
        jobs = list(_jobs(choices, overrides))
    top = Path(f"multirun/{datetime.now():%Y-%m-%d/%H-%M-%S}") if folder is None else Path(folder).expanduser()
    top = top.absolute()
    runs: list[RunResult] = []
    failures: dict[str, str] = {}
    errors: list[SubflError] = []
    said: set[str] = set()
    for number, (config, arguments) in enumerate(jobs):
        try:
            with undisturbed():
                runs.append(train(config, top / str(number), arguments.objects, progress, said))
        except SubflError as error:
            failures[" ".join(arguments.overrides)] = str(error)
            errors.append(error)
            continue
        if runs[-1].summary["status"] == "interrupted":
            raise KeyboardInterrupt
    if errors and not runs:
        raise errors[0]
    return SweepResult(top, runs, failures)


def _jobs(choices: Mapping[str, Any], overrides: Overrides) -> Iterator[tuple[Config, Arguments]]:
    """The configuration of every combination, checked, with the arguments that it comes from.

    Raises:
        SubflError: one cannot be used, or a list is empty.
    """
    axes = {key: _values(key, value) for key, value in choices.items()}
    further = list(_further(overrides))
    for values in product(*axes.values()):
        for chosen in product(*further):
            stated = chosen[0] if isinstance(overrides, Mapping) else list(chosen)
            arguments = Arguments(dict(zip(axes, values, strict=True)), stated)
            yield composed_config(arguments.overrides)[0], arguments


def _values(key: str, value: Any) -> list[Any]:
    """The values of an argument: those of a list, or one."""
    several = isinstance(value, list | tuple | range | np.ndarray)
    found = list(value) if several else [value]
    if not found:
        raise SubflError(f"{key}: the list of values is empty")
    return [(given_data(each, key) or each) for each in found] if key == "dataset" else found


def _further(overrides: Overrides) -> Iterator[list[Any]]:
    """For each override the values that a sweep gives it, as overrides."""
    if isinstance(overrides, Mapping):
        yield [overrides]
        return
    for line in overrides:
        yield swept(line) if isinstance(line, str) else [line]


def _line(row: Row) -> dict[str, Any]:
    from subfl_flower.evaluation.formats import MISSING, in_own_unit

    dataset, partition, clients = row.data
    spread, up, down = (row.spread(name) for name in ("test_at_best_validation", "bytes_up", "bytes_down"))
    return {
        "dataset": dataset,
        "partition": partition,
        "clients": clients,
        "method": row.method,
        "settings": row.settings,
        "metric": row.metric,
        "seeds": len(row.counted),
        "mean": None if spread is None else spread.mean,
        "std": None if spread is None else spread.std,
        "text": MISSING if spread is None else in_own_unit(spread, row),
        "bytes_up": None if up is None else up.mean,
        "bytes_down": None if down is None else down.mean,
        "note": row.note,
    }

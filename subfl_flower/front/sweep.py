"""Sweeps from Python: every combination of some values, a run each, and their results together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from subfl_flower.composition import composed_config
from subfl_flower.data.in_memory import held
from subfl_flower.errors import SubflError, folder_chosen_by
from subfl_flower.front.arguments import Arguments, Overrides, chosen, experiment_axes, path_given
from subfl_flower.front.given_data import given_data
from subfl_flower.front.result import RunResult
from subfl_flower.front.surroundings import undisturbed
from subfl_flower.front.tables import html_rows
from subfl_flower.node.domain import domain_of
from subfl_flower.overrides import swept
from subfl_flower.sweeps.engine import run_sweep
from subfl_flower.sweeps.job import Redo

if TYPE_CHECKING:
    import pandas as pd

    from subfl_flower.evaluation.rows import Row
    from subfl_flower.evaluation.runs import Run


_SHOWN = ("dataset", "partition", "clients", "method", "settings", "metric", "seeds", "text")


class SweepResult(Sequence[RunResult]):
    """Runs of a sweep, in the order of its combinations.

    Args:
        path: the sweep's folder.
        runs: its runs.

    Attributes:
        path: the sweep's folder; ``subfl report`` makes a page of it.
        runs: results of each run.

    Example:
        >>> result = sweep(method=["fedavg", "fedpub"], dataset="cora", seed=range(3))
        >>> result.table()
        >>> result[0].summary
    """

    def __init__(self, path: Path, runs: Sequence[RunResult]) -> None:
        self.path = path
        self.runs = list(runs)

    @overload
    def __getitem__(self, place: int) -> RunResult: ...

    @overload
    def __getitem__(self, place: slice) -> list[RunResult]: ...

    def __getitem__(self, place: int | slice) -> RunResult | list[RunResult]:
        return self.runs[place]

    def __len__(self) -> int:
        return len(self.runs)

    @property
    def failures(self) -> dict[str, str]:
        """The reason of each run that failed, by the name of its folder."""
        summaries = {run.path.name: run.summary for run in self.runs}
        return {name: str(found.get("error")) for name, found in summaries.items() if found["status"] == "failed"}

    @property
    def metrics(self) -> pd.DataFrame:
        """All figures of all rounds of all runs, one line a number; columns as of `RunResult.metrics`."""
        from subfl_flower.evaluation.frame import metric_frame

        return metric_frame(self._loaded())

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

        return pd.DataFrame([_line(row) for row in build_rows(self._loaded())])

    def _loaded(self) -> list[Run]:
        from subfl_flower.evaluation.runs import Run

        return [Run.load(run.path) for run in self.runs]

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
    jobs: int | Literal["auto"] = 1,
    redo: Redo = "failed",
    progress: bool | None = None,
) -> SweepResult:
    """Train every combination of the values that are given as lists.

    In a folder of an earlier sweep, runs with the same configuration are reused, so that a longer list trains only what
    is new.

    Args:
        method, dataset, partition, clients, rounds, seed, model, task: as of `run`, each one value, or a list, tuple or
            range of values.
        runtime: as of `run`.
        overrides: as of `run`; in a text such as ``"method.tau=1,5"`` commas separate values of the sweep, while lists
            in a dict are values of settings. ``["+experiment=subpfed"]`` adds the values of an experiment.
        folder: folder of the sweep, with a folder for each run; None: ``multirun/<date>/<time>``.
        jobs: number of runs at a time, each in a process with its share of the cores; ``"auto"``: as many as there are
            cores.
        redo: runs of an earlier call that are repeated: ``"failed"`` (and interrupted ones), ``"all"`` or ``"none"``.
        progress: None shows a table in a terminal, else a line for each run; False nothing.

    Returns:
        The runs. One that fails while it runs does not end the sweep, and is among `SweepResult.failures`.

    Raises:
        SubflError: a combination cannot be used; nothing is trained before all have been checked.
        KeyboardInterrupt: Ctrl-C; finished runs stay, and the same call with the same folder goes on.

    Example:
        >>> from subfl_flower import sweep
        >>> sweep(method=["fedavg", "fedpub"], dataset="cora", seed=range(3), rounds=100).table()
    """
    choices = chosen(locals())
    default = f"multirun/{datetime.now():%Y-%m-%d/%H-%M-%S}"
    top = path_given("folder", default if folder is None else folder).absolute()
    with undisturbed(), folder_chosen_by("folder"):
        asked = list(_jobs(choices, overrides))
        objects = {path: each for _, named in asked for path, each in named.items()}
        with held(objects):
            if objects:  # other processes take data in memory from the prepared cache
                for job, _ in asked:
                    config, _ = composed_config(job)
                    domain_of(config).prepare(config)
            show = progress is not False
            places = run_sweep([job for job, _ in asked], top, jobs=jobs, redo=redo, show=show)
    return SweepResult(top, [RunResult(place) for place in dict.fromkeys(places)])


def _jobs(choices: Mapping[str, Any], overrides: Overrides) -> Iterator[tuple[list[str], Mapping[Path, Any]]]:
    """For every combination of values its overrides, and the objects in memory that they name.

    Raises:
        SubflError: a value is of a kind that no setting has, or a list is empty.
    """
    axes = {key: _values(key, value) for key, value in choices.items()}
    for values in product(*axes.values()):
        arguments = Arguments(dict(zip(axes, values, strict=True)), overrides)
        stated = {line.partition("=")[0].lstrip("+") for line in arguments.overrides}
        of_experiment = experiment_axes(arguments.overrides).items()
        lines = [*arguments.overrides, *(f"{key}={value}" for key, value in of_experiment if key not in stated)]
        for job in product(*map(swept, lines)):
            yield list(job), arguments.objects


def _values(key: str, value: Any) -> list[Any]:
    """The values of an argument: those of a list, or one."""
    several = isinstance(value, list | tuple | range | np.ndarray)
    found = list(value) if several else [value]
    if not found:
        raise SubflError(f"{key}: the list of values is empty")
    return [(given_data(each, key) or each) for each in found] if key == "dataset" else found


def _line(row: Row) -> dict[str, Any]:
    from subfl_flower.evaluation.formats import MISSING, in_own_unit

    dataset, partition, clients = row.data
    found = row.spread("test_at_best_validation")
    return {
        "dataset": dataset,
        "partition": partition,
        "clients": clients,
        "method": row.method,
        "settings": row.settings,
        "metric": row.metric,
        "seeds": len(row.counted),
        "mean": None if found is None else found.mean,
        "std": None if found is None else found.std,
        "text": MISSING if found is None else in_own_unit(found, row),
        "bytes_up": row.mean("bytes_up"),
        "bytes_down": row.mean("bytes_down"),
        "note": row.note,
    }

"""The outcome of a run as loggers take it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from subfl_flower.evaluation.charts.drawing import save_charts
from subfl_flower.evaluation.charts.run_charts import run_charts
from subfl_flower.evaluation.frame import metric_frame
from subfl_flower.evaluation.runs import Run
from subfl_flower.loggers.outcome import Outcome
from subfl_flower.runs.directory import RunDirectory


def outcome_of(directory: RunDirectory) -> Outcome:
    """Read a run whose summary is written, and draw its figures into its plots folder.

    Raises:
        SubflError: a file of the run cannot be read, or a figure not be written.
    """
    run = Run.load(directory.path)
    drawn = save_charts(run_charts(run), directory.plots_folder)
    return Outcome(_clients(run), {path.stem: path for path in drawn}, _models(directory))


def _clients(run: Run) -> dict[str, list[float | int | None]]:
    per_client = run.figures.get("per_client") or {}
    frame = metric_frame([run]).dropna(subset="client")
    sent = frame.pivot_table(index="client", columns="metric", values="value", aggfunc="sum")
    sent = sent.reindex(columns=["bytes_up", "bytes_down"])
    best = {
        name: pd.Series(per_client.get(f"{name}_at_best_validation") or [], per_client.get("ids") or [], dtype=float)
        for name in ("test", "validation")
    }
    table = pd.DataFrame(best).join(sent, how="outer").rename_axis("client").sort_index().reset_index()
    known = table.astype(object).where(table.notna(), None)
    return {name: known[name].tolist() for name in known}


def _models(directory: RunDirectory) -> Path | None:
    folders = (directory.path / "clients", directory.recommender_folder)
    return next((folder for folder in folders if folder.is_dir() and any(folder.iterdir())), None)

"""Several runs: the analyses of every method by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from subfl_flower.analysis.run_analysis import RunAnalysis
from subfl_flower.evaluation.rows import Row, build_rows
from subfl_flower.evaluation.table import means, write_csv

FIGURES = (
    "own",
    "on_neighbour",
    "rank_correlation_missing_edges",
    "rank_correlation_label",
    "averaging_correlation_label",
    "jaccard_most_similar",
    "jaccard_least_similar",
)
"""Figures that compare methods: means over clients, and correlations over pairs of clients."""


def run_figures(analysis: RunAnalysis) -> dict[str, float | None]:
    """The `FIGURES` of a run; empty without models, None or NaN where unknown."""
    if analysis.models is None:
        return {}
    neighbours, similarity, sharing = analysis.models.neighbours, analysis.models.similarity, analysis.models.sharing
    return {
        "own": neighbours.mean_own,
        "on_neighbour": neighbours.mean_on_neighbour,
        "rank_correlation_missing_edges": similarity.with_missing,
        "rank_correlation_label": similarity.with_label,
        "averaging_correlation_label": similarity.averaging_with_label,
        "jaccard_most_similar": sharing.most_similar.mean_jaccard if sharing else None,
        "jaccard_least_similar": sharing.least_similar.mean_jaccard if sharing else None,
    }


def compare(analyses: Sequence[RunAnalysis]) -> list[Row]:
    """Rows of runs that differ in their seed only, as of `subfl report`, with `FIGURES` by seed."""
    by_path = {analysis.run.path: run_figures(analysis) for analysis in analyses}
    rows = build_rows([analysis.run for analysis in analyses])
    return [
        replace(
            row,
            figures=pd.DataFrame([by_path[run.path] for run in row.counted], columns=list(FIGURES), dtype="float64"),
            compared={},
        )
        for row in rows
    ]


def write_comparison(rows: Sequence[Row], path: Path) -> Path:
    """One line a method as CSV, fractions as they are; SubflError where `path` cannot be written."""
    return write_csv(means(rows, FIGURES).drop(columns=["runs", "note", "directories"]), path)

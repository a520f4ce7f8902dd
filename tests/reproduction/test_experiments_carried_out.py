"""Every experiment is carried out at a tiny scale: two rounds on small data."""

from __future__ import annotations

from pathlib import Path

import pytest
from experiment_points import points

from subfl_flower.catalogue.groups import choices
from subfl_flower.composition import composed_config
from subfl_flower.evaluation.runs import Run
from subfl_flower.sweeps.engine import run_sweep

NO_TABLE = {"search", "joblib", "protocol_printed", "strong_subgraphs"}
"""Experiments of plugins, and those that are added to others."""
WITH_OWN_DATA = {"communities": ["dataset.p_in=0.1", "dataset.p_out=0.01"]}
"""Data sets that are small enough with these settings."""
GRAPH = ["dataset=digits", "model.hidden=8"]
RATINGS = [
    *("dataset=synthetic_ratings", "dataset.num_users=40", "dataset.num_items=150", "dataset.ratings_per_user=12"),
    *("model.dim=4", "method.evaluate_every=1"),
]
TWO_ROUNDS = ["federation.rounds=2", "federation.local_epochs=1"]


def tiny(overrides: list[str]) -> list[str]:
    """The run on small data; what a method or an axis does not have is left out."""
    config, _ = composed_config(overrides)
    if config.dataset.name in WITH_OWN_DATA:
        return [*overrides, "model.hidden=8", *WITH_OWN_DATA[config.dataset.name], *TWO_ROUNDS]
    if config.dataset.kind == "graph":
        return [*overrides, *GRAPH, *TWO_ROUNDS]
    known = [each for each in RATINGS if not each.startswith("method.") or "evaluate_every" in config.method.knobs]
    expansion = ["method.expansion_start=1"] if "expansion_start" in config.method.knobs else []
    return [*overrides, *known, *expansion, *TWO_ROUNDS]


def chosen(name: str) -> list[list[str]]:
    """The first point with each method, and the last one of all."""
    by_method: dict[str | None, list[str]] = {}
    for point in points(name):
        method = next((each for each in point if each.startswith("method=")), None)
        by_method.setdefault(method, point)
    return [*by_method.values(), point]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(choices("experiment").keys() - NO_TABLE))
def test_an_experiment_is_carried_out(name: str, tmp_path: Path) -> None:
    jobs = [tiny(point) for point in chosen(name)]
    for place in run_sweep(jobs, tmp_path, show=False):
        run = Run.load(place)
        assert run.status == "completed", run.summary
        assert run.rounds[-1]["validation"] is not None

"""Lines that a finished run prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from subfl_flower.config import Config


def print_result(config: Config, summary: Mapping[str, Any], directory: Path) -> None:
    """Print a run's test figure, remarks on it, and its folder."""
    result = result_of(summary)
    if summary.get("test_at_best_validation") is None and summary.get("test_last") is not None:
        result += "; there was nothing to validate on"
    if not config.record.test:
        result += ", record.test=false"
    print(f"{config.method.name} on {config.dataset.name}: {result} ({summary['status']})")
    for line in _remarks(summary):
        print(line)
    print(f"run directory: {directory}", flush=True)


def result_of(summary: Mapping[str, Any]) -> str:
    """The main figure of a run in words: of its test, of a run without test figures of its validation."""
    test, last = summary.get("test_at_best_validation"), summary.get("test_last")
    if test is not None:
        return f"test {test:.4f} at round {summary.get('best_round')}"
    if last is not None:
        return f"test {last:.4f} after the last round"
    if (validation := summary.get("best_validation")) is not None:
        return f"validation {validation:.4f} at round {summary.get('best_round')}"
    return "no round finished"


def _remarks(summary: Mapping[str, Any]) -> Iterator[str]:
    """Remarks on a result: baselines to compare it with, and its privacy loss."""
    yield from _class_remarks(summary)
    if modes := summary.get("evaluation_modes"):
        for model, word in (("personal", "each client's own model"), ("global", "the mean of all models")):
            own, everyone = modes[f"{model}_on_own"], modes[f"{model}_on_all"]
            if own is not None and everyone is not None:
                yield f"{word} at round {modes['round']}: test {own:.4f} on own data, {everyone:.4f} on all clients'"
    if (bias_row := summary.get("bias_row")) and bias_row.get("test") is not None:
        yield f"bias row on the same ratings: test {bias_row['test']:.4f}"
    if (popularity := summary.get("popularity")) and popularity.get("test") is not None:
        yield f"popularity on the same items: test {popularity['test']:.4f}"
    if privacy := summary.get("privacy"):
        epsilon = privacy["user_level_epsilon"]
        level = "no finite epsilon" if epsilon is None else f"epsilon {epsilon:.4g} at delta {privacy['delta']:g}"
        covered = f"of the {privacy['covers']}"
        yield f"user-level differential privacy over {privacy['num_uploads']} uploads: {level}, {covered}"
        if note := privacy.get("note"):
            yield note
        if privacy["per_coordinate_epsilon"] is not None:
            yield f"per-coordinate epsilon, of one value of one upload: {privacy['per_coordinate_epsilon']:.4g}"


def _class_remarks(summary: Mapping[str, Any]) -> Iterator[str]:
    """Remarks on a classification: the majority class, figures that weigh classes equally, the worst client."""
    figures = summary.get("figures") or {}
    test, majority = summary.get("test_at_best_validation"), figures.get("test.majority")
    if test is None or majority is None:
        return
    words = {
        "test.accuracy": "accuracy",
        "test.macro_f1": "macro-F1",
        "test.balanced_accuracy": "balanced accuracy",
        "test.roc_auc": "ROC-AUC",
        "test.average_precision": "average precision",
        "test.calibration_error": "calibration error",
    }
    beside = [f"{word} {figures[name]:.4f}" for name, word in words.items() if figures.get(name) is not None]
    if worst := summary.get("worst_client"):
        beside.append(f"worst client {worst['client']}: {worst['test']:.4f}")
    if (tenth := summary.get("tenth_percentile")) is not None:
        beside.append(f"tenth percentile {tenth:.4f}")
    yield "; ".join([f"majority class on the same nodes: {majority:.4f}", *([", ".join(beside)] if beside else [])])
    if test <= majority and summary.get("metric", "accuracy") == "accuracy":
        yield "this does not exceed always predicting each client's most frequent training class"
    if share := figures.get("test.one_class"):
        measured = sum(value is not None for value in summary["per_client"]["test_at_best_validation"])
        yield f"{round(share * measured)} of {measured} clients' models predict one class only"

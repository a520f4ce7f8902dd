"""Cards: small JSON files, one for each run, from which tables and figures are made without the runs themselves."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from subfl_flower.errors import SubflError
from subfl_flower.evaluation.runs import Run, natural
from subfl_flower.evaluation.summary import exchanged, number
from subfl_flower.overrides import path_keys
from subfl_flower.registry import stored_config
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.runs.files import parse_object, plain_values, read_file
from subfl_flower.runs.shapes import Round, Summary, require_shape
from subfl_flower.storage.durable_files import PUBLIC_FILE, write_durably
from subfl_flower.sweeps.fingerprint import settings_with_effect

FORMAT = 1
"""Raised whenever an older version could not read a card."""

_DIGITS = 6
_SECTIONS_LEFT_OUT = ("runtime", "schema", "logger", "record.mixing_every", "record.client_models")
_KEPT = (
    *("status", "method", "dataset", "partition", "clients", "seed", "task", "metric", "versions", "git_commit"),
    *("test_at_best_validation", "test_as_received_at_best_validation", "best_round", "best_validation", "figures"),
    *("worst_client", "test_last", "rounds", "bytes_up", "bytes_down", "bytes_parts", "seconds", "cpu_seconds"),
    *("seconds_per_round", "privacy", "bias_row", "popularity", "model_parameters", "uploads_per_user", "generator"),
)
_COLUMNS = ("validation", "test", "test_as_received", "sparsity")
_SUMS = ("bytes_up", "bytes_down", "bytes_evaluation")
_FURTHER = "figures"
_BY_ROUND = ("test.one_class",)


def card_of(directory: Path) -> dict[str, Any]:
    """The content of a run's card.

    Args:
        directory: of a completed run.

    Returns:
        ``settings``: those with an effect on results, by dotted key, of paths the last part alone; ``summary``: the
        main figures with bytes, seconds, versions and commit; ``fingerprints`` of the data; ``curve``: figures of
        the evaluated rounds, a list each. Figures have six significant digits.

    Raises:
        SubflError: a file of the run cannot be read.
    """
    records = RunDirectory(directory)
    summary, facts = records.summary() or {}, records.data() or {}
    settings = {
        key: Path(value).name if key in path_keys() and isinstance(value, str) else value
        for key, value in settings_with_effect(stored_config(directory)).items()
        if not key.startswith(_SECTIONS_LEFT_OUT)
    }
    found = {key: summary[key] for key in _KEPT if summary.get(key) is not None}
    found["bytes_exchanges"] = exchanged(summary.get("exchanges") or [])
    fingerprints = {name: value for name, value in (facts.get("fingerprints") or {}).items() if isinstance(value, str)}
    card = {
        "format": FORMAT,
        "settings": settings,
        "summary": found,
        "fingerprints": fingerprints,
        "curve": _curve(records.rounds()),
    }
    shortened: dict[str, Any] = _shortened(plain_values(card, finite=True))
    return shortened


def write_card(directory: Path, folder: Path) -> Path:
    """Write the card of a completed run into a folder, under the run's name; return its path.

    Raises:
        SubflError: a file of the run cannot be read, or the card not be written.
    """
    path = folder / f"{directory.name}.json"
    text = json.dumps(card_of(directory), allow_nan=False, separators=(",", ":"))
    text = text.replace('"summary":{', '\n"summary":{').replace('"fingerprints":{', '\n"fingerprints":{')
    text = text.replace('"curve":{', '\n"curve":{').replace('"settings":{', '\n"settings":{')
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(path, text.encode() + b"\n", PUBLIC_FILE)
    except OSError as error:
        raise SubflError(f"cannot write {path}: {error.strerror or error}; out=... names another folder") from None
    return path


def read_cards(folder: Path) -> list[Run]:
    """The runs of a folder's cards, in natural order of their names, as the report reads runs.

    Raises:
        SubflError: there is no such folder or no card in it, or a card cannot be read.
    """
    paths = sorted(folder.glob("*.json"), key=lambda path: natural(path.name))
    if not paths:
        raise SubflError(f"{folder} holds no result of a run; subfl reproduce without --only-report makes some")
    return [_run(path) for path in paths]


def _run(path: Path) -> Run:
    card = parse_object(read_file(path))
    if card is None or card.get("format") != FORMAT:
        raise SubflError(f"{path} is not the result of a run as subfl reproduce writes it (format {FORMAT})")
    summary, curve = dict(card.get("summary") or {}), card.get("curve") or {}
    outside = summary.pop("bytes_exchanges", {"up": 0, "down": 0})
    phases = [{"action": "exchanges", "bytes_up": outside["up"], "bytes_down": outside["down"], "seconds": 0.0}]
    summary |= {"exchanges": phases if any(outside.values()) else [], "fingerprints": card.get("fingerprints") or {}}
    require_shape(Summary, summary, path)
    rounds = list(_records(curve, summary))
    for record in rounds:
        require_shape(Round, record, path)
    return Run(RunDirectory(path), nested(card.get("settings") or {}), rounds, summary)


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration from its values by dotted key."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        *sections, name = key.split(".")
        place = found
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return found


def _curve(rounds: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Figures of the evaluated rounds by name; bytes are those since the last evaluated round."""
    lines: list[dict[str, Any]] = []
    sums = dict.fromkeys(_SUMS, 0)
    for record in rounds:
        sums = {name: total + int(record.get(name) or 0) for name, total in sums.items()}
        figures = {name: record.get(name) for name in _COLUMNS}
        figures |= {name: (record.get(_FURTHER) or {}).get(name) for name in _BY_ROUND}
        if any(number(value) is not None for value in figures.values()):
            heard = record.get("clients_heard", len((record.get("clients") or {}).get("ids") or []))
            lines.append({"round": record["round"], **figures, **sums, "clients_heard": heard})
            sums = dict.fromkeys(_SUMS, 0)
    names = [name for name in (lines[0] if lines else {}) if any(line[name] is not None for line in lines)]
    return {name: [line[name] for line in lines] for name in names}


def _records(curve: Mapping[str, Sequence[Any]], summary: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Round records as reports read them."""
    for values in zip(*curve.values(), strict=True):
        line = dict(zip(curve, values, strict=True))
        further = {name: line.pop(name) for name in _BY_ROUND if name in line}
        yield {
            "metric": summary.get("metric", "accuracy"),
            **line,
            **({_FURTHER: further} if further else {}),
            "seconds": summary.get("seconds_per_round") or {},
        }


def _shortened(value: Any) -> Any:
    """Numbers with six significant digits."""
    if isinstance(value, dict):
        return {key: _shortened(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_shortened(each) for each in value]
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.{_DIGITS}g}")
    return value

"""Fingerprint of a configuration: equal for two runs that compute and leave the same."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from subfl_flower.aggregation.settings import AggregationSettings
from subfl_flower.composition import validated
from subfl_flower.config import Config
from subfl_flower.data.disturbances.settings import DisturbanceSettings
from subfl_flower.errors import SubflError
from subfl_flower.evaluation.rows import flatten
from subfl_flower.privacy.secure_aggregation.settings import SecureSumSettings
from subfl_flower.registry import method_settings

_LENGTH = 10

_WITHOUT_EFFECT = (
    *("data.root", "data.cache", "logger", "record.checkpoint_every"),
    *(f"runtime.{key}" for key in ("chunk", "threads", "nodes", "node_timeout")),
    *(f"runtime.{key}" for key in ("num_cpus", "num_gpus", "total_cpus", "address")),
)
"""Settings and sections that change neither the results of a run nor the files that it leaves."""

_UNLESS_CHANGED = {
    "record.test": True,
    "record.audit": False,
    "record.evaluation_modes": False,
    "task.metric": "accuracy",
    "task.figures": [],
    "disturbance": DisturbanceSettings().model_dump(mode="json"),
    "privacy.target_epsilon": None,
    "privacy.in_sum": False,
    "secure_sums": SecureSumSettings().model_dump(mode="json"),
    "aggregation": AggregationSettings().model_dump(mode="json"),
}
"""Settings that are left out where they have this value, so that jobs keep the names that they had without them."""


def settings_with_effect(config: Config) -> dict[str, Any]:
    """The settings that determine the results of a run, by dotted key, a method's defaults included."""
    plain = config.plain()
    knobs = method_settings(config.method).model_dump(mode="json")
    return flatten(with_effect({**plain, "method": {**plain["method"], **knobs}}))


def with_effect(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested configuration without the settings that can change no result."""
    kept = {
        key: value
        for key, value in config.items()
        if (name := f"{prefix}{key}") not in _WITHOUT_EFFECT
        and not (name in _UNLESS_CHANGED and value == _UNLESS_CHANGED[name])
    }
    return {
        key: with_effect(value, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in kept.items()
    }


def fingerprint(config: Config) -> str:
    """Digest of the settings that determine the results of a run: ten hexadecimal digits."""
    return _digest(settings_with_effect(config))


def job_name(config: Config) -> str:
    """The name of a sweep's job, such as ``fedpub-cora-seed0-3f2a9c1b7e``: readable, and unique by the fingerprint."""
    return _name(config.method.name, config.dataset.name, config.seed, fingerprint(config))


def name_of_composed(composed: DictConfig) -> str:
    """The name of the job that Hydra composed; one that cannot run is named by its settings as they were given."""
    try:
        return job_name(validated(composed))
    except SubflError:
        plain = OmegaConf.masked_copy(composed, [str(key) for key in composed if key not in ("hydra", "sweep")])
        given = OmegaConf.to_container(plain, resolve=False)
        assert isinstance(given, dict)
        known = summary_settings(composed)
        return _name(known["method"], known["dataset"], known["seed"], _digest(given))


def summary_settings(composed: DictConfig) -> dict[str, Any]:
    """Settings that identify a run in its summary, of a configuration that may be invalid; None where unknown."""
    keys = {"method": "method.name", "dataset": "dataset.name", "partition": "partition.name", "seed": "seed"}
    found: dict[str, Any] = {}
    for name, key in keys.items():
        try:
            found[name] = OmegaConf.select(composed, key, throw_on_missing=False)
        except Exception:  # an interpolation that cannot be resolved
            found[name] = None
    return found


def difference(config: Config, other: Config) -> str | None:
    """The first setting in which two configurations differ with effect, as ``KEY=ONE, not OTHER``; None: none."""
    one, two = settings_with_effect(config), settings_with_effect(other)
    for key in {**one, **two}:
        if one.get(key) != two.get(key):
            return f"{key}={_shown(one.get(key))}, not {_shown(two.get(key))}"
    return None


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)


def _name(method: Any, dataset: Any, seed: Any, digest: str) -> str:
    words = [str(word) for word in (method, dataset, f"seed{seed}") if word is not None]
    return "-".join([*(re.sub(r"[^\w.]+", "_", word) for word in words), digest])


def _digest(values: Mapping[Any, Any]) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


OmegaConf.register_new_resolver("subfl_job", lambda *, _root_: name_of_composed(_root_), replace=True, use_cache=False)

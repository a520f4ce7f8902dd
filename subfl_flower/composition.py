"""From overrides to a validated configuration; used by `subfl` and `flwr run`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError  # of OmegaConf's reader

from subfl_flower.catalogue.groups import GROUPS, choices, override_of
from subfl_flower.catalogue.own_choices import offer_own_choices
from subfl_flower.catalogue.suggestions import did_you_mean
from subfl_flower.code_folder import config_directory as config_directory
from subfl_flower.code_folder import require_own_names
from subfl_flower.config import Config
from subfl_flower.data.datasets import DATASETS
from subfl_flower.doors import DoorSettings
from subfl_flower.errors import SubflError
from subfl_flower.evaluation.rows import flatten
from subfl_flower.overrides import (
    classes_chosen,
    literal_paths,
    path_keys,
    schema_in_place,
    unreadable,
)
from subfl_flower.registry import stored_config, validate
from subfl_flower.runs.directory import RunDirectory

_RESUME = "resume="

ONLY_FOR = "only_for"
"""The section of settings that count with a certain choice alone, such as a method of a sweep over several."""


def composed_config(overrides: Sequence[str]) -> tuple[Config, Path]:
    """Compose `conf/` with Hydra overrides; values of paths are taken literally.

    ``schema=FILE`` is replaced by the content of that file of this machine.

    Returns:
        The validated configuration, and the run directory that Hydra's settings name.

    Raises:
        SubflError: an override is malformed, names an unknown key or choice, or has a value that is not allowed.
    """
    asked = schema_in_place(overrides)
    with readable_errors():
        composed = _composed(asked)
        run_directory = Path(composed.hydra.run.dir)
    return validated(composed), run_directory


def chosen_dataset(overrides: Sequence[str]) -> type[DoorSettings] | None:
    """The class of the data set that overrides choose; None where there is none of this name.

    Raises:
        SubflError: an override is malformed or names an unknown key or choice, or the class cannot be used.
    """
    with readable_errors():
        section = OmegaConf.to_container(_composed(overrides).dataset)
    return DATASETS.chosen(section)


def _composed(overrides: Sequence[str]) -> DictConfig:
    with _hydra():
        asked = literal_paths(classes_chosen(overrides))
        return compose("config", overrides=asked, return_hydra_config=True)


@contextmanager
def _hydra() -> Iterator[None]:
    """Hydra, reading the built-in choices and the user's."""
    GlobalHydra.instance().clear()
    offer_own_choices()
    with initialize_config_dir(str(config_directory()), version_base="1.3"):
        yield


@dataclass(frozen=True)
class Job:
    """The run that a command line asks for.

    Attributes:
        config: configuration of the run.
        directory: the run directory.
        resume: true to resume the run in `directory` instead of starting one.
    """

    config: Config
    directory: Path
    resume: bool = False


def resumes(overrides: Sequence[str]) -> bool:
    """True if a command line asks to resume a run, by ``resume=RUN``."""
    return any(override.startswith(_RESUME) for override in overrides)


def composed_job(overrides: Sequence[str], default_runtime: str | None = None) -> Job:
    """The run that overrides ask for: a new one, or with ``resume=RUN`` one to resume.

    Args:
        overrides: Hydra overrides; together with ``resume=RUN`` only those of `_MAY_CHANGE`.
        default_runtime: the runtime where the overrides name none.

    Raises:
        SubflError: see `composed_config`; or there is no such run, or a setting is given that would change it.
    """
    if not resumes(overrides):
        runtime = [] if default_runtime is None else [f"runtime={default_runtime}"]
        return Job(*composed_config([*runtime, *overrides]))
    *_, last = (override for override in overrides if override.startswith(_RESUME))
    directory = Path(last.removeprefix(_RESUME)).expanduser()
    changes = [override for override in overrides if not override.startswith(_RESUME)]
    return Job(_resumed_config(directory, changes), directory, resume=True)


def single_job(arguments: Sequence[str]) -> Job | None:
    """The one run that the arguments of `subfl` ask for; None where Hydra is needed, for a sweep or for its options.

    Raises:
        SubflError: see `composed_config`.
    """
    if any(argument.startswith("-") or _is_about_hydra(argument) for argument in arguments):
        return None
    with readable_errors():
        composed = _composed(arguments)
        run_directory = Path(composed.hydra.run.dir)
    if composed.hydra.mode == RunMode.MULTIRUN:  # an experiment says so
        return None
    return Job(validated(composed), run_directory)


def _is_about_hydra(argument: str) -> bool:
    key = argument.lstrip("+~").partition("=")[0]
    return re.match("hydra[./]", key) is not None and key != "hydra.run.dir"


_MAY_CHANGE = (
    *("federation.rounds", "federation.round_timeout", "federation.min_clients", "runtime.", "logger."),
    *("record.mixing_every", "record.client_models", "record.checkpoint_every", "data.root", "data.cache"),
)


def _resumed_config(directory: Path, changes: Sequence[str]) -> Config:
    """A run's stored configuration, with changes that do not affect its results."""
    if not RunDirectory.is_run(directory):
        raise SubflError(f"resume={directory}: there is no run in this folder")
    for change in changes:
        if not change.startswith(_MAY_CHANGE):
            raise SubflError(f"{change}: a resumed run keeps its settings; only {', '.join(_MAY_CHANGE)} may change")
    stored_config(directory)  # a fault in the stored configuration is not one of the changes
    with readable_errors():
        stored = OmegaConf.create(RunDirectory(directory).config())
        OmegaConf.set_struct(stored, True)
        for override in OverridesParser.create().parse_overrides(literal_paths(changes)):
            if override.is_sweep_override():
                raise SubflError(f"{override.input_line}: a run is resumed with one value of a setting")
            OmegaConf.update(stored, override.key_or_group, override.value())
        config = validated(stored)
    if config.checkpoint_every == 0 and any(change.startswith("record.checkpoint_every=") for change in changes):
        raise SubflError("record.checkpoint_every: a resumed run needs checkpoints for its clients; give 1 or more")
    return config


def validated(composed: DictConfig) -> Config:
    """Check a composed configuration, with or without Hydra's section."""
    choices = OmegaConf.select(composed, "hydra.runtime.choices")
    if choices is not None:
        require_own_names({str(group): str(choice) for group, choice in choices.items()}, config_directory())
    with readable_errors():
        plain = OmegaConf.masked_copy(composed, [str(key) for key in composed if key not in ("hydra", ONLY_FOR)])
        for key, value in _settings_of_choices(composed).items() if ONLY_FOR in composed else ():
            OmegaConf.update(plain, key, value, merge=False)
        missing = sorted(OmegaConf.missing_keys(plain))
        if missing:
            raise SubflError(f"{missing[0]}: a value is required, for instance {missing[0]}=...")
        _require_homes(plain)
        values = cast(dict[str, Any], OmegaConf.to_container(plain, resolve=True))
    return validate(values)


def _settings_of_choices(composed: DictConfig) -> dict[str, Any]:
    """The settings that `ONLY_FOR` has for the choices of a composed configuration, by dotted key.

    Settings that the user's overrides state are left out, so that these count first.

    Raises:
        SubflError: a group or a choice is unknown.
    """
    stated = OmegaConf.to_object(composed.get(ONLY_FOR)) if OmegaConf.is_config(composed.get(ONLY_FOR)) else None
    by_choice = [(group, *each) for group, of in _items(stated, ONLY_FOR) for each in _items(of, f"{ONLY_FOR}.{group}")]
    found: dict[str, Any] = {}
    for group, choice, settings in by_choice:
        if group not in GROUPS.values():
            raise SubflError(f"{ONLY_FOR}.{group}: there is no such group{did_you_mean(group, GROUPS.values())}")
        if choice not in (known := choices(group)):
            raise SubflError(f"{ONLY_FOR}.{group}.{choice}: there is no such choice{did_you_mean(choice, known)}")
        if composed.hydra.runtime.choices.get(group) == choice:
            found |= flatten(dict(_items(settings, f"{ONLY_FOR}.{group}.{choice}")))
    given = OverridesParser.create().parse_overrides(list(composed.hydra.overrides.task)) if found else []
    stated_keys = tuple(f"{each.key_or_group}." for each in given if each.key_or_group not in GROUPS.values())
    return {key: value for key, value in found.items() if not f"{key}.".startswith(stated_keys)}


def _items(section: Any, key: str) -> Iterator[tuple[str, Any]]:
    """The entries of a section; SubflError where it is something else."""
    if not isinstance(section, dict):
        raise SubflError(
            f"{key}: must be settings by group and choice, such as {{method: {{fedpub: {{method: {{tau: 5}}}}}}}}"
        )
    if dotted := next((name for name in map(str, section) if "." in name), None):
        raise SubflError(f"{key}.{dotted}: sections are nested here, as in {{method: {{tau: 5}}}}")
    return ((str(name), value) for name, value in section.items())


def _require_homes(plain: DictConfig) -> None:
    """Raise SubflError where a path begins with ``~`` and a name that no user has."""
    for key in sorted(path_keys()):
        path = OmegaConf.select(plain, key)
        try:
            Path(str(path)).expanduser()
        except RuntimeError:
            raise SubflError(
                f"{key}: {path} begins with the home folder of an unknown user; "
                "give the absolute path of a folder whose name begins with ~"
            ) from None


@contextmanager
def readable_errors() -> Iterator[None]:
    """Turn errors of Hydra and OmegaConf for a wrong override into one sentence; the block must not run a job."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise SubflError(_sentence(error)) from None


def _sentence(error: Exception) -> str:
    if isinstance(error, OverrideParseException):
        return unreadable(error.override)
    if isinstance(error, UnicodeDecodeError):
        return f"a YAML file among the choices is not in UTF-8 ({error})"
    text = str(error) or str(error.__cause__ or type(error).__name__)
    if match := re.match(r"Interpolation key '([^']+)' not found", text):
        key = getattr(error, "full_key", None) or "a setting"
        return f"{key}: takes its value from {match[1]}, which no choice states; give {key}=... or {match[1]}"
    for cause in (error, error.__cause__):
        if isinstance(cause, ConfigKeyError | ConfigAttributeError) and cause.full_key:
            return _unknown_setting(re.match(r"Could not override '([^']+)'", text), cause)
    if match := re.match(r"Ambiguous value for argument '([^']*)'", text):
        return f"{match[1]}: has several values; subfl -m {match[1]} trains a run with each, and quotes make one text"
    if match := re.search(r"Could not override '([^'@/]+)'\. No match in the defaults list", text):
        return f"{match[1]}: is not among the defaults, so that it is added by +{match[1]}=..."
    if match := re.search(r"Could not override '([^']+)'", text):
        return f"{match[1]}: there is no such setting"
    if match := re.search(
        r"Could not find '([^']+)'\s+Available options in '[^']+':\s+(.*?)(?:\n\s*\n|Config search path|$)",
        text,
        re.DOTALL,
    ):
        group, _, choice = match[1].rpartition("/")
        available = match[2].split()
        advice = did_you_mean(choice, available, override_of(group, "{}"))
        return f"{group}={choice}: there is no such choice; available: {', '.join(available)}{advice}"
    return " ".join(text.split())


def _unknown_setting(asked: re.Match[str] | None, error: OmegaConfBaseException) -> str:
    """One sentence on a key that a section does not have.

    Args:
        asked: match of the key as it was asked for; None where only its wrong part is known.
        error: OmegaConf's error.
    """
    wrong = str(error.full_key)
    section, dot, name = wrong.rpartition(".")
    key = wrong if asked is None else asked[1]
    known = list(map(str, error.parent_node)) if isinstance(error.parent_node, DictConfig) else []
    return f"{key}: there is no such setting{did_you_mean(name, known, f'{section}{dot}{{}}{key[len(wrong) :]}')}"

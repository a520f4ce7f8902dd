"""The groups of the configuration and their choices: the built-in ones, and those of the user's folder."""

from __future__ import annotations

from pathlib import Path

from subfl_flower.catalogue.sheet import Setting, Sheet, settings_of
from subfl_flower.code_folder import adopted, config_directory

GROUPS = {
    "methods": "method",
    "datasets": "dataset",
    "partitions": "partition",
    "models": "model",
    "tasks": "task",
    "experiments": "experiment",
    "optimizers": "optimizer",
    "privacy": "privacy",
    "runtimes": "runtime",
    "loggers": "logger",
}
"""Groups of the configuration by the name of the list of their choices."""


def choices(group: str) -> dict[str, Sheet]:
    """The choices of a group by name, in alphabetical order; a built-in one hides one of the user's."""
    own = adopted()
    folders = [config_directory()] if own is None else [own / "conf", config_directory()]
    found = {path.stem: Sheet(path) for folder in folders for path in (folder / group).glob("*.yaml")}
    return dict(sorted(found.items()))


def group_of(choice: str) -> str | None:
    """The group that has a choice of a name; None where there is none, or several have one."""
    found = [group for group in GROUPS.values() if choice in choices(group)]
    return found[0] if len(found) == 1 else None


def override_of(group: str, choice: str) -> str:
    """The override that takes a choice."""
    return f"+experiment={choice}" if group == "experiment" else f"{group}={choice}"


def is_built_in(path: Path) -> bool:
    """True for a file of this project."""
    return path.is_relative_to(config_directory())


def general_settings() -> list[Setting]:
    """The settings that belong to no group."""
    text = (config_directory() / "config.yaml").read_text(encoding="utf-8")
    return list(settings_of(text, "hydra", "defaults"))

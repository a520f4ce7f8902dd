"""Defaults: a value that a YAML file of conf/ states is the default of the class that reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pydantic
import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from subfl_flower.composition import ONLY_FOR, config_directory
from subfl_flower.config import DOORS, Config
from subfl_flower.doors import load_class
from subfl_flower.node.client import CohortClient
from subfl_flower.server.strategy import CohortStrategy
from subfl_flower.wire.contract import joined_settings

CONF = config_directory()
SECTIONS = ("model", "task", "optimizer", "partition", "dataset", "privacy", "runtime", "logger")
CHOOSES = {"name", "mechanism", "_target_", "defaults"}
"""Keys that choose a class or another file."""

STATED_ELSEWHERE = {"dataset": {"protocol"}, "data": {"root", "cache"}, "federation": {"rounds", "local_epochs"}}
"""Keys of a section that Hydra alone reads, or that only the machine or another section can state."""


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text()) or {}


def settings_classes(annotation: Any) -> Iterator[type[BaseModel]]:
    """All classes of a section's type: of a union, each member."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for member in getattr(annotation, "__args__", ()):
        yield from settings_classes(member)


def section_classes(group: str, values: Mapping[str, Any]) -> list[type[BaseModel]]:
    """The class that reads a file of a group; the bases of the door where the file leaves the class to the user."""
    if group in DOORS and values.get("_target_") == "???":
        return list(DOORS[group].bases)
    if group in DOORS:
        chosen = DOORS[group].chosen(values)
        assert chosen is not None
        return [chosen]
    key = "mechanism" if group == "privacy" else "name"
    found = [
        owner
        for owner in settings_classes(Config.model_fields[group].annotation)
        if values[key] in owner.model_fields[key].annotation.__args__  # type: ignore[union-attr]
    ]
    assert len(found) == 1, f"{len(found)} classes read {group}={values[key]}"
    return found


def method_classes(values: Mapping[str, Any]) -> list[type[BaseModel]]:
    """The settings of a method, for each kind of data that it is for."""
    strategies, clients = values["strategy"], values["client"]
    kinds = strategies if isinstance(strategies, dict) else clients if isinstance(clients, dict) else [""]
    return [
        joined_settings(
            load_class(clients[kind] if isinstance(clients, dict) else clients, CohortClient, "").Settings,
            load_class(strategies[kind] if isinstance(strategies, dict) else strategies, CohortStrategy, "").Settings,
        )
        for kind in kinds
    ]


def parsed(field: FieldInfo, value: Any) -> Any:
    """A value as its field holds it: 5e-6 is text to YAML 1.1, and a list is a tuple."""
    annotation: Any = field.annotation
    return pydantic.TypeAdapter(annotation).validate_python(value)


def field_keys(owner: type[BaseModel]) -> dict[str, str]:
    """Names of fields by the keys that stand for them."""
    return {field.alias or name: name for name, field in owner.model_fields.items()}


def differences(
    owners: list[type[BaseModel]], values: Mapping[str, Any], where: str, skipped: set[str] = CHOOSES
) -> Iterator[str]:
    """One sentence for each key that no class has, and for each value that is not the default of a class having it."""
    for key, value in values.items():
        if key in skipped or value == "???" or (isinstance(value, str) and "${" in value):
            continue
        having = [owner for owner in owners if key in field_keys(owner)]
        if not having:
            yield f"{where}{key}: no class has it"
        for owner in having:
            field = owner.model_fields[field_keys(owner)[key]]
            nested = list(settings_classes(field.annotation))
            if nested and isinstance(value, Mapping):
                yield from differences(nested, value, f"{where}{key}.")
            elif field.is_required():
                yield f"{where}{key}: {owner.__name__} has no default"
            elif parsed(field, value) != field.get_default(call_default_factory=True):
                default = field.get_default(call_default_factory=True)
                yield f"{where}{key}: {value!r}, and {owner.__name__} has {default!r}"


FILES = sorted(path for group in ("method", *SECTIONS) for path in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_files_values_are_the_defaults_of_its_class(path: Path) -> None:
    group, values = path.parent.name, read(path)
    if group == "method":
        base = [name for name in values.get("defaults", []) if isinstance(name, str) and name != "_self_"]
        for name in base:
            values = {**read(path.with_name(f"{name}.yaml")), **values}
        owners = method_classes(values)
    else:
        owners = section_classes(group, values)
    skipped = CHOOSES | STATED_ELSEWHERE.get(group, set()) | ({"strategy", "client"} if group == "method" else set())
    assert list(differences(owners, values, "", skipped)) == []


def test_the_main_files_values_are_the_defaults_of_their_sections() -> None:
    assert list(main_file_differences()) == []


def main_file_differences() -> Iterator[str]:
    fields = field_keys(Config)
    for key, value in read(CONF / "config.yaml").items():
        if key in ("defaults", "hydra", ONLY_FOR):
            continue
        if not isinstance(value, Mapping):
            yield from differences([Config], {key: value}, "")
            continue
        owners = list(settings_classes(Config.model_fields[fields[key]].annotation))
        yield from differences(owners, value, f"{key}.", CHOOSES | STATED_ELSEWHERE.get(key, set()))


def test_an_unknown_key_and_another_value_are_found() -> None:
    class Knobs(BaseModel):
        rate: float = 0.1
        lengths: tuple[int, ...] = (1, 2)
        needed: int

    same = {"rate": "1e-1", "lengths": [1, 2], "name": "any"}
    assert list(differences([Knobs], same, "")) == []
    assert list(differences([Knobs], {**same, "rate": 0.2}, "x.")) == ["x.rate: 0.2, and Knobs has 0.1"]
    assert list(differences([Knobs], {"speed": 1, "needed": 2}, "")) == [
        "speed: no class has it",
        "needed: Knobs has no default",
    ]

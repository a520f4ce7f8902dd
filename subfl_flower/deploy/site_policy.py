"""A site's policy file, TOML: read, checked, and completed by the classes of the methods that it names."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from subfl_flower.catalogue.groups import choices
from subfl_flower.catalogue.suggestions import did_you_mean
from subfl_flower.config import Config
from subfl_flower.errors import SubflError
from subfl_flower.trust.policy import Policy, PrivacyPolicy


def read_policy(path: Path) -> Policy:
    """Read a file.

    Raises:
        SubflError: it cannot be read, or a key or value is not one of a policy's.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SubflError(f"--policy {path}: {error.strerror}; it must be a TOML file that can be read") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SubflError(f"--policy {path}: it is no TOML ({error})") from None
    try:
        policy = Policy.model_validate(values)
    except ValidationError as error:
        raise SubflError(f"--policy {path}: {_problem(error, values)}") from None
    _check_names(path, "methods", [name for name in policy.methods or () if "." not in name], choices("method"))
    mechanisms = [str(_yaml(sheet.path).get("mechanism")) for sheet in choices("privacy").values()]
    _check_names(path, "privacy.mechanisms", policy.privacy.mechanisms or (), dict.fromkeys(mechanisms))
    sections = [field.alias or name for name, field in Config.model_fields.items()]
    _check_names(path, "settings", [key.partition(".")[0] for key in policy.settings], dict.fromkeys(sections))
    return policy


def clients_of_methods(policy: Policy) -> dict[str, tuple[str, ...]]:
    """Dotted paths of clients' classes by the methods that a policy allows; such a path stands for itself."""
    found = {}
    sheets = choices("method")
    for name in policy.methods or ():
        stated = name if "." in name else _yaml(sheets[name].path).get("client", ())
        found[name] = tuple(stated.values()) if isinstance(stated, Mapping) else (str(stated),)
    return found


def _yaml(path: Path) -> dict[str, Any]:
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {}


def _check_names(path: Path, key: str, names: Any, known: Mapping[str, Any]) -> None:
    for name in names:
        if name not in known:
            advice = did_you_mean(name, known)
            raise SubflError(f"--policy {path}: {key}: there is no {name!r}{advice or f'; it has {_all(known)}'}")


def _all(known: Mapping[str, Any]) -> str:
    return ", ".join(sorted(known))


def _problem(error: ValidationError, values: Mapping[str, Any]) -> str:
    """The first problem of a file: the key, what is wrong with it, and what is allowed."""
    first = error.errors(include_url=False)[0]
    place = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        sections: dict[str, type[BaseModel]] = {"privacy": PrivacyPolicy}
        known = sections.get(place[0], Policy).model_fields if len(place) > 1 else Policy.model_fields
        return f"{'.'.join(place)}: there is no such key{did_you_mean(place[-1], known)}; it has {_all(known)}"
    here: Any = values
    shown = []
    for part in place:  # without the names of a union's members
        if isinstance(here, Mapping) and part in here:
            shown.append(part)
            here = here[part]
    message = first["msg"].removeprefix("Value error, ")
    if shown[:1] == ["settings"]:
        message = "must be a value, a list of values, or a table with 'least' and 'most'"
    elif shown == ["code"]:
        message = "must be 'any', or a list of digests of 64 hexadecimal digits (subfl deploy code prints one)"
    return f"{'.'.join(shown)}: {message} (found {here!r})"

"""Figures and settings under flat names, as loggers need them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from subfl_flower.errors import SubflError


def scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """The plain numbers of a round record or a summary by their name, nested ones as `seconds/client`.

    Left out are the round's number, which is the step, values per client, and unknown values (None).
    """
    found: dict[str, float] = {}
    for key, value in record.items():
        if key in ("round", "clients", "per_client", "failures"):
            continue
        nested = value.items() if isinstance(value, Mapping) else [("", value)]
        for part, number in nested:
            if isinstance(number, int | float) and not isinstance(number, bool):
                found[f"{key}/{part}" if part else key] = float(number)
    return found


def required_package(package: str, extra: str) -> Any:
    """Import `package`; a folder of that name (wandb creates one where it runs) does not count as installed."""
    try:
        module = import_module(package)
    except ImportError:
        module = None
    if module is None or getattr(module, "__file__", None) is None:
        raise SubflError(f"logger={package} needs a package that is not installed: pip install 'subfl-flower[{extra}]'")
    return module


def dotted(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested configuration as values by their dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat

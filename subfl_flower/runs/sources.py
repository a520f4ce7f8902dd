"""The user's files and code that a run depends on: digests by name, and what has changed since a run."""

from __future__ import annotations

import inspect
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from subfl_flower.config import Config
from subfl_flower.data.description import file_digests
from subfl_flower.doors import OWN_PACKAGE, TARGET, full_name, load_class
from subfl_flower.errors import SubflError
from subfl_flower.registry import client_class, strategy_class
from subfl_flower.storage.checksums import sha256_of

_INSTALLED = tuple({Path(sysconfig.get_paths()[name]) for name in ("stdlib", "purelib", "platlib")})


def sources_of(config: Config) -> dict[str, str]:
    """Digests of the user's files that a configuration names.

    They are files of data, a file of a partition, and the source files of the user's classes: methods, networks,
    tasks, data sets and partitions, with the classes that they extend. Public data sets and installed packages do not
    count, and neither do modules that a class imports.

    Returns:
        A sha256 in hexadecimal digits by the name of the file, or by the dotted path of the class.

    Raises:
        SubflError: a file cannot be read.
    """
    dataset, partition = config.dataset, config.partition
    files = [] if dataset.public else dataset.files(config.data.root.expanduser())
    found = {name: digest for name, digest in file_digests(files)}
    if digest := partition.raw_fingerprint():
        found["partition.file"] = digest
    for owner in _classes(config):
        found |= {full_name(each): sha256_of(file) for each, file in _source_files(owner)}
    return found


def changed_sources(config: Config, facts: Mapping[str, Any] | None) -> list[str]:
    """Names of the user's files and classes that are not those of a run.

    Args:
        config: the configuration.
        facts: content of the run's `data.json`; None where it has none.

    Returns:
        The names; of a run that did not record its sources, of those files of data that it recorded. Empty where the
        files cannot be read: the run is not refused for it.
    """
    try:
        now = sources_of(config)
    except SubflError:
        return []
    then = (facts or {}).get("sources")
    if isinstance(then, Mapping):
        return sorted(name for name in {**now, **then} if now.get(name) != then.get(name))
    then = ((facts or {}).get("fingerprints") or {}).get("files") or {}
    return sorted(name for name, digest in now.items() if then.get(name, digest) != digest)


def _classes(config: Config) -> Iterator[type]:
    yield from (strategy_class(config.method), client_class(config.method))
    yield from map(type, (config.dataset, config.partition, config.task))
    if config.model.own_class:
        yield load_class(getattr(config.model, config.model.own_class), object, f"model.{TARGET}")


def _source_files(owner: type) -> Iterator[tuple[type, Path]]:
    """The classes of the user that a class is made of, itself included, each with its file."""
    for each in owner.__mro__:
        if each.__module__.partition(".")[0] == OWN_PACKAGE:
            continue
        try:
            file = Path(inspect.getfile(each))
        except (OSError, TypeError):  # built in, or written into a notebook
            continue
        if file.is_file() and not any(file.is_relative_to(folder) for folder in _INSTALLED):
            yield each, file

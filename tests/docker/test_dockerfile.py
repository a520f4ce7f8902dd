"""Docker does not run in tests; the file is read, and what it names must exist and what it runs must work."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from subfl_flower.composition import composed_config

ROOT = Path(__file__).resolve().parents[2]


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile: keyword and rest of the line."""
    lines = (ROOT / "docker" / "Dockerfile").read_text().splitlines()
    return [tuple(line.split(" ", 1)) for line in lines if line and not line.startswith("#")]  # type: ignore[misc]


def test_every_copied_path_exists() -> None:
    copied = [rest.split()[:-1] for keyword, rest in instructions() if keyword == "COPY"]
    assert copied
    for path in (path for paths in copied for path in paths):
        assert (ROOT / path).exists(), path


def test_base_image_is_pinned_and_the_user_is_not_root() -> None:
    (base,) = [rest for keyword, rest in instructions() if keyword == "FROM"]
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", base)
    (user,) = [rest for keyword, rest in instructions() if keyword == "USER"]
    assert user not in ("root", "0")


def test_it_runs_the_installed_command_with_overrides_that_compose() -> None:
    (entry,) = [json.loads(rest) for keyword, rest in instructions() if keyword == "ENTRYPOINT"]
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert entry[0] in scripts
    (overrides,) = [json.loads(rest) for keyword, rest in instructions() if keyword == "CMD"]
    config, _ = composed_config(overrides)
    assert config.method.name == "fedpub"

"""The files of docker/, read as Docker reads them as far as they use its language."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"


@dataclass(frozen=True)
class Stage:
    """A target of the Dockerfile: what it starts from, and its instructions, those of its parents first."""

    base: str
    instructions: tuple[tuple[str, str], ...]

    def all(self, keyword: str) -> list[str]:
        return [rest for name, rest in self.instructions if name == keyword]

    def words(self, keyword: str) -> list[str]:
        """The last ENTRYPOINT or CMD, as a list of words."""
        return list(json.loads(self.all(keyword)[-1]))

    @property
    def healthcheck(self) -> list[str]:
        return list(json.loads(self.all("HEALTHCHECK")[-1].partition("CMD ")[2]))


def stages() -> dict[str, Stage]:
    """The Dockerfile's stages by name, in its order."""
    found: dict[str, Stage] = {}
    name = ""
    for line in (DOCKER / "Dockerfile").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        keyword, _, rest = line.partition(" ")
        if keyword == "FROM":
            match = re.fullmatch(r"(\S+) AS (\S+)", rest)
            assert match, rest
            base, name = match.groups()
            parent = found.get(base)
            found[name] = Stage(base, () if parent is None else parent.instructions)
        else:
            found[name] = Stage(found[name].base, (*found[name].instructions, (keyword, rest)))
    return found


def compose(name: str = "compose.yaml") -> dict[str, Any]:
    content = yaml.safe_load((DOCKER / name).read_text())
    assert isinstance(content, dict)
    return content


def mounts(service: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """Source, target and whether it is read-only, of everything that a service mounts."""
    found = []
    for volume in service["volumes"]:
        if isinstance(volume, str):
            source, target = volume.split(":")
            found.append((source, target, False))
        else:
            assert volume["type"] == "bind" and volume["bind"] == {"create_host_path": False}
            found.append((volume["source"], volume["target"], volume.get("read_only", False)))
    return found

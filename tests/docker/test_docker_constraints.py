"""The versions that the images install are all of them, and go together."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib

from docker_files import DOCKER, ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version


def constraints() -> dict[str, Version]:
    found: dict[str, Version] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        requirement = Requirement(line)
        (specifier,) = requirement.specifier
        name, version = canonicalize_name(requirement.name), Version(specifier.version)
        assert specifier.operator == "==" and version.local is None and not requirement.marker, line
        assert name not in found, line
        found[name] = version
    return found


def dependencies() -> list[Requirement]:
    """Those of the project, and of the extras that the images install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extras,) = re.findall(r'"\.\[([\w,]+)\]"', (DOCKER / "Dockerfile").read_text())
    of_extras = [text for extra in extras.split(",") for text in project["optional-dependencies"][extra]]
    return [Requirement(text) for text in (*project["dependencies"], *of_extras)]


def test_they_cover_the_project_and_keep_to_what_it_asks_for() -> None:
    pinned = constraints()
    for requirement in dependencies():
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


def test_pytorchs_builds_are_one_version() -> None:
    """pip leaves the installed 2.13.0+cpu alone where 2.13.0 is asked for."""
    (torch,) = [requirement for requirement in dependencies() if requirement.name == "torch"]
    assert torch.specifier.contains(f"{constraints()['torch']}+cpu")


def test_what_the_dependencies_need_in_their_turn_is_pinned_as_well() -> None:
    """Followed through every installed package that has the pinned version."""
    pinned, seen, waiting = constraints(), set(), dependencies()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        assert requirement.specifier.contains(pinned[name], prereleases=True), requirement
        distribution = importlib.metadata.distribution(name)
        if Version(distribution.version).public != str(pinned[name]):
            continue
        for extra in {"", *requirement.extras} - {extra for known, extra in seen if known == name}:
            seen.add((name, extra))
            needed = map(Requirement, distribution.requires or [])
            waiting += [need for need in needed if need.marker is None or need.marker.evaluate({"extra": extra})]
    assert {name for name, _ in seen} <= set(pinned)


def hashed(name: str) -> dict[str, tuple[Version, list[str]]]:
    """Version and hashes of each package in a file of requirements."""
    found: dict[str, tuple[Version, list[str]]] = {}
    text = re.sub(r"^#.*\n", "", (DOCKER / name).read_text(), flags=re.MULTILINE)
    for entry in re.split(r"\n(?=\S)", text.strip()):
        requirement, *hashes = entry.replace("\\\n", " ").split()
        package, _, version = requirement.partition("==")
        assert hashes and all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", each) for each in hashes), entry
        found[canonicalize_name(package)] = Version(version), hashes
    return found


def test_the_hashed_requirements_are_the_pinned_versions_of_all_that_is_needed() -> None:
    """docker/requirements.py writes them again where a version has changed."""
    pinned = constraints()
    run, torch = hashed("requirements.txt"), hashed("torch.txt")
    assert {**run, **torch} == {name: (pinned[name], hashes) for name, (_, hashes) in {**run, **torch}.items()}
    seen, waiting = set(), dependencies()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        assert name in run or name in torch, requirement
        distribution = importlib.metadata.distribution(name)
        if Version(distribution.version).public != str(pinned[name]) or (name, str(requirement.extras)) in seen:
            continue
        seen.add((name, str(requirement.extras)))
        for extra in {"", *requirement.extras}:
            needed = map(Requirement, distribution.requires or [])
            waiting += [need for need in needed if need.marker is None or need.marker.evaluate({"extra": extra})]
    assert not set(hashed("requirements-cuda.txt")) & set(run) and "hatchling" in hashed("requirements-build.txt")

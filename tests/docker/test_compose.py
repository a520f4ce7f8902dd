"""The compose files name what exists; what they start is accepted with the files that docs/docker.md makes."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from docker_files import DOCKER, ROOT, compose, mounts, stages
from flwr.common.config import parse_config_args
from flwr.superlink.cli.flower_superlink import _parse_args_run_superlink
from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode
from run_outcomes import deploy

from subfl_flower.cli import main as subfl
from subfl_flower.composition import resumes
from subfl_flower.data.federation_schema import FederationSchema
from subfl_flower.deploy.command import SUBCOMMANDS
from subfl_flower.deploy.files import PRIVATE
from subfl_flower.flower.ports import free_port

NODES = ("supernode-00", "supernode-01", "supernode-02")
FLOWER = ("flower-superlink", "subfl_flower.flower.warm.supernode")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder federation/, by the commands of docs/docker.md."""
    folder = tmp_path_factory.mktemp("host") / "federation"
    (folder / "public-keys").mkdir(parents=True)
    documented = (ROOT / "docs" / "docker.md").read_text()
    commands = re.findall(r"^(?:    |.* do )subfl ((?:partition|deploy) [^;\n]+)", documented, re.M)
    assert len(commands) == 3
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for node in ("00", "01", "02"):
            for command in commands:
                if "$node" in command or node == "00":
                    with pytest.raises(SystemExit) as ended:
                        subfl(shlex.split(command.replace("$node", node)))
                    assert ended.value.code == 0, command
    for public in (folder / "keys").glob("*.pub"):
        shutil.copy(public, folder / "public-keys")
    return folder


def service_root(service: dict[str, Any], host: Path, root: Path) -> Path:
    """A folder that looks like the service's root folder, as far as it mounts something."""
    for source, target, _ in mounts(service):
        place = root / target.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if source in compose()["volumes"]:
            place.mkdir()
        else:
            place.symlink_to(host.parent / Path(source).relative_to(".."))
    return root


@pytest.fixture
def printed(host: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[str], list[str]]:
    """Function that gives Flower's arguments of a service, with its folders below `tmp_path` and a free port."""

    def run(name: str) -> list[str]:
        service = compose()["services"][name]
        root = service_root(service, host, tmp_path / name)
        stage = stages()[service["build"]["target"]]
        script, command, *words = [*stage.words("ENTRYPOINT"), *service.get("command", stage.words("CMD"))]
        assert (script, command) == ("subfl", "deploy")
        moved = [f"{root}{word}" if word.startswith("/") else word for word in words]
        code = deploy([*moved, "--port", str(free_port()), "--print"])
        answer = capsys.readouterr()
        assert code == 0, answer.err
        line = shlex.split(answer.out)
        return line[next(place for place, word in enumerate(line) if Path(word).name in FLOWER) + 1 :]

    return run


def test_the_superlink_is_accepted(printed: Callable[[str], list[str]], tmp_path: Path, host: Path) -> None:
    arguments = _parse_args_run_superlink().parse_args(printed("superlink"))
    assert arguments.enable_supernode_auth and arguments.host == "0.0.0.0"
    assert Path(arguments.ssl_keyfile).samefile(host / "certs" / "server.key")
    assert arguments.database == str(tmp_path / "superlink/federation/database/superlink.db")


@pytest.mark.parametrize("name", NODES)
def test_a_supernode_is_accepted(name: str, printed: Callable[[str], list[str]], host: Path) -> None:
    arguments = _parse_args_run_supernode().parse_args(printed(name))
    number = name.removeprefix("supernode-")
    assert arguments.superlink == "superlink:8000"
    assert Path(arguments.auth_supernode_private_key).samefile(host / "keys" / f"node-{number}")
    assert Path(arguments.root_certificates).samefile(host / "certs" / "ca.crt")
    assert parse_config_args([arguments.node_config])["client"] == str(host / "partitions" / f"client-{number}")


def documented_runs(service: str) -> list[list[str]]:
    """The arguments of every `docker compose run --rm SERVICE` in docs/docker.md."""
    text = (ROOT / "docs" / "docker.md").read_text().replace("\\\n", " ")
    return [shlex.split(line) for line in re.findall(rf"^    docker compose run --rm {service} (.*)$", text, re.M)]


def deploy_arguments(subcommand: str, words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    SUBCOMMANDS[subcommand].add_arguments(parser)
    return parser.parse_intermixed_args(words)


def test_the_submitters_lines_parse_and_state_the_schema(host: Path) -> None:
    service = compose()["services"]["submitter"]
    assert service["entrypoint"][:3] == stages()["submitter"].words("ENTRYPOINT")
    runs = [service["command"], *documented_runs("submitter")]
    assert len(runs) == 3
    for words in runs:
        parsed = deploy_arguments("submit", [*service["entrypoint"][3:], *words])
        assert (parsed.connection, parsed.overrides) == ("lab", words)
    places = {target: host.parent / source.removeprefix("../") for source, target, _ in mounts(service)}
    new = [words for words in runs if not resumes(words)]
    assert len(new) == 2
    for words in new:
        (file,) = (word.removeprefix("schema=") for word in words if word.startswith("schema="))
        assert FederationSchema.read(places[file]).client_ids == range(len(NODES))


def test_the_operators_lines_parse_and_register_every_node(host: Path) -> None:
    service = compose()["services"]["operator"]
    assert service["entrypoint"] == ["subfl", "deploy"]
    (connect, *way), (register, *keys) = documented_runs("operator")
    connection, registration = deploy_arguments(connect, way), deploy_arguments(register, keys)
    assert connection.name == registration.connection == "lab"
    assert connection.address == "superlink:8000"
    given = {target: host.parent / source.removeprefix("../") for source, target, _ in mounts(service)}
    assert str(connection.root_certificates) in given
    assert {given[str(key.parent)] / key.name for key in registration.public_key} == set(
        (host / "public-keys").iterdir()
    )


def test_everything_mounted_is_there_and_private_files_go_to_their_owner_alone(host: Path) -> None:
    services, holders = compose()["services"], {}
    for name, service in services.items():
        for source, target, fixed in mounts(service):
            if source in compose()["volumes"]:
                continue
            path = host.parent / Path(source).relative_to("..")
            assert source.startswith("../federation/") and path.exists(), source
            assert fixed or target == "/client"
            if path.is_file() and path.stat().st_mode & 0o777 == PRIVATE:
                holders.setdefault(str(path.relative_to(host)), []).append(name)
    keys = {f"keys/node-{name[-2:]}": [name] for name in NODES}
    assert holders == {"certs/server.key": ["superlink"], "partitions/federation.json": ["submitter"], **keys}
    # Folders are given as a whole: none of them has somebody's private key.
    assert {path.suffix for path in (host / "public-keys").iterdir()} == {".pub"}


def test_every_service_is_built_here_and_hardened() -> None:
    content = compose()
    assert set(content["services"]) == {"superlink", *NODES, "operator", "submitter"}
    for service in content["services"].values():
        assert service["build"]["target"] in stages()
        assert (
            DOCKER / service["build"]["context"] / service["build"]["dockerfile"]
        ).resolve() == DOCKER / "Dockerfile"
        assert re.fullmatch(r"[a-z-]+:\d+\.\d+\.\d+", service["image"])
        assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
        assert service["read_only"] and "privileged" not in service and "user" not in service
        assert set(service.get("depends_on", {"superlink": 0})) == {"superlink"}
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        # With a root folder that is read-only, these are where Flower and the app write.
        writable = {entry.partition(":")[0] for entry in service["tmpfs"]}
        writable |= {target for _, target, fixed in mounts(service) if not fixed}
        assert {"/tmp", "/home/subfl/.flwr"} <= writable
    assert "$" not in (DOCKER / "compose.yaml").read_text()


def test_who_waits_for_the_superlink_waits_for_a_health_check() -> None:
    services = compose()["services"]
    for name in (*NODES, "operator", "submitter"):
        assert services[name]["depends_on"] == {"superlink": {"condition": "service_healthy"}}
    assert stages()["superlink"].all("HEALTHCHECK")
    for name in ("superlink", *NODES):
        assert services[name]["restart"] == "unless-stopped" and "profiles" not in services[name]
    for name in ("operator", "submitter"):
        assert services[name]["profiles"] == ["submit"]


def test_volumes_are_declared_and_all_of_them_are_used() -> None:
    content = compose()
    named = {
        source for service in content["services"].values() for source, _, _ in mounts(service) if "/" not in source
    }
    assert named == set(content["volumes"])
    anonymous = {target for source, target, _ in mounts(content["services"]["superlink"]) if source in named}
    assert anonymous == set(json.loads(stages()["superlink"].all("VOLUME")[-1]))


def test_the_override_gives_gpus_to_the_nodes() -> None:
    override = compose("compose.cuda.yaml")["services"]
    assert set(override) == set(NODES)
    for name, service in override.items():
        (argument,) = service["build"]["args"]
        assert any(declared.startswith(f"{argument}=") for declared in stages()["base"].all("ARG"))
        assert service["image"] != compose()["services"][name]["image"]
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device["driver"] == "nvidia" and "gpu" in device["capabilities"]

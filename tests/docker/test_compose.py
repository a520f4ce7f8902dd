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
from flwr.supernode import fleet_http_client
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
            path = host.parent / source.removeprefix("../")
            if target == "/etc/nginx/nginx.conf":
                path = DOCKER / source
            else:
                assert source.startswith("../federation/"), source
            assert path.exists(), source
            assert fixed or target == "/client"
            if path.is_file() and path.stat().st_mode & 0o777 == PRIVATE:
                holders.setdefault(str(path.relative_to(host)), []).append(name)
    keys = {f"keys/node-{name[-2:]}": [name] for name in NODES}
    assert holders == {"certs/server.key": ["superlink", "gate"], "partitions/federation.json": ["submitter"], **keys}
    # Folders are given as a whole: none of them has somebody's private key.
    assert {path.suffix for path in (host / "public-keys").iterdir()} == {".pub"}


def test_every_service_is_built_here_or_pinned_and_hardened() -> None:
    content = compose()
    assert set(content["services"]) == {"superlink", "gate", *NODES, "operator", "submitter"}
    for name, service in content["services"].items():
        if name == "gate":
            assert re.fullmatch(r"[a-z/-]+:[\w.-]+@sha256:[0-9a-f]{64}", service["image"])
            assert service["user"] == "1000:1000"
        else:
            assert service["build"]["target"] in stages() and "user" not in service
            assert (
                DOCKER / service["build"]["context"] / service["build"]["dockerfile"]
            ).resolve() == DOCKER / "Dockerfile"
            assert re.fullmatch(r"[a-z-]+:\d+\.\d+\.\d+", service["image"])
            # With a root folder that is read-only, these are where Flower and the app write.
            writable = {entry.partition(":")[0] for entry in service["tmpfs"]}
            writable |= {target for _, target, fixed in mounts(service) if not fixed}
            assert {"/tmp", "/home/subfl/.flwr"} <= writable
        assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
        assert service["read_only"] and "privileged" not in service
        assert service["pids_limit"] > 0 and service["mem_limit"] == service["memswap_limit"]
        assert all("size=" in entry for entry in service["tmpfs"])
        assert set(service.get("depends_on", {"superlink": 0})) <= {"superlink", "gate"}
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert "$" not in (DOCKER / "compose.yaml").read_text()


def networks(service: dict[str, Any]) -> dict[str, set[str]]:
    """Networks of a service, with the further names that it has there."""
    found = service["networks"]
    return {name: set((found[name] or {}).get("aliases", [])) if isinstance(found, dict) else set() for name in found}


def test_attack_a_node_cannot_reach_the_superlinks_control() -> None:
    """It would register keys and submit apps to other sites; the gate is all that a node's network leads to."""
    content = compose()
    services = {name: networks(service) for name, service in content["services"].items()}
    assert content["networks"] == {"control": None, "fleet": {"internal": True}}
    assert {name for name, found in services.items() if "fleet" in found} == {"gate", *NODES}
    assert all(set(services[name]) == {"fleet"} for name in NODES)
    assert services["superlink"] == {"control": {"link"}}
    # Of the same name as in the certificate, and of no use to ask for the SuperLink itself.
    assert services["gate"] == {"control": set(), "fleet": {"superlink"}}
    assert not any("network_mode" in service or "extra_hosts" in service for service in content["services"].values())


def test_the_gate_passes_on_what_supernodes_ask_for_and_nothing_else() -> None:
    text = re.sub(r"#.*", "", (DOCKER / "gate.conf").read_text())
    places = dict(re.findall(r"location (\S+) \{([^}]*)\}", text))
    assert set(places) == {"/v1/fleet/", "/"} and places["/"].strip() == "return 403;"
    passed = dict(line.split(None, 1) for line in places["/v1/fleet/"].strip().rstrip(";").split(";"))
    assert passed["proxy_pass"] == "https://link:8000/v1/fleet/"  # with the path that was compared
    assert (passed["proxy_ssl_verify"], passed["proxy_ssl_name"]) == ("on", "superlink")
    targets = {target for _, target, _ in mounts(compose()["services"]["gate"])}
    assert set(re.findall(r"/certificates/\S+(?=;)", text)) <= targets
    assert text.count("{") == text.count("}") and "listen 8000 ssl;" in text
    # Flower's SuperNodes speak to these paths alone.
    client = Path(fleet_http_client.__file__).read_text()
    assert {path.rsplit("/", 1)[0] for path in re.findall(r'path="(/[^"]+)"', client)} == {"/v1/fleet"}


def test_who_waits_for_the_superlink_waits_for_a_health_check() -> None:
    services = compose()["services"]
    for name in (*NODES, "operator", "submitter"):
        started = {"gate": {"condition": "service_started"}} if name in NODES else {}
        assert services[name]["depends_on"] == {"superlink": {"condition": "service_healthy"}, **started}
    assert stages()["superlink"].all("HEALTHCHECK")
    for name in ("superlink", "gate", *NODES):
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
        arguments = service["build"]["args"]
        assert {declared.partition("=")[0] for declared in stages()["base"].all("ARG")} == set(arguments)
        assert (DOCKER / arguments["FURTHER"]).is_file()
        assert service["image"] != compose()["services"][name]["image"]
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device["driver"] == "nvidia" and "gpu" in device["capabilities"]

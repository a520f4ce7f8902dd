"""Docker does not run in tests; the file is read, and what it names must exist and what it runs must work."""

from __future__ import annotations

import ast
import http.server
import json
import re
import ssl
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from docker_files import ROOT, stages
from run_outcomes import deploy

from subfl_flower.composition import composed_config
from subfl_flower.deploy.command import SUBCOMMANDS

FINAL = ("superlink", "supernode", "submitter", "simulation")


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def test_the_targets_share_a_pinned_base_and_simulation_is_the_default() -> None:
    assert [name for name, stage in stages().items() if stage.base == "base"] == list(FINAL)
    assert list(stages())[-1] == "simulation"
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", stages()["base"].base)


def test_every_copied_path_exists_and_is_not_ignored() -> None:
    copied = [path for stage in stages().values() for rest in stage.all("COPY") for path in rest.split()[:-1]]
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {"pyproject.toml", "conf", "clients", "strategies", "subfl_flower"} <= set(copied)
    for path in copied:
        assert (ROOT / path).exists(), path
        assert path.split("/")[0] not in ignored
    # The folder of keys and data is not even sent to Docker.
    assert "federation" in ignored


@pytest.mark.parametrize("name", FINAL)
def test_no_target_runs_as_root(name: str) -> None:
    assert stages()[name].all("USER")[-1] == "1000:1000"


@pytest.mark.parametrize("name", FINAL)
def test_the_entry_point_is_a_command_of_the_package(name: str) -> None:
    script, *words = stages()[name].words("ENTRYPOINT")
    assert script in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    if name != "simulation":
        expected = "submit" if name == "submitter" else name
        assert words[:2] == ["deploy", expected] and expected in SUBCOMMANDS


def test_the_simulation_runs_overrides_that_compose() -> None:
    config, _ = composed_config(stages()["simulation"].words("CMD"))
    assert config.method.name == "fedpub"


def test_pytorch_comes_from_an_index_that_the_build_chooses() -> None:
    base = stages()["base"]
    assert base.all("ARG") == ["TORCH_INDEX=https://download.pytorch.org/whl/cpu", "FURTHER=requirements-build.txt"]
    (named,) = [rest for rest in base.all("RUN") if "$TORCH_INDEX" in rest]
    assert named.endswith("-r docker/torch.txt")


def test_nothing_is_installed_without_a_hash() -> None:
    """The package itself lies here, and brings nothing; what builds it is installed before."""
    *installs, own = [rest for rest in stages()["base"].all("RUN") if rest.startswith("pip install")]
    assert all("--require-hashes --no-deps" in install for install in installs)
    assert own == 'pip install --no-deps --no-build-isolation ".[dp,douban,gcfl,metrics,parquet,plots]" && pip check'
    files = {word for install in installs for word in re.findall(r"docker/[\w-]+\.txt", install)}
    copied = {word for rest in stages()["base"].all("COPY") for word in rest.split()}
    assert files | {"docker/requirements-cuda.txt"} <= copied


def test_volumes_are_folders_that_the_user_may_write_in() -> None:
    superlink = stages()["superlink"]
    made = superlink.all("RUN")[-1].split()
    assert made[:4] == ["install", "--directory", "--owner=1000", "--group=1000"]
    folders = [f"{superlink.all('WORKDIR')[-1]}/{name}" for name in made[4:]]
    assert json.loads(superlink.all("VOLUME")[-1]) == folders
    assert str(Path(option(superlink.words("CMD"), "--database")).parent) in folders


@contextmanager
def answering(status: int, secured: ssl.SSLContext | None) -> Iterator[int]:
    """The port of a server that answers /health with `status`, and anything else with 404."""

    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health) as server:
        if secured is not None:
            server.socket = secured.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def health(command: list[str], port: int, certificates: Path) -> int:
    """The exit code of a health check, asked of another port and with certificates of another folder."""
    python, option_, code = command
    assert (python, option_) == ("python", "-c")
    ast.parse(code)
    moved = re.sub(r"\b(8000|9094)\b", str(port), code).replace("/certificates", str(certificates))
    return subprocess.run([sys.executable, "-c", moved], capture_output=True, timeout=60).returncode


@pytest.mark.parametrize("name", ["superlink", "supernode"])
def test_the_health_check_tells(name: str, tmp_path: Path) -> None:
    stage, folders = stages()[name], [tmp_path / "own", tmp_path / "foreign"]
    assert option(stage.words("ENTRYPOINT"), "--port") in re.findall(r"\b\d{4}\b", stage.healthcheck[2])
    for folder in folders:
        assert deploy(["certificates", str(folder), "--host", "superlink"]) == 0
    secured = None
    if name == "superlink":
        secured = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        secured.load_cert_chain(folders[0] / "server.crt", folders[0] / "server.key")
    with answering(200, secured) as port:
        assert health(stage.healthcheck, port, folders[0]) == 0
        # Who shows another authority's certificate is not the SuperLink; a node's own port has no TLS.
        assert bool(health(stage.healthcheck, port, folders[1])) == (name == "superlink")
    assert health(stage.healthcheck, port, folders[0]) != 0
    with answering(503, secured) as port:
        assert health(stage.healthcheck, port, folders[0]) != 0

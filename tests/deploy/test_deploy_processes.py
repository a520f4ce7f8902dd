import argparse
import os
import shlex
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from deploy_answers import Answer
from flwr.common.config import parse_config_args
from flwr.superlink.cli.flower_superlink import _parse_args_run_superlink
from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode

from subfl_flower.deploy.processes import node_config
from subfl_flower.errors import SubflError
from subfl_flower.flower.ports import free_port
from subfl_flower.flower.programs import flower_environment
from subfl_flower.server.monitoring.metrics import METRICS

SETTINGS = {
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
    "FLWR_TELEMETRY_ENABLED": "0",
    "PYTHONUNBUFFERED": "1",
}
WARM = "subfl_flower.flower.warm.supernode"


def split(line: str) -> tuple[dict[str, str], str, list[str]]:
    """Assignments, program and arguments of a shell's command line."""
    words = shlex.split(line)
    start = next(place for place, word in enumerate(words) if "=" not in word)
    assignments = dict(word.split("=", 1) for word in words[:start])
    return assignments, words[start], words[start + 1 :]


def parsed(answer: Answer, name: str, parser: argparse.ArgumentParser) -> argparse.Namespace:
    """A printed line as Flower's own parser reads it."""
    assert answer.code == 0, answer.err
    assert len(answer.out) == 1
    assignments, program, arguments = split(answer.out[0])
    assert assignments.items() >= SETTINGS.items()
    assert assignments["PATH"] == f"{Path(program).parent}:$PATH"
    assert os.access(program, os.X_OK)
    if name == WARM:
        assert program == sys.executable and arguments[:3] == ["-P", "-m", WARM]
        return parser.parse_args(arguments[3:])
    assert Path(program).name == name
    return parser.parse_args(arguments)


def test_flower_reads_the_superlinks_line(deploy: Callable[..., Answer], certificates: Path, tmp_path: Path) -> None:
    port = free_port()
    line = deploy("superlink", "--certificates", "certificates", "--port", port, "--database", "nodes.db", "--print")
    arguments = parsed(line, "flower-superlink", _parse_args_run_superlink())
    assert (arguments.host, arguments.port) == ("0.0.0.0", port)
    assert arguments.ssl_ca_certfile == str(certificates / "ca.crt")
    assert arguments.ssl_certfile == str(certificates / "server.crt")
    assert arguments.ssl_keyfile == str(certificates / "server.key")
    assert arguments.database == str(tmp_path / "nodes.db")
    assert arguments.enable_supernode_auth and not arguments.insecure
    assert arguments.isolation == "subprocess" and not arguments.runtime_dependency_install


def test_an_address_for_metrics_reaches_the_runs_by_their_environment(deploy: Callable[..., Answer]) -> None:
    address = f"127.0.0.1:{free_port()}"
    options = ("superlink", "--insecure", "--host", "127.0.0.1", "--port", free_port(), "--print", "--metrics")
    answer = deploy(*options, address)
    assert answer.code == 0 and f" {METRICS}={address} " in answer.out[0]
    wrong = deploy(*options, "here:http")
    assert wrong.code == 2 and wrong.err[0].startswith("subfl deploy: --metrics here:http: it must be HOST:PORT")


def test_an_insecure_superlink_is_for_loopback(deploy: Callable[..., Answer]) -> None:
    line = deploy("superlink", "--insecure", "--host", "127.0.0.1", "--port", free_port(), "--print")
    arguments = parsed(line, "flower-superlink", _parse_args_run_superlink())
    assert arguments.insecure and not arguments.enable_supernode_auth and arguments.ssl_certfile is None


def test_flower_reads_the_supernodes_line(
    deploy: Callable[..., Answer], certificates: Path, key: Path, client: Callable[..., Path]
) -> None:
    clients = [client("client 0"), client("it's client=1", 1)]
    secure = ["--root-certificates", "certificates/ca.crt", "--key", "node", "--superlink", "a.org:8000"]
    line = deploy("supernode", *secure, "--client", clients[0].name, "--client", clients[1], "--state", "s", "--print")
    arguments = parsed(line, WARM, _parse_args_run_supernode())
    assert arguments.superlink == "a.org:8000"
    assert arguments.root_certificates == str(certificates / "ca.crt")
    assert arguments.auth_supernode_private_key == str(key)
    assert arguments.isolation == "process" and not arguments.insecure
    assert arguments.host == "127.0.0.1" and 1 <= arguments.port <= 65535
    told = parse_config_args([arguments.node_config])
    assert told == {"client": f"{clients[0]},{clients[1]}", "state": str(Path("s").resolve())}


def test_an_insecure_supernode_is_for_loopback(deploy: Callable[..., Answer], client: Callable[..., Path]) -> None:
    port = free_port()
    line = deploy(
        *("supernode", "--insecure", "--superlink", "[::1]:9", "--client", client("c"), "--port", port),
        *("--no-warm", "--print"),
    )
    arguments = parsed(line, "flower-supernode", _parse_args_run_supernode())
    assert arguments.insecure and arguments.auth_supernode_private_key is None
    assert arguments.isolation == "subprocess"
    assert arguments.port == port
    assert parse_config_args([arguments.node_config]) == {"client": str(Path("c").resolve())}


def test_messages_are_forked_for_on_linux_alone(
    deploy: Callable[..., Answer], client: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ["supernode", "--insecure", "--superlink", "localhost:9", "--client", client("c"), "--print"]
    monkeypatch.setattr(sys, "platform", "darwin")
    parsed(deploy(*common), "flower-supernode", _parse_args_run_supernode())
    answer = deploy(*common, "--warm")
    assert answer.code == 2
    assert "--warm: forking a process with PyTorch is safe on Linux alone, and this is darwin" in answer.err[-1]


@pytest.mark.parametrize("name", ['say "a"', "a,b", "back\\slash", "two\nlines"])
def test_a_path_that_flower_cannot_pass_on_is_refused(name: str, tmp_path: Path) -> None:
    for clients, state in (([tmp_path / name], None), ([tmp_path], tmp_path / name)):
        with pytest.raises(SubflError, match="Flower cannot pass on a path with a comma, a double quote"):
            node_config(clients, state)


def test_a_client_is_hosted_once(client: Callable[..., Path], deploy: Callable[..., Answer]) -> None:
    one, copy, namesake = client("one"), client("copy"), client("elsewhere/one", 1)
    common = ["supernode", "--insecure", "--superlink", "localhost:9", "--print", "--client", one, "--client"]
    for extra, complaint in (
        ([one], f"--client {one}: it is named twice"),
        ([copy], f"{copy} holds client 0, and so does {one}"),
    ):
        answer = deploy(*common, *extra)
        assert answer.code == 2
        assert complaint in answer.err[-1]
    assert deploy(*common, namesake, "--state", "s").code == 0


def test_a_client_that_is_not_whole_is_refused(client: Callable[..., Path], deploy: Callable[..., Answer]) -> None:
    damaged, keyless = client("damaged"), client("keyless")
    graph = damaged / "graph.safetensors"
    content = bytearray(graph.read_bytes())
    content[-1] ^= 1
    graph.write_bytes(content)
    (keyless / "clients.key").unlink()
    for folder, complaint in (
        (Path("nowhere").resolve(), "nowhere is not a client's folder: there is no such folder"),
        (damaged, "graph.safetensors is damaged (its checksum differs)"),
        (keyless, "clients.key: No such file or directory"),
    ):
        answer = deploy("supernode", "--insecure", "--superlink", "localhost:9", "--client", folder, "--print")
        assert answer.code == 2
        assert len(answer.err) == 1 and complaint in answer.err[0]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["superlink", "--insecure"], "--insecure with --host 0.0.0.0: without TLS"),
        (["superlink"], "one of the arguments --certificates --insecure is required"),
        (["superlink", "--certificates", "nowhere"], "nowhere/ca.crt: No such file or directory"),
        (["superlink", "--certificates", "certificates", "--host", "10.0.0.7"], "--host 10.0.0.7: certificates/server"),
        (["superlink", "--certificates", "certificates", "--port", "0"], "0 is not a whole number from 1 to 65535"),
        (["superlink", "--certificates", "certificates", "--database", "no/nodes.db"], "its folder does not exist"),
        (["supernode", "--superlink", "a:1", "--client", "c"], "--root-certificates --insecure is required"),
        (["supernode", "--superlink", "a:1", "--insecure", "--client", "c"], "--insecure with --superlink a: without"),
        (
            ["supernode", "--superlink", "a:1", "--root-certificates", "certificates/ca.crt", "--client", "c"],
            "--root-certificates and --key belong together",
        ),
        (
            ["supernode", "--superlink", "localhost:1", "--insecure", "--key", "node", "--client", "c"],
            "--root-certificates and --key belong together",
        ),
        (["supernode", "--superlink", "localhost", "--insecure", "--client", "c"], "localhost: it must be HOST:PORT"),
        (
            ["supernode", "--superlink", "localhost:1", "--insecure"],
            "one of the arguments --client --matcher is required",
        ),
        (["federate"], "invalid choice: 'federate'"),
        ([], "required: SUBCOMMAND"),
    ],
)
def test_bad_arguments_are_one_sentence_and_start_nothing(
    arguments: list[str], complaint: str, deploy: Callable[..., Answer], certificates: Path
) -> None:
    answer = deploy(*arguments)  # without --print: a command that was not refused would replace this process
    assert answer.code == 2
    assert complaint in answer.err[-1]


def test_a_port_that_is_taken_is_refused(deploy: Callable[..., Answer], client: Callable[..., Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments in (
            ["superlink", "--insecure", "--host", "127.0.0.1"],
            ["supernode", "--insecure", "--superlink", "localhost:9", "--client", client("c")],
        ):
            answer = deploy(*arguments, "--port", port)
            assert answer.code == 2
            assert f"--port {port}: 127.0.0.1 cannot be listened on (Address already in use)" in answer.err[-1]


def test_programs_are_found_and_no_proxy_stands_between_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/somewhere")
    monkeypatch.setenv("NO_PROXY", "intranet")
    monkeypatch.delenv("no_proxy", raising=False)
    environment = flower_environment()
    folder, _, rest = environment["PATH"].partition(os.pathsep)
    assert (Path(folder) / "flower-superexec").is_file() and rest == "/somewhere"
    assert environment["NO_PROXY"] == "127.0.0.1,localhost,intranet"
    assert environment["no_proxy"] == "127.0.0.1,localhost"
    assert environment.items() >= SETTINGS.items()


def test_a_matcher_hosts_no_client_and_keeps_its_key(tmp_path: Path, deploy: Callable[..., Answer]) -> None:
    state = tmp_path / "matcher"
    key = deploy("matcher-key", "--state", state).out[0]
    assert len(bytes.fromhex(key)) == 32
    assert deploy("matcher-key", "--state", state).out[0] == key != deploy("matcher-key", "--state", tmp_path).out[0]
    common = ["supernode", "--insecure", "--superlink", "localhost:9", "--print"]
    line = parsed(deploy(*common, "--matcher", "--state", state), WARM, _parse_args_run_supernode())
    assert parse_config_args([line.node_config]) == {"role": "matcher", "state": str(state.resolve())}
    for extra, complaint in (
        (["--matcher"], "it keeps its key in a folder; name one with --state DIR"),
        (["--matcher", "--client", state], "not allowed with argument"),
    ):
        answer = deploy(*common, *extra)
        assert answer.code == 2 and complaint in answer.err[-1]


def test_clients_may_be_told_the_only_matcher_that_they_seal_to(
    client: Callable[..., Path], deploy: Callable[..., Answer]
) -> None:
    common = ["supernode", "--insecure", "--superlink", "localhost:9", "--print", "--client", client("one")]
    key = "0f" * 32
    line = parsed(deploy(*common, "--matcher-key", key), WARM, _parse_args_run_supernode())
    assert parse_config_args([line.node_config])["matcher-key"] == key
    assert "keep-embeddings" not in parse_config_args([line.node_config])
    line = parsed(deploy(*common, "--keep-embeddings"), WARM, _parse_args_run_supernode())
    assert parse_config_args([line.node_config])["keep-embeddings"] is True
    answer = deploy(*common, "--matcher-key", key[:-1])
    assert answer.code == 2 and "must be 64 hexadecimal digits" in answer.err[-1]

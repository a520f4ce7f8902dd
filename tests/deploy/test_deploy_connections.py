import ssl
import threading
import tomllib
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from deploy_answers import Answer
from flwr.cli.flower_config import read_superlink_connection

from subfl_flower.deploy.connections import require_connection
from subfl_flower.errors import SubflError
from subfl_flower.flower.ports import free_port

EXISTING = """# my own notes
[superlink]
default = "other"  # the big one

[superlink.other]
address = "10.1.1.1:8000"
root-certificates = "/etc/ca.crt"

[superlink.lab]
address = "old:1"
insecure = true
[superlink.lab.options]
num-supernodes = 3

[superlink.labour]
address = "10.1.1.2:8000"
"""


def test_flower_reads_the_connection(deploy: Callable[..., Answer], certificates: Path) -> None:
    assert deploy("connect", "lab", "--address", "a.org:8000", "--root-certificates", "certificates/ca.crt").code == 0
    connection = read_superlink_connection("lab")
    assert connection.address == "a.org:8000"
    assert connection.root_certificates == str(certificates / "ca.crt")
    assert connection.insecure is False
    assert read_superlink_connection(None).name == "local"  # Flower's own default is still there


def test_every_other_line_stays(deploy: Callable[..., Answer], tmp_path: Path) -> None:
    config = tmp_path / "flower/config.toml"
    config.parent.mkdir()
    config.write_text(EXISTING)
    assert deploy("connect", "lab", "--address", "[::1]:8000", "--insecure").code == 0
    lost = '[superlink.lab]\naddress = "old:1"\ninsecure = true\n[superlink.lab.options]\nnum-supernodes = 3\n\n'
    assert config.read_text() == EXISTING.replace(lost, "") + (
        '\n[superlink.lab]\naddress = "[::1]:8000"\ninsecure = true\n'
    )


def test_connecting_twice_is_the_same_as_once(deploy: Callable[..., Answer], tmp_path: Path) -> None:
    texts = []
    for _ in range(2):
        assert deploy("connect", "lab", "--address", "localhost:8000", "--insecure").code == 0
        texts.append((tmp_path / "flower/config.toml").read_text())
    assert texts[0] == texts[1]
    assert tomllib.loads(texts[0])["superlink"]["lab"] == {"address": "localhost:8000", "insecure": True}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[superlink]\nlab = {address = "a:1"}\n', "superlink.lab is not written as a table of its own"),
        ("superlink = 3\n", "is no configuration of Flower's"),
        ("[superlink", "is no configuration of Flower's"),
    ],
)
def test_a_file_that_cannot_be_edited_is_left_alone(
    text: str, complaint: str, deploy: Callable[..., Answer], tmp_path: Path
) -> None:
    config = tmp_path / "flower/config.toml"
    config.parent.mkdir()
    config.write_text(text)
    answer = deploy("connect", "lab", "--address", "localhost:8000", "--insecure")
    assert answer.code == 2
    assert complaint in answer.err[-1]
    assert config.read_text() == text


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["lab", "--address", "10.0.0.7:8000", "--insecure"], "--insecure with --address 10.0.0.7: without TLS"),
        (["lab", "--address", "a.org:8000", "--insecure"], "--insecure with --address a.org: without TLS"),
        (["lab", "--address", "localhost", "--insecure"], "--address localhost: it must be HOST:PORT"),
        (["lab", "--address", "https://a:1", "--insecure"], "--address https://a:1: it must be HOST:PORT"),
        (["lab", "--address", "::1:8000", "--insecure"], "--address ::1:8000: it must be HOST:PORT"),
        (["lab", "--address", "a:65536", "--insecure"], "--address a:65536: it must be HOST:PORT"),
        (["l.b", "--address", "localhost:1", "--insecure"], "connection l.b: a name has letters"),
        (["default", "--address", "localhost:1", "--insecure"], "connection default: a name"),
        (["lab", "--address", "a:1", "--root-certificates", "none.crt"], "none.crt: No such file"),
        (["lab", "--address", "a:1"], "one of the arguments --root-certificates --insecure is required"),
    ],
)
def test_bad_arguments_write_nothing(
    arguments: list[str], complaint: str, deploy: Callable[..., Answer], tmp_path: Path
) -> None:
    answer = deploy("connect", *arguments)
    assert answer.code == 2
    assert complaint in answer.err[-1]
    assert not (tmp_path / "flower").exists()


@pytest.fixture
def secure_port(certificates: Path) -> int:
    """Somebody who speaks TLS with the certificate, in a thread that ends with the process."""
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.crt", certificates / "server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def test_a_connection_is_tried_before_it_is_used(
    secure_port: int, deploy: Callable[..., Answer], certificates: Path
) -> None:
    def connect(host: str, *trust: object) -> None:
        assert deploy("connect", "lab", "--address", host, *trust).code == 0

    connect(f"localhost:{secure_port}", "--root-certificates", certificates / "ca.crt")
    require_connection("lab")

    connect(f"127.0.0.2:{secure_port}", "--root-certificates", certificates / "ca.crt")
    with pytest.raises(SubflError, match="does not answer: Connection refused"):
        require_connection("lab")

    assert deploy("certificates", "other", "--host", "a").code == 0
    connect(f"localhost:{secure_port}", "--root-certificates", "other/ca.crt")
    with pytest.raises(SubflError, match=r"is not trusted by .*other/ca\.crt: unable to get local issuer"):
        require_connection("lab")

    assert deploy("certificates", certificates, "--host", "a").code == 0
    with pytest.raises(SubflError, match=r"--connection nowhere: .* has lab, local, supergrid only"):
        require_connection("nowhere")
    with pytest.raises(SubflError, match=r"superlink\.local\.address :local:: it must be HOST:PORT"):
        require_connection("local")


def test_tls_towards_a_plain_server_is_said(deploy: Callable[..., Answer], certificates: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        address = f"localhost:{server.server_port}"
        assert deploy("connect", "lab", "--address", address, "--root-certificates", certificates / "ca.crt").code == 0
        with pytest.raises(SubflError, match="does not speak TLS"):
            require_connection("lab")


SIZES = ("schema.features=64", "schema.classes=10")


def test_register_and_submit_need_a_superlink(deploy: Callable[..., Answer], key: Path) -> None:
    port = free_port()
    assert deploy("connect", "lab", "--address", f"127.0.0.1:{port}", "--insecure").code == 0
    expected = f"subfl deploy: the SuperLink 127.0.0.1:{port} does not answer: Connection refused"
    for arguments in (["register", "node.pub"], ["submit", "method=fedavg", *SIZES]):
        answer = deploy(*arguments, "--connection", "lab")
        assert answer.code == 2
        assert answer.err[-1].startswith(expected)


def test_submit_checks_overrides_first(deploy: Callable[..., Answer]) -> None:
    answer = deploy("submit", "federation.epochs_per_day=1", "--connection", "nowhere")
    assert answer.code == 2
    assert "federation.epochs_per_day" in answer.err[-1]

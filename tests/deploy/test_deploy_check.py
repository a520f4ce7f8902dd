"""`subfl deploy check` against a server with TLS that tells any time; a real SuperLink is asked in tests/federation."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from deploy_answers import Answer

from subfl_flower.deploy.operations import check
from subfl_flower.flower.fleet import REGISTERED, UNKNOWN_KEY
from subfl_flower.flower.ports import free_port


class Server:
    """A server of which certificate and clock are chosen; its clock is ahead by some seconds."""

    def __init__(self, certificates: Path, ahead: float = 0.0) -> None:
        self.ahead = ahead
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()

            def date_time_string(self, timestamp: float | None = None) -> str:
                return formatdate(time.time() + outer.ahead, usegmt=True)

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / "server.crt", certificates / "server.key")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.address = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def server(certificates: Path) -> Iterator[Server]:
    found = Server(certificates)
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def standing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the SuperLink's answer to the node's key."""

    def answer(text: str) -> None:
        monkeypatch.setattr(check, "standing_of_key", lambda *_: text)

    answer(REGISTERED)
    return answer


@pytest.fixture
def checked(
    deploy: Callable[..., Answer], server: Server, key: Path, client: Callable[..., Path], standing: object
) -> Callable[..., Answer]:
    folder = client("c")

    def run(*options: object, superlink: str = server.address) -> Answer:
        common = ("--root-certificates", "certificates/ca.crt", "--key", "node", "--client", folder)
        return deploy("check", "--superlink", superlink, *common, *options)

    return run


def failed(answer: Answer) -> str:
    """The one line that says FAILED."""
    assert answer.code == 1 and answer.err == []
    (line,) = [line for line in answer.out if not line.startswith("ok ")]
    assert line.startswith("FAILED  ")
    return " ".join(line.split()[1:])


def test_a_sound_site_has_a_line_for_each_check(
    checked: Callable[..., Answer], deploy: Callable[..., Answer], tmp_path: Path
) -> None:
    deploy("operator-key", "operator")
    (tmp_path / "site.toml").write_text("most_runs = 3\n")
    answer = checked("--operator-key", "operator.pub", "--policy", "site.toml", "--state", "s")
    assert answer.code == 0, answer.out
    names = ["versions", "address", "certificate", "clock", "key", "operator", "policy", "folders", "disk"]
    assert [line.split()[:2] for line in answer.out] == [["ok", name] for name in names]
    assert "site.toml states most_runs" in answer.out[6] and "SHA256:" in answer.out[5]


def test_nobody_at_the_address_leaves_the_other_questions_out(checked: Callable[..., Answer]) -> None:
    answer = checked(superlink=f"127.0.0.1:{free_port()}")
    assert "does not answer" in failed(answer)
    assert [line.split()[1] for line in answer.out] == ["versions", "address", "folders", "disk"]


@pytest.mark.parametrize(
    ("ahead", "words"),
    [(-120, "clock is 120 s ahead of the SuperLink's"), (600, "clock is 600 s behind the SuperLink's")],
)
def test_a_clock_that_flower_refuses_is_told(
    ahead: float, words: str, server: Server, checked: Callable[..., Answer]
) -> None:
    server.ahead = 60
    assert checked().code == 0  # a node's clock may be behind
    server.ahead = ahead
    line = failed(checked())
    number = words.split(" s ")[0].split()[-1]
    near = {words.replace(number, str(int(number) + step)) for step in (-1, 0, 1)}
    assert any(each in line for each in near) and "have NTP set both" in line


def test_a_key_that_is_not_registered_is_told(checked: Callable[..., Answer], standing: Callable[[str], None]) -> None:
    standing(UNKNOWN_KEY)
    assert "node is not registered; the operator does that: subfl deploy register node.pub" in failed(checked())
    standing("HTTP 401: no")
    assert "does not say if node is registered: HTTP 401: no" in failed(checked())


def test_another_authority_is_told(checked: Callable[..., Answer], deploy: Callable[..., Answer]) -> None:
    deploy("certificates", "others", "--host", "127.0.0.1")
    line = failed(checked("--root-certificates", "others/ca.crt"))
    assert "is not trusted by others/ca.crt" in line


def test_a_certificate_that_ends_soon_is_told(checked: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_FEW_DAYS", 366)
    assert "the SuperLink's certificate ends on" in failed(checked())


def test_a_damaged_folder_and_a_full_disk_are_told(
    checked: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "_FREE_BYTES", 2**70)
    assert "are free; make at least" in failed(checked())
    monkeypatch.undo()
    monkeypatch.setattr(check, "standing_of_key", lambda *_: REGISTERED)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c" / "graph.safetensors").write_bytes(b"")
    assert failed(checked()).startswith("folders ")


def test_options_that_belong_together(deploy: Callable[..., Answer], certificates: Path) -> None:
    answer = deploy("check", "--superlink", "a:1", "--root-certificates", "certificates/ca.crt")
    assert answer.code == 2 and "--root-certificates and --key belong together" in answer.err[-1]

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from deploy_answers import Answer

from subfl_flower.deploy.registration import register
from subfl_flower.errors import SubflError
from subfl_flower.flower.programs import Flower

# What `flwr supernode register --format json` prints; it exits with 0 in all three cases.
REGISTERED = '{\n  "success": true,\n  "node-id": 123\n}'
IN_USE = json.dumps(
    {"success": False, "error-message": "Using SuperLink: lab (a:1)\n\n[code: 23] Public key already in use."}
)
REFUSED = json.dumps({"success": False, "error-message": "Using SuperLink: lab (a:1)\n\n[code: 9] Not allowed."})


class Canned(Flower):
    """Flower's command line with answers that are known beforehand."""

    def run(self, *arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        assert arguments[:2] == ("supernode", "register") and arguments[3:] == ("lab", "--format", "json")
        if not (answer := self.environment[Path(arguments[2]).name]):
            raise subprocess.TimeoutExpired("flwr", timeout)
        return subprocess.CompletedProcess(arguments, 0, answer, "")


def test_a_line_for_each_and_a_known_key_is_no_failure(
    deploy: Callable[..., Answer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / f"{name}.pub" for name in ("a", "b", "c", "d")]
    for path in paths:
        assert deploy("key", path.with_suffix("")).code == 0
    flower = Canned({"a.pub": REGISTERED, "b.pub": IN_USE, "c.pub": REFUSED, "d.pub": ""}, "lab")
    assert register(paths[:2], flower) is True
    assert capsys.readouterr().out.splitlines() == [
        f"{paths[0]}: registered as node 123",
        f"{paths[1]}: registered already",
    ]
    assert register(paths[::-1], flower) is False
    assert capsys.readouterr().out.splitlines()[:2] == [
        f"{paths[3]}: not registered: the SuperLink does not answer",
        f"{paths[2]}: not registered: [code: 9] Not allowed.",
    ]


def test_nothing_is_registered_when_one_file_is_no_public_key(
    deploy: Callable[..., Answer], key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SubflError, match="is a private key"):
        register([key.with_name("node.pub"), key], Canned({"node.pub": REGISTERED}, "lab"))
    assert capsys.readouterr().out == ""

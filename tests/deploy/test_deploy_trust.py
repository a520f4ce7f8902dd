"""Options of `subfl deploy` by which a site and a server trust each other."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from deploy_answers import Answer
from test_deploy_processes import WARM, split

from subfl_flower.deploy import command, connections
from subfl_flower.flower.ports import free_port
from subfl_flower.trust.gate import SITE, SiteSettings
from subfl_flower.trust.members import MEMBERS, Members
from subfl_flower.trust.operator_key import OPERATOR_KEY, fingerprint, read_operator_key, read_operator_public_key


@pytest.fixture
def operator(deploy: Callable[..., Answer], tmp_path: Path) -> Path:
    """An operator's private key."""
    assert deploy("operator-key", "operator").code == 0
    return tmp_path / "operator"


def variables(answer: Answer) -> dict[str, str]:
    """Environment variables of a printed line."""
    assert answer.code == 0, answer.err
    return split(answer.out[0])[0]


def test_an_operators_pair_is_made_once_and_its_fingerprint_is_that_of_ssh(
    deploy: Callable[..., Answer], tmp_path: Path
) -> None:
    answer = deploy("operator-key", "keys/operator")
    private, public = tmp_path / "keys" / "operator", tmp_path / "keys" / "operator.pub"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    printed = fingerprint(read_operator_public_key(public))
    assert answer.out[1].endswith(printed) and printed.startswith("SHA256:")
    assert read_operator_key(private).public_key().public_bytes_raw() == read_operator_public_key(public)
    if ssh := shutil.which("ssh-keygen"):
        told = subprocess.run([ssh, "-lf", str(public)], capture_output=True, text=True, check=True).stdout
        assert told.split()[1] == printed
    again = deploy("operator-key", "keys/operator")
    assert again.code == 2 and "sites have pinned its public half: choose another file" in again.err[-1]


def test_a_site_pins_public_keys_and_keeps_its_records_with_its_state(
    deploy: Callable[..., Answer], operator: Path, client: Callable[..., Path], tmp_path: Path
) -> None:
    assert deploy("operator-key", "next").code == 0
    common = ["supernode", "--insecure", "--superlink", "localhost:9", "--client", client("c"), "--print"]
    pins = ["--operator-key", "operator.pub", "--operator-key", "next.pub"]
    answer = deploy(*common, *pins, "--state", "s")
    pinned = tuple(read_operator_public_key(tmp_path / name).hex() for name in ("operator.pub", "next.pub"))
    forks = sys.platform == "linux"
    found = SiteSettings.of(variables(answer))
    assert found == SiteSettings(operators=pinned, state=tmp_path / "s" / "site", warm=forks)
    assert answer.err == []
    cold = deploy(*common, *pins, "--no-warm")
    _, _, arguments = split(cold.out[0])
    assert json.loads(variables(cold)[SITE])["warm"] is False and arguments[:3] == ["-P", "-m", WARM]
    assert SiteSettings.of(variables(cold)) == SiteSettings(operators=pinned, state=tmp_path / "c" / "site", warm=False)


def test_a_site_without_a_pinned_key_is_warned(deploy: Callable[..., Answer], client: Callable[..., Path]) -> None:
    answer = deploy("supernode", "--insecure", "--superlink", "localhost:9", "--client", client("c"), "--print")
    assert SITE not in variables(answer)
    (warning,) = answer.err
    assert warning == (
        "subfl deploy: warning: without --operator-key this site carries out the orders of every registered node, not "
        "the server's alone"
    )


def test_a_superlink_hands_the_private_key_to_its_server_apps(deploy: Callable[..., Answer], operator: Path) -> None:
    common = ["superlink", "--insecure", "--host", "127.0.0.1", "--port", free_port(), "--print"]
    assert variables(deploy(*common, "--operator-key", "operator"))[OPERATOR_KEY] == str(operator)
    assert OPERATOR_KEY not in variables(deploy(*common))


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("operator", "--operator-key operator: a private key, which stays with the operator; a site is given operator"),
        ("node.pub", "--operator-key node.pub: it must be the operator's public key, as subfl deploy operator-key"),
        ("none", "--operator-key none: No such file or directory; it must be a file that can be read"),
    ],
)
def test_wrong_keys_are_refused_before_a_site_starts(
    option: str, reason: str, deploy: Callable[..., Answer], operator: Path, key: Path, client: Callable[..., Path]
) -> None:
    common = ["supernode", "--insecure", "--superlink", "localhost:9", "--client", client("c"), "--print"]
    answer = deploy(*common, "--operator-key", option)
    assert answer.code == 2 and answer.out == []
    assert answer.err[-1].startswith(f"subfl deploy: {reason}")


def test_a_superlink_is_not_started_with_another_kind_of_key(
    deploy: Callable[..., Answer], operator: Path, key: Path
) -> None:
    common = ["superlink", "--insecure", "--host", "127.0.0.1", "--port", free_port(), "--print", "--operator-key"]
    for wrong in ("operator.pub", "node"):
        answer = deploy(*common, wrong)
        assert answer.code == 2
        assert answer.err[-1].startswith(f"subfl deploy: --operator-key {wrong}: it must be the operator's private key")


def test_clients_are_bound_to_a_key_when_it_is_registered(
    deploy: Callable[..., Answer], operator: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "require_connection", lambda name: None)
    monkeypatch.setattr(command, "register", lambda keys, flower: True)
    assert deploy("key", "other").code == 0
    lab = ("--connection", "lab", "--members", "members.json")
    answer = deploy("register", "node.pub", "--client", 3, "--client", 1, "--client", 3, *lab)
    assert answer.code == 0 and answer.out[0].startswith("members.json: clients 1, 3 bound to node (SHA256:")
    taken = deploy("register", "other.pub", "--client", 1, *lab)
    assert taken.code == 2 and "client 1 is bound to node (SHA256:" in taken.err[-1]
    assert deploy("register", "other.pub", "--client", 1, *lab, "--replace").code == 0
    assert (
        deploy("register", "node.pub", "--matcher", *lab).out[0].startswith("members.json: the matcher bound to node")
    )
    found = {node.name: (node.clients, node.matcher) for node in Members.read(tmp_path / "members.json").nodes}
    assert found == {"other": ((1,), False), "node": ((), True)}

    common = ["superlink", "--insecure", "--host", "127.0.0.1", "--port", free_port(), "--print"]
    started = deploy(*common, "--operator-key", "operator", "--members", "members.json")
    assert variables(started)[MEMBERS] == str(tmp_path / "members.json")
    unsigned = deploy(*common, "--members", "members.json")
    assert unsigned.code == 2 and "--members members.json: needs --operator-key; without signatures" in unsigned.err[-1]
    absent = deploy(*common, "--operator-key", "operator", "--members", "none.json")
    assert absent.code == 2 and "--members none.json: No such file or directory" in absent.err[-1]


@pytest.mark.parametrize(
    "arguments",
    [("--client", 1), ("--members", "m.json"), ("--client", 1, "--members", "m.json", "node.pub")],
)
def test_options_that_bind_clients_belong_together(
    arguments: tuple[object, ...], deploy: Callable[..., Answer], key: Path
) -> None:
    answer = deploy("register", "node.pub", *arguments, "--connection", "lab")
    assert answer.code == 2
    assert answer.err[-1].endswith("--client or --matcher, --members FILE and one public key belong together")

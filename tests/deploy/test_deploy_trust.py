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
from flwr.cli.build import build_fab_from_disk
from test_deploy_processes import WARM, split

from subfl_flower.deploy import command, connections
from subfl_flower.flower.app_folder import stage_app
from subfl_flower.flower.ports import free_port
from subfl_flower.trust.app_code import code_digest
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
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o700
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


# Policies -------------------------------------------------------------------------------------------------------------

POLICY = """
methods = ["fedavg", "fedpub", "my_package.MyClient"]
phases = ["train", "evaluate"]
most_rounds = 100
most_runs = 3
most_answers = 400
code = ["{digest}"]

[privacy]
mechanisms = ["laplace_l1", "gaussian_l2"]
most_epsilon = 1
least_noise_multiplier = 1.5

[settings]
"method.masking" = true
"wire.dtype" = ["float32", "float16"]
"model.hidden" = {{ most = 128 }}
"""


@pytest.fixture
def supernode(deploy: Callable[..., Answer], client: Callable[..., Path]) -> Callable[..., Answer]:
    folder = client("c")

    def run(*options: object) -> Answer:
        return deploy("supernode", "--insecure", "--superlink", "localhost:9", "--client", folder, "--print", *options)

    return run


def test_a_policy_reaches_the_processes_of_a_supernode(supernode: Callable[..., Answer], tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(POLICY.format(digest="ab" * 32))
    found = SiteSettings.of(variables(supernode("--policy", "site.toml")))
    assert found is not None and found.policy is not None and found.operators == ()
    assert found.policy.model_dump() == {
        "methods": ("fedavg", "fedpub", "my_package.MyClient"),
        "phases": ("train", "evaluate"),
        **{"most_rounds": 100, "most_runs": 3, "most_answers": 400, "code": ("ab" * 32,)},
        "settings": {
            "method.masking": True,
            "wire.dtype": ("float32", "float16"),
            "model.hidden": {"least": None, "most": 128.0},
        },
        "privacy": {
            **{"mechanisms": ("laplace_l1", "gaussian_l2"), "most_epsilon": 1.0},
            "least_noise_multiplier": 1.5,
        },
    }
    assert found.clients == {
        "fedavg": (
            "subfl_flower.clients.subgraphs.subgraph.SubgraphClient",
            "subfl_flower.clients.recommendation.fedavg.FedAvgRatingsClient",
        ),
        "fedpub": ("subfl_flower.clients.subgraphs.fedpub.FedPUBClient",),
        "my_package.MyClient": ("my_package.MyClient",),
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "most_round = 3",
            "most_round: there is no such key; did you mean most_rounds?; it has code, methods, most_ans",
        ),
        ("[privacy]\nepsilon = 3", "privacy.epsilon: there is no such key"),
        ("[privacy]\nmost_epsilom = 3", "privacy.most_epsilom: there is no such key; did you mean most_epsilon?"),
        ('methods = ["fedavgg"]', "methods: there is no 'fedavgg'; did you mean fedavg?"),
        ('[privacy]\nmechanisms = ["laplace"]', "privacy.mechanisms: there is no 'laplace'"),
        ('[settings]\n"metod.x" = 1', "settings: there is no 'metod'; did you mean method?"),
        (
            '[settings]\n"seed" = { larg = 1 }',
            "settings.seed: must be a value, a list of values, or a table with 'least'",
        ),
        ("most_rounds = 0", "most_rounds: Input should be greater than or equal to 1 (found 0)"),
        ("most_rounds = true", "most_rounds: Input should be a valid integer (found True)"),
        ('code = "all"', "code: must be 'any', or a list of digests of 64 hexadecimal digits"),
        ('code = ["12"]', "code: must be 'any', or a list of digests of 64 hexadecimal digits"),
        ("[privacy]\nmost_epsilon = nan", "privacy.most_epsilon: "),
        ("methods = [", "it is no TOML ("),
    ],
)
def test_a_policy_with_a_mistake_is_refused_in_one_sentence(
    text: str, problem: str, supernode: Callable[..., Answer], tmp_path: Path
) -> None:
    (tmp_path / "site.toml").write_text(text)
    answer = supernode("--policy", "site.toml")
    assert answer.code == 2 and answer.out == [] and len(answer.err) == 1
    assert answer.err[0].startswith(f"subfl deploy: --policy site.toml: {problem}")


def test_an_absent_policy_is_refused(supernode: Callable[..., Answer]) -> None:
    assert supernode("--policy", "none").err[-1].startswith("subfl deploy: --policy none: No such file or directory")


def test_the_digest_of_the_code_is_that_of_the_bundle_which_flower_makes(
    deploy: Callable[..., Answer], tmp_path: Path
) -> None:
    (printed,) = deploy("code").out
    (again,) = deploy("code").out
    assert printed == again and len(printed) == 64
    stage_app(None, tmp_path / "app")
    assert code_digest(build_fab_from_disk(tmp_path / "app")) == printed
    (tmp_path / "app" / "more.py").write_text("")
    assert deploy("code", "--app", tmp_path / "app").out != [printed]

"""Clients that are bound to nodes' keys: other nodes' claims, unlisted nodes, sites that join late."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.app import ConfigRecord, RecordDict
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from test_membership import ROSTER, Nodes, hosting, hosts, members, quick_looks

from subfl_flower.deploy.keys import make_key
from subfl_flower.errors import SubflError
from subfl_flower.trust.members import Admission, Member, Members, read_node_key
from subfl_flower.trust.operator_key import fingerprint_of_line
from subfl_flower.wire.roster import MATCHER, ROLE

__all__ = ["quick_looks"]


class Sites:
    """Keys of some sites, the file of members, and the keys by which the SuperLink knows the connected nodes."""

    def __init__(self, folder: Path, bound: Mapping[str, tuple[int, ...]]) -> None:
        self.folder, self.file = folder, folder / "members.json"
        self.known: dict[int, bytes] = {}
        self.lines: dict[str, str] = {}
        self.asked = 0
        Members().write(self.file)
        for name, clients in bound.items():
            self.bind(name, *clients)

    def connect(self, node: int, name: str) -> None:
        """Have a node of the SuperLink's be the site of a name."""
        key = load_ssh_public_key(self.line(name).encode())
        assert isinstance(key, ec.EllipticCurvePublicKey)
        self.known[node] = public_key_to_bytes(key)

    def line(self, name: str) -> str:
        if name not in self.lines:
            self.lines[name] = read_node_key(make_key(self.folder / name))
        return self.lines[name]

    def bind(self, name: str, *clients: int, matcher: bool = False, replace: bool = False) -> None:
        member = Member(name=name, key=self.line(name), clients=clients, matcher=matcher)
        Members.read(self.file).bound(member, replace).write(self.file)

    def admission(self) -> Admission:
        def keys() -> Mapping[int, bytes]:
            self.asked += 1
            return self.known

        return Admission(self.file, keys)

    def named(self, name: str) -> str:
        return f"{name} ({fingerprint_of_line(self.line(name))})"


@pytest.fixture
def sites(tmp_path: Path) -> Sites:
    found = Sites(tmp_path, {"ada": (0, 1), "bob": (2,), "eve": (3,)})
    for node, name in ((1, "ada"), (2, "bob"), (3, "eve")):
        found.connect(node, name)
    return found


def test_members_host_their_clients(sites: Sites) -> None:
    with Nodes({1: hosting(0, 1), 2: hosting(2), 3: hosting(3)}).active() as grid:
        found = members(grid, admission=sites.admission())
        assert hosts(found.gather()) == {0: 1, 1: 1, 2: 2, 3: 3}
        for _ in range(5):
            found.refresh()
    assert found.refusals == [] and sites.asked == 1  # the SuperLink is asked for a key once


@pytest.mark.parametrize("first", [True, False])
def test_attack_of_a_registered_node_that_claims_another_ones_client(sites: Sites, first: bool) -> None:
    """Eve answers before Bob, whose client she claims, or after him."""
    honest, claim = hosting(2), hosting(2, 3)
    answers = {3: claim, 1: hosting(0, 1)} if first else {1: hosting(0, 1), 2: honest}
    later = {2: honest} if first else {3: claim}
    with Nodes(answers, {4: lambda now: now.update(later)}).active() as grid:
        found = members(grid, admission=sites.admission(), patience=0.2, min_clients=3)
        assert hosts(found.gather()) == {0: 1, 1: 1, 2: 2, 3: None}
        for _ in range(3):
            found.refresh()
    (refusal,) = found.refusals
    eve, bob = sites.named("eve"), sites.named("bob")
    assert refusal["reason"] == f"node 3, {eve}, offers client 2, which is bound to {bob} in members.json"


def test_attack_of_a_registered_node_that_no_member_is(sites: Sites) -> None:
    sites.connect(7, "mallory")
    with Nodes({7: hosting(0, 1, 2, 3), 8: hosting(3), 9: hosting(), 1: hosting(0, 1)}).active() as grid:
        sites.connect(9, "nobody")
        found = members(grid, admission=sites.admission(), min_clients=2)
        assert hosts(found.gather()) == {0: 1, 1: 1, 2: None, 3: None}
    reasons = [refusal["reason"] for refusal in found.refusals]
    mallory, nobody = (fingerprint_of_line(sites.line(name)) for name in ("mallory", "nobody"))
    assert reasons == [
        f"node 7 ({mallory}) offers client 0, which is bound to {sites.named('ada')} in members.json",
        f"node 8 (without a key) offers client 3, which is bound to {sites.named('eve')} in members.json",
        f"node 9 ({nobody}) is not in members.json",
    ]


def test_attack_of_a_member_that_offers_clients_which_are_bound_to_nobody(sites: Sites) -> None:
    with Nodes({1: hosting(0, 1), 2: hosting(2, 5, 6, 7, 8)}).active() as grid:
        found = members(grid, admission=sites.admission(), min_clients=2, stated={"clients": None, "partition": None})
        assert hosts(found.gather()) == {0: 1, 1: 1}
    (refusal,) = found.refusals
    assert refusal["reason"] == (
        f"node 2, {sites.named('bob')}, offers client 5, which is bound to no node in members.json"
    )


def test_a_site_that_is_bound_during_a_run_is_admitted(sites: Sites) -> None:
    sites.connect(4, "late")
    with Nodes({1: hosting(0, 1), 2: hosting(2)}, {4: lambda now: now.update({4: hosting(3)})}).active() as grid:
        found = members(grid, admission=sites.admission(), patience=0.2, min_clients=3)
        assert hosts(found.gather())[3] is None
        for _ in range(3):
            found.refresh()
        assert [refusal["clients"] for refusal in found.refusals] == [[3]]
        sites.bind("late", 3, replace=True)  # Eve's site has a new key
        grid.answers.pop(4)
        found.refresh()
        grid.answers[4] = hosting(3)
        for _ in range(3):
            found.refresh()
        assert hosts(found.refresh())[3] == 4


def test_only_the_registered_matcher_is_seated(sites: Sites) -> None:
    record = RecordDict({ROSTER: ConfigRecord({ROLE: MATCHER, "public_key": bytes(32)})})
    sites.connect(5, "match")
    with Nodes({1: hosting(0, 1), 2: hosting(2), 3: record, 5: record}).active() as grid:
        found = members(grid, admission=sites.admission(), min_clients=3)
        assert found.gather().matcher is None
    assert [refusal["reason"].split(" is ")[-1] for refusal in found.refusals] == ["not registered as the matcher"] * 2
    sites.bind("match", matcher=True)
    with Nodes({1: hosting(0, 1), 2: hosting(2), 5: record}).active() as grid:
        found = members(grid, admission=sites.admission(), min_clients=3)
        matcher = found.gather().matcher
    assert matcher is not None and matcher.node_id == 5 and found.refusals == []


def test_a_client_is_bound_to_one_node_and_may_be_handed_over(sites: Sites) -> None:
    with pytest.raises(SubflError, match=r"client 2 is bound to bob \(SHA256:\S+\), and cannot be bound to eve"):
        sites.bind("eve", 2, 3)
    sites.bind("eve", 2, 3, replace=True)
    owners = {client: owner and owner.name for client in range(5) for owner in [Members.read(sites.file).owner(client)]}
    assert owners == {0: "ada", 1: "ada", 2: "eve", 3: "eve", 4: None}
    assert [node.name for node in Members.read(sites.file).nodes] == ["ada", "eve"]
    sites.bind("ada", 1)
    assert Members.read(sites.file).owner(0) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "Invalid JSON"),
        ('{"nodes": [{"name": "a", "key": "k", "clients": [0, 0]}]}', "a client, or a key, is there twice"),
        ('{"nodes": [{"name": "a", "key": "k", "clients": [-1]}]}', "nodes.0.clients.0"),
        ('{"nodes": [{"name": "a", "key": "k", "client": [1]}]}', "nodes.0.client"),
        ('{"node": []}', "node: Extra inputs are not permitted"),
    ],
)
def test_a_damaged_file_of_members_is_refused(text: str, problem: str, sites: Sites) -> None:
    admission = sites.admission()
    sites.file.write_text(text)
    with pytest.raises(SubflError) as caught:
        admission.refusal(1, [0])
    assert str(caught.value).startswith("--members ") and problem in str(caught.value)
    sites.file.unlink()
    with pytest.raises(SubflError, match=r"No such file or directory; it must be a file that subfl deploy register"):
        admission.refusal(1, [0])

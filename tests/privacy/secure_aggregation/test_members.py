"""One secure sum among members, without a federation around them: what is opened, what is not, and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chisquare

from subfl_flower.errors import SubflError
from subfl_flower.privacy.secure_aggregation.masks import public_of
from subfl_flower.privacy.secure_aggregation.member import Member
from subfl_flower.privacy.secure_aggregation.opening import opened
from subfl_flower.privacy.secure_aggregation.roll import Roll, sum_context
from subfl_flower.privacy.secure_aggregation.settings import SecureSumSettings

KEY = bytes(range(32))
CONTEXT = sum_context("ab12", 3, bytes(16))
SETTINGS = SecureSumSettings(enabled=True)


class Sum:
    """A sum among some clients, each of whom has shared its secrets."""

    def __init__(self, clients: Sequence[int], settings: SecureSumSettings = SETTINGS, size: int = 50) -> None:
        rng = np.random.default_rng(7)
        self.members = {client: Member.new(client, CONTEXT) for client in clients}
        self.roll = Roll.of([member.advert(KEY) for member in self.members.values()], settings)
        self.boxes = {client: member.boxes(self.roll) for client, member in self.members.items()}
        self.values = {client: rng.integers(-(2**40), 2**40, size) for client in clients}
        self.sharing = sorted(clients)

    def uploads(self) -> dict[int, np.ndarray]:
        return {
            c: m.masked(self.values[c], self.roll, self.sharing) for c, m in self.members.items() if c in self.sharing
        }

    def revealed(self, client: int, survivors: Sequence[int]) -> dict[int, bytes]:
        to_it = {owner: self.boxes[owner][client] for owner in self.roll.holders(client) if owner in self.sharing}
        return self.members[client].revealed(to_it, self.roll, self.sharing, survivors)

    def opened(self, survivors: Sequence[int], answering: Sequence[int] | None = None) -> np.ndarray:
        uploads = self.uploads()
        total = np.sum([uploads[client] for client in survivors], axis=0, dtype=np.uint64)
        answers = {c: self.revealed(c, survivors) for c in (survivors if answering is None else answering)}
        return opened(total, self.roll, self.sharing, survivors, answers, CONTEXT).view(np.int64)


@pytest.mark.parametrize("lost", [(), (4,), (2, 5, 9)])
@pytest.mark.parametrize("neighbours", ["all", 6])
def test_the_sum_over_those_who_are_left_is_exact(lost: tuple[int, ...], neighbours: int | str) -> None:
    settings = replace_settings(neighbours=neighbours, threshold=0.5)
    among = Sum(range(10), settings)
    survivors = [client for client in range(10) if client not in lost]
    expected = np.sum([among.values[client] for client in survivors], axis=0)
    np.testing.assert_array_equal(among.opened(survivors), expected)


def replace_settings(**changes: object) -> SecureSumSettings:
    return SecureSumSettings(**{"enabled": True, **changes})


def test_who_does_not_share_its_secrets_or_does_not_answer_does_no_harm() -> None:
    among = Sum(range(10))
    among.sharing = [client for client in range(10) if client not in (3, 8)]
    survivors = [client for client in among.sharing if client != 5]
    expected = np.sum([among.values[client] for client in survivors], axis=0)
    np.testing.assert_array_equal(among.opened(survivors, answering=survivors), expected)
    among = Sum(range(10))
    np.testing.assert_array_equal(among.opened(range(10), answering=range(7)), np.sum([*among.values.values()], axis=0))
    with pytest.raises(SubflError, match="cannot be removed: there are 6 shares, and 7 are needed"):
        among.opened(range(10), answering=range(6))


def test_an_upload_is_uniform_whatever_it_hides() -> None:
    """Bytes of uploads pass a chi-squared test, those of the values under them fail it beyond any doubt."""
    among = Sum(range(5), size=20_000)
    for client, upload in among.uploads().items():
        counts = np.bincount(upload.view(np.uint8), minlength=256)
        assert chisquare(counts).pvalue > 1e-6
        plain = np.bincount(among.values[client].view(np.uint8), minlength=256)
        assert chisquare(plain).pvalue < 1e-30
    again = Sum(range(5), size=20_000).uploads()
    assert not any((again[client] == upload).any() for client, upload in among.uploads().items())


def test_pairs_on_the_ring_are_neighbours_of_each_other_and_as_many_for_everyone() -> None:
    roll = Sum(range(30), replace_settings(neighbours=8)).roll
    for client in range(30):
        others = roll.neighbours(client)
        assert len(others) == 8 and client not in others and roll.shares_needed(client) == 6
        assert all(client in roll.neighbours(other) for other in others)
    shifted = Sum(range(30), replace_settings(neighbours=8)).roll
    assert [roll.neighbours(c) for c in range(30)] != [shifted.neighbours(c) for c in range(30)]  # other keys


@pytest.mark.parametrize(("clients", "least"), [(3, 3), (4, 3), (5, 4), (10, 7), (100, 61)])
def test_more_than_the_share_of_clients_is_needed(clients: int, least: int) -> None:
    members = [Member.new(client, CONTEXT).advert(KEY) for client in range(clients)]
    assert Roll.of(members, SETTINGS).least == least


def test_no_two_groups_of_answers_can_hold_both_halves_of_a_secret() -> None:
    """More than half are needed for either, whatever the threshold may be set to."""
    for clients, threshold in itertools.product((3, 4, 7, 10, 33), (0.5, 0.6, 0.9)):
        assert 2 * replace_settings(threshold=threshold).needed(clients) > clients


# Attacks --------------------------------------------------------------------------------------------------------------


def test_attack_the_server_opens_a_sum_of_fewer_than_the_threshold() -> None:
    among = Sum(range(10))
    for survivors in ([0], [0, 1], list(range(6))):
        with pytest.raises(SubflError, match=f"only {len(survivors)} of 10 clients are left, and a secure sum needs 7"):
            among.revealed(0, survivors)


def test_attack_the_server_has_a_client_reveal_shares_of_itself_as_lost() -> None:
    among = Sum(range(10))
    with pytest.raises(SubflError, match="does not open a sum that its upload is said not to be in"):
        among.revealed(0, range(1, 10))


def test_attack_the_server_lists_a_client_twice_to_reach_the_threshold() -> None:
    among = Sum(range(10))
    with pytest.raises(SubflError, match="not members of the secure sum, each once"):
        among.revealed(0, [0, 1, 2, 2, 2, 2, 2])


def test_attack_the_server_takes_the_place_of_a_client() -> None:
    """It offers keys that it made: without the clients' shared key nobody believes them."""
    among = Sum(range(10))
    false = Member.new(4, CONTEXT)
    mine = replace(false.advert(bytes(32)), client=4)
    roll = Roll.of([*(a for a in among.roll.adverts if a.client != 4), mine], SETTINGS)
    with pytest.raises(SubflError, match="client 4 for a secure sum were not made with the clients' shared key"):
        roll.require_genuine(KEY, CONTEXT)
    among.roll.require_genuine(KEY, CONTEXT)
    with pytest.raises(SubflError, match="not made with"):  # nor are those of another round
        among.roll.require_genuine(KEY, sum_context("ab12", 4, bytes(16)))


def test_attack_the_server_exchanges_or_changes_boxes() -> None:
    among = Sum(range(10))
    among.boxes[3][0], among.boxes[4][0] = among.boxes[4][0], among.boxes[3][0]
    with pytest.raises(SubflError, match="what client 3 shared for a secure sum was changed on its way"):
        among.revealed(0, range(10))
    del among.boxes[3][0]
    with pytest.raises(KeyError):
        among.revealed(0, range(10))


def test_attack_a_client_reveals_false_shares() -> None:
    among = Sum(range(10))
    uploads = among.uploads()
    survivors = list(range(9))
    total = np.sum([uploads[client] for client in survivors], axis=0, dtype=np.uint64)
    answers = {c: among.revealed(c, survivors) for c in survivors}
    answers[0] = {owner: bytes(33) for owner in answers[0]}
    with pytest.raises(SubflError, match=r"(shares of client 0's self-mask are wrong|of no common secret)"):
        opened(total, among.roll, among.sharing, survivors, answers, CONTEXT)


def test_a_member_kept_as_bytes_is_the_same_member() -> None:
    member = Member.new(3, CONTEXT)
    assert Member.restored(3, CONTEXT, member.secrets) == member
    assert member.advert(KEY).masks == public_of(member.masks) and len({member.channel, member.masks, member.seed}) == 3

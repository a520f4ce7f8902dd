"""Counting of nodes by clients, and the sums that are kept: by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from subfl_flower.errors import SubflError
from subfl_flower.privacy.secure_sum import unmask_sum
from subfl_flower.subgraphs.mending.masked_rows import masked_rows
from subfl_flower.subgraphs.mending.packed_rows import dense
from subfl_flower.subgraphs.mending.sum_plan import Listing, SumPlan, check_listing

KEY = bytes(range(32))


def token(name: str) -> np.ndarray:
    return np.frombuffer(name.encode().ljust(16, b"."), dtype=np.uint8)


def listing(held: str, other: str = "") -> Listing:
    """Of nodes named by letters, sorted as tokens are."""
    names = sorted(held + other)
    tokens = np.array([token(name) for name in names], dtype=np.uint8).reshape(-1, 16)
    return Listing(tokens, np.array([name in held for name in names], dtype=bool))


LISTINGS = {2: listing("abx", "cn"), 5: listing("bcd", "an"), 7: listing("ce", "")}
"""b is held by 2 and 5, c by 5 and 7; n by nobody; d, e and x are listed by one alone."""


def test_kept_are_sums_that_two_list_and_one_can_make() -> None:
    plan = SumPlan(LISTINGS)
    assert plan.num_sums == 3  # a, b, c
    assert plan.kept(2).tolist() == [True, True, True, False, False]  # a b c n x
    assert plan.kept(5).tolist() == [True, True, True, False, False]  # a b c d n
    assert plan.kept(7).tolist() == [True, False]  # c e
    assert (plan.rows(2).tolist(), plan.rows(5).tolist(), plan.rows(7).tolist()) == ([0, 1, 2], [0, 1, 2], [2])
    assert plan.adding == [2, 5, 7] and plan.lonely == []


def test_the_first_holder_counts_a_node() -> None:
    plan = SumPlan(dict(reversed(LISTINGS.items())))
    assert plan.counted(2).tolist() == [True, True, False, False, False]
    assert plan.counted(5).tolist() == [False, False, True, False, False]  # c, and not b
    assert plan.counted(7).tolist() == [False, False]


def test_contributors_are_all_who_list_a_node() -> None:
    plan = SumPlan(LISTINGS)
    assert plan.contributors == [(2, 5), (2, 5), (2, 5, 7)]
    group, members = plan.groups(5)
    assert (group.tolist(), members) == ([0, 0, 1], [(2, 5), (2, 5, 7)])
    group, members = plan.groups(7)
    assert (group.tolist(), members) == ([0], [(2, 5, 7)])


@pytest.mark.parametrize("sparse", [(), (5,), (2, 5, 7)])
def test_sums_add_up_what_clients_give(sparse: tuple[int, ...]) -> None:
    given = {
        2: np.array([[1, 2], [3, 4], [5, 6]], np.float32),
        5: np.array([[10, 0], [0, 20], [30, 0]], np.float32),
        7: np.array([[0, 100]], np.float32),
    }
    shares = {client: sp.csr_array(rows) if client in sparse else rows for client, rows in given.items()}
    found = SumPlan(LISTINGS).added(shares, 2)
    assert sp.issparse(found) == (len(sparse) == 3)
    assert dense(found).tolist() == [[11, 2], [3, 24], [35, 106]]


def test_without_listings_or_common_nodes_there_is_nothing_to_add() -> None:
    nothing = {0: listing(""), 1: listing("")}
    for listings in ({}, nothing, {1: listing("ab")}, {0: listing("a", "n"), 1: listing("b", "m")}):
        plan = SumPlan(listings)
        assert plan.num_sums == 0 and plan.adding == [] and plan.contributors == []
        assert plan.added({}, 3).shape == (0, 3)


def test_lonely_is_whom_nobody_shares_a_listed_node_with() -> None:
    assert SumPlan({**LISTINGS, 8: listing("qr"), 9: listing("")}).lonely == [8]
    assert SumPlan({0: listing("", "n"), 1: listing("", "n")}).lonely == []  # the same node, which nobody holds


@pytest.mark.parametrize(
    ("tokens", "held", "sentence"),
    [
        (np.zeros((2, 8), np.uint8), np.zeros(2, bool), r"tokens must be uint8 \[nodes, 16\], not uint8 \[2, 8\]"),
        (np.zeros((2, 16), np.int8), np.zeros(2, bool), r"tokens must be uint8 \[nodes, 16\], not int8 \[2, 16\]"),
        (np.zeros((1, 16), np.uint8), np.zeros(1, np.uint8), r"held must be bool \[1\], not uint8 \[1\]"),
        (np.zeros((1, 16), np.uint8), np.zeros(2, bool), r"held must be bool \[1\], not bool \[2\]"),
        (np.zeros((2, 16), np.uint8), np.zeros(2, bool), "a token comes twice"),
    ],
)
def test_what_is_no_listing_is_refused(tokens: Any, held: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_listing(Listing(tokens, held))


# Under masks ----------------------------------------------------------------------------------------------------------


def test_masked_rows_add_up_to_the_sums() -> None:
    plan, rng = SumPlan(LISTINGS), np.random.default_rng(0)
    given = {client: rng.standard_normal((len(plan.rows(client)), 4)) for client in LISTINGS}
    total, expected = np.zeros((3, 4), dtype=np.uint64), np.zeros((3, 4))
    for client, rows in given.items():
        tokens = LISTINGS[client].tokens[plan.kept(client)]
        hidden = masked_rows(rows, tokens, *plan.groups(client), client, KEY, b"run", 24)
        assert not (hidden.view(np.int64) == np.rint(rows * 2**24).astype(np.int64)).any()
        total[plan.rows(client)] += hidden
        expected[plan.rows(client)] += rows
    np.testing.assert_allclose(unmask_sum(total, 24), expected, atol=3 * 2**-25)


def test_two_groups_and_two_contexts_have_other_masks() -> None:
    """Rows of zeros are the masks themselves."""
    zeros, tokens = np.zeros((2, 3)), listing("ab").tokens
    together = masked_rows(zeros, tokens, np.array([0, 0]), [(1, 2)], 1, KEY, b"run", 24)
    apart = masked_rows(zeros, tokens, np.array([0, 1]), [(1, 2), (1, 2, 3)], 1, KEY, b"run", 24)
    again = masked_rows(zeros, tokens, np.array([0, 0]), [(1, 2)], 1, KEY, b"run again", 24)
    assert not (apart[0] == apart[1]).any() and not (together == apart).any() and not (together == again).any()


@pytest.mark.parametrize(
    ("group", "members", "sentence"),
    [
        ([0, 0], [(1,)], "a sum over client 1 alone would show its upload"),
        ([0, 0], [(2, 3)], "participants of a masked sum must be distinct and client 1 one of them"),
        ([0, 1], [(1, 2)], "2 rows to add up under masks must each be of one of 1 groups"),
        ([0], [(1, 2)], "2 rows to add up under masks must each be of one of 1 groups"),
    ],
)
def test_groups_that_hide_nothing_are_refused(group: list[int], members: Any, sentence: str) -> None:
    with pytest.raises(SubflError, match=sentence):
        masked_rows(np.zeros((2, 3)), listing("ab").tokens, np.array(group), members, 1, KEY, b"run", 24)

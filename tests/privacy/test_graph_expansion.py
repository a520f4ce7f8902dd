from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subfl_flower.errors import SubflError
from subfl_flower.privacy import expansion
from subfl_flower.privacy.expansion import (
    MatchBounds,
    Matcher,
    Neighbours,
    Request,
    match,
    opened_neighbours,
    sealed_request,
)
from subfl_flower.privacy.sealed_box import MatcherKey, ReplayGuard, open_box, pad, seal, unpad
from subfl_flower.privacy.tokens import item_tokens

KEY = bytes(range(32))
CONTEXT = b"run 7, round 3, expansion"
WIDTH = 4


def tokens(*items: int) -> np.ndarray:
    return item_tokens(np.array(items, dtype=np.int64), KEY, b"run 7")


def embedding(user: int) -> np.ndarray:
    return np.arange(WIDTH, dtype=np.float32) + 10 * user


def request(user: int, *items: int) -> Request:
    return Request(tokens(*items), embedding(user), bytes([user]) * 32)


def by_hand(histories: list[set[int]], most: int) -> list[list[int]]:
    """For each user the others with common items: most first, then going round from the user."""
    users = len(histories)
    result = []
    for user, items in enumerate(histories):
        common = {other: len(items & histories[other]) for other in range(users) if other != user}
        ranked = sorted(common, key=lambda other: (-common[other], (other - user) % users))
        result.append([other for other in ranked if common[other] > 0][:most])
    return result


def test_neighbours_are_those_with_most_common_items() -> None:
    requests = [request(0, 1, 2, 3), request(1, 3), request(2, 9), request(3, 2, 3, 4), request(4, 1, 5)]
    assert [own.tolist() for own in match(requests, 2)] == [[3, 1], [3, 0], [], [0, 1], [0]]


@settings(deadline=None)
@given(st.lists(st.sets(st.integers(0, 9)), max_size=9), st.integers(1, 10), st.sampled_from([1, 7, 40, 2**22]))
def test_matching_counts_common_items(histories: list[set[int]], most: int, entries: int) -> None:
    requests = [request(user, *sorted(items)) for user, items in enumerate(histories)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(expansion, "BLOCK_ENTRIES", entries)
        assert [own.tolist() for own in match(requests, most)] == by_hand(histories, most)


def test_ties_do_not_make_one_user_everyones_neighbour() -> None:
    matched = match([request(user, 1) for user in range(20)], 3)
    np.testing.assert_array_equal(np.bincount(np.concatenate(matched)), np.full(20, 3))


def test_requests_and_neighbours_survive_their_bytes() -> None:
    for items in ((), (4, 8)):
        original = request(3, *items)
        copy = Request.decode(original.encode(), WIDTH)
        np.testing.assert_array_equal(copy.tokens, original.tokens)
        np.testing.assert_array_equal(copy.embedding, original.embedding)
        assert copy.reply_key == original.reply_key
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(Neighbours.decode(Neighbours(rows).encode(), 4).embeddings, rows)
    assert Neighbours.decode(b"", 4).embeddings.shape == (0, 4)


def test_bytes_of_a_request_are_as_documented() -> None:
    plain = request(3, 4, 8).encode()
    assert plain[:8] == struct.pack("<II", 2, WIDTH)
    assert plain[8:40] == bytes([3]) * 32
    assert plain[40:56] == struct.pack("<4f", 30, 31, 32, 33)
    assert plain[56:] == tokens(4, 8).tobytes()


def test_requests_that_are_none_are_refused() -> None:
    plain = request(3, 4, 8).encode()
    twice = Request(tokens(4, 4), embedding(0), bytes(32)).encode()
    nan = Request(tokens(4), np.float32([0, 1, np.nan, 3]), bytes(32)).encode()
    many = struct.pack("<II", 2**32 - 1, WIDTH) + plain[8:]
    for bad, reason in (
        (b"", "width 4"),
        (plain[:7], "width 4"),
        (request(3).encode()[:-1], "must not have"),
        (plain + b"\0", "must not have"),
        (many, "must not have"),
        (twice, "twice"),
        (nan, "finite"),
    ):
        with pytest.raises(ValueError, match=reason):
            Request.decode(bad, WIDTH)
    with pytest.raises(ValueError, match="width 5"):
        Request.decode(plain, 5)
    with pytest.raises(ValueError, match="no whole number"):
        Neighbours.decode(bytes(15), 4)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_in_words(plain: bytes) -> None:
    try:
        assert Request.decode(plain, WIDTH).encode() == plain
    except ValueError as error:
        assert "request" in str(error) or "embedding" in str(error)


@pytest.fixture
def matcher() -> Matcher:
    return Matcher(MatcherKey.generate(), WIDTH, max_neighbours=2)


HISTORIES = [(1, 2, 3), (3,), (9,), (2, 3, 4), (1, 5)]


def asked(matcher: Matcher, context: bytes = CONTEXT) -> tuple[list[bytes], list[bytes]]:
    pairs = [
        sealed_request(tokens(*items), embedding(user), matcher.public_key, context)
        for user, items in enumerate(HISTORIES)
    ]
    return [box for box, _ in pairs], [key for _, key in pairs]


def test_users_get_their_neighbours_embeddings(matcher: Matcher) -> None:
    boxes, keys = asked(matcher)
    answers, refused = matcher.answer(boxes, CONTEXT)
    assert refused == {}
    for answer, key, users in zip(answers, keys, [[3, 1], [3, 0], [], [0, 1], [0]], strict=True):
        assert answer is not None
        got = opened_neighbours(answer, key, CONTEXT, WIDTH)
        expected = np.array([embedding(user) for user in users], dtype=np.float32).reshape(-1, WIDTH)
        np.testing.assert_array_equal(got, expected)


def test_neither_boxes_nor_answers_tell_sizes(matcher: Matcher) -> None:
    boxes, _ = asked(matcher)
    answers, _ = matcher.answer(boxes, CONTEXT)
    assert {len(box) for box in boxes} == {1024 + 48}
    assert {len(answer) for answer in answers if answer is not None} == {4 + 2 * 4 * WIDTH + 28}
    longer, _ = sealed_request(tokens(*range(200)), embedding(0), matcher.public_key, CONTEXT)
    assert len(longer) == 4096 + 48


def test_a_bad_box_is_refused_alone(matcher: Matcher) -> None:
    boxes, keys = asked(matcher)
    boxes[1] = boxes[1][:-1] + bytes([boxes[1][-1] ^ 1])
    boxes[2] = seal(pad(b"no request", 64), matcher.public_key, CONTEXT)
    boxes[4] = boxes[0]
    answers, refused = matcher.answer(boxes, CONTEXT)
    assert [answer is None for answer in answers] == [False, True, True, False, True]
    assert "changed on its way" in refused[1]
    assert "embedding of width 4" in refused[2]
    assert "second time" in refused[4]
    got = opened_neighbours(answers[0] or b"", keys[0], CONTEXT, WIDTH)
    np.testing.assert_array_equal(got, embedding(3)[None])


def test_boxes_of_another_round_and_replays_are_refused(matcher: Matcher) -> None:
    boxes, _ = asked(matcher)
    answers, refused = matcher.answer(boxes, b"run 7, round 4, expansion")
    assert answers == [None] * 5
    assert sorted(refused) == [0, 1, 2, 3, 4]
    assert matcher.answer(boxes, CONTEXT)[1] == {}
    answers, refused = matcher.answer(boxes, CONTEXT)
    assert answers == [None] * 5
    assert all("second time" in reason for reason in refused.values())


def test_a_matcher_that_starts_again_remembers_by_its_guard() -> None:
    key, guard = MatcherKey.generate(), ReplayGuard()
    first = Matcher(key, WIDTH, 2, guard)
    boxes, _ = asked(first)
    first.answer(boxes, CONTEXT)
    again = Matcher(MatcherKey.from_bytes(key.to_bytes()), WIDTH, 2, ReplayGuard(guard.remembered()))
    assert all("second time" in reason for reason in again.answer(boxes, CONTEXT)[1].values())


def test_nobody_asks_and_nobody_is_answered(matcher: Matcher) -> None:
    assert matcher.answer([], CONTEXT) == ([], {})


def test_an_answer_is_for_who_asked(matcher: Matcher) -> None:
    boxes, keys = asked(matcher)
    answers, _ = matcher.answer(boxes, CONTEXT)
    with pytest.raises(SubflError, match="not to this request"):
        opened_neighbours(answers[0] or b"", keys[1], CONTEXT, WIDTH)
    with pytest.raises(SubflError, match="cannot be read"):
        opened_neighbours(answers[0] or b"", keys[0], CONTEXT, 7)


def test_noise_on_an_embedding_is_added_before_it_is_sealed() -> None:
    key = MatcherKey.generate()
    box, _ = sealed_request(tokens(1), embedding(2), key.public, CONTEXT, noise=0.5, rng=np.random.default_rng(3))
    sent = Request.decode(unpad(open_box(box, key, CONTEXT)), WIDTH)
    expected = embedding(2) + 0.5 * np.random.default_rng(3).standard_normal(WIDTH, dtype=np.float32)
    np.testing.assert_allclose(sent.embedding, expected, rtol=1e-6)


# Attacks --------------------------------------------------------------------------------------------------------------

ITEMS = 30
BOUNDS = MatchBounds(least_users=5, least_common=3)


def users_and_probes(
    matcher: Matcher, probes: list[tuple[int, ...]]
) -> tuple[list[bytes], list[bytes], list[set[int]]]:
    """Boxes of ten users with some items each, followed by those of a participant that asks with chosen items."""
    rng = np.random.default_rng(5)
    histories = [set(rng.choice(ITEMS, 8, replace=False).tolist()) for _ in range(10)]
    asking = [*(tuple(sorted(items)) for items in histories), *probes]
    pairs = [
        sealed_request(tokens(*items), embedding(user), matcher.public_key, CONTEXT)
        for user, items in enumerate(asking)
    ]
    return [box for box, _ in pairs], [key for _, key in pairs], histories


def read_items(bounds: MatchBounds) -> int:
    """For how many of all items a participant learns exactly who rated them, by a request with each one's token."""
    matcher = Matcher(MatcherKey.generate(), WIDTH, 40, bounds=bounds)
    boxes, keys, histories = users_and_probes(matcher, [(item,) for item in range(ITEMS)])
    answers, _ = matcher.answer(boxes, CONTEXT)
    known = {tuple(embedding(user)): user for user in range(10)}
    found = 0
    for item in range(ITEMS):
        if (answer := answers[10 + item]) is None:
            continue
        told = opened_neighbours(answer, keys[10 + item], CONTEXT, WIDTH)
        readers = {known[tuple(row)] for row in told if tuple(row) in known}
        found += readers == {user for user, items in enumerate(histories) if item in items} != set()
    return found


def test_attack_a_participant_reads_item_sets_by_requests_of_one_token() -> None:
    assert read_items(MatchBounds()) >= 27  # the attack itself; some items nobody rated
    assert read_items(BOUNDS) == 0


def test_attack_many_requests_of_one_participant() -> None:
    """Thirty requests beside those of the ten users are more than the users of the run can have."""
    matcher = Matcher(MatcherKey.generate(), WIDTH, 2, bounds=MatchBounds(most_requests=10))
    boxes, _, _ = users_and_probes(matcher, [(1, 2, 3)] * 30)
    answers, refused = matcher.answer(boxes, CONTEXT)
    assert answers == [None] * 40
    assert set(refused.values()) == {"40 requests in a round, where 10 are answered at most"}
    boxes, _, _ = users_and_probes(matcher, [])
    assert matcher.answer(boxes, CONTEXT)[1] == {}
    assert set(matcher.answer(users_and_probes(matcher, [])[0], CONTEXT, answered=10)[1].values()) == {
        "20 requests in a round, where 10 are answered at most"
    }


def test_attack_the_server_forwards_the_boxes_of_two_users() -> None:
    """One of them is its own, which is told the other's embedding, by name."""
    for bounds, told in ((MatchBounds(), 1), (BOUNDS, 0)):
        matcher = Matcher(MatcherKey.generate(), WIDTH, 2, bounds=bounds)
        victim, _ = sealed_request(tokens(1, 2, 3, 4), embedding(7), matcher.public_key, CONTEXT)
        spy, key = sealed_request(tokens(1, 2, 3, 4), embedding(0), matcher.public_key, CONTEXT)
        answers, refused = matcher.answer([victim, spy], CONTEXT)
        got = [] if answers[1] is None else opened_neighbours(answers[1], key, CONTEXT, WIDTH).tolist()
        assert got == [embedding(7).tolist()][:told]
        if not told:
            assert set(refused.values()) == {"2 users ask, and the matcher answers 5 together or more"}


def test_neighbours_have_the_least_number_of_common_items() -> None:
    requests = [request(0, 1, 2, 3), request(1, 3), request(2, 9), request(3, 2, 3, 4), request(4, 1, 5)]
    assert [own.tolist() for own in match(requests, 2, least_common=2)] == [[3], [], [], [0], []]

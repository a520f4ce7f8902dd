"""Privacy-preserving graph expansion: a third party finds users with common items without knowing users or items.

FedGNN (Wu et al., Nature Communications 2022, Algorithm 2). A user seals the tokens of its items, its embedding and a
key for the answer to the matcher; the server carries boxes that it cannot open; the matcher counts common tokens and
seals to each user the embeddings of those with most.

Remaining leakage: the matcher sees the number of common tokens for each pair of anonymous users, the tokens'
popularity, and the embeddings. The server sees which users ask, and the length of each box up to a power of two. Both
together see each user's tokens, and with one client's key all items. A user adds noise to its embedding before sealing.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from subfl_flower.errors import SubflError
from subfl_flower.privacy.sealed_box import (
    KEY_BYTES,
    LENGTH_BYTES,
    MatcherKey,
    ReplayGuard,
    new_reply_key,
    open_box,
    open_reply,
    pad,
    seal,
    seal_reply,
    unpad,
)
from subfl_flower.privacy.tokens import TOKEN_BYTES, comparable

REQUEST_HEADER = struct.Struct("<II")  # numbers of tokens and of an embedding's values
LEAST_REQUEST_BYTES = 1024
BLOCK_ENTRIES = 2**22  # common tokens of a block of users with all users


@dataclass(frozen=True, eq=False)
class Request:
    """A user's request to the matcher.

    Attributes:
        tokens: uint8 `[n, 16]`, distinct.
        embedding: float32 `[width]`.
        reply_key: 32 bytes.
    """

    tokens: np.ndarray
    embedding: np.ndarray
    reply_key: bytes

    def encode(self) -> bytes:
        """As bytes."""
        counts = REQUEST_HEADER.pack(len(self.tokens), len(self.embedding))
        return counts + self.reply_key + self.embedding.astype("<f4").tobytes() + self.tokens.tobytes()

    @classmethod
    def decode(cls, plain: bytes, width: int) -> Request:
        """The request from the bytes of `encode`.

        Raises:
            ValueError: not a request with a finite embedding of this width and distinct tokens.
        """
        size = REQUEST_HEADER.size
        num_tokens, own_width = REQUEST_HEADER.unpack(plain[:size]) if len(plain) >= size else (0, -1)
        if own_width != width:
            raise ValueError(f"a request must hold an embedding of width {width}, and this one does not")
        fixed = size + KEY_BYTES + 4 * width
        if len(plain) != fixed + TOKEN_BYTES * num_tokens:
            raise ValueError(f"a request of {num_tokens} tokens must not have {len(plain)} bytes")
        embedding = _finite_floats(plain[size + KEY_BYTES : fixed])
        tokens = np.frombuffer(plain, dtype=np.uint8, offset=fixed).reshape(num_tokens, TOKEN_BYTES)
        if len(np.unique(comparable(tokens))) < num_tokens:
            raise ValueError("a request must not hold a token twice")
        return cls(tokens, embedding, plain[size : size + KEY_BYTES])


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The matcher's answer to a user: the embeddings of its neighbours, float32 `[m, width]`, the nearest first."""

    embeddings: np.ndarray

    def encode(self) -> bytes:
        """As bytes."""
        return self.embeddings.astype("<f4").tobytes()

    @classmethod
    def decode(cls, plain: bytes, width: int) -> Neighbours:
        """The neighbours from the bytes of `encode`.

        Raises:
            ValueError: not finite embeddings of this width.
        """
        if len(plain) % (4 * width):
            raise ValueError(f"{len(plain)} bytes are no whole number of embeddings of width {width}")
        return cls(_finite_floats(plain).reshape(-1, width))


def _finite_floats(plain: bytes) -> np.ndarray:
    values = np.frombuffer(plain, dtype="<f4").astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError("an embedding must be finite, and one is not")
    return values


def match(requests: Sequence[Request], max_neighbours: int, least_common: int = 1) -> list[np.ndarray]:
    """Each user's neighbours: those with most tokens in common.

    Ties go to the users that follow next in cyclic order, so that nobody becomes everyone's neighbour by position.
    Common tokens are counted by one sparse product for a block of users, in bounded memory.

    Args:
        requests: requests of all users.
        max_neighbours: most neighbours of a user.
        least_common: least number of common tokens of neighbours.

    Returns:
        For each user the positions of its neighbours, int64, the nearest first.
    """
    num_users = len(requests)
    holds = _incidence(requests)
    held_by = holds.T.tocsr()
    block = max(1, BLOCK_ENTRIES // max(1, num_users))
    neighbours: list[np.ndarray] = []
    for start in range(0, num_users, block):
        common = (holds[start : start + block] @ held_by).toarray()
        users = start + np.arange(len(common))
        common[np.arange(len(common)), users] = 0
        behind = (np.arange(num_users) - users[:, None]) % num_users  # distance from the user in cyclic order
        neighbours += _first(
            common * num_users + (num_users - 1 - behind), max_neighbours, least=least_common * num_users
        )
    return neighbours


def _incidence(requests: Sequence[Request]) -> sp.csr_array:
    """Incidence matrix of users and tokens: int64 ones, `[users, tokens]`."""
    counts = [len(request.tokens) for request in requests]
    tokens = np.concatenate([np.zeros((0, TOKEN_BYTES), dtype=np.uint8), *(request.tokens for request in requests)])
    distinct, column = np.unique(comparable(tokens), return_inverse=True)
    offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    ones = np.ones(len(column), dtype=np.int64)
    return sp.csr_array((ones, column, offsets), shape=(len(requests), len(distinct)))


def _first(scores: np.ndarray, count: int, least: int) -> list[np.ndarray]:
    """Positions of the `count` largest scores of each row that are at least `least`, the largest first."""
    count = min(count, scores.shape[1])
    largest = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(scores, largest, 1), axis=1)
    largest = np.take_along_axis(largest, order, 1)
    enough = (np.take_along_axis(scores, largest, 1) >= least).sum(1)
    return [row[:number].copy() for row, number in zip(largest, enough, strict=True)]


def sealed_request(
    tokens: np.ndarray,
    embedding: np.ndarray,
    public_key: bytes,
    context: bytes,
    noise: float = 0.0,
    rng: np.random.Generator | None = None,
) -> tuple[bytes, bytes]:
    """A user's box for the matcher, and the key that opens the answer.

    Args:
        tokens: uint8 `[n, 16]`, of the user's items.
        embedding: float32 `[width]`.
        public_key: the matcher's.
        context: run, round and phase; see `sealed_box`.
        noise: deviation of normal noise on every value of the embedding. It gives no guarantee as long as embeddings
            are not bounded.
        rng: the user's generator for the noise; without one it comes from the operating system's entropy.

    Raises:
        SubflError: not a public key.
    """
    if noise > 0:
        drawn = np.random.default_rng(rng).standard_normal(len(embedding), dtype=np.float32)
        embedding = embedding + np.float32(noise) * drawn
    reply_key = new_reply_key()
    plain = Request(tokens, embedding, reply_key).encode()
    return seal(pad(plain, LEAST_REQUEST_BYTES), public_key, context), reply_key


def opened_neighbours(box: bytes, reply_key: bytes, context: bytes, width: int) -> np.ndarray:
    """The embeddings in a matcher's answer, float32 `[m, width]`.

    Raises:
        SubflError: it was changed in transit, answers another request, round or run, or holds no such embeddings.
    """
    plain = open_reply(box, reply_key, context)
    try:
        return Neighbours.decode(unpad(plain), width).embeddings
    except ValueError as error:
        raise SubflError(f"the matcher's answer cannot be read: {error}") from None


@dataclass(frozen=True)
class MatchBounds:
    """Bounds of what a matcher answers, which its operator sets and no server.

    A server that forwards the boxes of two users alone would learn an embedding by name, and a participant that asks
    with one token would learn who rated the item.

    Attributes:
        least_users: requests that a batch must have to be answered.
        least_common: common items that make two users neighbours.
        most_requests: requests that are answered in a round, in all its batches; None: any number.
    """

    least_users: int = 1
    least_common: int = 1
    most_requests: int | None = None

    def require(self, asking: int, answered: int) -> None:
        """Refuse a batch that is too small, or beyond the number of users.

        Args:
            asking: number of its requests.
            answered: number of requests answered in the round before.

        Raises:
            SubflError: it is.
        """
        if asking < self.least_users:
            raise SubflError(f"{asking} users ask, and the matcher answers {self.least_users} together or more")
        if self.most_requests is not None and answered + asking > self.most_requests:
            raise SubflError(
                f"{answered + asking} requests in a round, where {self.most_requests} are answered at most"
            )


NO_BOUNDS = MatchBounds()
"""Every batch is answered, as in a simulation, whose matcher is nobody's."""


class Matcher:
    """The third party, which matches users with common items.

    Args:
        key: its key pair.
        width: width of users' embeddings.
        max_neighbours: most neighbours of a user, at least 1.
        guard: record of the boxes that were opened in this run; a new one where none was.
        bounds: bounds of what is answered.
    """

    def __init__(
        self,
        key: MatcherKey,
        width: int,
        max_neighbours: int,
        guard: ReplayGuard | None = None,
        bounds: MatchBounds = NO_BOUNDS,
    ) -> None:
        self._key = key
        self._width = width
        self._max_neighbours = max_neighbours
        self._guard = ReplayGuard() if guard is None else guard
        self._bounds = bounds

    @property
    def public_key(self) -> bytes:
        """The public key that users seal to."""
        return self._key.public

    def answer(
        self, boxes: Sequence[bytes], context: bytes, answered: int = 0
    ) -> tuple[list[bytes | None], dict[int, str]]:
        """The sealed answers to a round's requests.

        Args:
            boxes: one a user.
            context: run, round and phase.
            answered: number of requests that were answered in the round before.

        Returns:
            For each box the answer, or None where it is refused; and the reasons by the position of a refused box.
        """
        requests: dict[int, Request] = {}
        refused: dict[int, str] = {}
        for position, box in enumerate(boxes):
            try:
                requests[position] = self._opened(box, context)
            except (SubflError, ValueError) as error:
                refused[position] = str(error)
        try:
            self._bounds.require(len(requests), answered)
        except SubflError as error:
            refused |= dict.fromkeys(requests, str(error))
            requests = {}
        # Boxes come in an order that is drawn again each time, and ties are broken by position.
        requests = dict(sorted(requests.items(), key=lambda item: item[1].embedding.tolist()))
        answers: list[bytes | None] = [None] * len(boxes)
        embeddings = np.stack([request.embedding for request in requests.values()]) if requests else np.zeros((0, 0))
        neighbours = match(list(requests.values()), self._max_neighbours, self._bounds.least_common)
        for (position, request), own in zip(requests.items(), neighbours, strict=True):
            answers[position] = self._sealed(embeddings[own], request.reply_key, context)
        return answers, refused

    def _opened(self, box: bytes, context: bytes) -> Request:
        plain = open_box(box, self._key, context)
        self._guard.check(box)
        return Request.decode(unpad(plain), self._width)

    def _sealed(self, embeddings: np.ndarray, reply_key: bytes, context: bytes) -> bytes:
        """A sealed answer, padded to the length of one with the largest number of neighbours."""
        full = LENGTH_BYTES + 4 * self._width * self._max_neighbours
        return seal_reply(pad(Neighbours(embeddings).encode(), full), reply_key, context)

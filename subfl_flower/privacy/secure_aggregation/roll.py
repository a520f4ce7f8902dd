"""The members of one secure sum: their public keys, and who shares masks with whom."""

from __future__ import annotations

import hmac
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

from subfl_flower.errors import SubflError
from subfl_flower.privacy.derived_keys import derived_key
from subfl_flower.privacy.secure_aggregation.settings import SecureSumSettings

NONCE_BYTES = 16
_FORM = struct.Struct("<qi32s32s32s32s")
_TAG = "public keys of a secure sum"


def sum_context(run: str, server_round: int, nonce: bytes) -> bytes:
    """Context that keys, shares and masks are bound to: a run, a round, and a value drawn for this sum alone."""
    return f"secure sum {run} {server_round} ".encode() + nonce


@dataclass(frozen=True)
class Advert:
    """One client's public part of a secure sum.

    Attributes:
        client: id of the client.
        channel: public key to which others encrypt shares, 32 bytes.
        masks: public key of the masks that it shares with others, 32 bytes.
        seed_digest: SHA-256 of the seed of its self-mask, by which a wrong share is noticed.
        tag: proof that its sender has the clients' shared key, 32 bytes; the server cannot make one.
        group: number of the sum that it belongs to, as the server assigns it.
    """

    client: int
    channel: bytes
    masks: bytes
    seed_digest: bytes
    tag: bytes = b""
    group: int = 0

    def tagged(self, shared_key: bytes, context: bytes) -> Advert:
        """The advert with its proof."""
        return Advert(self.client, self.channel, self.masks, self.seed_digest, self._tag(shared_key, context))

    def is_genuine(self, shared_key: bytes, context: bytes) -> bool:
        """True where somebody who has the shared key made it for this sum."""
        return hmac.compare_digest(self.tag, self._tag(shared_key, context))

    def encode(self) -> bytes:
        """As bytes."""
        return _FORM.pack(self.client, self.group, self.channel, self.masks, self.seed_digest, self.tag)

    @classmethod
    def decode_all(cls, encoded: bytes) -> list[Advert]:
        """The adverts in bytes of `encode`, one after the other.

        Raises:
            ValueError: not of a whole number of adverts.
        """
        if len(encoded) % _FORM.size:
            raise ValueError(f"{len(encoded)} bytes are no whole number of public keys")
        found = []
        for client, group, channel, masks, digest, tag in _FORM.iter_unpack(encoded):
            found.append(cls(client, channel, masks, digest, tag, group))
        return found

    def _tag(self, shared_key: bytes, context: bytes) -> bytes:
        key = derived_key(shared_key, _TAG, context)
        said = self.client.to_bytes(8, "little", signed=True) + self.channel + self.masks + self.seed_digest
        return hmac.digest(key, said, sha256)


@dataclass(frozen=True)
class Roll:
    """The members of one secure sum who gave their keys.

    Neighbours stand next to each other on a ring (Bell et al., CCS 2020). Its order follows from a digest of all keys,
    so that it is known to everybody, and nobody chooses a place.

    Attributes:
        adverts: one of each member, by ascending client.
        settings: of secure sums.
    """

    adverts: tuple[Advert, ...]
    settings: SecureSumSettings

    @classmethod
    def of(cls, adverts: Iterable[Advert], settings: SecureSumSettings) -> Roll:
        """The roll of some adverts, in any order.

        Raises:
            SubflError: a client comes twice, or there are too few clients.
        """
        ordered = tuple(sorted(adverts, key=lambda advert: advert.client))
        if len({advert.client for advert in ordered}) < len(ordered):
            raise SubflError("a client is named twice in a secure sum")
        if len(ordered) < settings.min_clients:
            raise SubflError(
                f"a secure sum over {len(ordered)} clients is refused; "
                f"secure_sums.min_clients asks for {settings.min_clients} or more"
            )
        return cls(ordered, settings)

    def __len__(self) -> int:
        """The number of members."""
        return len(self.adverts)

    def __contains__(self, client: int) -> bool:
        """True for a member."""
        return client in self._places

    def advert(self, client: int) -> Advert:
        """A member's advert."""
        return self.adverts[self._places[client]]

    def point(self, client: int) -> int:
        """The point at which a member holds shares: its place among the members, from 1."""
        return self._places[client] + 1

    @cached_property
    def digest(self) -> bytes:
        """Digest of all members and their keys, 32 bytes."""
        return sha256(b"".join(advert.encode() for advert in self.adverts)).digest()

    @cached_property
    def least(self) -> int:
        """Number of members that must remain for the sum to be opened."""
        return max(self.settings.min_clients, self.settings.needed(len(self)))

    def neighbours(self, client: int) -> tuple[int, ...]:
        """The members with whom a member shares masks, ascending."""
        ring = self._ring
        degree = self.settings.neighbours
        if degree == "all" or degree >= len(ring) - 1:
            return tuple(advert.client for advert in self.adverts if advert.client != client)
        place, half = self._ring_places[client], degree // 2
        return tuple(sorted(ring[(place + step) % len(ring)] for step in range(-half, half + 1) if step))

    def holders(self, client: int) -> tuple[int, ...]:
        """The members who hold shares of a member's secrets: its neighbours and itself, ascending."""
        return tuple(sorted((client, *self.neighbours(client))))

    def shares_needed(self, client: int) -> int:
        """Number of shares that give back a secret of a member."""
        return self.settings.needed(len(self.neighbours(client)) + 1)

    def require_genuine(self, shared_key: bytes, context: bytes) -> None:
        """Refuse a member whose keys were made without the clients' shared key, or for another sum.

        Raises:
            SubflError: there is one.
        """
        for advert in self.adverts:
            if not advert.is_genuine(shared_key, context):
                raise SubflError(
                    f"the keys of client {advert.client} for a secure sum were not made with the clients' shared key"
                )

    def require_enough(self, remaining: Sequence[int], said: str) -> None:
        """Refuse a set of remaining members that is too small, or not one of members.

        Raises:
            SubflError: it is.
        """
        if len(set(remaining)) < len(remaining) or any(client not in self for client in remaining):
            raise SubflError(f"the clients that {said} are not members of the secure sum, each once")
        if len(remaining) < self.least:
            raise SubflError(
                f"only {len(remaining)} of {len(self)} clients {said}, and a secure sum needs {self.least}"
            )

    @cached_property
    def _places(self) -> dict[int, int]:
        return {advert.client: place for place, advert in enumerate(self.adverts)}

    @cached_property
    def _ring(self) -> tuple[int, ...]:
        keys = {
            a.client: sha256(self.digest + a.client.to_bytes(8, "little", signed=True)).digest() for a in self.adverts
        }
        return tuple(sorted(keys, key=keys.__getitem__))

    @cached_property
    def _ring_places(self) -> dict[int, int]:
        return {client: place for place, client in enumerate(self._ring)}

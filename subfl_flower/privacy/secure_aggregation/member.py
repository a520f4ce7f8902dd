"""A client's half of a secure sum: keys, shares of its secrets, a masked upload, and one answer that opens the sum.

All secrets are new for every sum, from the operating system's generator.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from subfl_flower.errors import SubflError
from subfl_flower.privacy.secure_aggregation.masks import channel_key, pair_mask, public_of, self_mask
from subfl_flower.privacy.secure_aggregation.roll import Advert, Roll
from subfl_flower.privacy.secure_aggregation.shamir import SHARE_BYTES, split

_KEY_BYTES = 32
_NONCE_BYTES = 12
BOX_BYTES = _NONCE_BYTES + 2 * SHARE_BYTES + 16
"""Bytes of a pair of encrypted shares."""

SECRET_BYTES = 3 * _KEY_BYTES


@dataclass(frozen=True)
class Member:
    """The secrets of one client for one sum.

    Attributes:
        client: id of the client.
        context: of the sum (`roll.sum_context`).
        channel: private key that opens shares of others.
        masks: private key of the masks that it shares with others.
        seed: of its self-mask.
    """

    client: int
    context: bytes
    channel: bytes
    masks: bytes
    seed: bytes

    @classmethod
    def new(cls, client: int, context: bytes) -> Member:
        """New secrets."""
        drawn = (secrets.token_bytes(_KEY_BYTES) for _ in range(3))
        return cls(client, context, *drawn)

    @classmethod
    def restored(cls, client: int, context: bytes, kept: bytes) -> Member:
        """The secrets that `secrets` gave."""
        return cls(client, context, *(kept[start : start + _KEY_BYTES] for start in range(0, SECRET_BYTES, _KEY_BYTES)))

    @property
    def secrets(self) -> bytes:
        """The secrets as bytes, to be kept by the client alone."""
        return self.channel + self.masks + self.seed

    def advert(self, shared_key: bytes) -> Advert:
        """The public part.

        Args:
            shared_key: secret that the clients share and the server does not have.
        """
        digest = sha256(self.seed).digest()
        plain = Advert(self.client, public_of(self.channel), public_of(self.masks), digest)
        return plain.tagged(shared_key, self.context)

    def boxes(self, roll: Roll) -> dict[int, bytes]:
        """Encrypted shares of the two secrets, for each holder. To be made once: each call draws new shares."""
        holders = roll.holders(self.client)
        needed, points = roll.shares_needed(self.client), [roll.point(holder) for holder in holders]
        seeds, keys = split(self.seed, needed, points), split(self.masks, needed, points)
        return {
            holder: self._sealed(holder, seed + key, roll)
            for holder, seed, key in zip(holders, seeds, keys, strict=True)
        }

    def masked(self, values: np.ndarray, roll: Roll, sharing: Sequence[int]) -> np.ndarray:
        """The upload under the self-mask and the masks of all neighbours who shared their secrets. To be made once.

        Args:
            values: int64 `[size]`, as of `secure_sum.quantise`.
            roll: the members.
            sharing: the members who shared their secrets, itself among them.

        Returns:
            uint64 `[size]`, modulo 2^64.

        Raises:
            SubflError: too few shared their secrets, or the client is not among them.
        """
        roll.require_enough(sharing, "shared their keys")
        others = set(roll.neighbours(self.client)).intersection(sharing)
        if self.client not in sharing or len(others) + 1 < roll.shares_needed(self.client):
            raise SubflError(f"client {self.client} has too few others to share the masks of a secure sum with")
        found = values.astype(np.uint64) + self_mask(self.seed, self.context, values.size)
        for other in sorted(others):
            mask = self._pair_mask(other, roll, values.size)
            if self.client < other:
                found += mask
            else:
                found -= mask
        return found

    def revealed(
        self, boxes: Mapping[int, bytes], roll: Roll, sharing: Sequence[int], survivors: Sequence[int]
    ) -> dict[int, bytes]:
        """One share for each owner: of the seed of a survivor, of the mask key of a client that was lost, never both.

        To be answered once.

        Args:
            boxes: what each neighbour, and the client itself, encrypted to this client, by its sender.
            roll: the members.
            sharing: the members who shared their secrets, as for `masked`.
            survivors: the members whose masked uploads the server has.

        Raises:
            SubflError: too few survive, the client is not among them, or a box does not open.
        """
        roll.require_enough(survivors, "are left")
        if not set(survivors) <= set(sharing) or self.client not in survivors:
            raise SubflError(f"client {self.client} does not open a sum that its upload is said not to be in")
        owners = set(roll.holders(self.client)).intersection(sharing)
        if missing := owners.difference(boxes):
            raise SubflError(f"the server holds back what client {min(missing)} shared for a secure sum")
        return {
            owner: (first if owner in survivors else second)
            for owner in sorted(owners)
            for first, second in [self._opened(owner, boxes[owner], roll)]
        }

    def _pair_mask(self, other: int, roll: Roll, size: int) -> np.ndarray:
        return pair_mask(self.masks, roll.advert(other).masks, (self.client, other), self.context, size)

    def _sealed(self, holder: int, plain: bytes, roll: Roll) -> bytes:
        key = channel_key(self.channel, roll.advert(holder).channel, self.client, holder, self.context)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + ChaCha20Poly1305(key).encrypt(nonce, plain, roll.digest)

    def _opened(self, owner: int, box: bytes, roll: Roll) -> tuple[bytes, bytes]:
        key = channel_key(self.channel, roll.advert(owner).channel, owner, self.client, self.context)
        try:
            plain = ChaCha20Poly1305(key).decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], roll.digest)
        except (InvalidTag, ValueError):
            raise SubflError(f"what client {owner} shared for a secure sum was changed on its way") from None
        return plain[:SHARE_BYTES], plain[SHARE_BYTES:]

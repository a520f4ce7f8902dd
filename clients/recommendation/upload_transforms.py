"""Changes of an upload before it leaves a user: pseudo items, noise, and masks that cancel in a sum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from subfl_flower.clients.recommendation.user_parts import IDS, ITEMS, ROWS, Upload, UploadTransform
from subfl_flower.clients.recommendation.users import Chunk, rated_items
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.errors import SubflError
from subfl_flower.privacy.mechanism import Uploads, protect_uploads
from subfl_flower.privacy.pseudo_items import draw_pseudo_items, stacked_pseudo_gradients
from subfl_flower.privacy.secure_sum import masked, quantise
from subfl_flower.wire.batch import Batch
from subfl_flower.wire.contract import Declared, RunContext
from subfl_flower.wire.payload import ArraySpec
from subfl_flower.wire.ragged import Ragged

PARTICIPANTS, MASKED, ATTEMPT = "participants", "masked", "mask_attempt"
"""Ids of all participants of a sum, the masked upload, and a number that a server draws for each exchange."""

ATTEMPT_BITS = 53
"""Bits of the last; an announcement is a float."""


class PseudoItems(UploadTransform):
    """Hide the items that a user rated among pseudo items with similar gradients (settings: `PseudoItemSettings`)."""

    def __call__(self, upload: Upload, chunk: Chunk, batch: Batch) -> Upload:
        """Gradients of real and pseudo items together, ascending by item."""
        if self.settings.pseudo_items == 0:
            return upload
        real_ids, real_rows = upload.rows[IDS], upload.rows[ROWS]
        ratings, server_round = chunk.ratings, batch.server_round
        generators = self._item_generators(ratings, server_round)
        # Sampled negatives have real gradients; which items are pseudo items does not depend on them.
        pseudo = [np.setdiff1d(items, real_ids.of(user)) for user, items in enumerate(self._drawn(ratings, generators))]
        ranks = None
        if self.settings.pseudo_norms == "like_real":
            ranks = np.concatenate([rng.random(len(items)) for rng, items in zip(generators, pseudo, strict=True)])
        if self.settings.pseudo_gradients == "fresh":
            generators = self.users.generators(ratings, server_round, "pseudo gradients")
        counts = np.array([len(items) for items in pseudo], dtype=np.int64)
        drawn = stacked_pseudo_gradients(real_rows.values, real_rows.offsets, counts, generators, ranks)
        lengths = real_ids.lengths + counts
        owners = np.concatenate([real_ids.owners, np.repeat(np.arange(len(counts)), counts)])
        ids = np.concatenate([real_ids.values, *pseudo]).astype(np.int32)
        order = np.lexsort((ids, owners))
        rows = np.concatenate([real_rows.values, drawn])[order]
        return Upload(upload.arrays, {IDS: Ragged(ids[order], lengths), ROWS: Ragged(rows, lengths)})

    def among_rated(self, ratings: Ratings) -> Ragged:
        """The items whose rows users send, ascending: rated and pseudo ones, where these stay the same for the run."""
        rated = rated_items(ratings)
        pseudo = self._drawn(ratings, self._item_generators(ratings, 0))
        wanted = [np.union1d(rated.of(user), items) for user, items in enumerate(pseudo)]
        return Ragged(np.concatenate(wanted), np.array([len(items) for items in wanted], dtype=np.int64))

    def _drawn(self, ratings: Ratings, generators: Sequence[np.random.Generator]) -> list[np.ndarray]:
        """Each user's pseudo items."""
        rated = rated_items(ratings)
        num_items, count = ratings.num_items, self.settings.pseudo_items
        most = num_items if count == "all" else count
        return [draw_pseudo_items(rated.of(user), num_items, most, rng) for user, rng in enumerate(generators)]

    def _item_generators(self, ratings: Ratings, server_round: int) -> list[np.random.Generator]:
        """The generator of pseudo items: the same every round, unless they are refreshed."""
        if self.settings.pseudo_refresh:
            return self.users.generators(ratings, server_round, "pseudo items")
        return self.users.lasting_generators(ratings, "pseudo items")


class Noise(UploadTransform):
    """Clip the whole upload, and add noise to it, as configured under `privacy`."""

    def __call__(self, upload: Upload, chunk: Chunk, batch: Batch) -> Upload:
        """The protected upload."""
        privacy = self.users.run.privacy
        if privacy.mechanism == "none":
            return upload
        words = self.users.noise_words(chunk.ratings, batch.server_round)
        rows = upload.rows[ROWS]
        protected = protect_uploads(Uploads(rows.values, rows.offsets, upload.arrays), privacy, words)
        return Upload(dict(protected.shared), {**upload.rows, ROWS: Ragged(protected.rows, rows.lengths)})


class SumMasks(UploadTransform):
    """Add masks that cancel in the sum over a round's participants (settings: `MaskSettings`); the last transform."""

    @classmethod
    def downloads(cls, declared: Declared, run: RunContext) -> Declared:
        """The declared arrays, and the ids of all participants of the round."""
        participants = {PARTICIPANTS: ArraySpec((-1,), "int32", needed=False)} if masks_of(run) else {}
        return {**declared, **participants}

    @classmethod
    def uploads(cls, declared: Declared, run: RunContext) -> Declared:
        """One array of all gradients."""
        if not masks_of(run):
            return declared
        size = sum(value.size for value in run.initial.values())
        return {MASKED: ArraySpec((size,), "uint64", bounded=False)}

    def __call__(self, upload: Upload, chunk: Chunk, batch: Batch) -> Upload:
        """Masked gradients of all shared parameters: uint64 [U, values], the item table's last."""
        if not masks_of(self.users.run):
            return upload
        cohort = self.users.cohort
        if cohort.shared_key is None:
            raise SubflError("this node has no shared key, which the masks of a sum are made with")
        key = cohort.shared_key.read()
        if PARTICIPANTS not in batch.sent.values:
            raise SubflError("the masks of a sum need the ids of all who take part, which the server did not send")
        # Other participants in the same round would be another sum, and two sums must not share masks.
        participants = tuple(batch.sent.values[PARTICIPANTS][batch.sent.rows[0, 0]].tolist())
        about = np.array([batch.server_round, *participants], dtype="<i8").tobytes() + cohort.run.encode()
        about += str(batch.announced.get(ATTEMPT)).encode()  # a round that is repeated is another sum
        hidden = [
            masked(
                quantise(self._dense(upload, user), self.settings.fraction_bits),
                client_id,
                participants,
                key,
                about,
                self.settings.mask_degree,
            )
            for user, client_id in enumerate(chunk.ratings.user_ids.tolist())
        ]
        self.users.claim_masks(chunk.ratings.user_ids.tolist(), b"upload" + about)
        return Upload({MASKED: np.stack(hidden)}, {})

    def _dense(self, upload: Upload, user: int) -> np.ndarray:
        """All of a user's gradients in one vector, with zeros for items that it does not send."""
        table = dense_rows(upload.rows[IDS].of(user), upload.rows[ROWS].of(user), self.users.model.shapes[ITEMS][0])
        shapes = self.users.model.shapes
        arrays = (upload.arrays[name][user].reshape(-1) for name in shapes if name != ITEMS)
        return np.concatenate([*arrays, table.reshape(-1)])


def masks_of(run: RunContext) -> bool:
    """True where uploads have masks of their participants' shared key; those of a secure sum take their place."""
    masks: bool = run.settings.masks
    return masks and not run.secure_sums.enabled


def dense_rows(ids: np.ndarray, rows: np.ndarray, num_items: int) -> np.ndarray:
    """An item table [num_items, width] with the given rows, and zeros in all others."""
    table = np.zeros((num_items, rows.shape[1]), dtype=np.float32)
    table[ids] = rows
    return table

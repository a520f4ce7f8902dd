"""FedGNN's users (Wu et al., Nature Communications 2022): pseudo items, local differential privacy, graph expansion.

A user hides which items it rated among pseudo items with gradients like those of the real ones, clips the whole upload
and adds noise to it, and, where the method expands graphs, tells the matcher through the server in a sealed box which
items it has, and is told the embeddings of users with common ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor

from clients.recommender import IDS, ITEMS, ROWS, RecommenderClient
from subfl_flower.data.graph import TRAIN
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.errors import SubflError
from subfl_flower.models.user_graphs import UserGraphs
from subfl_flower.models.user_models import UserGradients
from subfl_flower.privacy.expansion import opened_neighbours, sealed_request
from subfl_flower.privacy.mechanism import Uploads, protect_uploads
from subfl_flower.privacy.pseudo_items import draw_pseudo_items, stacked_pseudo_gradients
from subfl_flower.privacy.sealed_box import KEY_BYTES
from subfl_flower.privacy.tokens import token_table
from subfl_flower.runtime.batch import Answers, Batch, Question
from subfl_flower.runtime.contract import Declared, RunContext
from subfl_flower.runtime.matcher_node import BOX, expansion_context
from subfl_flower.runtime.messages import ArraySpec, Stack
from subfl_flower.runtime.ragged import Ragged, RaggedSpec

EXPAND, NEIGHBOURS, WANTED = "expand", "neighbours", "rows"


class FedGNNClient(RecommenderClient):
    """Protects what it uploads, and knows neighbours that it does not know."""

    protects_uploads: ClassVar[bool] = True

    class Settings(RecommenderClient.Settings):
        """What hides a user, and the expansion of graphs.

        Attributes:
            pseudo_items: items that a user uploads gradients of beside those that it rated; ``all``: all others.
            pseudo_refresh: draw them anew each round. The server then finds the real ones, which come back: this is
                here to show that.
            pseudo_gradients: the normal variates of their gradients are drawn ``fresh`` each round, as in the paper, or
                ``kept`` for the run. Fresh ones average out over rounds, for the model and for a server that averages
                one user's uploads to see which items keep a gradient of their own.
            pseudo_norms: pseudo gradients are ``normal`` as drawn, or scaled to norms ``like_real`` ones, whose tails
                are heavier than a normal's.
            train_neighbours: train neighbours' embeddings as the user's own (an ablation of the paper).
            embedding_noise: deviation of the normal noise on an embedding before it is sealed for the matcher.
            download: what users are sent of the item table: the `rows` that they send, for which they ask once, or the
                whole `table`, which tells nothing of what they want; ``auto`` takes the table where rows are more than
                half of it, and with `pseudo_refresh`.
            max_neighbours: neighbours that a user is told of at most; 0: no expansion, and no matcher.
            expansion_start: the first round with an expansion.
            expansion_every: rounds between two of them.
            audit_users: users whose uploads are watched for what they give away (simulation only); 0: none.
        """

        user_lr: float | None = Field(default=0.03, gt=0)
        user_steps: int = Field(default=5, ge=1)
        server_lr_final: float = Field(default=0.02, gt=0, le=1)
        network_weight_decay: float = Field(default=0.003, ge=0)

        pseudo_items: Annotated[int, Field(ge=0)] | Literal["all"] = 1000
        pseudo_refresh: bool = False
        pseudo_gradients: Literal["fresh", "kept"] = "fresh"
        pseudo_norms: Literal["normal", "like_real"] = "like_real"
        train_neighbours: bool = False
        embedding_noise: float = Field(default=0.0, ge=0)
        download: Literal["auto", "rows", "table"] = "auto"
        max_neighbours: int = Field(default=0, ge=0)
        expansion_start: int = Field(default=1, ge=1)
        expansion_every: int = Field(default=50, ge=1)
        audit_users: int = Field(default=0, ge=0)

        @field_validator("download")
        @classmethod
        def _rows_are_known(cls, value: str, info: ValidationInfo) -> str:
            if value == "rows" and info.data.get("pseudo_refresh"):
                raise ValueError(
                    "with method.pseudo_refresh the server cannot know which rows are needed; must be table"
                )
            return value

    settings: Settings

    phases: ClassVar[tuple[str, ...]] = (EXPAND, NEIGHBOURS, WANTED)

    @classmethod
    def downloads(cls, run: RunContext) -> Declared:
        """The shared parameters; in place of the item table perhaps the rows of it that a user asked for."""
        num_items, width = run.initial[ITEMS].shape
        return {
            **super().downloads(run),
            ITEMS: ArraySpec((num_items, width), "float32", needed=False),
            ROWS: RaggedSpec((width,), "float32", num_items, needed=False),
        }

    def more_model(self) -> dict[str, tuple[int, ...]]:
        """The neighbours."""
        most, width = self.run.model.neighbours, self.run.model.dim
        return {"neighbours": (most, width), "num_neighbours": ()} if most else {}

    def more_state(self) -> dict[str, tuple[int, ...]]:
        """The key that the next neighbours are sealed with."""
        return {"reply_key": (KEY_BYTES,)} if self.run.model.neighbours else {}

    # Uploads ----------------------------------------------------------------------------------------------------------

    def made_uploads(
        self, gradients: UserGradients, graphs: UserGraphs, ratings: Ratings, batch: Batch
    ) -> tuple[dict[str, np.ndarray], dict[str, Ragged]]:
        """Protected gradients of real and pseudo items together, ascending by item."""
        server_round = batch.server_round
        shared, ragged = super().made_uploads(gradients, graphs, ratings, batch)
        ids, rows = ragged[IDS], ragged[ROWS]
        if self.settings.pseudo_items != 0:
            ids, rows = self._among_pseudo_items(ids, rows, ratings, server_round)
        if self.run.privacy.mechanism != "none":
            noise = self._noise_generators(ratings, server_round, "noise")
            protected = protect_uploads(Uploads(rows.values, rows.offsets, shared), self.run.privacy, noise)
            rows, shared = Ragged(protected.rows, rows.lengths), dict(protected.shared)
        return shared, {IDS: ids, ROWS: rows}

    def _among_pseudo_items(
        self, real_ids: Ragged, real_rows: Ragged, ratings: Ratings, server_round: int
    ) -> tuple[Ragged, Ragged]:
        """Which rows users send, ascending, and their gradients."""
        generators = self._item_generators(ratings, server_round)
        # What was sampled has gradients of its own; which items are pseudo items does not depend on that.
        pseudo = [
            np.setdiff1d(items, real_ids.of(user))
            for user, items in enumerate(self._pseudo_items(_rated(ratings), generators))
        ]
        ranks = None
        if self.settings.pseudo_norms == "like_real":
            ranks = np.concatenate([rng.random(len(items)) for rng, items in zip(generators, pseudo, strict=True)])
        if self.settings.pseudo_gradients == "fresh":
            generators = self._noise_generators(ratings, server_round, "pseudo gradients")
        counts = np.array([len(items) for items in pseudo], dtype=np.int64)
        drawn = stacked_pseudo_gradients(real_rows.values, real_rows.offsets, counts, generators, ranks)
        lengths = real_ids.lengths + counts
        owners = np.concatenate([real_ids.owners, np.repeat(np.arange(len(counts)), counts)])
        ids = np.concatenate([real_ids.values, *pseudo]).astype(np.int32)
        order = np.lexsort((ids, owners))
        rows = np.concatenate([real_rows.values, drawn])[order]
        return Ragged(ids[order], lengths), Ragged(rows, lengths)

    def _pseudo_items(self, rated: Ragged, generators: Sequence[np.random.Generator]) -> list[np.ndarray]:
        """Each user's pseudo items."""
        num_items, count = self.cohort.ratings.num_items, self.settings.pseudo_items
        most = num_items if count == "all" else count
        return [draw_pseudo_items(rated.of(user), num_items, most, rng) for user, rng in enumerate(generators)]

    def _item_generators(self, ratings: Ratings, server_round: int) -> list[np.random.Generator]:
        """What pseudo items are drawn from: the same every round, unless they are refreshed."""
        if self.settings.pseudo_refresh:
            return self._noise_generators(ratings, server_round, "pseudo items")
        return [self.cohort.lasting_generator(self.seed, user, "pseudo items") for user in ratings.user_ids.tolist()]

    def _noise_generators(self, ratings: Ratings, server_round: int, purpose: str) -> list[np.random.Generator]:
        users = ratings.user_ids.tolist()
        return [self.cohort.noise_generator(self.seed, user, server_round, purpose) for user in users]

    def _wanted(self, ratings: Ratings) -> Ragged:
        """The items whose rows users send and need, ascending: real and pseudo ones."""
        rated = _rated(ratings)
        pseudo = self._pseudo_items(rated, self._item_generators(ratings, 0))
        wanted = [np.union1d(rated.of(user), items) for user, items in enumerate(pseudo)]
        return Ragged(np.concatenate(wanted), np.array([len(items) for items in wanted], dtype=np.int64))

    def _graphs(
        self,
        ratings: Ratings,
        positions: Sequence[int],
        table: Tensor | None,
        rows: Ragged | None,
        samplers: Sequence[np.random.Generator] | None = None,
    ) -> tuple[UserGraphs, Tensor]:
        graphs, items = super()._graphs(ratings, positions, table, rows, samplers)
        if rows is None:
            return graphs, items
        wanted = self._wanted(ratings)
        if (wanted.lengths != rows.lengths).any():
            raise SubflError("the server sent other rows of the item table than were asked for")
        num_items = ratings.num_items
        keys = (graphs.segment * num_items + graphs.items).cpu().numpy()
        places = np.searchsorted(wanted.owners * num_items + wanted.values, keys)
        return replace(graphs, rows=torch.from_numpy(places).to(graphs.rows.device)), items

    # Expansion --------------------------------------------------------------------------------------------------------

    def expanded(self, graphs: UserGraphs, own: Mapping[str, Tensor]) -> UserGraphs:
        """The local graphs with the neighbours that users were told of."""
        if not self.run.model.neighbours:
            return graphs
        counts = own["num_neighbours"].long().tolist()
        embeddings = own["neighbours"].cpu().numpy()
        return graphs.with_neighbours([embeddings[row, :count] for row, count in enumerate(counts)])

    @property
    def trains_neighbours(self) -> bool:  # type: ignore[override]
        """An ablation: in the method neighbours stay as they were told."""
        return self.settings.train_neighbours and self.run.model.neighbours > 0

    def step_neighbours(self, graphs: UserGraphs, gradients: UserGradients, own: Mapping[str, Tensor]) -> UserGraphs:
        """Take a plain gradient step of the neighbours' embeddings, and keep them."""
        if gradients.neighbours is None or not len(graphs.neighbours):
            return graphs
        stepped = graphs.neighbours - self.optimizer.lr * gradients.neighbours
        places = torch.cat([torch.arange(count) for count in graphs.neighbour_lengths])
        own["neighbours"][graphs.neighbour_segment, places.to(stepped.device)] = stepped
        return replace(graphs, neighbours=stepped)

    def answer(self, question: Question) -> Answers:
        """Users' answers to ``query.rows``, ``query.expand`` and ``query.neighbours``, all users at once."""
        clients = list(question.received)
        positions = [self.position_of[client_id] for client_id in clients]
        if question.phase == WANTED:
            wanted = self._wanted(self.cohort.ratings.of_users(positions))
            return Answers({client: {IDS: wanted.of(row).astype(np.int32)} for row, client in enumerate(clients)})
        if question.phase not in (EXPAND, NEIGHBOURS) or not self.run.model.neighbours:
            raise SubflError(f"{type(self).__name__} has no answer to query.{question.phase}")
        state = self.open_state()
        with state.rows(positions, self.cohort.device, tuple(self._worked_on)) as own:
            self._begin(own, positions, question.announced)
            work = self._sealed if question.phase == EXPAND else self._unsealed
            answered = work(question, clients, positions, own)
        self.store.commit(state)
        return answered

    def _sealed(
        self, question: Question, clients: Sequence[int], positions: Sequence[int], own: Mapping[str, Tensor]
    ) -> Answers:
        """A box for the matcher from each user: the tokens of its items, its embedding, and a key for the answer."""
        if self.cohort.shared_key is None:
            raise SubflError("this node has no shared key, which items' tokens are made with")
        run, server_round = str(question.about["id"]), question.server_round
        context = expansion_context(run, server_round)
        ratings = self.cohort.ratings.of_users(positions)
        tokens = token_table(ratings.num_items, self.cohort.shared_key.read(), run.encode())
        rated = _rated(ratings)
        boxes: dict[int, Stack] = {}
        for row, client_id in enumerate(clients):
            box, reply_key = sealed_request(
                tokens[rated.of(row)],
                own["user"][row].cpu().numpy(),
                self.cohort.trusted_matcher or question.about["matcher_key"],
                context,
                self.settings.embedding_noise,
                self.cohort.noise_generator(self.seed, client_id, server_round, "embedding noise"),
            )
            own["reply_key"][row] = torch.from_numpy(np.frombuffer(reply_key, dtype=np.uint8).astype(np.float32))
            boxes[client_id] = {BOX: np.frombuffer(box, dtype=np.uint8)}
        return Answers(boxes)

    def _unsealed(
        self, question: Question, clients: Sequence[int], positions: Sequence[int], own: Mapping[str, Tensor]
    ) -> Answers:
        """Take in what the matcher sealed; a user whose box does not open keeps the neighbours that it had."""
        context = expansion_context(str(question.about["id"]), question.server_round)
        most, width = self.more_model()["neighbours"]
        taken: dict[int, Stack] = {}
        failures: dict[int, str] = {}
        for row, client_id in enumerate(clients):
            key = own["reply_key"][row].cpu().numpy().astype(np.uint8).tobytes()
            try:
                box = question.received[client_id][BOX].tobytes()
                found = opened_neighbours(box, key, context, width)[:most]
            except (SubflError, KeyError) as error:
                failures[client_id] = str(error) if isinstance(error, SubflError) else "the server sent it no box"
                continue
            own["neighbours"][row].zero_()
            own["neighbours"][row, : len(found)] = torch.from_numpy(found.copy())
            own["num_neighbours"][row] = len(found)
            taken[client_id] = {}
        return Answers(taken, failures)


def _rated(ratings: Ratings) -> Ragged:
    """The items of each user's training ratings."""
    return Ragged(ratings.items[ratings.roles == TRAIN], ratings.counts(TRAIN))

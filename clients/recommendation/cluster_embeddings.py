"""Embeddings by which users are clustered (PerFedRec: Luo, Xiao, Song, CIKM 2022)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from subfl_flower.clients.recommendation.user_parts import AskedUsers, LocalModels, UserPart
from subfl_flower.node.state import Shapes
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Answers, Question

EMBEDDING = "embedding"


class ClusterEmbeddings(UserPart):
    """Tell the server the direction of the user's side of its model after training (settings: `ClusterSettings`).

    The direction is h_u scaled to length 1, with normal noise where that is asked for. Only users who agree send it.
    """

    phases = (EMBEDDING,)

    @property
    def state(self) -> Shapes:
        """The embedding after the last training; zeros before the first one."""
        return {EMBEDDING: (self.users.run.model.dim,)}

    @torch.no_grad()
    def take_note(self, trained: LocalModels, own: Mapping[str, Tensor]) -> None:
        """Remember the embeddings."""
        model = self.users.model
        items = model.own_items(trained.stacks, trained.items, trained.graphs)
        users = model.own_users(trained.stacks, items, own, trained.graphs)
        own[EMBEDDING].copy_(torch.nn.functional.normalize(users, dim=1))

    def answer(self, question: Question, asked: AskedUsers) -> Answers:
        """The embeddings; empty where a user has not trained, or does not agree."""
        cohort, seed, settings = self.users.cohort, self.users.run.seed, self.settings
        embeddings = asked.state.read(EMBEDDING).cpu().numpy()
        found: dict[int, Stack] = {}
        for client_id, embedding in zip(asked.clients, embeddings, strict=True):
            lot = cohort.lasting_generator(seed, client_id, "agreement").random()
            agrees = lot < settings.agreeing and not cohort.keep_embeddings
            if not agrees or not embedding.any():
                found[client_id] = {}
                continue
            noise = cohort.noise_generator(seed, client_id, question.server_round, EMBEDDING)
            hidden = embedding + settings.cluster_noise * noise.standard_normal(len(embedding))
            found[client_id] = {EMBEDDING: hidden.astype(np.float32)}
        return Answers(found)

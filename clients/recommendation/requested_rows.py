"""Rows of the item table that users ask for, in place of the whole table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from subfl_flower.clients.recommendation.upload_transforms import PseudoItems
from subfl_flower.clients.recommendation.user_parts import IDS, ITEMS, ROWS, AskedUsers, UserPart
from subfl_flower.clients.recommendation.users import Chunk
from subfl_flower.errors import SubflError
from subfl_flower.recommendation.models.user_graphs import UserGraphs
from subfl_flower.wire.batch import Answers, Batch, Question, tensor_of
from subfl_flower.wire.contract import Declared, RunContext
from subfl_flower.wire.payload import ArraySpec
from subfl_flower.wire.ragged import RaggedSpec

WANTED = "rows"


class RequestedRows(UserPart):
    """Ask for the rows of rated and pseudo items, and train on these (settings: `RequestedRowsSettings`)."""

    phases = (WANTED,)

    @classmethod
    def downloads(cls, declared: Declared, run: RunContext) -> Declared:
        """The declared arrays, with requested rows in place of the item table where only these are sent."""
        num_items, width = run.initial[ITEMS].shape
        return {
            **declared,
            ITEMS: ArraySpec((num_items, width), "float32", needed=False),
            ROWS: RaggedSpec((width,), "float32", num_items, needed=False),
        }

    def answer(self, question: Question, asked: AskedUsers) -> Answers:
        """Numbers of the rows that users send and need, ascending."""
        wanted = PseudoItems(self.users).among_rated(self.users.cohort.ratings.of_users(asked.positions))
        return Answers({client: {IDS: wanted.of(row).astype(np.int32)} for row, client in enumerate(asked.clients)})

    def received_items(
        self, graphs: UserGraphs, items: Tensor | None, chunk: Chunk, batch: Batch
    ) -> tuple[UserGraphs, Tensor | None]:
        """The graphs with their items' positions among the received rows, and these rows; else the table."""
        rows = batch.rows.get(ROWS)
        if rows is None:
            return graphs, items
        wanted = PseudoItems(self.users).among_rated(chunk.ratings)
        if (wanted.lengths != rows.lengths).any():
            raise SubflError("the server sent other rows of the item table than were asked for")
        num_items = chunk.ratings.num_items
        keys = (graphs.segment * num_items + graphs.items).cpu().numpy()
        places = np.searchsorted(wanted.owners * num_items + wanted.values, keys)
        located = replace(graphs, rows=torch.from_numpy(places).to(graphs.rows.device))
        return located, tensor_of(rows.values).to(self.users.cohort.device)

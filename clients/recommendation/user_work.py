r"""Local work of users: gradient steps of personal parameters, training of all parameters, or a closed form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from subfl_flower.clients.recommendation.summed_biases import user_biases
from subfl_flower.clients.recommendation.user_parts import ITEMS, LocalModels, Neighbourhood, UserWork
from subfl_flower.clients.recommendation.users import Chunk, Users
from subfl_flower.models.adam import adam_step
from subfl_flower.models.segments import segment_sum
from subfl_flower.recommendation.models.user_graphs import UserGraphs
from subfl_flower.recommendation.models.user_models import UserGradients, expanded


class GradientWork(UserWork):
    """Step the personal parameters with Adam, and upload the gradient of the rest (settings: `StepSettings`)."""

    def work(self, shared: Mapping[str, Tensor], items: Tensor, graphs: UserGraphs, chunk: Chunk) -> LocalModels:
        """Take `user_steps` steps; the gradients of the last one's objective, and models as they were received."""
        stacks = expanded(shared, len(graphs))
        rows = items.index_select(0, graphs.rows)
        if chunk.held:
            chunk.own["user_bias"].copy_(self._bias(graphs, rows))
        personal, trains = self.users.personal(chunk), self.neighbourhood.trained
        for _ in range(self.settings.user_steps):
            of_mean = self.users.model.step(stacks, rows, personal, graphs, train_neighbours=trains)
            gradients = of_loss(self.settings.loss, of_mean, graphs)
            if chunk.held:
                without_biases(gradients)
            step_personal(self.users, gradients, personal, chunk.own, held=chunk.held)
            graphs = self.neighbourhood.step(graphs, gradients, chunk.own)
        return LocalModels(rows, stacks, graphs, gradients)

    def refitted(self, shared: Mapping[str, Tensor], chunk: Chunk) -> dict[str, Tensor]:
        """The users' biases where these follow from the items'."""
        if not chunk.held:
            return {}
        graphs = self.users.graphs(chunk)
        return {"user_bias": self._bias(graphs, shared[ITEMS].index_select(0, graphs.rows))}

    def _bias(self, graphs: UserGraphs, rows: Tensor) -> Tensor:
        return user_biases(graphs, rows[:, -1], self.settings.bias_shrinkage)


class LocalTraining(UserWork):
    """Train all parameters, and upload received - trained (settings: `LocalTrainingSettings`).

    Args:
        users: of the node.
        neighbourhood: the users' neighbours.
            rate: learning rate of the plain gradient steps of shared parameters; None: `local_lr`.
    """

    def __init__(self, users: Users, neighbourhood: Neighbourhood, rate: float | None = None) -> None:
        super().__init__(users, neighbourhood)
        self.rate: float = self.settings.local_lr if rate is None else rate

    @property
    def draws(self) -> int:
        """`user_steps`: items are sampled again for every step."""
        steps: int = self.settings.user_steps
        return steps

    def work(self, shared: Mapping[str, Tensor], items: Tensor, graphs: UserGraphs, chunk: Chunk) -> LocalModels:
        """Take `user_steps` full-batch steps: plain ones of shared parameters, Adam's of personal ones."""
        model, trains = self.users.model, self.neighbourhood.trained
        start = expanded(shared, len(graphs))
        stacks = {name: value.clone() for name, value in start.items()}
        received = items.index_select(0, graphs.rows)
        rows = received.clone()
        personal = self.users.personal(chunk)
        for step in range(self.settings.user_steps):
            places, drawn = graphs.of_draw(step)
            touched = rows.index_select(0, places)
            of_mean = model.step(stacks, touched, personal, drawn, train_neighbours=trains)
            found = of_loss(self.settings.loss, of_mean, drawn)
            step_personal(self.users, found, personal, chunk.own)
            with torch.no_grad():
                rows.index_add_(0, places, found.items, alpha=-self.rate)
                for name, value in stacks.items():
                    value.sub_(of_mean.shared[name], alpha=self.rate)
                graphs = self.neighbourhood.step(graphs, found, chunk.own)
        differences = replace(
            found, items=received - rows, shared={name: start[name] - value for name, value in stacks.items()}
        )
        return LocalModels(rows, stacks, graphs, differences)


class ClosedForm(UserWork):
    r"""Solve for a matrix factorisation's personal parameters, and upload the gradient of the rest (see `fcf.py`)."""

    def work(self, shared: Mapping[str, Tensor], items: Tensor, graphs: UserGraphs, chunk: Chunk) -> LocalModels:
        """The gradients at the solution, and models as they were received."""
        chunk.own.update(self.solution(shared, items, graphs, chunk.held))
        stacks = expanded(shared, len(graphs))
        rows = items.index_select(0, graphs.rows)
        of_mean = self.users.model.step(stacks, rows, self.users.personal(chunk), graphs)
        gradients = of_loss(self.settings.loss, of_mean, graphs)
        if chunk.held:
            without_biases(gradients)
        return LocalModels(rows, stacks, graphs, gradients)

    def refitted(self, shared: Mapping[str, Tensor], chunk: Chunk) -> dict[str, Tensor]:
        """The solution at the received item table."""
        return self.solution(shared, shared[ITEMS], self.users.graphs(chunk), chunk.held)

    def solution(
        self, shared: Mapping[str, Tensor], items: Tensor, graphs: UserGraphs, held: bool
    ) -> dict[str, Tensor]:
        """Each user's embedding [U, dim] and bias [U]; zeros without ratings.

        Args:
            shared: as received, without a user axis.
            items: the item rows that the graphs index.
            graphs: the users' local graphs.
            held: the bias follows from the items' biases, and the embedding is fitted to the rest.
        """
        settings = self.users.run.model
        rows = items.index_select(0, graphs.rows)
        embeddings, biases = rows[:, :-1], rows[:, -1]
        targets = graphs.targets - biases - shared["bias"]
        known = torch.cat([embeddings, torch.ones_like(biases)[:, None]], dim=1)
        if held:
            bias = user_biases(graphs, biases, self.settings.bias_shrinkage)
            known, targets = embeddings, targets - bias.index_select(0, graphs.segment)
        # A Gram matrix takes no copy of rows for every pair of columns.
        products = torch.stack([own.T @ own for own in known.split(graphs.lengths)])
        counts = graphs.counts.clamp(min=1)[:, None]
        of_embedding = settings.embedding_penalty + settings.hidden_penalty
        penalties = ((counts + settings.shrinkage) * of_embedding).expand(-1, embeddings.shape[1])
        if not held:
            penalties = torch.cat([penalties, counts * settings.bias_penalty], dim=1)
        ridge = torch.diag_embed(penalties)
        right = segment_sum(known * targets[:, None], graphs.segment, len(graphs))
        solution = torch.linalg.solve(products + ridge, right)
        if held:
            return {"user": solution, "user_bias": bias}
        return {"user": solution[:, :-1], "user_bias": solution[:, -1]}


def of_loss(loss: str, of_mean: UserGradients, graphs: UserGraphs) -> UserGradients:
    """The gradients of a user's loss (``mean`` or ``sum`` over its ratings), from those of the mean."""
    counts = graphs.counts
    if loss == "mean":
        return of_mean
    return replace(
        of_mean,
        items=of_mean.items * counts.index_select(0, graphs.segment)[:, None],
        shared={name: _times(value, counts) for name, value in of_mean.shared.items()},
        personal={name: _times(value, counts) for name, value in of_mean.personal.items()},
    )


def without_biases(gradients: UserGradients) -> None:
    """Set the gradients by the items' biases and the global one to zero, in place."""
    gradients.items[:, -1] = 0
    gradients.shared["bias"].zero_()


def step_personal(
    users: Users,
    gradients: UserGradients,
    personal: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    held: bool = False,
) -> None:
    """Take one Adam step of the personal parameters, in place; its moments are in the users' state `own`.

    A user's bias is not stepped where it is `held`.
    """
    stepped = {name: value for name, value in personal.items() if not (held and name == "user_bias")}
    with torch.no_grad():
        for name, value in stepped.items():
            gradients.personal[name].add_(value, alpha=users.settings.user_weight_decay)
        adam_step(stepped, gradients.personal, own, users.optimizer)


def _times(values: Tensor, counts: Tensor) -> Tensor:
    return values * counts.view(-1, *(1,) * (values.ndim - 1))

r"""Embedding of an item or a user, from its id embedding and its attributes.

An entity has an id embedding x (an item's row, a user's own) and attribute values with embeddings v, of which those of
field f are :math:`V_f` and all together are V. Its components are

.. math:: c_0 = x, \quad c_f = \frac{1}{|V_f|} \sum_{v \in V_f} v, \quad
    c_\times = \frac{(\sum_V v)^2 - \sum_V v^2}{2} \Big/ \frac{|V| (|V| - 1)}{2},

the last one being the mean product, element by element, of two of its values (the bi-interaction of He and Chua, SIGIR
2017). Its embedding is the mean of those components that it has, with the weights

.. math:: \alpha_k = \mathrm{softmax}_k (c_k \cdot p + \beta_k).

An entity without values is x alone, and one with a single value has no product. Neither the values' embeddings nor the
means of fields are ever written out for each entity: a mean's score is the mean of its values' scores, and a weighted
sum of means is one weighted sum of values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from subfl_flower.recommendation.models.user_graphs import Codes

_DEVIATION = 0.1  # of values at the start
_OWN_SCORE = 2.0  # of an entity's own embedding at the start, so that attributes add to it rather than replace it


class AttributeAttention:
    """The attention of the items' side or of the users'.

    Args:
        side: ``item`` or ``user``, the beginning of its parameters' names.
        sizes: number of values of each field, at least one field.
        dim: width of embeddings.

    Attributes:
        shapes: its parameters by name, without a user axis: the values' embeddings ``<side>_values``, p
            ``<side>_attention``, and β ``<side>_components`` of own embedding, fields and products in this order.
    """

    def __init__(self, side: str, sizes: Sequence[int], dim: int) -> None:
        self.sizes = tuple(sizes)
        self.shapes: dict[str, tuple[int, ...]] = {
            f"{side}_values": (sum(sizes), dim),
            f"{side}_attention": (dim,),
            f"{side}_components": (len(sizes) + 2,),
        }
        self._field_of = torch.repeat_interleave(torch.tensor(self.sizes))

    def initial(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Small values, and equal weights of all components but the entity's own embedding, whose weight is larger."""
        values, attention, components = self.shapes
        scores = np.zeros(self.shapes[components])
        scores[0] = _OWN_SCORE
        return {
            values: _DEVIATION * rng.standard_normal(self.shapes[values]),
            attention: np.zeros(self.shapes[attention]),
            components: scores,
        }

    def embeddings(self, stacks: Mapping[str, Tensor], own: Tensor, codes: Codes, segment: Tensor) -> Tensor:
        """Embeddings of R entities, [R, dim].

        Args:
            stacks: its parameters, each [U, ...].
            own: [R, dim], the entities' own embeddings.
            codes: the R entities' attributes.
            segment: int64 [R], the user (0 .. U - 1) whose parameters each entity is made with.
        """
        values, attention, components = (stacks[name] for name in self.shapes)
        entities, fields = len(codes), len(self.sizes)
        slots = codes.owners * fields + self._field_of.to(own.device).index_select(0, codes.values)
        held = torch.bincount(slots, minlength=entities * fields)
        shares = held.index_select(0, slots).to(own.dtype).reciprocal()
        asked = segment.index_select(0, codes.owners) * values.shape[1] + codes.values
        table = values.reshape(-1, values.shape[2])

        probes = attention.index_select(0, segment)
        value_scores = (values @ attention[:, :, None]).reshape(-1).index_select(0, asked)
        field_scores = own.new_zeros(entities * fields).index_add(0, slots, shares * value_scores)
        per_field = held.view(entities, fields)
        sizes = per_field.sum(1, keepdim=True)
        products = _sums(table, asked, codes).square() - _sums(table.square(), asked, codes)
        products = products / (sizes * (sizes - 1)).clamp(min=1)

        scores = [_dots(own, probes), field_scores.view(entities, fields), _dots(products, probes)]
        present = [torch.ones_like(sizes, dtype=torch.bool), per_field > 0, sizes > 1]
        summed = torch.cat(scores, dim=1) + components.index_select(0, segment)
        weights = summed.masked_fill(~torch.cat(present, dim=1), -torch.inf).softmax(1)
        per_value = shares * weights[:, 1:-1].reshape(-1).index_select(0, slots)
        return weights[:, :1] * own + _sums(table, asked, codes, per_value) + weights[:, -1:] * products


def _dots(rows: Tensor, others: Tensor) -> Tensor:
    return (rows * others).sum(1, keepdim=True)


def _sums(table: Tensor, asked: Tensor, codes: Codes, weights: Tensor | None = None) -> Tensor:
    """Each entity's sum of its rows of the table, [R, dim], times weights [C] where these are given."""
    return F.embedding_bag(asked, table, codes.starts, mode="sum", per_sample_weights=weights)

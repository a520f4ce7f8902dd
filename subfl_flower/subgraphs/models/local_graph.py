"""Input of a model: one client's nodes, and nodes that it was sent or has generated."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse

from subfl_flower.data.graph import FeatureMatrix


@dataclass(frozen=True, eq=False)
class LocalGraph:
    """All constants of a model's propagation over one client's graph, of N nodes.

    The client's own nodes come first. The others pass messages to them, and have no output, label or role: their
    outputs enter neither loss nor metric.

    Attributes:
        client_id: the client's id.
        num_own: number of the client's own nodes.
        operator: float32 CSR [N, N], the operator that a layer applies to hidden states, such as Â.
        inputs: the first layer's constant half, such as Â X: float32 [N, inputs], dense or CSR.
        feature_support: bool [features], the features that a node of the graph has.
        symmetric: True where `operator` equals its transpose.
        told: float32 [N - num_own, hidden], the output of the first convolution (before its ReLU) of the nodes that
            are not the client's own, where the client was sent it; None where it follows from `inputs`.
        structure: float32 [N, encoding], counterpart of `inputs` for the nodes' structural encoding; None where the
            model reads none.
    """

    client_id: int
    num_own: int
    operator: scipy.sparse.csr_array
    inputs: FeatureMatrix
    feature_support: np.ndarray
    symmetric: bool = True
    told: np.ndarray | None = None
    structure: np.ndarray | None = None

    def with_inputs(self, columns: np.ndarray) -> LocalGraph:
        """The graph with some columns of its inputs, in the order of these `columns`."""
        return replace(self, inputs=self.inputs[:, columns])

    @property
    def num_nodes(self) -> int:
        """N."""
        return int(self.operator.shape[0])


def present_features(features: FeatureMatrix) -> np.ndarray:
    """Flags of the columns that have an entry other than zero: bool [features]."""
    present: np.ndarray = np.asarray(abs(features).sum(0)).ravel() > 0
    return present

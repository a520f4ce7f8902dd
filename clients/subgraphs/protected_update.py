"""Client-level differential privacy of a subgraph client's upload: its change is clipped, and gets noise.

The change is that of all uploaded parameters together, from what the client was sent. A server knows what it sent, so
that the sum of both tells no more than the change. All that is made of the protected parameters is as private as they
are (FED-PUB's embedding, for one). An entry that a method sends as zero because it is pruned counts as unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from subfl_flower.errors import SubflError
from subfl_flower.models.row_stack import RowStack
from subfl_flower.privacy.mechanism import LdpSettings, Uploads, protect_uploads
from subfl_flower.subgraphs.cohort import Cohort
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Batch

COSINE = "update_cosine"
"""Figure of a simulation: cosine of a client's protected change with the true one."""


class ProtectedUpdate:
    """Clipping and noise of the change of clients' parameters.

    Args:
        settings: the mechanism.
        names: the parameters that are uploaded.
        cohort: the clients.
        seed: of the run.
        fraction_bits: of the fixed-point numbers of a secure sum that the uploads go into, where its noise is shared;
            None: uploads are read one by one.
    """

    def __init__(
        self,
        settings: LdpSettings,
        names: Sequence[str],
        cohort: Cohort,
        seed: int,
        fraction_bits: int | None = None,
    ) -> None:
        self._settings, self._names, self._cohort, self._seed = settings, tuple(names), cohort, seed
        self._step = None if fraction_bits is None else 2.0**-fraction_bits
        if self._step is not None and settings.grid is not None and settings.grid.spacing < self._step:
            raise SubflError(
                f"secure_sums.fraction_bits: the grid of the noise has a spacing of {settings.grid.spacing:g}, which "
                f"needs {-round(math.log2(settings.grid.spacing))} bits (found {fraction_bits})"
            )

    def of(self, uploads: Mapping[str, Tensor | RowStack], batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Protected parameters of a chunk of C clients, each [C, ...], and in a simulation `COSINE` [C].

        Raises:
            SubflError: a parameter is not finite.
        """
        received = {name: np.asarray(batch.stack[name]) for name in self._names}
        changes: Stack = {}
        for name in self._names:
            trained = np.asarray(torch.as_tensor(uploads[name]).cpu())
            change = trained - received[name]
            changes[name] = np.where(trained != 0, change, 0) if trained.ndim > 2 else change
        words = [self._cohort.noise_words(self._seed, client_id, batch.server_round) for client_id in batch.clients]
        nothing = Uploads(np.zeros((0, 1), dtype=np.float32), np.zeros(len(words) + 1, dtype=np.int64), changes)
        protected = protect_uploads(nothing, self._settings, words).shared
        device = self._cohort.device
        found = {name: torch.from_numpy(self._sent(received[name], protected[name])).to(device) for name in self._names}
        figures = {COSINE: torch.from_numpy(_cosines(changes, protected))} if self._cohort.simulated else {}
        return found, figures

    def _sent(self, received: np.ndarray, change: np.ndarray) -> np.ndarray:
        """The parameters as they are sent: float64 where they are summed, and then exact in the sum's numbers.

        All clients of a sum round what they received to the same numbers, so that the sum is a known one plus that of
        the protected changes, and nothing else.
        """
        if self._step is None:
            return received + change
        rounded: np.ndarray = np.round(received.astype(np.float64) / self._step) * self._step
        return rounded + change


def _cosines(true: Mapping[str, np.ndarray], protected: Mapping[str, np.ndarray]) -> np.ndarray:
    """Cosines [C] of the changes of C clients with their protected ones; NaN where a change is zero."""
    products = sum(_products(true[name], protected[name]) for name in true)
    lengths = sum(_products(true[name], true[name]) for name in true)
    others = sum(_products(protected[name], protected[name]) for name in true)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines: np.ndarray = products / np.sqrt(lengths * others)
    return np.clip(cosines, -1, 1)


def _products(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Inner products [C] of two stacks [C, ...], in double precision."""
    rows, others = (values.reshape(len(values), -1).astype(np.float64) for values in (one, other))
    products: np.ndarray = np.einsum("cn,cn->c", rows, others)
    return products

"""A personal classifier on layers averaged by similarity: the clients' side.

It joins two methods that are here. As in FedPer (Arivazhagan et al., 2019) the classifier never leaves the client. The
other layers are averaged by FED-PUB's eq. 3 (Baek et al., ICML 2023; `strategies/subgraphs/fedpub.py`), with centred
embeddings and without masks. An embedding is the last convolution's, so that it does not depend on the classifier.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from subfl_flower.clients.subgraphs.fedpub import FedPUBClient
from subfl_flower.wire.contract import AbsentFeatures


class FedPerSimilarClient(FedPUBClient):
    """Train a model without masks, keep its classifier, and embed it.

    It stands a level deeper than other clients because it differs from FED-PUB in defaults alone.
    """

    class Settings(FedPUBClient.Settings):
        """The defaults of this method."""

        tau: Annotated[float, Field(ge=0)] | Literal["auto"] = 1.0
        masks: bool = False
        personal_layers: tuple[str, ...] = ("classifier",)
        absent_features: AbsentFeatures = "send"

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from tiny_clients import ADAM, cohort_of, family_of, parameters_of, tiny_client, trained
from toy_rounds import replies

from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.data.graph import TRAIN, ClientGraph
from subfl_flower.models.row_stack import RowStack
from subfl_flower.strategies.subgraphs.upload_audit import UploadAudit

GRAPHS = tuple(tiny_client(client_id, 60, lacking=(1, 4), edge_probability=0.05) for client_id in range(2))


class Data:
    """The prepared data, as far as the audit reads them."""

    def client(self, client_id: int) -> ClientGraph:
        return GRAPHS[client_id]


@pytest.fixture
def client() -> SubgraphClient:
    return family_of(SubgraphClient, cohort_of(*GRAPHS), optimizer=ADAM.model_copy(update={"weight_decay": 0.0}))


def audited(client: SubgraphClient, uploads: dict[str, Any], sent: dict[str, Any], *, audit: bool = True) -> Any:
    watching = UploadAudit(replace(client.run, audit=audit), len(GRAPHS))
    updates = replies([0, 1], 2)
    updates.arrays.update(uploads)
    watching.watch(updates, sent)
    return watching.report(Data(), (0, 1)).get("inference")


def test_attacks_on_whole_uploads_find_what_training_changed(client: SubgraphClient) -> None:
    sent = {name: np.broadcast_to(value[:1], value.shape) for name, value in parameters_of(2).items()}
    result = trained(client, sent, epochs=60)
    found = audited(client, result.arrays, sent)
    assert found["clients"] == 2
    assert (found["feature_auc"], found["feature_precision"]) == (1.0, 1.0)
    assert found["feature_share"] == pytest.approx(4 / 6)
    assert found["label_correlation"] > 0.3
    model = {name: torch.from_numpy(np.asarray(value)) for name, value in result.arrays.items()}
    logits = client.outputs(model, client.graph_chunk([0, 1])).numpy()
    aucs = []
    for graph, own in zip(GRAPHS, logits, strict=True):
        own = own[: graph.num_nodes].astype(np.float64)
        chance = np.exp(own) / np.exp(own).sum(1, keepdims=True)
        aucs.append(roc_auc_score(graph.roles == TRAIN, chance[np.arange(len(own)), graph.labels]))
    assert found["membership_auc"] == pytest.approx(np.mean(aucs)) and found["membership_auc"] > 0.6


def test_rows_that_do_not_come_are_of_absent_features(client: SubgraphClient) -> None:
    """Even where no value of the others has changed."""
    sent = parameters_of(2)
    first = np.array(sent["conv1.weight"])
    held = np.ones(first.shape[1], dtype=bool)
    held[[1, 4]] = False
    index = np.flatnonzero(held)
    stack = RowStack(np.concatenate([first[0, held], first[1, held]]), np.tile(index, 2), np.full(2, 4), 6)
    found = audited(client, {**sent, "conv1.weight": stack}, sent)
    assert found["feature_auc"] == 1.0 and found["label_correlation"] is None


def test_nothing_is_audited_unless_asked_for(client: SubgraphClient) -> None:
    sent = parameters_of(2)
    assert audited(client, sent, sent, audit=False) is None
